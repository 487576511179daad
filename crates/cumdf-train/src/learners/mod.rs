//! The learners: one file per method, with its settings, its losses and its line for the registry.

pub mod cubemlp;
pub mod cumdf;
pub mod dmd;
pub mod emt;
pub mod if_mmin;
pub mod mctn;
pub mod mlp;
pub mod self_mm;
pub mod transm;
