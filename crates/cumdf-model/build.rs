//! Tells cargo where libtorch lies, for what this crate links.

include!("../../scripts/link_libtorch.rs");

fn main() {
    link_libtorch();
}
