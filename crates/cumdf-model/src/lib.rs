//! The networks of CUMDF, as tch modules: tensors in, tensors out. Opens no data file and runs no
//! training loop.
//!
//! [`Cumdf`] is the paper's network, read top to bottom in `cumdf.rs`: [`knowledge`] (MKE),
//! uni-modal heads, label-guided fusion, attribution. `docs/model.md` in the repository is its
//! specification, equation by equation. [`loss`] holds the losses, [`checkpoint`] the file format.
//!
//! Baselines are one file each: [`self_mm`], [`if_mmin`].

pub mod answer;
pub mod checkpoint;
mod config;
mod cumdf;
mod fusion;
pub mod if_mmin;
pub mod knowledge;
mod layers;
pub mod loss;
mod maci;
mod prediction;
mod problems;
pub mod self_mm;
pub mod shape;
#[cfg(test)]
mod testing;
mod unimodal;

pub use config::{ConvActivation, DataShape, LabelGate, ModelConfig, PoolNorm};
pub use cumdf::{Cumdf, Guide, Pass};
pub use fusion::{PAIR_NAMES, PAIRS};
pub use maci::{MeanAccumulator, batch_shares};
pub use prediction::{Prediction, Predictor};
