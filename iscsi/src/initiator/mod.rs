//! An initiator session of one connection at error recovery level 0 (RFC 7143, 7.1.1): a lost connection loses
//! what was unanswered, and whoever holds the session decides what to do about it.

mod connection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::login::LoginError;
use crate::login::initiator::{Identity, login};
use crate::login::params::{Offer, Params};
use crate::payload::Payload;
use crate::pdu::{LunField, PduReader, PduWriter};
use crate::scsi::{Cdb, Sense, Status};
use connection::{Connection, Order};

/// Where and how to log in.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The portal.
    pub portal: SocketAddr,
    /// Who logs in to what.
    pub identity: Identity,
    /// What to negotiate.
    pub offer: Offer,
    /// How long connecting may take; the login may take as long again.
    pub connect_timeout: Duration,
    /// How long the target may be silent before it is asked for a sign of life, and again before it is given
    /// up.
    pub keepalive: Duration,
}

/// A command to carry out.
#[derive(Clone, Debug)]
pub struct Task {
    /// The logical unit.
    pub lun: LunField,
    /// The command.
    pub cdb: Cdb,
    /// The data that goes with it.
    pub transfer: Transfer,
}

/// The data of a command.
#[derive(Clone, Debug)]
pub enum Transfer {
    /// None.
    None,
    /// To the initiator: this many bytes are expected.
    In(u32),
    /// To the target.
    Out(Payload),
}

/// What became of a command.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Its status.
    pub status: Status,
    /// Its sense data, where it came with any that can be read.
    pub sense: Option<Sense>,
    /// The data that came.
    pub data: Payload,
}

/// Why there is no session, or no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// No TCP connection.
    #[error("cannot connect to {portal}: {source}")]
    Connect {
        /// Where to.
        portal: SocketAddr,
        /// What came back.
        source: Arc<io::Error>,
    },
    /// No answer in time.
    #[error("{portal} did not answer within {seconds} s while {what}")]
    Timeout {
        /// The portal.
        portal: SocketAddr,
        /// What was attempted.
        what: &'static str,
        /// How long was waited, in seconds.
        seconds: f32,
    },
    /// The login failed.
    #[error("cannot log in at {portal}: {source}")]
    Login {
        /// The portal.
        portal: SocketAddr,
        /// What came back.
        source: Arc<LoginError>,
    },
    /// The session is over.
    #[error("the session with {portal} is over: {why}")]
    Lost {
        /// The portal.
        portal: SocketAddr,
        /// Why.
        why: Arc<str>,
    },
}

/// A session in full feature phase. Dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    portal: SocketAddr,
    params: Params,
    orders: mpsc::UnboundedSender<Order>,
    over: watch::Receiver<Option<Arc<str>>>,
}

impl Session {
    /// Connects and logs in.
    pub async fn connect(config: &SessionConfig) -> Result<Self, SessionError> {
        let portal = config.portal;
        let seconds = config.connect_timeout.as_secs_f32();
        let timed_out = |what| move |_| SessionError::Timeout { portal, what, seconds };
        let stream = timeout(config.connect_timeout, TcpStream::connect(portal))
            .await
            .map_err(timed_out("connecting"))?
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| SessionError::Connect { portal, source: source.into() })?;
        let (read, write) = stream.into_split();
        let (mut reader, mut writer) = (PduReader::new(read), PduWriter::new(write));
        let logged_in =
            timeout(config.connect_timeout, login(&mut reader, &mut writer, &config.identity, &config.offer))
                .await
                .map_err(timed_out("logging in"))?
                .map_err(|source| SessionError::Login { portal, source: source.into() })?;

        let params = logged_in.params.clone();
        let (orders, incoming) = mpsc::unbounded_channel();
        let (ended, over) = watch::channel(None);
        let connection = Connection::new(reader, writer, logged_in, incoming, config.keepalive);
        tokio::spawn(async move {
            let why: Arc<str> = connection.run().await.into();
            ended.send_replace(Some(why));
        });
        Ok(Self { portal, params, orders, over })
    }

    /// Carries out a command. Where the future is dropped, the command goes on and its answer is thrown away.
    pub async fn execute(&self, task: Task) -> Result<Completion, SessionError> {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Execute { task, reply }).is_ok()
            && let Ok(completion) = answer.await
        {
            return Ok(completion);
        }
        Err(self.lost().await)
    }

    /// Says goodbye: waits until the target has confirmed the logout or the connection is gone.
    pub async fn logout(&self) {
        if self.orders.send(Order::Logout).is_ok() {
            self.lost().await;
        }
    }

    /// Waits until the session is over, and says why.
    pub async fn lost(&self) -> SessionError {
        let mut over = self.over.clone();
        let why = match over.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "its task ended".into(),
        };
        SessionError::Lost { portal: self.portal, why }
    }

    /// Whether the session is over.
    pub fn is_over(&self) -> bool {
        self.over.borrow().is_some()
    }

    /// What was negotiated.
    pub fn params(&self) -> &Params {
        &self.params
    }
}
