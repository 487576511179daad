// The build script of every crate that links libtorch; their `build.rs` include it.
//
// torch-sys links libtorch, but says nothing to the loader about where it lies when a program
// starts. An rpath does, in all that this package links: binaries, tests, benches and doc tests.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=../../scripts/link_libtorch.rs");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo:rustc-env=CUMDF_TARGET={target}"); // for the report of `doctor`

    // Set because torch-sys is a direct dependency. It is the path of `.libtorch` itself, not what
    // that link resolves to, so a later scripts/setup leaves programs already built working.
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is");
    // The first entry serves a program handed on as bin/ and lib/.
    let own = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("windows") => return, // no rpath there: the user's PATH decides
        Ok("macos") => "@loader_path",
        _ => "$ORIGIN",
    };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{own}/../lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
