//! One host's connection and its counterpart to the real target.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use lungate_iscsi::login::LoginStatus;
use lungate_iscsi::pdu::header::{LoginRequest, LoginResponse};
use lungate_iscsi::pdu::{Bhs, PduWriter};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::hold::Line;
use crate::port::Port;
use crate::pump::{Pump, Stopped, lock};
use crate::rewrite::{Direction, Initiator, Rewriter, Violation};

/// How long connecting to the real target may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a connection that drains looks whether the target is done.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// Serves one connection to its end, and says in the log why it ended.
pub(crate) async fn relay(port: &Port, host: TcpStream, peer: SocketAddr) {
    let number = port.view.port;
    tracing::debug!(port = number, %peer, "connected");
    match Relay::open(port, host, peer).await {
        Ok(relay) => relay.run().await,
        Err(why) => tracing::info!(port = number, %peer, why, "closed before login"),
    }
}

struct Relay<'a> {
    port: &'a Port,
    peer: SocketAddr,
    rewriter: Mutex<Rewriter>,
    /// The header of the host's first login request, to refuse it with.
    first: Bhs,
    deadline: Instant,
    from_host: OwnedReadHalf,
    to_host: PduWriter<OwnedWriteHalf>,
    from_target: OwnedReadHalf,
    to_target: PduWriter<OwnedWriteHalf>,
    up: Pump,
    down: Pump,
}

impl<'a> Relay<'a> {
    /// Waits for a login request and connects to the real target.
    async fn open(port: &'a Port, host: TcpStream, peer: SocketAddr) -> Result<Self, String> {
        let deadline = Instant::now() + port.login_timeout;
        host.set_nodelay(true).map_err(|e| e.to_string())?;
        let (mut from_host, to_host) = host.into_split();
        let mut to_host = PduWriter::new(to_host);
        let mut up = Pump::new(Direction::ToTarget);
        let peeked = timeout(port.login_timeout, up.peek(&mut from_host)).await;
        let first = peeked.map_err(|_| "no login request came in time")?.map_err(|e| e.to_string())?;
        if first.view::<LoginRequest>().is_none() {
            return Err(format!("a login request was expected, {first:?} came"));
        }
        let rewriter = Rewriter::new(port.view.clone()).ok_or("the LUN cannot be addressed")?;
        let connected = match port.check().await {
            Ok(()) => connect(port.view.backend.portal).await,
            Err(why) => Err(why),
        };
        let target = match connected {
            Ok(target) => target,
            Err(why) => {
                // The host may be gone already; the log has the reason either way.
                let _ = refuse(&mut to_host, &first, LoginStatus::SERVICE_UNAVAILABLE).await;
                return Err(why);
            }
        };
        let (from_target, to_target) = target.into_split();
        Ok(Self {
            port,
            peer,
            rewriter: Mutex::new(rewriter),
            first,
            deadline,
            from_host,
            to_host,
            from_target,
            to_target: PduWriter::new(to_target),
            up,
            down: Pump::new(Direction::ToHost),
        })
    }

    async fn run(mut self) {
        let end = CancellationToken::new();
        let mut line = None;
        let over = self.relay(&end, &mut line).await;
        let port = self.port.view.port;
        tracing::info!(port, peer = %self.peer, why = %over, "closed");
        match over {
            Over::Host(Stopped::Violation(Violation::Refused { status, .. }))
            | Over::Target(Stopped::Violation(Violation::Refused { status, .. })) => {
                let _ = refuse(&mut self.to_host, &self.first, status).await;
            }
            // What the target said last has been queued; it goes out before the end of the stream.
            Over::Target(Stopped::Closed) => {
                let _ = self.to_host.flush().await;
                let _ = self.to_host.stream_mut().shutdown().await;
            }
            // A reset is handed on as one, so that the host need not wait for an answer.
            Over::Target(_) => {
                let _ = self.to_host.stream_mut().as_ref().set_zero_linger();
            }
            Over::Host(_) | Over::Replaced | Over::LoginTimeout => {}
        }
        if let Some(itt) = self.up.cut_off() {
            lock(&self.rewriter).cut_off(itt);
        }
        // The host sees the end at once; the real target may still be at work.
        let Self { from_host, to_host, .. } = self;
        drop((from_host, to_host));
        let drain = Drain {
            rewriter: self.rewriter,
            down: self.down,
            from_target: self.from_target,
            to_target: self.to_target,
        };
        drain.run(line, self.port.drain_timeout).await;
    }

    /// Runs both directions until one of them, the deadline or a successor ends them.
    async fn relay(&mut self, end: &CancellationToken, line: &mut Option<Line>) -> Over {
        loop {
            let over = self.pump(end).await;
            let Over::Host(Stopped::Introduced(initiator)) = over else { return over };
            match self.enter(&initiator, end).await {
                Ok(entered) => *line = Some(entered),
                Err(violation) => return Over::Host(violation.into()),
            }
        }
    }

    async fn pump(&mut self, end: &CancellationToken) -> Over {
        let rewriter = &self.rewriter;
        let late = async {
            sleep_until(self.deadline).await;
            if lock(rewriter).is_full_feature() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            stopped = self.up.run(rewriter, &mut self.from_host, &mut self.to_target) => match stopped {
                Stopped::Write(_) => Over::Target(stopped),
                _ => Over::Host(stopped),
            },
            stopped = self.down.run(rewriter, &mut self.from_target, &mut self.to_host) => match stopped {
                Stopped::Write(_) => Over::Host(stopped),
                _ => Over::Target(stopped),
            },
            () = end.cancelled() => Over::Replaced,
            () = late => Over::LoginTimeout,
        }
    }

    /// Waits until nothing of an earlier session of this initiator can write any more.
    async fn enter(&self, initiator: &Initiator, end: &CancellationToken) -> Result<Line, Violation> {
        let Initiator { name, isid } = initiator;
        let entered = self.port.book.enter(name, *isid, end.clone(), self.port.drain_timeout).await;
        let line = entered.map_err(|()| Violation::Refused {
            status: LoginStatus::SERVICE_UNAVAILABLE,
            why: format!("the real target is still at work for the last session of {name}"),
        })?;
        tracing::info!(port = self.port.view.port, peer = %self.peer, initiator = name, "login");
        Ok(line)
    }
}

/// What ended a connection.
#[derive(Debug)]
enum Over {
    /// The host's side.
    Host(Stopped),
    /// The real target's side.
    Target(Stopped),
    /// The same initiator logged in again.
    Replaced,
    /// The login took too long.
    LoginTimeout,
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(stopped) => write!(f, "host: {stopped}"),
            Self::Target(stopped) => write!(f, "real target: {stopped}"),
            Self::Replaced => f.write_str("the same initiator logged in again"),
            Self::LoginTimeout => f.write_str("the login took too long"),
        }
    }
}

/// The target's half of a connection whose host is gone.
struct Drain {
    rewriter: Mutex<Rewriter>,
    down: Pump,
    from_target: OwnedReadHalf,
    to_target: PduWriter<OwnedWriteHalf>,
}

impl Drain {
    /// Keeps the connection until the target has answered all that it has the data for, and throws the answers
    /// away; then closes it, and only then gives up the line in the book.
    async fn run(mut self, line: Option<Line>, patience: Duration) {
        if let Some(line) = &line {
            line.draining();
        }
        let rewriter = &self.rewriter;
        let mut nowhere = PduWriter::new(tokio::io::sink());
        let to_target = &mut self.to_target;
        // A PDU that was cut off is of no use to the target: it is not completed. What is whole and still queued
        // counts as sent, so it goes out: a flush can have been cancelled by a successor.
        let answered = async {
            let _ = to_target.flush().await;
            while lock(rewriter).is_busy() {
                tokio::time::sleep(DRAIN_STEP).await;
            }
        };
        tokio::select! {
            _ = timeout(patience, answered) => {}
            _ = self.down.run(rewriter, &mut self.from_target, &mut nowhere) => {}
        }
        drop(self.to_target);
        drop(line);
    }
}

async fn connect(portal: SocketAddr) -> Result<TcpStream, String> {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(portal)).await;
    let connected =
        connected.map_err(|_| format!("the real target at {portal} did not answer within 3 s"))?;
    connected
        .and_then(|target| target.set_nodelay(true).map(|()| target))
        .map_err(|error| format!("cannot connect to the real target at {portal}: {error}"))
}

/// Says no in the protocol's own words.
async fn refuse(
    to_host: &mut PduWriter<OwnedWriteHalf>,
    request: &Bhs,
    status: LoginStatus,
) -> std::io::Result<()> {
    let Some(request) = request.view::<LoginRequest>() else { return Ok(()) };
    let mut response = LoginResponse::new();
    response.isid = request.isid;
    response.tsih = request.tsih;
    response.itt = request.itt;
    response.stat_sn = request.exp_stat_sn;
    response.exp_cmd_sn = request.cmd_sn;
    response.max_cmd_sn = request.cmd_sn;
    (response.status_class, response.status_detail) = (status.0, status.1);
    to_host.write(response.into_bhs(), &[]).await?;
    to_host.stream_mut().shutdown().await
}
