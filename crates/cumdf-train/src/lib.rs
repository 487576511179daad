//! Training: from a configuration to a checkpoint, for every method of the [`registry`].
//!
//! A [`method`] is a list of stages and a learner for each (`learners/`); [`pipeline`] trains them
//! one after the other, `fit` is the only training loop. [`evaluate`] predicts (it cannot see a
//! label) and [`metrics`] scores what was predicted. [`run_dir`] keeps a run's files, [`optim`] is
//! Adam with a state.

pub mod allocator;
pub mod answers;
pub mod chart;
pub mod config;
pub mod device;
pub mod doctor;
mod epoch_log;
pub mod evaluate;
pub mod fit;
pub mod interrupt;
pub mod learner;
pub mod learners;
pub mod linear;
pub mod memory;
pub mod method;
pub mod metrics;
pub mod optim;
mod overrides;
pub mod pipeline;
pub mod policy;
mod rate;
pub mod registry;
mod resume;
pub mod robustness;
pub mod run_dir;
pub mod select;
pub mod shapley;
pub mod stage;
mod strict;
pub mod telemetry;
mod tensorboard;

/// Counts the changes of what every method shares (data, masks, the loop, metrics on validation):
/// raised whenever the same settings, seed and data would give other figures than before.
pub const FORMULA: u32 = 1;
