//! One port: its listener and the connections it takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use lungate_catalog::view::DevicePort;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, Semaphore};

use crate::config::Config;
use crate::hold::Book;
use crate::probe::{Probe, probe};
use crate::relay::relay;

/// How long to rest when the system has no file descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port and what its connections share.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) view: DevicePort,
    pub(crate) book: Arc<Book>,
    pub(crate) login_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    connections: Arc<Semaphore>,
    /// Set once the real LUN was seen to be the one that the catalog describes.
    checked: OnceCell<()>,
}

impl Port {
    pub(crate) fn new(view: DevicePort, config: &Config) -> Self {
        Self {
            view,
            book: Arc::new(Book::default()),
            login_timeout: config.login_timeout(),
            drain_timeout: config.drain_timeout(),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            checked: OnceCell::new(),
        }
    }

    pub(crate) async fn listen(&self, address: IpAddr) -> Result<TcpListener> {
        let portal = SocketAddr::new(address, self.view.port);
        TcpListener::bind(portal).await.with_context(|| format!("cannot listen at {portal}"))
    }

    /// Takes connections until the runtime ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(port = self.view.port, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                tracing::warn!(port = self.view.port, %peer, "refused: the port has all the connections it may have");
                continue;
            };
            let port = Arc::clone(&self);
            tokio::spawn(async move {
                relay(&port, stream, peer).await;
                drop(permit);
            });
        }
    }

    /// Holds the real LUN against the catalog, once; where the target was down at start, when it is first used.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let check = self.checked.get_or_try_init(|| async {
            match probe(&self.view).await {
                Probe::Matches => Ok(()),
                Probe::Differs(how) => Err(how),
                Probe::Unreachable(error) => Err(error.to_string()),
            }
        });
        check.await.copied()
    }
}
