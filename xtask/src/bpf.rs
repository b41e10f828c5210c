//! Builds the BPF objects: the gateway's, and the one that it is measured with.
//!
//! `core` has to be built for the BPF virtual machine, from the sources of the very compiler that builds it. Where
//! the toolchain that runs this has its `rust-src`, it serves; otherwise Debian's `rustc-web`, whose sources are
//! the package `rust-web-src`, does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::{output, run};

/// Debug information and BTF give maps their types, and Linux 6.6 knows the third version of the instructions.
const FLAGS: [&str; 3] = ["-C debuginfo=2", "-C link-arg=--btf", "-C target-cpu=v3"];

const TARGET: &str = "bpfel-unknown-none";
const GATEWAY: &str = "lungate-gateway";
const BENCH: &str = "lungate-bench";
/// Where Debian puts the compiler of `rustc-web` and its cargo.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// A compiler that can build `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
}

impl Compiler {
    /// The toolchain that runs this, or else Debian's; `None` where neither has the sources of `core`.
    pub fn find() -> Option<Self> {
        let own = Self {
            rustc: std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from),
            cargo: std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from),
        };
        let debian = Self { rustc: DEBIAN_RUSTC.into(), cargo: DEBIAN_CARGO.into() };
        [own, debian].into_iter().find(Self::has_sources)
    }

    fn has_sources(&self) -> bool {
        let sysroot = output(Command::new(&self.rustc).args(["--print", "sysroot"]));
        sysroot.is_ok_and(|sysroot| {
            Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
        })
    }
}

/// The objects, built.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The gateway's, at `target/bpf/lungate-gateway`, where `.cargo/config.toml` says that it is.
    pub gateway: PathBuf,
    /// What it is measured with.
    pub bench: PathBuf,
}

/// Where [`build`] leaves the objects.
pub fn objects(root: &Path) -> Objects {
    let folder = root.join("target/bpf");
    Objects { gateway: folder.join(GATEWAY), bench: folder.join(BENCH) }
}

/// Builds the objects.
pub fn build(root: &Path) -> Result<Objects> {
    let compiler = Compiler::find()
        .context("no Rust compiler here has the sources of `core`: run 'cargo xtask setup'")?;
    let folder = root.join("target/bpf-build");
    let mut build = Command::new(&compiler.cargo);
    build
        .current_dir(root)
        .args(["build", "--release", "--package", "lungate-gateway-ebpf", "-Z", "build-std=core"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&folder)
        // build-std is not stable, but all that is needed of it is.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &compiler.rustc)
        .env("RUSTFLAGS", FLAGS.join(" "))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTUP_TOOLCHAIN");
    run("build the BPF programs", &mut build)?;
    let objects = objects(root);
    let built = folder.join(TARGET).join("release");
    copy_if_changed(&built.join(GATEWAY), &objects.gateway)?;
    copy_if_changed(&built.join(BENCH), &objects.bench)?;
    Ok(objects)
}

/// An object that stays the same keeps its time, so that nothing is built again because of it.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}
