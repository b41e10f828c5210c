//! The daemon's settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lungate_catalog::view::DeviceView;
use serde::{Deserialize, Serialize};

/// The configuration file, JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The file that says which port is which LUN, as `lungate catalog view device NAME` prints it; relative
    /// to the folder of the configuration file.
    pub(crate) device: PathBuf,
    /// How long a login may take, in milliseconds.
    #[serde(default = "default_login_timeout")]
    pub(crate) login_timeout_ms: u64,
    /// How many connections a port takes at once; more are closed at once.
    #[serde(default = "default_max_connections")]
    pub(crate) max_connections: usize,
    /// How long, in milliseconds, the commands of a dead connection may take at the real target before a new
    /// login of the same initiator stops waiting for them and is refused.
    #[serde(default = "default_drain_timeout")]
    pub(crate) drain_timeout_ms: u64,
}

fn default_login_timeout() -> u64 {
    10_000
}

fn default_max_connections() -> usize {
    1024
}

fn default_drain_timeout() -> u64 {
    10_000
}

impl Config {
    /// Reads the configuration and the device view that it names.
    pub(crate) fn read(path: &Path) -> Result<(Self, DeviceView)> {
        let config: Self = read_json(path).context("cannot read the configuration")?;
        let device = path.parent().unwrap_or(Path::new(".")).join(&config.device);
        let view = read_json(&device).context("cannot read the device's view of the catalog")?;
        Ok((config, view))
    }

    pub(crate) fn login_timeout(&self) -> Duration {
        Duration::from_millis(self.login_timeout_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not valid", path.display()))
}
