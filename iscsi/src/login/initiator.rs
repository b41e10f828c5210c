//! The initiator's side of a login.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::params::{Negotiation, Offer, Params};
use super::{CONTINUE, FULL_FEATURE, LoginError, LoginStatus, MAX_EXCHANGES, OPERATIONAL, TRANSIT, flags};
use crate::pdu::header::{LoginRequest, LoginResponse};
use crate::pdu::text::{Keys, MAX_TEXT, TextError};
use crate::pdu::{PduReader, PduWriter};

/// Who logs in to what.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This initiator's iSCSI name.
    pub initiator_name: String,
    /// The target's; `None` for a discovery session.
    pub target_name: Option<String>,
    /// The initiator's part of the session identifier. The same one again means the same session, and the
    /// target ends what is left of the old one (RFC 7143, 6.3.5).
    pub isid: [u8; 6],
}

/// What a login brought.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The negotiated result.
    pub params: Params,
    /// The CmdSN of the first command.
    pub cmd_sn: u32,
    /// The StatSN expected next.
    pub exp_stat_sn: u32,
    /// The largest CmdSN that the target takes.
    pub max_cmd_sn: u32,
}

/// Logs in over a fresh connection, starting in the operational stage, so that it takes one round trip. The
/// digests and limits of reader and writer are set to the result.
pub async fn login<R, W>(
    reader: &mut PduReader<R>,
    writer: &mut PduWriter<W>,
    identity: &Identity,
    offer: &Offer,
) -> Result<LoggedIn, LoginError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut negotiation = Negotiation::new(offer.clone());
    let normal = identity.target_name.is_some();
    let mut keys = Keys::new();
    keys.push("InitiatorName", &identity.initiator_name);
    if let Some(name) = &identity.target_name {
        keys.push("TargetName", name);
    }
    keys.push("SessionType", if normal { "Normal" } else { "Discovery" });
    keys.extend(negotiation.open(normal));

    let mut text = Bytes::from(keys.to_bytes());
    let (mut exp_stat_sn, mut answers) = (0, Vec::new());
    for _ in 0..MAX_EXCHANGES {
        let mut request = LoginRequest::new();
        request.opcode |= 0x40;
        request.flags = flags(true, OPERATIONAL, FULL_FEATURE);
        request.isid = identity.isid;
        request.itt = 1.into();
        request.cmd_sn = 1.into();
        request.exp_stat_sn = exp_stat_sn.into();
        writer.write(request.into_bhs(), &[std::mem::take(&mut text)]).await?;

        let pdu = reader.read().await?.ok_or(LoginError::Closed)?;
        let response: &LoginResponse = pdu.bhs.view().ok_or_else(|| {
            LoginError::Protocol(format!("a login response was expected, {:?} came", pdu.bhs))
        })?;
        let status = LoginStatus(response.status_class, response.status_detail);
        if status != LoginStatus::SUCCESS {
            return Err(LoginError::Refused(status));
        }
        exp_stat_sn = response.stat_sn.get().wrapping_add(1);
        answers.extend_from_slice(&pdu.data);
        if answers.len() > MAX_TEXT {
            return Err(TextError::TooMuch.into());
        }
        if response.flags & CONTINUE != 0 {
            continue;
        }
        negotiation.settle(&Keys::parse(&std::mem::take(&mut answers))?)?;
        if response.flags & TRANSIT != 0 {
            let params = negotiation.finish();
            reader.digests = params.digests;
            writer.digests = params.digests;
            reader.limits.data_segment = params.max_recv_segment as usize;
            let (cmd_sn, max_cmd_sn) = (1, response.max_cmd_sn.get());
            return Ok(LoggedIn { params, cmd_sn, exp_stat_sn, max_cmd_sn });
        }
    }
    Err(LoginError::Protocol(format!("no end after {MAX_EXCHANGES} exchanges")))
}
