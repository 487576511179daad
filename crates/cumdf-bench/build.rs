//! Tells cargo where libtorch lies, for what this crate links; and the program of which commit it is.

use std::process::Command;

include!("../../scripts/link_libtorch.rs");

fn main() {
    link_libtorch();
    // A commit appends to the log; any source that changes makes it another program than committed.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    println!("cargo:rerun-if-changed=..");
    println!("cargo:rustc-env=CUMDF_COMMIT={}", commit().as_deref().unwrap_or("unknown"));
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned())
}

fn commit() -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|commit| !commit.is_empty())?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no", "--", ".."])?.is_empty();
    Some(if changed { format!("{commit}-dirty") } else { commit })
}
