//! PDUs over a byte stream: whatever is written is read, however the stream is cut, and what is broken is named.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use lungate_iscsi::login::initiator::{Identity, login};
use lungate_iscsi::login::params::Offer;
use lungate_iscsi::login::target::accept;
use lungate_iscsi::login::{LoginError, LoginStatus};
use lungate_iscsi::pdu::header::BHS_LENGTH;
use lungate_iscsi::pdu::{Bhs, Digests, Opcode, PduError, PduReader, PduWriter};
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

/// A stream that hands out its bytes in pieces of given sizes.
struct Cut {
    bytes: Bytes,
    sizes: Vec<usize>,
    at: usize,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let size = self.sizes.get(self.at % self.sizes.len().max(1)).copied().unwrap_or(usize::MAX).max(1);
        self.at += 1;
        let size = size.min(self.bytes.len()).min(buf.remaining());
        buf.put_slice(&self.bytes.split_to(size));
        Poll::Ready(Ok(()))
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The bytes of PDUs as they are sent, data in the pieces given.
fn sent(pdus: &[(Bhs, Vec<Vec<u8>>)], digests: Digests) -> Vec<u8> {
    wait(async {
        let mut writer = PduWriter::new(Vec::new());
        writer.digests = digests;
        for (bhs, pieces) in pdus {
            let pieces: Vec<Bytes> = pieces.iter().cloned().map(Bytes::from).collect();
            writer.queue(*bhs, &pieces);
        }
        writer.flush().await.unwrap();
        std::mem::take(writer.stream_mut())
    })
}

fn reader(bytes: Vec<u8>, sizes: Vec<usize>, digests: Digests) -> PduReader<Cut> {
    let mut reader = PduReader::new(Cut { bytes: bytes.into(), sizes, at: 0 });
    reader.digests = digests;
    reader
}

fn header(opcode: u8, rest: [u8; 40]) -> Bhs {
    let mut bhs = Bhs([0; BHS_LENGTH]);
    bhs.0[0] = opcode & 0x7f;
    bhs.0[8..].copy_from_slice(&rest);
    bhs
}

prop_compose! {
    fn pdu()(
        opcode: u8, rest in prop::array::uniform32(any::<u8>()), tail in prop::array::uniform8(any::<u8>()),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
    ) -> (Bhs, Vec<Vec<u8>>) {
        let mut all = [0; 40];
        all[..32].copy_from_slice(&rest);
        all[32..].copy_from_slice(&tail);
        (header(opcode, all), pieces)
    }
}

prop_compose! {
    fn digests()(header: bool, data: bool) -> Digests { Digests { header, data } }
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        pdus in prop::collection::vec(pdu(), 1..6), digests in digests(), sizes in prop::collection::vec(1_usize..90, 1..8),
    ) {
        let mut reader = reader(sent(&pdus, digests), sizes, digests);
        wait(async {
            for (bhs, pieces) in &pdus {
                let read = reader.read().await.unwrap().unwrap();
                prop_assert_eq!(&read.data[..], &pieces.concat()[..]);
                prop_assert_eq!(&read.bhs.0[8..], &bhs.0[8..]);
                prop_assert_eq!(read.bhs.opcode(), bhs.opcode());
            }
            prop_assert!(reader.read().await.unwrap().is_none());
            Ok(())
        })?;
    }

    #[test]
    fn any_bytes_end_in_pdus_or_in_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400), digests in digests()) {
        let mut reader = reader(bytes, vec![7], digests);
        wait(async { while let Ok(Some(_)) = reader.read().await {} });
    }

    #[test]
    fn both_roles_agree_on_a_login(
        header: bool, data: bool, initial_r2t: bool, immediate_data: bool, max_recv_segment in 512_u32..100_000,
        max_burst in 512_u32..1 << 20, first_burst in 512_u32..1 << 20,
    ) {
        let offer = Offer {
            digests: Digests { header, data }, max_recv_segment, max_burst, first_burst, initial_r2t, immediate_data,
            ..Offer::default()
        };
        let (one, other) = exchange("iqn.t", &offer, |_| Ok(1));
        let (one, other) = (one.unwrap(), other.unwrap());
        prop_assert_eq!(one.params.digests, other.params.digests);
        prop_assert_eq!(one.params.digests, Digests { header, data });
        prop_assert_eq!(one.params.max_burst, other.params.max_burst);
        prop_assert_eq!(one.params.first_burst, other.params.first_burst);
        prop_assert_eq!((one.cmd_sn, one.exp_stat_sn), (other.exp_cmd_sn, other.stat_sn));
    }
}

type Logins = (
    Result<lungate_iscsi::login::initiator::LoggedIn, LoginError>,
    Result<lungate_iscsi::login::target::Accepted, LoginError>,
);

/// A login between the two roles, over a stream in memory.
fn exchange(
    target: &str,
    offer: &Offer,
    admit: impl FnOnce(&lungate_iscsi::login::target::Peer) -> Result<u16, LoginStatus>,
) -> Logins {
    wait(async {
        let (one, other) = tokio::io::duplex(1 << 16);
        let (one, other) = (tokio::io::split(one), tokio::io::split(other));
        let identity = Identity {
            initiator_name: "iqn.i".to_owned(),
            target_name: Some(target.to_owned()),
            isid: [0x80, 1, 2, 3, 4, 5],
        };
        let (mut from, mut to) = (PduReader::new(one.0), PduWriter::new(one.1));
        let initiator = login(&mut from, &mut to, &identity, offer);
        let (mut their_from, mut their_to) = (PduReader::new(other.0), PduWriter::new(other.1));
        let theirs = Offer::default();
        let target = accept(&mut their_from, &mut their_to, &theirs, 32, admit);
        tokio::join!(initiator, target)
    })
}

#[test]
fn a_refused_login_says_why_on_both_sides() {
    let refuse = |_: &lungate_iscsi::login::target::Peer| Err(LoginStatus::NOT_FOUND);
    let (initiator, target) = exchange("iqn.nobody", &Offer::default(), refuse);
    let status = |error| match error {
        LoginError::Refused(status) => Some(status),
        _ => None,
    };
    assert_eq!(initiator.err().and_then(status), Some(LoginStatus::NOT_FOUND));
    assert_eq!(target.err().and_then(status), Some(LoginStatus::NOT_FOUND));
}

#[test]
fn broken_pdus_are_named() {
    let both = Digests { header: true, data: true };
    let whole = sent(&[(Bhs::of(Opcode::NopOut), vec![b"hello".to_vec()])], both);
    for length in 1..whole.len() {
        let error = wait(reader(whole[..length].to_vec(), vec![], both).read()).unwrap_err();
        assert!(
            matches!(error, PduError::Truncated { got, .. } if got == length),
            "cut at {length}: {error}"
        );
    }
    for at in 0..whole.len() {
        // The length fields decide how much is read; they are covered by the header digest all the same.
        if (4..8).contains(&at) {
            continue;
        }
        let mut bent = whole.clone();
        bent[at] ^= 0x10;
        let error = wait(reader(bent, vec![], both).read()).unwrap_err();
        let is_named = match at {
            0..52 => matches!(error, PduError::HeaderDigest { .. }),
            _ => matches!(error, PduError::DataDigest { .. }),
        };
        assert!(is_named, "bent at {at}: {error}");
    }
    let mut large = Bhs::of(Opcode::NopOut);
    large.set_data_length(8193);
    let error = wait(reader(large.0.to_vec(), vec![], Digests::default()).read()).unwrap_err();
    assert!(matches!(error, PduError::Oversized { length: 8193, limit: 8192, .. }), "{error}");
}

#[test]
fn a_wrong_data_digest_costs_one_pdu_only() {
    let data = Digests { header: false, data: true };
    let pdu = (Bhs::of(Opcode::NopOut), vec![b"four".to_vec()]);
    let mut bytes = sent(&[pdu.clone(), pdu], data);
    bytes[BHS_LENGTH] ^= 1;
    let mut reader = reader(bytes, vec![], data);
    wait(async {
        assert!(matches!(reader.read().await, Err(PduError::DataDigest { .. })));
        assert_eq!(&reader.read().await.unwrap().unwrap().data[..], b"four");
    });
}
