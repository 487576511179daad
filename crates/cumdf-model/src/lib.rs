//! Networks as tch modules, tensors in, tensors out, and the checkpoint format. Opens no data file
//! and runs no training loop.
//!
//! [`cumdf`] is the paper's network; every other method has a module of its own: [`self_mm`],
//! [`cubemlp`], [`dmd`], [`mctn`], [`emt`], [`if_mmin`], [`transm`], the floor [`mlp`]. [`answer`] says
//! what networks answer, [`shape`] what the data decide about them, [`loss`] holds the losses that
//! several share, [`checkpoint`] the file format.

pub mod answer;
pub mod checkpoint;
pub mod cubemlp;
pub mod cumdf;
pub mod dmd;
pub mod emt;
pub mod if_mmin;
mod layers;
pub mod loss;
pub mod mctn;
pub mod mlp;
mod problems;
pub mod self_mm;
pub mod shape;
#[cfg(test)]
mod testing;
pub mod transm;

pub use answer::{Answer, Explained, Predictor, Prior};
pub use shape::{Problem, Shape};
