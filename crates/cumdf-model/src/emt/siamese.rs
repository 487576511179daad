//! What only training needs: the attraction between the two views' vectors (SimSiam), and the
//! reconstruction of the frames that the incomplete view lacks.
//!
//! Chen and He, "Exploring Simple Siamese Representation Learning" (CVPR 2021).

use cumdf_data::{Inputs, Modality};
use tch::{Kind, Reduction, Tensor, nn::Path};

use super::{EmtConfig, VECTORS};
use crate::{
    layers::{BatchNorm, Linear},
    loss::frame_mean,
    shape::Shape,
};

/// The heads that the losses of the two views need, with variables and buffers of their own.
///
/// Variables: `attract.<n>.{project,project_norm,predict1,predict_norm,predict2}` with `n` of
/// [`VECTORS`], `reconstruct.<modality>`.
#[derive(Debug)]
pub struct Siamese {
    attract: [Attract; 4],    // in the order of VECTORS
    reconstruct: [Linear; 3], // d -> d_m
}

/// A SimSiam head: a projection `z` and a prediction `p` of the other view's `z`.
#[derive(Debug)]
struct Attract {
    project: Linear, // n -> n
    project_norm: BatchNorm,
    predict1: Linear, // n -> hidden
    predict_norm: BatchNorm,
    predict2: Linear, // hidden -> n
}

impl Siamese {
    /// Registers the variables under `vs`, the root of a store; `cfg` is one that a network was
    /// made of.
    pub fn new(vs: &Path, cfg: &EmtConfig, shape: &Shape) -> Self {
        let [widths, hidden] = [cfg.vector_dims(), cfg.predictors()];
        Self {
            attract: std::array::from_fn(|i| {
                Attract::new(&(vs / "attract" / VECTORS[i]), widths[i], hidden[i])
            }),
            reconstruct: Modality::ALL.map(|m| {
                let vs = vs / "reconstruct" / m.name();
                Linear::new(&vs, cfg.model_dim, shape.dims[m.index()])
            }),
        }
    }

    /// `z` and `p`, `[2B, n]` each, of the `i`-th of [`VECTORS`], in training mode.
    ///
    /// - `vectors`: `[2B, n]`, the complete views before the incomplete ones; the running statistics
    ///   move in this order
    pub fn heads(&self, i: usize, vectors: &Tensor) -> (Tensor, Tensor) {
        let head = &self.attract[i];
        let by_view = |norm: &BatchNorm, x: &Tensor| {
            let views = x.chunk(2, 0);
            Tensor::cat(&[norm.forward(&views[0], true), norm.forward(&views[1], true)], 0)
        };
        let z = by_view(&head.project_norm, &head.project.forward(vectors));
        let hidden = by_view(&head.predict_norm, &head.predict1.forward(&z)).relu();
        let p = head.predict2.forward(&hidden);
        (z, p)
    }

    /// The sum of the four vectors' attractions, a scalar of at least -4.
    ///
    /// - `vectors`: `[2B, n]` each, in the order of [`VECTORS`]
    pub fn attract(&self, vectors: &[Tensor; 4]) -> Tensor {
        let each = vectors.iter().enumerate().map(|(i, vectors)| {
            let (z, p) = self.heads(i, vectors);
            attraction(&z, &p)
        });
        each.reduce(|sum, one| sum + one).expect("four vectors")
    }

    /// What the sequences say of the frames of modality `m`, `[B, T, d_m]`.
    ///
    /// - `tokens`: `[B, 3, T, d]`, of the incomplete view
    pub fn rebuilt(&self, m: Modality, tokens: &Tensor) -> Tensor {
        self.reconstruct[m.index()].forward(&tokens.select(1, m.index() as i64))
    }

    /// The sum of the three modalities' reconstruction errors, a scalar.
    pub fn reconstruct(&self, tokens: &Tensor, complete: &Inputs, incomplete: &Inputs) -> Tensor {
        let each = Modality::ALL
            .map(|m| reconstruction(m, &self.rebuilt(m, tokens), complete, incomplete));
        each.into_iter().reduce(|sum, one| sum + one).expect("three modalities")
    }
}

impl Attract {
    fn new(vs: &Path, width: i64, hidden: i64) -> Self {
        Self {
            project: Linear::new(&(vs / "project"), width, width),
            project_norm: BatchNorm::without_affine(&(vs / "project_norm"), width),
            predict1: Linear::without_bias(&(vs / "predict1"), width, hidden),
            predict_norm: BatchNorm::new(&(vs / "predict_norm"), hidden),
            predict2: Linear::new(&(vs / "predict2"), hidden, width),
        }
    }
}

/// How little the predictions of either view agree with the projections of the other, in [-1, 1]:
/// `-1/2 [cos(p~, z) + cos(p, z~)]`, mean over samples. No gradient reaches `z`, or all vectors
/// would become one.
///
/// - `z`, `p`: `[2B, n]`, one view's before the other's
pub fn attraction(z: &Tensor, p: &Tensor) -> Tensor {
    let views = z.detach().chunk(2, 0);
    let other = Tensor::cat(&[&views[1], &views[0]], 0);
    -Tensor::cosine_similarity(p, &other, 1, 1e-8).mean(Kind::Float)
}

/// Smooth-L1 error of a modality's frames that the incomplete view lacks and the complete one has,
/// mean over frames and channels; 0 where nothing is hidden.
///
/// - `rebuilt`: `[B, T, d_m]`; `complete`, `incomplete`: two views of the same samples, trimmed alike
pub fn reconstruction(
    m: Modality,
    rebuilt: &Tensor,
    complete: &Inputs,
    incomplete: &Inputs,
) -> Tensor {
    let [had, shown] = [complete, incomplete].map(|x| x.seen.select(1, m.index() as i64));
    let hidden = had.logical_and(&shown.logical_not()); // [B, T]
    let each = rebuilt.smooth_l1_loss(&complete.features[m.index()], Reduction::None, 1.0);
    frame_mean(&each, &hidden)
}
