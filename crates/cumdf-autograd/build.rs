//! Compiles the C++ files with libtorch's headers and tells cargo where libtorch lies.

include!("../../scripts/link_libtorch.rs");

fn main() {
    let lib = link_libtorch();
    let include = lib.parent().expect("libtorch/lib lies in libtorch").join("include");
    let files = ["src/node.cpp", "src/work.cpp"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .define("NDEBUG", None) // as libtorch was: some of its classes have other members without
        .warnings(false) // libtorch's headers have many
        .include(include)
        .files(files)
        .compile("cumdf_autograd");
}
