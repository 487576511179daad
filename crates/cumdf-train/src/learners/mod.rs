//! The learners: one file per method, with its settings, its losses and its line for the registry.

pub mod cumdf;
