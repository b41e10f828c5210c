//! The daemon: volumes, portal, and the socket at which it tells its state.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use lungate_catalog::view::HostView;
use lungate_host::driver::{Driver, PathStatus};
use lungate_host::portal::Portal;
use lungate_host::unit::Unit;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use super::config::Config;

/// What the daemon tells of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Status {
    volumes: Vec<VolumeStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
struct VolumeStatus {
    name: String,
    target_name: String,
    /// Sessions of initiators with it.
    sessions: usize,
    extents: Vec<PathStatus>,
}

pub(super) async fn serve(config: &Config, views: Vec<HostView>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(config.portal)
        .await
        .with_context(|| format!("the portal cannot listen at {}", config.portal))?;
    let control = control_listener(&config.control_socket)?;
    let mut units = Vec::new();
    for view in views {
        let name = view.name.clone();
        let driver_config = config.driver("daemon");
        let driver = Driver::attach(view, &driver_config);
        let driver = tokio::select! {
            driver = driver => driver.with_context(|| format!("cannot attach volume {name}"))?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        units.push(Arc::new(Unit::new(driver)));
    }
    let portal = Arc::new(Portal::new(units.iter().cloned()));
    println!("ready: {} volumes at {}", units.len(), config.portal);
    std::io::stdout().flush()?;
    tokio::select! {
        () = Arc::clone(&portal).serve(listener) => {}
        () = tell(control, &portal, &units) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending on a signal; volumes are detached");
    // The socket is of no use any more; the next start would replace it anyway.
    let _ = std::fs::remove_file(&config.control_socket);
    Ok(())
}

/// Asks the running daemon.
pub(super) async fn status(config: &Config, json: bool) -> Result<()> {
    let path = &config.control_socket;
    let mut stream = UnixStream::connect(path)
        .await
        .with_context(|| format!("cannot reach the daemon at {}: is it running?", path.display()))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.context("the daemon's answer broke off")?;
    let status: Status = serde_json::from_str(&text).context("the daemon's answer cannot be read")?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{status}");
    }
    Ok(())
}

/// A socket that only root can open, in place of one that a daemon which was killed has left.
fn control_listener(path: &Path) -> Result<UnixListener> {
    let cannot = || format!("cannot listen at the control socket {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(cannot)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("{}: another daemon is listening there", cannot());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(cannot),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(cannot)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).with_context(cannot)?;
    Ok(listener)
}

/// Answers each connection with the state, and closes it.
async fn tell(listener: UnixListener, portal: &Portal<Driver>, units: &[Arc<Unit<Driver>>]) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let volumes = units.iter().map(|unit| {
            let view = unit.medium().view();
            VolumeStatus {
                name: view.name.clone(),
                target_name: view.target_name.clone(),
                sessions: portal.sessions(&view.target_name),
                extents: unit.medium().status(),
            }
        });
        if let Ok(text) = serde_json::to_vec(&Status { volumes: volumes.collect() }) {
            // Whoever asked may have gone.
            let _ = stream.write_all(&text).await;
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for volume in &self.volumes {
            writeln!(f, "{} ({}): {} sessions", volume.name, volume.target_name, volume.sessions)?;
            for extent in &volume.extents {
                let PathStatus { port, first_lba, blocks, state, reconnects, .. } = extent;
                writeln!(
                    f,
                    "  port {port}, LBA {first_lba}, {blocks} blocks: {state}, {reconnects} reconnects"
                )?;
            }
        }
        Ok(())
    }
}
