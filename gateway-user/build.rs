//! Hands the BPF object that `cargo xtask build` has made to the crate.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=LUNGATE_BPF_OBJECT");
    let object = std::env::var("LUNGATE_BPF_OBJECT").map(PathBuf::from).unwrap_or_default();
    println!("cargo::rerun-if-changed={}", object.display());
    let to = Path::new(&std::env::var("OUT_DIR").unwrap_or_default()).join("lungate-gateway");
    if let Err(error) = std::fs::copy(&object, to) {
        println!(
            "cargo::error=the gateway's BPF object {} cannot be read ({error}): run 'cargo xtask build' first",
            object.display()
        );
    }
}
