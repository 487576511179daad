// The build script of every crate that links libtorch; their `build.rs` include it and call it.
//
// torch-sys links libtorch, but says nothing to the loader about where it lies when a program
// starts. An rpath does, in all that this package links: binaries, tests, benches and doc tests.

use std::{env, path::PathBuf};

/// Tells cargo, and where libtorch's shared libraries are.
fn link_libtorch() -> PathBuf {
    println!("cargo:rerun-if-changed=../../scripts/link_libtorch.rs");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo:rustc-env=CUMDF_TARGET={target}"); // for the report of `doctor`

    // Set because torch-sys is a direct dependency. It is the path of `.libtorch` itself, not what
    // that link resolves to, so a later scripts/setup leaves programs already built working.
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is");
    // The first entry serves a program handed on as bin/ and lib/.
    let own = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("windows") => return lib.into(), // no rpath there: the user's PATH decides
        Ok("macos") => "@loader_path",
        _ => "$ORIGIN",
    };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{own}/../lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    lib.into()
}
