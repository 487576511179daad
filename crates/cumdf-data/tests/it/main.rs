//! Tests of the crate's public face, in one binary. `cfg(test)` lets helpers unwrap as tests do.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod arrays;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod common;
#[cfg(test)]
mod csd;
#[cfg(test)]
mod device;
#[cfg(test)]
mod native;
#[cfg(test)]
mod packs;
#[cfg(test)]
mod pickles;
#[cfg(test)]
mod synthetic;
