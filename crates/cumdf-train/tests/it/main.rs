//! Training end to end on corpora small enough for seconds.

mod cli;
mod registry;
mod tiny;
mod training;
