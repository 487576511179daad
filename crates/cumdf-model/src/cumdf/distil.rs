//! Similarity-based Representation Distillation (SRD), Eq. 10: how far students' vectors are from
//! their teachers', or their relations to each other from their teachers'.

use serde::{Deserialize, Serialize};
use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

use crate::loss;

/// What is compared of student and teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Srd {
    /// The vectors, by their cosine: Eq. 10.
    Cosine,
    /// Their cosines to other samples with the same teacher: all that vectors of several teachers,
    /// each with a space of its own, can be asked for.
    Relation,
}

/// Which side of the cosine in Eq. 10 goes through a learned projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SrdProjection {
    /// `W_s h^s` and `W_t h^t`, as printed; both can agree on a constant direction.
    Both,
    /// `W_s h^s` and `h^t`.
    Student,
    /// `h^s` and `h^t`.
    None,
}

/// One level's distance.
#[derive(Debug)]
pub enum Distance {
    /// With the projections `W_s` and `W_t` of Eq. 10, bias-free. The printed numerator mixes student
    /// and teacher with the wrong projections; here each goes through its own.
    Cosine {
        /// `W_s [d, d]`.
        student: Option<Tensor>,
        /// `W_t [d, d]`.
        teacher: Option<Tensor>,
    },
    /// Without weights.
    Relation,
}

impl Distance {
    /// Registers the projections of vectors of width `dim` under `vs`, where there are any.
    pub fn new(vs: &Path, dim: i64, srd: Srd, which: SrdProjection) -> Self {
        let bound = 1.0 / (dim as f64).sqrt();
        let matrix = |side: &str| {
            (vs / side).var("weight", &[dim, dim], Init::Uniform { lo: -bound, up: bound })
        };
        match srd {
            Srd::Cosine => Self::Cosine {
                student: (which != SrdProjection::None).then(|| matrix("student")),
                teacher: (which == SrdProjection::Both).then(|| matrix("teacher")),
            },
            Srd::Relation => Self::Relation,
        }
    }

    /// The distance over a batch, a scalar; 0 where nothing is compared.
    ///
    /// - `student`, `teacher`: `[B, d]`; a relation's teachers are centred
    /// - `fold`: `[B]` i64, which teacher a sample has
    /// - `rows`: `[B]` bool, the samples that are compared; `None` for all
    pub fn forward(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        fold: &Tensor,
        rows: Option<&Tensor>,
    ) -> Tensor {
        let project = |x: &Tensor, w: &Option<Tensor>| match w {
            Some(w) => x.linear::<Tensor>(w, None),
            None => x.shallow_clone(),
        };
        match self {
            Self::Cosine { student: ours, teacher: theirs } => {
                let each =
                    loss::cosine_distance(&project(student, ours), &project(teacher, theirs));
                match rows {
                    Some(rows) => loss::masked_mean(&each, rows),
                    None => each.mean(Kind::Float),
                }
            }
            Self::Relation => relation(student, teacher, fold, rows),
        }
    }
}

/// The mean squared difference of the cosines between students and those between their teachers, over
/// the pairs of samples that have the same teacher. Park et al., "Relational Knowledge Distillation"
/// (CVPR 2019), with cosines of centred vectors.
fn relation(student: &Tensor, teacher: &Tensor, fold: &Tensor, rows: Option<&Tensor>) -> Tensor {
    let all = fold.ones_like().to_kind(Kind::Bool);
    let rows = rows.unwrap_or(&all);
    let weight = rows.to_kind(Kind::Float).unsqueeze(1); // [B, 1]
    let sum = (student * &weight).sum_dim_intlist([0i64].as_slice(), true, Kind::Float);
    let centred = student - sum / weight.sum(Kind::Float).clamp_min(1.0);
    let cosines = |x: &Tensor| {
        let square = x.square().sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
        let unit = x / (square + 1e-12).sqrt();
        unit.matmul(&unit.transpose(0, 1)) // [B, B]
    };
    let both = |a: &Tensor, b: &Tensor| a.unsqueeze(0).logical_and(&b.unsqueeze(1));
    let same = fold.unsqueeze(0).eq_tensor(&fold.unsqueeze(1)).logical_and(&both(rows, rows));
    // Without itself: there the cosine is 1 for both.
    let pairs = same.tril(-1);
    loss::masked_mean(&(cosines(&centred) - cosines(teacher)).square(), &pairs)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn rows(values: &[[f32; 2]]) -> Tensor {
        Tensor::from_slice(values.as_flattened()).view([-1, 2])
    }

    /// Students at right angles and opposite, teachers all alike but for one, and two folds: pairs
    /// (0, 1) and (2, 3) count. Centred students are what they are, their mean being 0.
    #[test]
    fn relations_by_hand() {
        let students = rows(&[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]);
        let teachers = rows(&[[3.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -2.0]]);
        let fold = Tensor::from_slice(&[0i64, 0, 1, 1]);
        let got =
            |rows: Option<&Tensor>| relation(&students, &teachers, &fold, rows).double_value(&[]);
        // (0 - 1)^2 and (0 + 1)^2.
        assert!((got(None) - 1.0).abs() < 1e-6, "{}", got(None));
        // Without the last sample the others are centred anew: (1, -1/3), (0, 2/3), (-1, -1/3).
        let some = Tensor::from_slice(&[true, true, true, false]);
        let cosine = (-2.0 / 9.0) / ((10f64 / 9.0).sqrt() * (2.0 / 3.0));
        assert!((got(Some(&some)) - (cosine - 1.0).powi(2)).abs() < 1e-6, "{}", got(Some(&some)));
        let none = Tensor::from_slice(&[false; 4]);
        assert_eq!(got(Some(&none)).to_bits(), 0);
    }

    #[test]
    fn students_that_agree_with_their_teachers_up_to_a_rotation_are_at_no_distance() {
        let student = Tensor::randn([8, 2], (Kind::Float, Device::Cpu));
        let centred = &student - student.mean_dim([0i64].as_slice(), true, Kind::Float);
        let (sin, cos) = 0.7f32.sin_cos();
        let teacher = centred.matmul(&rows(&[[cos, -sin], [sin, cos]])) * 5.0;
        let fold = Tensor::zeros([8], (Kind::Int64, Device::Cpu));
        assert!(relation(&student, &teacher, &fold, None).double_value(&[]) < 1e-10);
    }

    #[test]
    fn a_sample_alone_has_no_relation_and_a_finite_gradient() {
        let student = Tensor::zeros([1, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let fold = Tensor::from_slice(&[0i64]);
        let loss = relation(&student, &student.detach(), &fold, None);
        loss.backward();
        assert_eq!(loss.double_value(&[]).to_bits(), 0);
        assert!(bool::try_from(student.grad().isfinite().all()).unwrap());
    }
}
