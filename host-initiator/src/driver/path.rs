//! The way to one extent: a session that is opened again whenever it is lost, and the commands that wait for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lungate_catalog::units::{BlockCount, BlockSize, Lba};
use lungate_catalog::view::{HostExtent, HostView};
use lungate_iscsi::initiator::{Completion, Session, SessionConfig, Task};
use lungate_iscsi::login::initiator::Identity;
use lungate_iscsi::login::params::Offer;
use lungate_iscsi::payload::Payload;
use lungate_iscsi::scsi::{Sense, SenseKey, Status};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::DriverConfig;
use super::overlap::{Access, Overlap};
use super::probe::{Found, ProbeError, probe};

/// A connection attempt longer than this is given up: while an extent moves, the next attempt finds it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);
/// How long a device may be silent before it is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// This many attempts follow each other at once; then pauses grow from the first to the last value.
const PROMPT_ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait before a device that said BUSY or TASK SET FULL is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What a path leads to.
#[derive(Clone, Debug)]
pub struct PathConfig {
    session: SessionConfig,
    extent: HostExtent,
    block_size: BlockSize,
}

impl PathConfig {
    pub(super) fn new(view: &HostView, extent: &HostExtent, config: &DriverConfig) -> Self {
        let identity = Identity {
            initiator_name: config.initiator_name.clone(),
            target_name: Some(extent.target_name.clone()),
            isid: isid(&config.instance, &view.name, extent.port),
        };
        let session = SessionConfig {
            portal: SocketAddr::new(view.vip, extent.port),
            identity,
            offer: Offer::default(),
            connect_timeout: CONNECT_TIMEOUT,
            keepalive: KEEPALIVE,
        };
        Self { session, extent: extent.clone(), block_size: view.block_size }
    }
}

/// Every (instance, volume, extent) has an ISID of its own, the same after each reconnect: extents often share a
/// real target, where one ISID twice would end the other's session. Random format (RFC 7143, 11.12.5).
fn isid(instance: &str, volume: &str, port: u16) -> [u8; 6] {
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{instance}/{volume}/{port}").as_bytes());
    let [_, b, c, d, e, f, ..] = *hash.as_bytes();
    [0x80, b, c, d, e, f]
}

/// What is known of a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PathStatus {
    /// The extent's port at the VIP.
    pub port: u16,
    /// Its first block.
    pub first_lba: Lba,
    /// Its length.
    pub blocks: BlockCount,
    /// "connected" or why not.
    pub state: String,
    /// How often its session was opened again.
    pub reconnects: u32,
    /// When the first command after the last login was completed, by CLOCK_MONOTONIC in nanoseconds; 0 before.
    pub last_first_io_monotonic_ns: u64,
}

/// The way to one extent.
#[derive(Debug)]
pub(super) struct Path {
    config: PathConfig,
    session: watch::Sender<State>,
    overlap: Arc<Overlap>,
    reconnects: AtomicU32,
    /// The next completed command is the first since the last login.
    is_first: AtomicBool,
    first_io: AtomicU64,
    found: Mutex<Option<Found>>,
    keeper: Mutex<Option<AbortHandle>>,
}

#[derive(Clone, Debug)]
enum State {
    Connected(Arc<Session>),
    Down(Arc<str>),
}

impl Path {
    /// A path that starts to connect.
    pub(super) fn open(config: PathConfig) -> Arc<Self> {
        let path = Arc::new(Self {
            config,
            session: watch::Sender::new(State::Down("not connected yet".into())),
            overlap: Arc::default(),
            reconnects: AtomicU32::new(0),
            is_first: AtomicBool::new(false),
            first_io: AtomicU64::new(0),
            found: Mutex::new(None),
            keeper: Mutex::new(None),
        });
        let keeper = tokio::spawn(keep(Arc::downgrade(&path)));
        *path.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper.abort_handle());
        path
    }

    /// Waits until the path can be used; says why it cannot.
    pub(super) async fn ready(&self, deadline: Instant) -> Result<(), String> {
        let mut session = self.session.subscribe();
        let connected = session.wait_for(|state| matches!(state, State::Connected(_)));
        match timeout_at(deadline, connected).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.why_down()),
        }
    }

    pub(super) fn found(&self) -> Option<Found> {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> PathStatus {
        let extent = &self.config.extent;
        PathStatus {
            port: extent.port,
            first_lba: extent.first_lba,
            blocks: extent.blocks,
            state: match &*self.session.borrow() {
                State::Connected(_) => "connected".to_owned(),
                State::Down(why) => why.to_string(),
            },
            reconnects: self.reconnects.load(Ordering::Relaxed),
            last_first_io_monotonic_ns: self.first_io.load(Ordering::Relaxed),
        }
    }

    /// Logs out and connects no more.
    pub(super) async fn close(&self) {
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
        let last = self.session.send_replace(State::Down("detached".into()));
        if let State::Connected(session) = last {
            // A device that does not answer is not waited for.
            let _ = tokio::time::timeout(CONNECT_TIMEOUT, session.logout()).await;
        }
    }

    /// Carries out one command: again on the next session where one is lost, again after unit attentions and
    /// where the device is busy, until the deadline.
    ///
    /// A write that is under way at the deadline has failed for the caller, but it may still reach the medium: it
    /// goes on holding back what overlaps it until the device has answered it or its session is over.
    pub(super) async fn execute(
        self: &Arc<Self>,
        task: Task,
        access: Access,
        lba: Lba,
        blocks: BlockCount,
        deadline: Instant,
    ) -> Result<Payload, Sense> {
        let Ok(turn) = timeout_at(deadline, self.overlap.enter(access, lba, blocks)).await else {
            return Err(self.timed_out("while an earlier write on the same blocks was under way"));
        };
        if access != Access::Write {
            let _turn = turn;
            let issued = timeout_at(deadline, self.issue(&task, deadline)).await;
            return issued.unwrap_or_else(|_| Err(self.timed_out(&self.why_down())));
        }
        let path = Arc::clone(self);
        let mut issued = Box::pin(async move {
            let _turn = turn;
            path.issue(&task, deadline).await
        });
        match timeout_at(deadline, &mut issued).await {
            Ok(result) => result,
            Err(_) => {
                tokio::spawn(issued);
                Err(self.timed_out(&self.why_down()))
            }
        }
    }

    /// Issues a command until it has an answer that counts; not again after the deadline.
    async fn issue(&self, task: &Task, deadline: Instant) -> Result<Payload, Sense> {
        loop {
            let session = match timeout_at(deadline, self.session()).await {
                Ok(session) if Instant::now() < deadline => session,
                _ => return Err(Sense::COMMUNICATION_TIMEOUT),
            };
            // Lost: the keeper has seen it too, and the next session is awaited.
            let Ok(completion) = session.execute(task.clone()).await else { continue };
            match self.judge(completion) {
                Judgement::Done(result) => return result,
                Judgement::Again(pause) => sleep(pause).await,
            }
        }
    }

    fn timed_out(&self, why: &str) -> Sense {
        tracing::error!(portal = %self.config.session.portal, why, "a command timed out");
        Sense::COMMUNICATION_TIMEOUT
    }

    fn judge(&self, completion: Completion) -> Judgement {
        if self.is_first.load(Ordering::Relaxed) && self.is_first.swap(false, Ordering::Relaxed) {
            self.first_io.store(monotonic_ns(), Ordering::Relaxed);
        }
        match (completion.status, completion.sense) {
            (Status::Good | Status::ConditionMet, _) => Judgement::Done(Ok(completion.data)),
            (Status::Busy | Status::TaskSetFull, _) => Judgement::Again(BUSY_PAUSE),
            // It says that something happened, not that the command did: resets of a device are no business of
            // those above, whose volume was not reset.
            (Status::CheckCondition, Some(sense)) if sense.key == SenseKey::UnitAttention => {
                Judgement::Again(Duration::ZERO)
            }
            (Status::TaskAborted, _) => Judgement::Again(Duration::ZERO),
            (_, sense) => Judgement::Done(Err(sense.unwrap_or(Sense::INTERNAL_FAILURE))),
        }
    }

    /// The session in use, once there is one that is not over.
    async fn session(&self) -> Arc<Session> {
        let mut states = self.session.subscribe();
        loop {
            if let State::Connected(session) = &*states.borrow_and_update()
                && !session.is_over()
            {
                return Arc::clone(session);
            }
            // The sender lives as long as `self`.
            let _ = states.changed().await;
        }
    }

    fn why_down(&self) -> String {
        match &*self.session.borrow() {
            State::Connected(_) => "it is connected but does not answer".to_owned(),
            State::Down(why) => why.to_string(),
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

enum Judgement {
    Done(Result<Payload, Sense>),
    Again(Duration),
}

/// Keeps a path's session open for as long as the path is in use.
async fn keep(path: std::sync::Weak<Path>) {
    let mut attempts = 0;
    let mut was_connected = false;
    loop {
        let Some(this) = path.upgrade() else { return };
        let portal = this.config.session.portal;
        match open(&this.config).await {
            Ok((session, found)) => {
                attempts = 0;
                *this.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                this.is_first.store(true, Ordering::Relaxed);
                if std::mem::replace(&mut was_connected, true) {
                    this.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                tracing::info!(%portal, "connected");
                let session = Arc::new(session);
                this.session.send_replace(State::Connected(Arc::clone(&session)));
                drop(this);
                let why = lost(session).await;
                tracing::warn!(%portal, %why, "lost; connecting again");
                let Some(this) = path.upgrade() else { return };
                this.session.send_replace(State::Down(why.into()));
            }
            Err(error) => {
                let why = error.to_string();
                if attempts == PROMPT_ATTEMPTS {
                    tracing::warn!(%portal, why, "cannot connect; going on trying");
                }
                this.session.send_replace(State::Down(why.into()));
                drop(this);
                if attempts >= PROMPT_ATTEMPTS {
                    sleep((FIRST_PAUSE * 2_u32.pow((attempts - PROMPT_ATTEMPTS).min(10))).min(LAST_PAUSE))
                        .await;
                }
                attempts += 1;
            }
        }
    }
}

/// Waits for a session's end without keeping it alive any longer than its users do.
async fn lost(session: Arc<Session>) -> String {
    session.lost().await.to_string()
}

async fn open(config: &PathConfig) -> Result<(Session, Found), ProbeError> {
    let session = Session::connect(&config.session).await?;
    let found = probe(&session, &config.extent, config.block_size).await?;
    Ok((session, found))
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
