//! What the machine must have, and how it gets it: Debian packages by name, and `bpf-linker` by cargo.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::bpf::Compiler;
use crate::step::{output, run};

/// The linker for BPF programs, and the LLVM that it is built with.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

/// Packages for building, but for those of the BPF toolchain.
const BUILD: &[&str] = &["gcc", "libc6-dev"];
/// Packages for a compiler that can build `core`.
const CORE: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
/// Packages for building `bpf-linker`.
const LINKER: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];
/// Packages for the lab: real targets, real clients, and the tools that make and look at a network.
const LAB: &[&str] = &[
    "tgt",
    "libiscsi-bin",
    "fio",
    "qemu-utils",
    "bpftool",
    "iproute2",
    "iputils-arping",
    "iputils-ping",
    "iperf3",
    "ethtool",
    "nftables",
    "procps",
];
/// What lets QEMU's tools speak iSCSI; of the same version as `qemu-utils`.
const QEMU_ISCSI: &str = "qemu-block-extra";

/// A command that is still to be run.
#[derive(Debug)]
struct Missing {
    what: String,
    shown: String,
    install: fn(&[String]) -> Result<()>,
    arguments: Vec<String>,
}

/// Installs what is missing, each step shown; with `install` off, says what is missing and fails.
pub fn setup(install: bool) -> Result<()> {
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    if !install {
        eprintln!("missing on this machine:");
        for Missing { what, shown, .. } in &missing {
            eprintln!("  {what}\n    {shown}");
        }
        bail!("{} things are missing; run the commands above, or this without --no-install", missing.len());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("installing needs root; --no-install shows the commands");
    }
    for Missing { what, shown, install, arguments } in missing {
        eprintln!("→ {what}: {shown}");
        install(&arguments)?;
    }
    Ok(())
}

fn missing() -> Result<Vec<Missing>> {
    let mut found = Vec::new();
    let mut wanted: Vec<&str> = [BUILD, LAB].concat();
    if Compiler::find().is_none() {
        wanted.extend(CORE);
    }
    let has_linker = has_bpf_linker();
    if !has_linker {
        wanted.extend(LINKER);
    }
    let packages: Vec<String> =
        wanted.into_iter().filter(|name| version(name).is_none()).map(str::to_owned).collect();
    if !packages.is_empty() {
        found.push(Missing {
            what: format!("{} Debian packages", packages.len()),
            shown: format!("apt-get install -y --no-install-recommends {}", packages.join(" ")),
            install: apt_install,
            arguments: packages,
        });
    }
    if !has_linker {
        found.push(Missing {
            what: format!("bpf-linker {BPF_LINKER}"),
            shown: format!(
                "LLVM_PREFIX={LLVM} cargo install bpf-linker --version {BPF_LINKER} --locked --no-default-features --features llvm-22"
            ),
            install: install_bpf_linker,
            arguments: Vec::new(),
        });
    }
    if version(QEMU_ISCSI).is_none() {
        found.push(Missing {
            what: "QEMU's iSCSI driver".to_owned(),
            shown: match version("qemu-utils") {
                Some(version) => format!("apt-get install -y --no-install-recommends {QEMU_ISCSI}={version}"),
                None => format!("apt-get install -y --no-install-recommends {QEMU_ISCSI}"),
            },
            install: install_qemu_iscsi,
            arguments: Vec::new(),
        });
    }
    Ok(found)
}

/// The installed version of a package.
fn version(package: &str) -> Option<String> {
    let text =
        output(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status} ${Version}", package])).ok()?;
    text.strip_prefix("installed ").map(str::to_owned)
}

fn has_bpf_linker() -> bool {
    output(Command::new("bpf-linker").arg("--version")).is_ok_and(|text| text.contains(BPF_LINKER))
}

fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-y", "-o", "Dpkg::Use-Pty=0"]);
    apt
}

fn apt_install(packages: &[String]) -> Result<()> {
    run("refresh the list of packages", apt_get().arg("update"))?;
    let what = format!("install {}", packages.join(" "));
    run(&what, apt_get().args(["install", "--no-install-recommends"]).args(packages))
}

fn install_bpf_linker(_: &[String]) -> Result<()> {
    let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM)
        .env_remove("CARGO_TARGET_DIR");
    run("build and install bpf-linker", &mut install)
}

/// Installs the driver of the version that `qemu-utils` has. Where `qemu-utils` is from backports and the lists
/// are not, they are read for this one command.
fn install_qemu_iscsi(_: &[String]) -> Result<()> {
    let wanted = version("qemu-utils").context("qemu-utils is not installed")?;
    let exact = format!("{QEMU_ISCSI}={wanted}");
    let plain = apt_get().args(["install", "--no-install-recommends", "--simulate", &exact]).output();
    if plain.is_ok_and(|plain| plain.status.success()) {
        return run(
            &format!("install {exact}"),
            apt_get().args(["install", "--no-install-recommends", &exact]),
        );
    }
    let folder = tempfile::tempdir()?;
    copy_sources(Path::new("/etc/apt/sources.list.d"), folder.path())?;
    let (mirror, codename) = mirror()?;
    let mut list = std::fs::File::create(folder.path().join("backports.list"))?;
    writeln!(list, "deb {mirror} {codename}-backports main")?;
    let with_backports = || {
        let mut apt = apt_get();
        apt.arg("-o").arg(format!("Dir::Etc::SourceParts={}", folder.path().display()));
        apt
    };
    run("read the list of backports, for this one package", with_backports().arg("update"))?;
    run(&format!("install {exact}"), with_backports().args(["install", "--no-install-recommends", &exact]))
}

fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// The mirror that this machine's own release comes from, and the release's name.
fn mirror() -> Result<(String, String)> {
    let release = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no VERSION_CODENAME")?.to_owned();
    let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"];
    let targets = output(Command::new("apt-get").args(format))?;
    let own = targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (uri, suite, component) = (words.next()?, words.next()?, words.next()?);
        (suite == codename && component == "main").then(|| uri.to_owned())
    });
    Ok((own.with_context(|| format!("apt knows no mirror of {codename}"))?, codename))
}
