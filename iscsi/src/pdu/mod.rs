//! iSCSI PDUs: headers as typed views of their bytes, text keys, digests, and framing over a byte stream.
//!
//! | module | layer |
//! |---|---|
//! | [`lun`] | the 8-byte LUN field and its addressing formats |
//! | [`header`] | the 48-byte basic header segment, one view for each opcode |
//! | [`text`] | `key=value` pairs |
//! | [`stream`] | whole PDUs read from and written to a stream, digests included |

pub mod header;
pub mod lun;
pub mod stream;
pub mod text;

pub use header::{Bhs, Header, Opcode, RESERVED_TAG};
pub use lun::LunField;
pub use stream::{Digests, Limits, Pdu, PduError, PduReader, PduWriter};
