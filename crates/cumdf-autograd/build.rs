//! Compiles `src/node.cpp` with libtorch's headers and tells cargo where libtorch lies.

include!("../../scripts/link_libtorch.rs");

fn main() {
    let lib = link_libtorch();
    let include = lib.parent().expect("libtorch/lib lies in libtorch").join("include");
    println!("cargo:rerun-if-changed=src/node.cpp");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false) // libtorch's headers have many
        .include(include)
        .file("src/node.cpp")
        .compile("cumdf_autograd_node");
}
