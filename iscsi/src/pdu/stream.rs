//! Whole PDUs over a byte stream: framing, padding and digests (RFC 7143, 11.1 and 13.1).

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::header::{BHS_LENGTH, Bhs};

/// The bytes of one digest.
pub const DIGEST_LENGTH: usize = 4;
/// How much is asked of the stream at once: some commands, or a good part of a data segment.
const READ_AHEAD: usize = 64 * 1024;
/// How many pieces go out with one system call; IOV_MAX is 1024, more than 64 brought nothing.
const PIECES_PER_WRITE: usize = 64;

/// A PDU as it was read. Padding and digests are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pdu {
    /// The basic header segment.
    pub bhs: Bhs,
    /// The additional header segments, as they stand.
    pub ahs: Bytes,
    /// The data segment.
    pub data: Bytes,
}

/// Which digests (CRC32C) are in use; both end with the login phase's "None" at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// A digest follows the header segments.
    pub header: bool,
    /// A digest follows a data segment.
    pub data: bool,
}

/// What a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest data segment in bytes: the MaxRecvDataSegmentLength that was declared to the peer.
    pub data_segment: usize,
}

impl Default for Limits {
    /// What holds before anything is declared (RFC 7143, 13.12).
    fn default() -> Self {
        Self { data_segment: 8192 }
    }
}

/// Why no PDU could be read. The stream is of no use after any of them but a data digest error.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The stream ended inside a PDU.
    #[error("the connection ended after {got} of {needed} bytes of a PDU")]
    Truncated {
        /// The bytes that came.
        got: usize,
        /// The bytes that the PDU has, as far as is known.
        needed: usize,
    },
    /// A data segment above the limit.
    #[error("{bhs:?}: a data segment of {length} bytes; at most {limit} were declared")]
    Oversized {
        /// The header that said so.
        bhs: Bhs,
        /// What it said, in bytes.
        length: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// The header digest is wrong.
    #[error("{bhs:?}: header digest {got:#010x}, computed {computed:#010x}")]
    HeaderDigest {
        /// The header, which cannot be trusted.
        bhs: Bhs,
        /// The digest that came.
        got: u32,
        /// The digest of what came.
        computed: u32,
    },
    /// The data digest is wrong; the next PDU can be read.
    #[error("{bhs:?}: data digest {got:#010x}, computed {computed:#010x}")]
    DataDigest {
        /// The header, which is good.
        bhs: Bhs,
        /// The digest that came.
        got: u32,
        /// The digest of what came.
        computed: u32,
    },
}

/// Reads PDUs. Data segments are slices of the buffer that the stream was read into, never copied again.
#[derive(Debug)]
pub struct PduReader<R> {
    stream: R,
    buffer: BytesMut,
    /// Which digests the peer sends.
    pub digests: Digests,
    /// What the peer may send.
    pub limits: Limits,
}

impl<R: AsyncRead + Unpin> PduReader<R> {
    /// A reader without digests and with the limits of a new connection.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new(), digests: Digests::default(), limits: Limits::default() }
    }

    /// The next PDU; `None` where the stream ends between two of them. Cancelling it loses nothing: what was
    /// read stays in the buffer.
    pub async fn read(&mut self) -> Result<Option<Pdu>, PduError> {
        if !self.fill(BHS_LENGTH).await? {
            return Ok(None);
        }
        let mut bhs = Bhs([0; BHS_LENGTH]);
        bhs.0.copy_from_slice(&self.buffer[..BHS_LENGTH]);
        let header_length = BHS_LENGTH + bhs.ahs_length();
        let header_digest = if self.digests.header { DIGEST_LENGTH } else { 0 };
        self.fill(header_length + header_digest).await?;
        if self.digests.header {
            let (got, computed) = digest_of(&self.buffer[..header_length + DIGEST_LENGTH]);
            if got != computed {
                return Err(PduError::HeaderDigest { bhs, got, computed });
            }
        }
        let (length, limit) = (bhs.data_length(), self.limits.data_segment);
        if length > limit {
            return Err(PduError::Oversized { bhs, length, limit });
        }
        let padded = length.next_multiple_of(4);
        let data_digest = if self.digests.data && length > 0 { DIGEST_LENGTH } else { 0 };
        self.fill(header_length + header_digest + padded + data_digest).await?;

        self.buffer.advance(BHS_LENGTH);
        let ahs = self.buffer.split_to(bhs.ahs_length()).freeze();
        self.buffer.advance(header_digest);
        let mut data = self.buffer.split_to(padded + data_digest).freeze();
        if data_digest > 0 {
            let (got, computed) = digest_of(&data);
            if got != computed {
                return Err(PduError::DataDigest { bhs, got, computed });
            }
        }
        data.truncate(length);
        Ok(Some(Pdu { bhs, ahs, data }))
    }

    /// Reads until `needed` bytes are there; false where the stream ended before the first.
    async fn fill(&mut self, needed: usize) -> Result<bool, PduError> {
        while self.buffer.len() < needed {
            self.buffer.reserve((needed - self.buffer.len()).max(READ_AHEAD));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.len() {
                    0 => Ok(false),
                    got => Err(PduError::Truncated { got, needed }),
                };
            }
        }
        Ok(true)
    }
}

/// Writes PDUs. What is queued goes out with [`PduWriter::flush`], in pieces as they are: data is not copied.
#[derive(Debug)]
pub struct PduWriter<W> {
    stream: W,
    queue: VecDeque<Bytes>,
    /// Which digests the peer wants.
    pub digests: Digests,
}

impl<W: AsyncWrite + Unpin> PduWriter<W> {
    /// A writer without digests.
    pub fn new(stream: W) -> Self {
        Self { stream, queue: VecDeque::new(), digests: Digests::default() }
    }

    /// Queues a PDU without additional header segments. The length in the header is set to that of `data`,
    /// whose pieces together are below 2^24 bytes.
    pub fn queue(&mut self, mut bhs: Bhs, data: &[Bytes]) {
        let length: usize = data.iter().map(Bytes::len).sum();
        bhs.0[4] = 0;
        bhs.set_data_length(length);
        let mut head = BytesMut::with_capacity(BHS_LENGTH + DIGEST_LENGTH);
        head.extend_from_slice(&bhs.0);
        if self.digests.header {
            head.extend_from_slice(&crc32c::crc32c(&bhs.0).to_le_bytes());
        }
        self.queue.push_back(head.freeze());
        if length == 0 {
            return;
        }
        self.queue.extend(data.iter().filter(|piece| !piece.is_empty()).cloned());
        let padding = &[0_u8; 3][..length.next_multiple_of(4) - length];
        let mut tail = BytesMut::with_capacity(padding.len() + DIGEST_LENGTH);
        tail.extend_from_slice(padding);
        if self.digests.data {
            let crc = data.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
            tail.extend_from_slice(&crc32c::crc32c_append(crc, padding).to_le_bytes());
        }
        if !tail.is_empty() {
            self.queue.push_back(tail.freeze());
        }
    }

    /// Queues bytes as they are: whole PDUs or parts of one.
    pub fn queue_raw(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue.push_back(bytes);
        }
    }

    /// Sends all that is queued. Where it is cancelled, the rest stays queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let count = self.queue.len().min(PIECES_PER_WRITE);
            for (slot, piece) in pieces.iter_mut().zip(&self.queue) {
                *slot = IoSlice::new(piece);
            }
            let mut written = self.stream.write_vectored(&pieces[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(front) = self.queue.front_mut() {
                if front.len() > written {
                    front.advance(written);
                    break;
                }
                written -= front.len();
                self.queue.pop_front();
            }
        }
        self.stream.flush().await
    }

    /// Whether something waits to be sent.
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues a PDU and sends all that is queued.
    pub async fn write(&mut self, bhs: Bhs, data: &[Bytes]) -> io::Result<()> {
        self.queue(bhs, data);
        self.flush().await
    }

    /// The stream, to shut it down.
    pub fn stream_mut(&mut self) -> &mut W {
        &mut self.stream
    }
}

/// The digest at the end of `bytes`, which are at least 4, and the one that the rest should have. CRC32C travels with its least
/// significant byte first (RFC 7143, 13.1).
pub fn digest_of(bytes: &[u8]) -> (u32, u32) {
    let (body, digest) = bytes.split_at(bytes.len() - DIGEST_LENGTH);
    let mut got = [0; DIGEST_LENGTH];
    got.copy_from_slice(digest);
    (u32::from_le_bytes(got), crc32c::crc32c(body))
}
