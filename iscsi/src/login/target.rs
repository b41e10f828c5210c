//! The target's side of a login.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::params::{Negotiation, Offer, Params};
use super::{
    CONTINUE, FULL_FEATURE, LoginError, LoginStatus, MAX_EXCHANGES, OPERATIONAL, SECURITY, TRANSIT, flags,
};
use crate::pdu::header::{Bhs, LoginRequest, LoginResponse};
use crate::pdu::text::{Keys, MAX_TEXT};
use crate::pdu::{PduReader, PduWriter};

/// Who logged in, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The initiator's iSCSI name.
    pub initiator_name: String,
    /// The target that it asked for; `None` in a discovery session.
    pub target_name: Option<String>,
    /// Its part of the session identifier.
    pub isid: [u8; 6],
    /// The session that it claims to continue; 0 for a new one.
    pub tsih: u16,
    /// The connection's number in the session.
    pub cid: u16,
}

/// What a login brought.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Who it is.
    pub peer: Peer,
    /// The negotiated result.
    pub params: Params,
    /// The CmdSN of the first command.
    pub exp_cmd_sn: u32,
    /// The StatSN of the next response.
    pub stat_sn: u32,
}

/// Answers a login over a fresh connection. `admit` is asked once, when the names are known: it gives the
/// session's TSIH, or the status to refuse with. The digests and limits of reader and writer are set to the
/// result. `window` is how many commands the initiator may have outstanding.
pub async fn accept<R, W>(
    reader: &mut PduReader<R>,
    writer: &mut PduWriter<W>,
    offer: &Offer,
    window: u32,
    admit: impl FnOnce(&Peer) -> Result<u16, LoginStatus>,
) -> Result<Accepted, LoginError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut exchange = Exchange { reader, writer, window, stat_sn: None };
    let (mut request, mut keys) = exchange.request().await?;
    let peer = match peer(&request, &keys) {
        Ok(peer) => peer,
        Err(status) => return exchange.refuse(&request, status).await,
    };
    let tsih = match admit(&peer) {
        Ok(tsih) => tsih,
        Err(status) => return exchange.refuse(&request, status).await,
    };
    let mut negotiation = Negotiation::new(offer.clone());
    let mut declared = false;
    for _ in 0..MAX_EXCHANGES {
        let (current, next) = (request.flags >> 2 & 3, request.flags & 3);
        let transit = request.flags & TRANSIT != 0;
        if !matches!(current, SECURITY | OPERATIONAL) || transit && !(next > current && next != 2) {
            return exchange.refuse(&request, LoginStatus::INITIATOR_ERROR).await;
        }
        let mut answers = match negotiation.answer(&keys) {
            Ok(answers) => answers,
            Err(error) => {
                exchange.refuse::<()>(&request, LoginStatus::INITIATOR_ERROR).await.ok();
                return Err(error.into());
            }
        };
        if let Some(methods) = keys.get("AuthMethod") {
            if !methods.split(',').any(|method| method == "None") {
                return exchange.refuse(&request, LoginStatus::AUTHENTICATION_FAILURE).await;
            }
            answers.push("AuthMethod", "None");
        }
        if !declared {
            if peer.target_name.is_some() {
                answers.push("TargetPortalGroupTag", "1");
            }
            declared = true;
        }
        if current == OPERATIONAL && keys.get("MaxRecvDataSegmentLength").is_some() {
            answers.push("MaxRecvDataSegmentLength", offer.max_recv_segment.to_string());
        }
        let done = transit && next == FULL_FEATURE;
        exchange
            .respond(&request, flags(transit, current, next), if done { tsih } else { 0 }, &answers)
            .await?;
        if done {
            let params = negotiation.finish();
            exchange.reader.digests = params.digests;
            exchange.writer.digests = params.digests;
            exchange.reader.limits.data_segment = params.max_recv_segment as usize;
            let stat_sn = exchange.stat_sn.unwrap_or(0);
            return Ok(Accepted { peer, params, exp_cmd_sn: request.cmd_sn.get(), stat_sn });
        }
        let before = request;
        (request, keys) = exchange.request().await?;
        if request.isid != before.isid || request.itt.get() != before.itt.get() {
            return exchange.refuse(&request, LoginStatus::INITIATOR_ERROR).await;
        }
    }
    exchange.refuse(&request, LoginStatus::INITIATOR_ERROR).await
}

/// The names of the first request.
fn peer(request: &LoginRequest, keys: &Keys) -> Result<Peer, LoginStatus> {
    if request.version_min > 0 {
        return Err(LoginStatus::UNSUPPORTED_VERSION);
    }
    let name = |key| keys.get(key).filter(|name| !name.is_empty()).map(str::to_owned);
    let initiator_name = name("InitiatorName").ok_or(LoginStatus::MISSING_PARAMETER)?;
    let target_name = match keys.get("SessionType") {
        Some("Discovery") => None,
        Some("Normal") | None => Some(name("TargetName").ok_or(LoginStatus::MISSING_PARAMETER)?),
        Some(_) => return Err(LoginStatus::SESSION_TYPE_UNSUPPORTED),
    };
    let (isid, tsih, cid) = (request.isid, request.tsih.get(), request.cid.get());
    Ok(Peer { initiator_name, target_name, isid, tsih, cid })
}

struct Exchange<'a, R, W> {
    reader: &'a mut PduReader<R>,
    writer: &'a mut PduWriter<W>,
    window: u32,
    stat_sn: Option<u32>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Exchange<'_, R, W> {
    /// One whole request: its last header and the text of all its PDUs.
    async fn request(&mut self) -> Result<(LoginRequest, Keys), LoginError> {
        let mut text = Vec::new();
        for _ in 0..MAX_EXCHANGES {
            let pdu = self.reader.read().await?.ok_or(LoginError::Closed)?;
            let Some(request) = pdu.bhs.view::<LoginRequest>().copied() else {
                let what = format!("a login request was expected, {:?} came", pdu.bhs);
                return Err(LoginError::Protocol(what));
            };
            // The first StatSN is the initiator's own wish (RFC 7143, 11.12.8 gives it meaning only later).
            self.stat_sn.get_or_insert(request.exp_stat_sn.get());
            text.extend_from_slice(&pdu.data);
            if text.len() > MAX_TEXT {
                return self.refuse(&request, LoginStatus::INITIATOR_ERROR).await;
            }
            if request.flags & CONTINUE == 0 {
                return match Keys::parse(&text) {
                    Ok(keys) => Ok((request, keys)),
                    Err(error) => {
                        self.refuse::<()>(&request, LoginStatus::INITIATOR_ERROR).await.ok();
                        Err(error.into())
                    }
                };
            }
            self.respond(&request, request.flags >> 2 << 2 & 0x0c, 0, &Keys::new()).await?;
        }
        Err(LoginError::Protocol("a login request without end".to_owned()))
    }

    async fn respond(
        &mut self,
        request: &LoginRequest,
        flags: u8,
        tsih: u16,
        keys: &Keys,
    ) -> Result<(), LoginError> {
        let mut response = self.response(request);
        response.flags = flags;
        if tsih != 0 {
            response.tsih = tsih.into();
        }
        // A response without the T bit may be long; one PDU of 8192 bytes holds every answer there is.
        Ok(self.writer.write(response.into_bhs(), &[Bytes::from(keys.to_bytes())]).await?)
    }

    /// Says no, and gives that as the error.
    async fn refuse<T>(&mut self, request: &LoginRequest, status: LoginStatus) -> Result<T, LoginError> {
        let mut response = self.response(request);
        (response.status_class, response.status_detail) = (status.0, status.1);
        self.writer.write(response.into_bhs(), &[]).await?;
        Err(LoginError::Refused(status))
    }

    fn response(&mut self, request: &LoginRequest) -> LoginResponse {
        let mut response = LoginResponse::from_bhs(Bhs::of(crate::pdu::Opcode::LoginResponse));
        response.isid = request.isid;
        response.tsih = request.tsih;
        response.itt = request.itt;
        let stat_sn = self.stat_sn.unwrap_or(0);
        self.stat_sn = Some(stat_sn.wrapping_add(1));
        response.stat_sn = stat_sn.into();
        response.exp_cmd_sn = request.cmd_sn;
        response.max_cmd_sn = request.cmd_sn.get().wrapping_add(self.window).wrapping_sub(1).into();
        response
    }
}
