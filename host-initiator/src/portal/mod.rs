//! The front end that speaks iSCSI: a target portal (RFC 7143, error recovery level 0, one connection for each
//! session) through which any initiator uses the volumes.

mod connection;
mod tasks;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lungate_iscsi::login::LoginStatus;
use lungate_iscsi::login::params::Offer;
use lungate_iscsi::login::target::{Peer, accept};
use lungate_iscsi::pdu::{PduReader, PduWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::unit::{Medium, Nexus, Unit};
use connection::Connection;

/// Commands that one session may have outstanding.
const WINDOW: u32 = 128;
/// How long a login may take.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once, logins under way among them.
const MAX_CONNECTIONS: usize = 1024;
/// How long to rest when the system has no file descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A portal and the volumes behind it.
#[derive(Debug)]
pub struct Portal<M> {
    /// Units by target name.
    units: HashMap<String, Arc<Unit<M>>>,
    sessions: Mutex<HashMap<SessionKey, Session>>,
    next_tsih: AtomicU16,
}

/// What makes a session (RFC 7143, 4.4.3): the same again replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SessionKey {
    initiator: String,
    isid: [u8; 6],
    target: Option<String>,
}

#[derive(Debug)]
struct Session {
    tsih: u16,
    nexus: Arc<Nexus>,
    end: CancellationToken,
}

impl<M: Medium> Portal<M> {
    /// A portal to these units, each by its volume's target name.
    pub fn new(units: impl IntoIterator<Item = Arc<Unit<M>>>) -> Self {
        let units = units.into_iter().map(|unit| (unit.medium().view().target_name.clone(), unit));
        Self { units: units.collect(), sessions: Mutex::default(), next_tsih: AtomicU16::new(1) }
    }

    /// The number of sessions with a volume.
    pub fn sessions(&self, target_name: &str) -> usize {
        self.lock().keys().filter(|key| key.target.as_deref() == Some(target_name)).count()
    }

    /// Takes connections until the runtime ends.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(%peer, "refused: {MAX_CONNECTIONS} connections are open");
                continue;
            };
            let portal = Arc::clone(&self);
            tokio::spawn(async move {
                let why = portal.connection(stream).await;
                tracing::info!(%peer, why, "closed");
                drop(place);
            });
        }
    }

    /// Serves one connection to its end, and says why it ended.
    async fn connection(&self, stream: TcpStream) -> String {
        let Ok(local) = stream.local_addr() else { return "it was gone at once".to_owned() };
        if let Err(error) = stream.set_nodelay(true) {
            return error.to_string();
        }
        let (read, write) = stream.into_split();
        let (mut reader, mut writer) = (PduReader::new(read), PduWriter::new(write));
        let offer = Offer::default();
        let login = accept(&mut reader, &mut writer, &offer, WINDOW, |peer| self.admit(peer));
        let accepted = match timeout(LOGIN_TIMEOUT, login).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "the login took too long".to_owned(),
        };
        let peer = &accepted.peer;
        let key = SessionKey {
            initiator: peer.initiator_name.clone(),
            isid: peer.isid,
            target: peer.target_name.clone(),
        };
        let Some((tsih, nexus, end)) = self.session(&key) else { return "replaced during login".to_owned() };
        tracing::info!(
            initiator = key.initiator,
            target = key.target.as_deref().unwrap_or("discovery"),
            "login"
        );
        let unit = key.target.as_ref().and_then(|name| self.units.get(name)).cloned();
        let names = self.units.keys().cloned().collect();
        let connection = Connection::new(reader, writer, &accepted, unit, nexus, names, local);
        let why = tokio::select! {
            why = connection.run(|| self.reset_others(&key)) => why,
            () = end.cancelled() => "the same initiator logged in again".to_owned(),
        };
        let mut sessions = self.lock();
        if sessions.get(&key).is_some_and(|session| session.tsih == tsih) {
            sessions.remove(&key);
        }
        why
    }

    /// Whether a login is welcome; enters its session and ends the one that it replaces.
    fn admit(&self, peer: &Peer) -> Result<u16, LoginStatus> {
        if let Some(target) = &peer.target_name
            && !self.units.contains_key(target)
        {
            return Err(LoginStatus::NOT_FOUND);
        }
        if peer.tsih != 0 {
            let known = self.lock().values().any(|session| session.tsih == peer.tsih);
            return Err(if known {
                LoginStatus::TOO_MANY_CONNECTIONS
            } else {
                LoginStatus::SESSION_DOES_NOT_EXIST
            });
        }
        // 0 means "new" on the wire.
        let tsih = self.next_tsih.fetch_add(1, Ordering::Relaxed).max(1);
        let key = SessionKey {
            initiator: peer.initiator_name.clone(),
            isid: peer.isid,
            target: peer.target_name.clone(),
        };
        let session = Session { tsih, nexus: Arc::new(Nexus::default()), end: CancellationToken::new() };
        if let Some(replaced) = self.lock().insert(key, session) {
            replaced.end.cancel();
        }
        Ok(tsih)
    }

    fn session(&self, key: &SessionKey) -> Option<(u16, Arc<Nexus>, CancellationToken)> {
        let sessions = self.lock();
        let session = sessions.get(key)?;
        Some((session.tsih, Arc::clone(&session.nexus), session.end.clone()))
    }

    /// A reset of the unit is told to every other session with it.
    fn reset_others(&self, key: &SessionKey) {
        for (other, session) in self.lock().iter() {
            if other.target == key.target && other != key {
                session.nexus.set_reset();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
