//! Training: from a configuration to a checkpoint, for any model that brings a [`learner::Learner`].
//!
//! `pipeline` says which stages a model has, `fit` is the only training loop, `teacher` and
//! `student` are CUMDF's two learners, `evaluate` predicts (it cannot see a label) and `metrics`
//! scores what was predicted. `run_dir` keeps a run's files, `optim` is Adam with a state.

pub mod config;
pub mod device;
pub mod doctor;
pub mod evaluate;
pub mod fit;
pub mod learner;
pub mod linear;
pub mod metrics;
pub mod optim;
pub mod pipeline;
pub mod run_dir;
pub mod student;
pub mod teacher;
pub mod telemetry;
pub mod tensorboard;
