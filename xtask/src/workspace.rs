//! Where things lie in a checkout, and how they are built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bpf;
use crate::step::run;

/// The top folder of the checkout.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// A `cargo` of the toolchain that runs this.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The programs of the project, built.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `lungate`.
    pub gateway: PathBuf,
    /// `lungate-target`.
    pub target: PathBuf,
    /// `lungate-host`.
    pub host: PathBuf,
}

/// Builds the BPF object, then every program, optimised.
pub fn build() -> Result<Binaries> {
    bpf::build(&root())?;
    let mut build = cargo();
    build.args(["build", "--release", "-p", "lungate", "-p", "lungate-target", "-p", "lungate-host"]);
    run("build the programs", &mut build)?;
    Ok(binaries())
}

/// Where [`build`] leaves the programs.
pub fn binaries() -> Binaries {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder = target.join("release");
    Binaries {
        gateway: folder.join("lungate"),
        target: folder.join("lungate-target"),
        host: folder.join("lungate-host"),
    }
}
