//! Frames of a session (sync.proto).

use prost::Message;
use proto::v1::{self, frame::Kind};

use super::state::whole_from_proto;
use super::{
    ConvertError, Fault, MAX_MESSAGE_BYTES, Within, changes_from_proto, changes_to_proto, no_longer,
};
use crate::sync::message::{Delta, Frame, Hello, Signature, Snapshot};

/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// A frame as bytes: what is sealed in a datagram.
pub fn encode_frame(frame: &Frame) -> Vec<u8> {
    frame_to_proto(frame).encode_to_vec()
}

/// A frame out of bytes.
///
/// # Errors
/// Too long; no protobuf; a limit broken.
pub fn decode_frame(bytes: &[u8]) -> Result<Frame, ConvertError> {
    no_longer(MAX_MESSAGE_BYTES, bytes.len())?;
    let message = v1::Frame::decode(bytes).map_err(|error| Fault::Protobuf(error.to_string()))?;
    frame_from_proto(message)
}

/// A frame as a message.
pub fn frame_to_proto(frame: &Frame) -> v1::Frame {
    let kind = match frame {
        Frame::Hello(hello) => Kind::Hello(v1::Hello {
            version: hello.version,
            digest: hello.digest,
            have: hello.have,
            probe: hello.probe,
        }),
        Frame::Delta(delta) => Kind::Delta(v1::Delta {
            base: delta.base,
            version: delta.version,
            changes: changes_to_proto(&delta.changes),
            digest: delta.digest,
            signature: delta.signature.clone(),
            have: delta.have,
        }),
        Frame::Snapshot(snapshot) => Kind::Snapshot(snapshot_to_proto(snapshot)),
        Frame::SnapshotRequest { have } => {
            Kind::SnapshotRequest(v1::SnapshotRequest { have: *have })
        }
    };
    v1::Frame { kind: Some(kind) }
}

/// A frame out of a message.
///
/// # Errors
/// A kind that this version does not know; a limit broken.
pub fn frame_from_proto(frame: v1::Frame) -> Result<Frame, ConvertError> {
    Ok(match frame.kind.ok_or(Fault::Missing).within("kind")? {
        Kind::Hello(hello) => Frame::Hello(Hello {
            version: hello.version,
            digest: hello.digest,
            have: hello.have,
            probe: hello.probe,
        }),
        Kind::Delta(delta) => Frame::Delta(delta_from_proto(delta).within("delta")?),
        Kind::Snapshot(snapshot) => {
            Frame::Snapshot(snapshot_from_proto(snapshot).within("snapshot")?)
        }
        Kind::SnapshotRequest(request) => Frame::SnapshotRequest { have: request.have },
    })
}

fn delta_from_proto(delta: v1::Delta) -> Result<Delta, ConvertError> {
    if delta.version <= delta.base {
        return Err(Fault::Bounds {
            is: delta.version,
            least: delta.base.saturating_add(1),
            most: u64::MAX,
        })
        .within("version");
    }
    Ok(Delta {
        base: delta.base,
        version: delta.version,
        changes: changes_from_proto("changes", delta.changes)?,
        digest: delta.digest,
        signature: signature(delta.signature)?,
        have: delta.have,
    })
}

pub(super) fn snapshot_to_proto(snapshot: &Snapshot) -> v1::Snapshot {
    v1::Snapshot {
        version: snapshot.version,
        values: changes_to_proto(&snapshot.values),
        digest: snapshot.digest,
        signature: snapshot.signature.clone(),
        have: snapshot.have,
    }
}

pub(super) fn snapshot_from_proto(snapshot: v1::Snapshot) -> Result<Snapshot, ConvertError> {
    Ok(Snapshot {
        version: snapshot.version,
        values: whole_from_proto("values", snapshot.values)?.to_changes(),
        digest: snapshot.digest,
        signature: signature(snapshot.signature)?,
        have: snapshot.have,
    })
}

/// None, or a whole one.
fn signature(signature: Signature) -> Result<Signature, ConvertError> {
    if !signature.is_empty() && signature.len() != SIGNATURE_BYTES {
        return Err(Fault::Length {
            want: SIGNATURE_BYTES,
            is: signature.len(),
        })
        .within("signature");
    }
    Ok(signature)
}
