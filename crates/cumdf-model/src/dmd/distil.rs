//! The graph distillation unit: modalities are vertices, and each directed edge is a learned weight,
//! per sample, of distilling one modality's answer into another's.
//!
//! Vertices come in [`super::ORDER`], in which the prior is written. An edge's logit is a linear
//! function of both its vertices; a bias would add the same to all six, which the softmax takes out
//! again, so there is none (the code has three per unit that cannot learn).

use tch::{Kind, Tensor, nn::Path};

use crate::layers::Linear;

/// The student of each edge, a place in [`super::ORDER`].
const STUDENTS: [i64; 6] = [0, 0, 1, 1, 2, 2];

/// Its teacher.
const TEACHERS: [i64; 6] = [1, 2, 0, 2, 0, 1];

/// What edges of the homogeneous unit are expected: towards vision and audio, from language.
pub(super) const HOMOGENEOUS: [f32; 6] = [0.0, 0.0, 1.0, 0.0, 1.0, 0.0];

/// Of the heterogeneous unit: audio learns from vision too.
pub(super) const HETEROGENEOUS: [f32; 6] = [0.0, 0.0, 1.0, 0.0, 1.0, 1.0];

/// Temperature of the prior.
const PRIOR_TEMPERATURE: f64 = 0.25;

/// What the logits of edges are divided by.
const EDGE_TEMPERATURE: f64 = 8.0;

/// Weight of the prior's term, and of the representations'.
const STRENGTH: f64 = 10.0;

/// Keeps a cosine finite where a vector is 0.
const COSINE_FLOOR: f64 = 1e-8;

/// The answers and representations of one branch, a vertex per modality.
#[derive(Debug)]
pub struct Vertices {
    /// `[3, B, K]`, in the order language, vision, audio.
    pub logits: Tensor,
    /// `[3, B, r]`, likewise.
    pub representations: Tensor,
}

/// One branch's unit. Variables: `logit.weight [G, K]`, `repr.weight [G, r]`, `edge.weight [1, 4G]`.
#[derive(Debug)]
pub struct GdUnit {
    logit: Linear,
    representation: Linear,
    edge: Linear,     // [student; teacher], each [logit; representation]
    prior: Tensor,    // [6, 1]
    students: Tensor, // [6]
    teachers: Tensor, // [6]
}

impl GdUnit {
    /// - `expected`: [`HOMOGENEOUS`] or [`HETEROGENEOUS`]
    pub(super) fn new(vs: &Path, k: i64, r: i64, g: i64, expected: &[f32; 6]) -> Self {
        let prior = (Tensor::from_slice(expected) / PRIOR_TEMPERATURE).softmax(0, Kind::Float);
        Self {
            logit: Linear::without_bias(&(vs / "logit"), k, g),
            representation: Linear::without_bias(&(vs / "repr"), r, g),
            edge: Linear::without_bias(&(vs / "edge"), 4 * g, 1),
            prior: prior.unsqueeze(1).to_device(vs.device()),
            students: Tensor::from_slice(&STUDENTS).to_device(vs.device()),
            teachers: Tensor::from_slice(&TEACHERS).to_device(vs.device()),
        }
    }

    /// Weights of the edges per sample, `[6, B]`, adding up to 1 in each.
    pub fn edges(&self, vertices: &Vertices) -> Tensor {
        let z = [
            self.logit.forward(&vertices.logits),
            self.representation.forward(&vertices.representations),
        ];
        let z = Tensor::cat(&z, 2); // [3, B, 2G]
        // The student's half and the teacher's half of the edge's linear function.
        let halves = z.linear(&self.edge.weight().view([2, -1]), None::<&Tensor>); // [3, B, 2]
        let student = halves.select(2, 0).index_select(0, &self.students); // [6, B]
        let teacher = halves.select(2, 1).index_select(0, &self.teachers);
        ((student + teacher) / EDGE_TEMPERATURE).softmax(0, Kind::Float)
    }

    /// Distance of the mean edges to the prior, `10 sum_k (mean_B E_k - p_k)^2`.
    pub fn prior_loss(&self, edges: &Tensor) -> Tensor {
        let mean = edges.mean_dim([1i64].as_slice(), true, Kind::Float); // [6, 1]
        (mean - &self.prior).square().sum(Kind::Float) * STRENGTH
    }

    /// Students answer as their teachers do, `sum_k mean_B (E_k + p_k) |logit_j - sg(logit_i)|`. No
    /// gradient reaches a teacher's answer this way; edges have theirs.
    pub fn logit_loss(&self, edges: &Tensor, vertices: &Vertices) -> Tensor {
        let (student, teacher) = self.ends(&vertices.logits);
        let apart = (student - teacher).abs().sum_dim_intlist([2i64].as_slice(), false, None);
        ((edges + &self.prior) * apart).mean_dim([1i64].as_slice(), false, None).sum(Kind::Float)
    }

    /// Students' representations keep away from their teachers',
    /// `sum_k 10 cos+_k mean_B (E_k + p_k)` with `cos+_k = mean_B max(0, cos(repr_j, sg(repr_i)))`.
    pub fn representation_loss(&self, edges: &Tensor, vertices: &Vertices) -> Tensor {
        let (student, teacher) = self.ends(&vertices.representations);
        let cos = Tensor::cosine_similarity(&student, &teacher, -1, COSINE_FLOOR).relu(); // [6, B]
        let over_batch = |x: Tensor| x.mean_dim([1i64].as_slice(), false, Kind::Float);
        (over_batch(cos) * over_batch(edges + &self.prior)).sum(Kind::Float) * STRENGTH
    }

    /// What lies at both ends of every edge, `[6, B, ..]`; the teacher's without gradient.
    fn ends(&self, x: &Tensor) -> (Tensor, Tensor) {
        (x.index_select(0, &self.students), x.detach().index_select(0, &self.teachers))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, wave};

    fn unit(expected: &[f32; 6]) -> (VarStore, GdUnit) {
        let vs = VarStore::new(Device::Cpu);
        let unit = GdUnit::new(&vs.root(), 2, 3, 4, expected);
        (vs, unit)
    }

    fn vertices() -> Vertices {
        Vertices { logits: wave(&[3, 5, 2]), representations: wave(&[3, 5, 3]) }
    }

    #[test]
    fn priors_are_the_published_ones() {
        for (expected, want) in [
            (HOMOGENEOUS, [0.0088f32, 0.0088, 0.4823, 0.0088, 0.4823, 0.0088]),
            (HETEROGENEOUS, [0.0060, 0.0060, 0.3273, 0.0060, 0.3273, 0.3273]),
        ] {
            let (_vs, unit) = unit(&expected);
            assert_close(&unit.prior.squeeze_dim(1), &Tensor::from_slice(&want), 1e-4);
        }
    }

    #[test]
    fn edges_that_know_nothing_are_a_sixth_each() {
        for (expected, want) in [(HOMOGENEOUS, 2.9893), (HETEROGENEOUS, 1.5489)] {
            let (vs, unit) = unit(&expected);
            let _guard = tch::no_grad_guard();
            let _ = vs.variables()["edge.weight"].shallow_clone().zero_();
            let edges = unit.edges(&vertices());
            assert_close(
                &edges,
                &Tensor::full([6, 5], 1.0 / 6.0, (Kind::Float, Device::Cpu)),
                1e-6,
            );
            let got = unit.prior_loss(&edges).double_value(&[]);
            assert!((got - want).abs() < 1e-4, "{got} for {want}");
        }
    }

    #[test]
    fn an_edge_reads_its_student_and_then_its_teacher() {
        let (vs, unit) = unit(&HOMOGENEOUS);
        let vertices = vertices();
        let parts = [("logit", &vertices.logits), ("repr", &vertices.representations)];
        let z = parts.map(|(name, x)| x.matmul(&vs.variables()[&format!("{name}.weight")].tr()));
        let z = Tensor::cat(&z, 2);
        let edge = |j, i| {
            let both = Tensor::cat(&[z.get(j), z.get(i)], 1); // [B, 4G]
            both.matmul(&vs.variables()["edge.weight"].tr()).squeeze_dim(1)
        };
        // Vertices are language, vision, audio: l<-v, l<-a, v<-l, v<-a, a<-l, a<-v.
        let logits = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)].map(|(j, i)| edge(j, i));
        let want = (Tensor::stack(&logits, 0) / 8.0).softmax(0, Kind::Float);
        assert_close(&unit.edges(&vertices), &want, 1e-6);
    }

    /// With all weight on v <- l: the distance of vision's answers to language's.
    #[test]
    fn a_teacher_gets_no_gradient() {
        let (_vs, unit) = unit(&HOMOGENEOUS);
        for representation in [false, true] {
            let Vertices { logits, representations } = vertices();
            let logits = logits.set_requires_grad(true);
            let representations = representations.abs().set_requires_grad(true);
            let vertices = Vertices {
                logits: logits.shallow_clone(),
                representations: representations.shallow_clone(),
            };
            let mut edges = Tensor::zeros([6, 5], (Kind::Float, Device::Cpu)) - &unit.prior;
            edges += Tensor::from_slice(&[0f32, 0.0, 1.0, 0.0, 0.0, 0.0]).unsqueeze(1);
            let (loss, x) = if representation {
                (unit.representation_loss(&edges, &vertices), representations)
            } else {
                (unit.logit_loss(&edges, &vertices), logits)
            };
            loss.backward();
            let moved: Vec<_> =
                (0..3).map(|v| x.grad().get(v).abs().max().double_value(&[])).collect();
            assert!(moved[0] < 1e-6 && moved[1] > 1e-3 && moved[2] < 1e-6, "{moved:?}");
        }
    }

    #[test]
    fn representations_are_pushed_apart_and_opposite_ones_left_alone() {
        let (_vs, unit) = unit(&HETEROGENEOUS);
        let edges = Tensor::full([6, 2], 1.0 / 6.0, (Kind::Float, Device::Cpu));
        let at = |rows: &[f32]| {
            let x = Tensor::from_slice(rows).view([3, 1, 3]).expand([3, 2, 3], false);
            let logits = Tensor::zeros([3, 2, 2], (Kind::Float, Device::Cpu));
            unit.representation_loss(&edges, &Vertices { logits, representations: x })
                .double_value(&[])
        };
        // All alike: cosine 1 on all six edges, whose weights and priors add up to 2.
        let alike = at(&[1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0]);
        assert!((alike - 20.0).abs() < 1e-4, "{alike}");
        let apart = at(&[1.0, 0.0, 0.0, -1.0, -1.0, 0.0, -1.0, 1.0, 0.0]);
        assert!(apart.abs() < 1e-6, "{apart}");
        let nothing = at(&[0.0; 9]);
        assert!(nothing.abs() < 1e-6, "{nothing}");
    }
}
