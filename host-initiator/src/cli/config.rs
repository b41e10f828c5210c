//! The settings of `lungate-host`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lungate_catalog::view::HostView;
use lungate_host::driver::DriverConfig;
use serde::{Deserialize, Serialize};

/// The configuration file, JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Files that each describe a volume, as `lungate catalog view host VOLUME` prints it; relative to the folder
    /// of the configuration file.
    pub(super) volumes: Vec<PathBuf>,
    /// Where the iSCSI portal listens.
    #[serde(default = "default_portal")]
    pub(super) portal: SocketAddr,
    /// The iSCSI name under which devices see this host; by default made from the host's name.
    #[serde(default = "default_initiator_name")]
    pub(super) initiator_name: String,
    /// How long a command may take, lost connections included, before it fails; in milliseconds.
    #[serde(default = "default_command_timeout")]
    pub(super) command_timeout_ms: u64,
    /// How long attaching a volume may take; in milliseconds.
    #[serde(default = "default_attach_timeout")]
    pub(super) attach_timeout_ms: u64,
    /// The Unix socket at which the daemon tells its state, to root only.
    #[serde(default = "default_control_socket")]
    pub(super) control_socket: PathBuf,
}

fn default_portal() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 3260))
}

fn default_initiator_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let letters =
        name.trim().to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.', "-");
    format!("iqn.2026-11.io.lungate:host.{letters}")
}

fn default_command_timeout() -> u64 {
    30_000
}

fn default_attach_timeout() -> u64 {
    10_000
}

fn default_control_socket() -> PathBuf {
    "/run/lungate-host/control.sock".into()
}

impl Config {
    /// Reads the configuration and the volumes that it names.
    pub(super) fn read(path: &Path) -> Result<(Self, Vec<HostView>)> {
        let config: Self = read_json(path).context("cannot read the configuration")?;
        if config.volumes.is_empty() {
            bail!("{}: volumes is empty: name at least one file", path.display());
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut views: Vec<HostView> = Vec::new();
        for file in &config.volumes {
            let view: HostView =
                read_json(&folder.join(file)).context("cannot read the host's view of a volume")?;
            if views.iter().any(|other| other.target_name == view.target_name) {
                bail!("{}: volume {} is named twice", path.display(), view.name);
            }
            views.push(view);
        }
        Ok((config, views))
    }

    /// How the driver shall connect; `instance` tells the daemon's sessions from those of single commands.
    pub(super) fn driver(&self, instance: &str) -> DriverConfig {
        DriverConfig {
            initiator_name: self.initiator_name.clone(),
            instance: instance.to_owned(),
            command_timeout: Duration::from_millis(self.command_timeout_ms),
            attach_timeout: Duration::from_millis(self.attach_timeout_ms),
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not valid", path.display()))
}
