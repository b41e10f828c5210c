//! Moves one direction's bytes: headers are edited where they lie in the buffer, data passes as it comes. Memory
//! is bounded by the buffer, however long a transfer is, and back-pressure is TCP's own: nothing is read before
//! what was read has been sent.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use lungate_iscsi::pdu::header::BHS_LENGTH;
use lungate_iscsi::pdu::stream::{DIGEST_LENGTH, digest_of};
use lungate_iscsi::pdu::{Bhs, Digests, PduWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::rewrite::{Direction, Initiator, Need, Rewriter, Violation};

/// What is read at once: on a busy connection a system call then moves this much.
const BUFFER: usize = 256 * 1024;

/// Why a direction stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    /// The sender closed the connection, between two PDUs.
    #[error("closed")]
    Closed,
    /// The sender closed the connection inside a PDU.
    #[error("closed inside a PDU")]
    Truncated,
    /// Reading failed.
    #[error("reading failed: {0}")]
    Read(std::io::Error),
    /// Writing failed.
    #[error("writing failed: {0}")]
    Write(std::io::Error),
    /// What was sent must not pass.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The host's first login request is whole, and waits: running again lets it go on.
    #[error("{} asks to log in", .0.name)]
    Introduced(Initiator),
}

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Pump {
    direction: Direction,
    buffer: BytesMut,
    /// Bytes of the PDU at hand that still pass as they are.
    passing: usize,
    /// The task whose bytes those are.
    passing_for: u32,
    /// The host's first login request, while it waits.
    waiting: Option<Bytes>,
}

impl Pump {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, buffer: BytesMut::new(), passing: 0, passing_for: 0, waiting: None }
    }

    /// The task whose PDU was begun and not ended: its header has passed, the rest of its data has not.
    pub(crate) fn cut_off(&self) -> Option<u32> {
        (self.passing > 0).then_some(self.passing_for)
    }

    /// Waits for a first header, without taking it.
    pub(crate) async fn peek(&mut self, source: &mut (impl AsyncRead + Unpin)) -> Result<Bhs, Stopped> {
        while self.buffer.len() < BHS_LENGTH {
            self.fill(source).await?;
        }
        Ok(self.bhs())
    }

    /// Moves bytes until the sender stops or something must not pass. Cancelling it loses nothing: the rest
    /// stays in buffer and sink.
    pub(crate) async fn run(
        &mut self,
        rewriter: &Mutex<Rewriter>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut PduWriter<impl AsyncWrite + Unpin>,
    ) -> Stopped {
        if let Some(pdu) = self.waiting.take() {
            sink.queue_raw(pdu);
        }
        loop {
            if let Err(stopped) = self.pass(rewriter, sink) {
                return stopped;
            }
            if let Err(error) = sink.flush().await {
                return Stopped::Write(error);
            }
            if let Err(stopped) = self.fill(source).await {
                return stopped;
            }
        }
    }

    /// Passes all that is in the buffer and whole enough.
    fn pass(
        &mut self,
        rewriter: &Mutex<Rewriter>,
        sink: &mut PduWriter<impl AsyncWrite + Unpin>,
    ) -> Result<(), Stopped> {
        let mut rewriter = lock(rewriter);
        loop {
            match self.step(&mut rewriter, sink)? {
                Step::Starved => return Ok(()),
                Step::Passed => {}
                Step::Introduced(initiator, pdu) => {
                    self.waiting = Some(pdu);
                    return Err(Stopped::Introduced(initiator));
                }
            }
        }
    }

    async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin)) -> Result<(), Stopped> {
        if self.buffer.capacity() - self.buffer.len() < BUFFER / 2 {
            self.buffer.reserve(BUFFER);
        }
        match source.read_buf(&mut self.buffer).await {
            Ok(0) if self.buffer.is_empty() && self.passing == 0 => Err(Stopped::Closed),
            Ok(0) => Err(Stopped::Truncated),
            Ok(_) => Ok(()),
            Err(error) => Err(Stopped::Read(error)),
        }
    }

    /// Passes what it can without waiting: the rest of a data segment, or one edited PDU.
    fn step(
        &mut self,
        rewriter: &mut Rewriter,
        sink: &mut PduWriter<impl AsyncWrite + Unpin>,
    ) -> Result<Step, Violation> {
        if self.passing > 0 {
            let length = self.passing.min(self.buffer.len());
            sink.queue_raw(self.buffer.split_to(length).freeze());
            self.passing -= length;
            return Ok(if length > 0 { Step::Passed } else { Step::Starved });
        }
        if self.buffer.len() < BHS_LENGTH {
            return Ok(Step::Starved);
        }
        let digests = rewriter.digests();
        let bhs = self.bhs();
        let layout = Layout::of(&bhs, digests);
        let need = rewriter.need(self.direction, &bhs)?;
        let needed = if need == Need::Whole { layout.total() } else { layout.header };
        if self.buffer.len() < needed {
            return Ok(Step::Starved);
        }
        self.check(layout.header, digests.header, &bhs, "header")?;
        match need {
            Need::Header => {
                self.edit_in_place(rewriter, bhs, layout, digests)?;
                sink.queue_raw(self.buffer.split_to(layout.header).freeze());
                self.passing = layout.data;
                self.passing_for = bhs.itt();
                Ok(Step::Passed)
            }
            Need::Whole => {
                let pdu = self.buffer.split_to(layout.total());
                let (edited, initiator) = edit_whole(rewriter, self.direction, bhs, layout, digests, &pdu)?;
                Ok(match initiator {
                    Some(initiator) => Step::Introduced(initiator, edited),
                    None => {
                        sink.queue_raw(edited);
                        Step::Passed
                    }
                })
            }
        }
    }

    fn edit_in_place(
        &mut self,
        rewriter: &mut Rewriter,
        mut bhs: Bhs,
        layout: Layout,
        digests: Digests,
    ) -> Result<(), Violation> {
        rewriter.header(self.direction, &mut bhs)?;
        self.buffer[..BHS_LENGTH].copy_from_slice(&bhs.0);
        if digests.header {
            let end = layout.header - DIGEST_LENGTH;
            let digest = crc32c::crc32c(&self.buffer[..end]);
            self.buffer[end..layout.header].copy_from_slice(&digest.to_le_bytes());
        }
        Ok(())
    }

    fn check(&self, length: usize, in_use: bool, bhs: &Bhs, what: &str) -> Result<(), Violation> {
        if !in_use {
            return Ok(());
        }
        check_digest(&self.buffer[..length], bhs, what)
    }

    /// The header at the front of the buffer, which holds at least 48 bytes.
    fn bhs(&self) -> Bhs {
        let mut bhs = Bhs([0; BHS_LENGTH]);
        bhs.0.copy_from_slice(&self.buffer[..BHS_LENGTH]);
        bhs
    }
}

/// What a step did.
enum Step {
    /// It needs more bytes.
    Starved,
    /// Something was queued.
    Passed,
    /// The host said who it is; the edited PDU waits.
    Introduced(Initiator, Bytes),
}

/// The lengths of a PDU's parts on the wire, in bytes.
#[derive(Clone, Copy)]
struct Layout {
    /// Header segments and their digest.
    header: usize,
    /// Data segment, padding and digest.
    data: usize,
}

impl Layout {
    fn of(bhs: &Bhs, digests: Digests) -> Self {
        let header_digest = if digests.header { DIGEST_LENGTH } else { 0 };
        let padded = bhs.data_length().next_multiple_of(4);
        let data_digest = if digests.data && padded > 0 { DIGEST_LENGTH } else { 0 };
        Self { header: BHS_LENGTH + bhs.ahs_length() + header_digest, data: padded + data_digest }
    }

    fn total(self) -> usize {
        self.header + self.data
    }
}

/// Edits a PDU that is there whole; its data is checked and its digests are made anew.
fn edit_whole(
    rewriter: &mut Rewriter,
    direction: Direction,
    mut bhs: Bhs,
    layout: Layout,
    digests: Digests,
    pdu: &[u8],
) -> Result<(Bytes, Option<Initiator>), Violation> {
    let data = &pdu[layout.header..];
    if digests.data && !data.is_empty() {
        check_digest(data, &bhs, "data")?;
    }
    let length = bhs.data_length();
    let ahs = &pdu[BHS_LENGTH..BHS_LENGTH + bhs.ahs_length()];
    let (data, initiator) = rewriter.whole(direction, &mut bhs, &data[..length])?;
    bhs.set_data_length(data.len());

    let mut edited = BytesMut::with_capacity(layout.header + data.len() + 2 * DIGEST_LENGTH);
    edited.extend_from_slice(&bhs.0);
    edited.extend_from_slice(ahs);
    if digests.header {
        let digest = crc32c::crc32c(&edited);
        edited.extend_from_slice(&digest.to_le_bytes());
    }
    let start = edited.len();
    edited.extend_from_slice(&data);
    edited.resize(start + data.len().next_multiple_of(4), 0);
    if digests.data && !data.is_empty() {
        let digest = crc32c::crc32c(&edited[start..]);
        edited.extend_from_slice(&digest.to_le_bytes());
    }
    Ok((edited.freeze(), initiator))
}

fn check_digest(bytes: &[u8], bhs: &Bhs, what: &str) -> Result<(), Violation> {
    let (got, computed) = digest_of(bytes);
    if got == computed {
        return Ok(());
    }
    Err(Violation::Protocol(format!("{bhs:?}: {what} digest {got:#010x}, computed {computed:#010x}")))
}

pub(crate) fn lock(rewriter: &Mutex<Rewriter>) -> MutexGuard<'_, Rewriter> {
    // Held only between awaits, by code that does not panic; a poisoned state is still a whole one.
    rewriter.lock().unwrap_or_else(PoisonError::into_inner)
}
