//! Networks as tch modules, tensors in, tensors out, and the checkpoint format. Opens no data file
//! and runs no training loop.
//!
//! [`cumdf`] is the paper's network; every other method has one file of its own. [`answer`] says
//! what networks answer, [`shape`] what the data decide about them, [`loss`] holds the losses,
//! [`checkpoint`] the file format.

pub mod answer;
pub mod checkpoint;
pub mod cumdf;
mod layers;
pub mod loss;
pub mod shape;

pub use answer::{Answer, Explained, Predictor, Prior};
pub use shape::{Problem, Shape};
