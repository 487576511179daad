//! What only losses read: a head per modality on the shared and on the private part, one on what is
//! common, the reconstruction, the margin's features and the two distillation units.

use cumdf_data::Modality;
use tch::{Kind, Reduction, Tensor, nn::Path};

use super::{
    Decoupled, Dmd, DmdConfig, DmdPass, GdUnit, ORDER, Pointwise, ResidualHead, Vertices, distil,
    margin, n_answers,
};
use crate::{layers::Linear, shape::Shape};

/// The heads and units that training needs beside a [`Dmd`].
///
/// Variables: `hom.<m>`, `het.<m>` and `common_head`, each `.{linear1,linear2,out}`;
/// `reconstruct.<m>.weight`, `margin.<m>`, and `distil.{hom,het}` (a [`GdUnit`] each).
#[derive(Debug)]
pub struct Auxiliary {
    homogeneous: [ResidualHead; 3],   // d T'_m -> K, d hidden
    heterogeneous: [ResidualHead; 3], // 2d -> K
    common: ResidualHead,             // 3d -> K
    reconstruct: [Pointwise; 3],      // 2d -> d
    margin: [Linear; 3],              // d T'_m -> d
    units: [GdUnit; 2],               // homogeneous, heterogeneous
}

/// What they make of a batch.
#[derive(Debug)]
pub struct AuxiliaryPass {
    /// The shared parts: `logit^hom_m [B, K]` and, after the ReLU, `r_m [B, d]`.
    pub homogeneous: Vertices,
    /// The private parts: `logit^het_m [B, K]` and `q_m [B, 2d]`.
    pub heterogeneous: Vertices,
    /// `logit^c [B, K]`.
    pub common: Tensor,
    /// `x^rec_m [B, T'_m, d]`.
    pub reconstructed: [Tensor; 3],
    /// `s^r_m [B, T'_m, d]`: the private part of what was reconstructed.
    pub private_again: [Tensor; 3],
    /// `u_m [B, d]`: the shared part as the margin loss reads it.
    pub margin: [Tensor; 3],
    /// Weights `[6, B]` of the homogeneous and the heterogeneous edges.
    pub edges: [Tensor; 2],
}

impl Auxiliary {
    /// Registers the variables under `vs`, the root of a store of their own; `cfg` is one that a
    /// [`Dmd`] could be made of.
    pub fn new(vs: &Path, cfg: &DmdConfig, shape: &Shape) -> Self {
        let (d, k, p) = (cfg.dim, n_answers(&shape.task), cfg.output_dropout);
        let at = |part: &str, m: Modality| vs / part / m.name();
        let flat = cfg.kernels(shape.steps).map(|k| d * (shape.steps - k + 1)); // d T'_m
        let head = |m: Modality| ResidualHead::new(&at("hom", m), flat[m.index()], d, k, p);
        let unit =
            |name: &str, r, g, expected| GdUnit::new(&(vs / "distil" / name), k, r, g, expected);
        Self {
            homogeneous: Modality::ALL.map(head),
            heterogeneous: Modality::ALL
                .map(|m| ResidualHead::new(&at("het", m), 2 * d, 2 * d, k, p)),
            common: ResidualHead::new(&(vs / "common_head"), 3 * d, 3 * d, k, p),
            reconstruct: Modality::ALL.map(|m| Pointwise::new(&at("reconstruct", m), 2 * d, d)),
            margin: Modality::ALL.map(|m| Linear::new(&at("margin", m), flat[m.index()], d)),
            units: [
                unit("hom", d, cfg.homogeneous_graph, &distil::HOMOGENEOUS),
                unit("het", 2 * d, cfg.heterogeneous_graph, &distil::HETEROGENEOUS),
            ],
        }
    }

    /// The units, homogeneous and heterogeneous.
    pub fn units(&self) -> &[GdUnit; 2] {
        &self.units
    }

    /// One pass after that of `net`. `train` switches dropout on.
    pub fn forward(&self, net: &Dmd, pass: &DmdPass, train: bool) -> AuxiliaryPass {
        let Decoupled { private, shared, .. } = &pass.decoupled;
        let homogeneous = ORDER.map(|m| {
            let head = &self.homogeneous[m.index()];
            head.forward(&shared[m.index()].flatten(1, 2), train) // flat as [T', d]
        });
        let homogeneous = Vertices {
            logits: Tensor::stack(&homogeneous.each_ref().map(|h| &h.logits), 0),
            representations: Tensor::stack(&homogeneous.each_ref().map(|h| &h.hidden), 0),
        };
        let heterogeneous = ORDER.map(|m| {
            self.heterogeneous[m.index()].forward(&pass.encoded.private[m.index()], train)
        });
        let heterogeneous = Vertices {
            logits: Tensor::stack(&heterogeneous.each_ref().map(|h| &h.logits), 0),
            representations: Tensor::stack(&heterogeneous.each_ref().map(|h| &h.block), 0),
        };
        let reconstructed = std::array::from_fn(|m| {
            self.reconstruct[m].forward(&Tensor::cat(&[&private[m], &shared[m]], 2))
        });
        let edges = [(0, &homogeneous), (1, &heterogeneous)];
        AuxiliaryPass {
            common: self.common.forward(&pass.encoded.common, train).logits,
            private_again: net.private_of(&reconstructed),
            reconstructed,
            margin: std::array::from_fn(|m| {
                self.margin[m].forward(&shared[m].transpose(1, 2).flatten(1, 2)) // flat as [d, T']
            }),
            edges: edges.map(|(unit, vertices): (usize, _)| self.units[unit].edges(vertices)),
            homogeneous,
            heterogeneous,
        }
    }
}

/// `sum_m MSE(x^rec_m, x'_m)`, or of private parts and what they are after reconstruction.
///
/// - `a`, `b`: `[B, T'_m, d]` per modality
pub fn distance(a: &[Tensor; 3], b: &[Tensor; 3]) -> Tensor {
    let each: Vec<_> = a.iter().zip(b).map(|(a, b)| a.mse_loss(b, Reduction::Mean)).collect();
    Tensor::stack(&each, 0).sum(Kind::Float)
}

/// `L_ort`, summed over modalities.
pub fn orthogonality(decoupled: &Decoupled) -> Tensor {
    let parts = decoupled.private.iter().zip(&decoupled.shared);
    let each: Vec<_> = parts.map(|(s, c)| margin::orthogonality(s, c)).collect();
    Tensor::stack(&each, 0).sum(Kind::Float)
}
