//! Tests of the crate's public face, in one binary.

mod cli;
mod common;
mod device;
mod native;
mod packs;
mod synthetic;
