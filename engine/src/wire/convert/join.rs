//! The messages of KJ1 (sync.proto).

use std::time::Duration;

use proto::v1::{self, join_refused::Reason};
use uuid::Uuid;

use super::frame::{snapshot_from_proto, snapshot_to_proto};
use super::mutation::{mutation_set_from_proto, mutation_set_to_proto};
use super::state::{changes_to_proto, whole_from_proto};
use super::{ConvertError, Fault, Within, at_most, bytes_exactly, no_longer, node_id_from_proto};
use crate::event::ConnId;
use crate::state::{Change, NodeId, NodeName};
use crate::sync::join::{
    Accepted, Attach, ChallengeMessage, GrantId, HelloMessage, ProofMessage, RefuseReason,
};
use crate::sync::message::Snapshot;
use crate::sync::{SessionId, SyncConfig};

/// Most versions that a node offers.
const MAX_VERSIONS: usize = 16;
/// Longest public key; an EC key has 91 bytes, an RSA key of 4,096 bits 550.
const MAX_KEY_BYTES: usize = 1024;
/// Longest certificate.
const MAX_CERTIFICATE_BYTES: usize = 16 << 10;
/// Longest text for people.
const MAX_TEXT_BYTES: usize = 1024;
/// Longest version of an agent.
const MAX_AGENT_VERSION_BYTES: usize = 64;
/// Bytes of an HMAC-SHA256.
const MAC_BYTES: usize = 32;
/// Bounds of the timers that a parent may ask for.
const MIN_HELLO_MS: u64 = 10;
const MAX_TIMER_MS: u64 = 3_600_000;

/// A join's first message, as a message of the schema.
pub fn join_hello_to_proto(hello: &HelloMessage) -> v1::JoinHello {
    v1::JoinHello {
        node_id: hello.node.as_bytes().to_vec(),
        grant_id: hello
            .grant
            .map_or_else(Vec::new, |grant| grant.0.as_bytes().to_vec()),
        boot_id: hello.boot.as_bytes().to_vec(),
        versions: hello.versions.clone(),
        agent_version: hello.agent_version.clone(),
        public_key: hello.public_key.clone(),
        nonce: hello.nonce.to_vec(),
        cfg_version: hello.cfg_version,
    }
}

/// A join's first message.
///
/// # Errors
/// Ids that are none; a limit broken.
pub fn join_hello_from_proto(hello: v1::JoinHello) -> Result<HelloMessage, ConvertError> {
    at_most(MAX_VERSIONS, hello.versions.len()).within("versions")?;
    no_longer(MAX_AGENT_VERSION_BYTES, hello.agent_version.len()).within("agent_version")?;
    no_longer(MAX_KEY_BYTES, hello.public_key.len()).within("public_key")?;
    let grant = match &hello.grant_id[..] {
        [] => None,
        bytes => Some(GrantId(uuid(bytes).within("grant_id")?)),
    };
    Ok(HelloMessage {
        node: node_id_from_proto(&hello.node_id).within("node_id")?,
        grant,
        boot: uuid(&hello.boot_id).within("boot_id")?,
        versions: hello.versions,
        agent_version: hello.agent_version,
        public_key: hello.public_key,
        nonce: bytes_exactly(&hello.nonce).within("nonce")?,
        cfg_version: hello.cfg_version,
    })
}

fn uuid(bytes: &[u8]) -> Result<Uuid, Fault> {
    let uuid = Uuid::from_bytes(bytes_exactly(bytes)?);
    if uuid.is_nil() {
        Err(Fault::NilId)
    } else {
        Ok(uuid)
    }
}

/// A challenge as a message.
pub fn challenge_to_proto(challenge: &ChallengeMessage) -> v1::JoinChallenge {
    v1::JoinChallenge {
        nonce: challenge.nonce.to_vec(),
        head_time_ms: challenge.head_time_ms,
        version: challenge.version,
    }
}

/// A challenge out of a message.
///
/// # Errors
/// A nonce of another length than 32 bytes.
pub fn challenge_from_proto(
    challenge: v1::JoinChallenge,
) -> Result<ChallengeMessage, ConvertError> {
    Ok(ChallengeMessage {
        nonce: bytes_exactly(&challenge.nonce).within("nonce")?,
        head_time_ms: challenge.head_time_ms,
        version: challenge.version,
    })
}

/// A proof as a message.
pub fn proof_to_proto(proof: &ProofMessage) -> v1::JoinProof {
    v1::JoinProof {
        mac: proof.mac.clone(),
    }
}

/// A proof out of a message.
///
/// # Errors
/// A MAC that is neither empty nor 32 bytes long.
pub fn proof_from_proto(proof: v1::JoinProof) -> Result<ProofMessage, ConvertError> {
    Ok(ProofMessage {
        mac: mac(proof.mac)?,
    })
}

fn mac(mac: Vec<u8>) -> Result<Vec<u8>, ConvertError> {
    if !mac.is_empty() && mac.len() != MAC_BYTES {
        return Err(Fault::Length {
            want: MAC_BYTES,
            is: mac.len(),
        })
        .within("mac");
    }
    Ok(mac)
}

/// A refusal as a message.
pub fn refused_to_proto(reason: RefuseReason, text: &str, retry_after_ms: u32) -> v1::JoinRefused {
    let reason = match reason {
        RefuseReason::UnknownNode => Reason::UnknownNode,
        RefuseReason::GrantExpired => Reason::GrantExpired,
        RefuseReason::GrantUsed => Reason::GrantUsed,
        RefuseReason::BadProof => Reason::BadProof,
        RefuseReason::Version => Reason::Version,
        RefuseReason::Certificate => Reason::Certificate,
        RefuseReason::Busy => Reason::Busy,
    };
    v1::JoinRefused {
        reason: reason.into(),
        text: text.to_owned(),
        retry_after_ms,
    }
}

/// Reason, text and time to wait of a refusal.
///
/// # Errors
/// A reason that this version does not know; a text that is too long.
pub fn refused_from_proto(
    refused: v1::JoinRefused,
) -> Result<(RefuseReason, String, u32), ConvertError> {
    let reason = match Reason::try_from(refused.reason) {
        Ok(Reason::UnknownNode) => Ok(RefuseReason::UnknownNode),
        Ok(Reason::GrantExpired) => Ok(RefuseReason::GrantExpired),
        Ok(Reason::GrantUsed) => Ok(RefuseReason::GrantUsed),
        Ok(Reason::BadProof) => Ok(RefuseReason::BadProof),
        Ok(Reason::Version) => Ok(RefuseReason::Version),
        Ok(Reason::Certificate) => Ok(RefuseReason::Certificate),
        Ok(Reason::Busy) => Ok(RefuseReason::Busy),
        Ok(Reason::Unspecified) => Err(Fault::Missing),
        Err(_) => Err(Fault::UnknownEnum(refused.reason)),
    };
    let reason = reason.within("reason")?;
    no_longer(MAX_TEXT_BYTES, refused.text.len()).within("text")?;
    Ok((reason, refused.text, refused.retry_after_ms))
}

/// What the parent's shell adds to an accepted join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// DER certificate for the child's key.
    pub certificate: Vec<u8>,
    /// "address:port" of the parent to attach to; empty: stay here.
    pub parent_address: String,
    /// Timers.
    pub sync: SyncConfig,
}

/// An accept, as the child reads it. Check `mac` first ([`ChildJoin::handle_accept`]); the engine checks the signature of `cfg`. Use nothing before.
///
/// [`ChildJoin::handle_accept`]: crate::sync::join::ChildJoin::handle_accept
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptMessage {
    /// The parent's proof.
    pub mac: Vec<u8>,
    /// DER certificate for our key.
    pub certificate: Vec<u8>,
    /// "address:port" of the parent to attach to; empty: stay here.
    pub parent_address: String,
    /// The session.
    pub session: SessionId,
    /// The head's epoch.
    pub epoch: u64,
    /// The parent.
    pub parent: NodeId,
    /// Timers.
    pub sync: SyncConfig,
    /// The declared mutations.
    pub mutations: crate::mutation::MutationSet,
    /// Our Cfg, signed.
    pub cfg: Snapshot,
    /// What the parent last knew of us.
    pub dsc: Vec<Change>,
    /// Our name.
    pub name: NodeName,
}

impl AcceptMessage {
    /// What the engine is told of it, once the proof is checked. `conn` carries the session's stream.
    pub fn into_attach(self, conn: ConnId) -> Attach {
        Attach {
            session: self.session,
            conn,
            parent: self.parent,
            name: self.name,
            epoch: self.epoch,
            cfg: (self.cfg.version, self.cfg.values),
            cfg_signature: self.cfg.signature,
            dsc: self.dsc,
            mutations: self.mutations,
            sync: self.sync,
        }
    }
}

/// An accept as a message.
pub fn accept_to_proto(accepted: &Accepted, issued: Issued) -> v1::JoinAccept {
    let (version, values) = &accepted.cfg;
    let values: crate::state::Values = values
        .iter()
        .filter_map(|change| Some((change.url.clone(), change.value.clone()?)))
        .collect();
    let cfg = Snapshot {
        version: *version,
        digest: values.digest().short(),
        values: values.to_changes(),
        signature: accepted.cfg_signature.clone(),
        have: 0,
    };
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    v1::JoinAccept {
        mac: accepted.mac.clone(),
        certificate: issued.certificate,
        parent: issued.parent_address,
        session_id: accepted.session.0,
        epoch: accepted.epoch,
        parent_id: accepted.parent.as_bytes().to_vec(),
        hello_ms: millis(issued.sync.hello),
        dead_ms: millis(issued.sync.dead),
        mutations: Some(mutation_set_to_proto(&accepted.mutations)),
        cfg: Some(v1::Frame {
            kind: Some(v1::frame::Kind::Snapshot(snapshot_to_proto(&cfg))),
        }),
        dsc: Some(v1::Values {
            values: changes_to_proto(&accepted.dsc),
        }),
        node_name: accepted.name.to_string(),
    }
}

/// An accept out of a message.
///
/// # Errors
/// A field is missing or breaks a limit; the Cfg is no snapshot.
pub fn accept_from_proto(accept: v1::JoinAccept) -> Result<AcceptMessage, ConvertError> {
    no_longer(MAX_CERTIFICATE_BYTES, accept.certificate.len()).within("certificate")?;
    no_longer(MAX_TEXT_BYTES, accept.parent.len()).within("parent")?;
    let hello_ms = bounded(accept.hello_ms, MIN_HELLO_MS).within("hello_ms")?;
    let dead_ms = bounded(accept.dead_ms, hello_ms).within("dead_ms")?;
    let Some(v1::frame::Kind::Snapshot(cfg)) = accept.cfg.and_then(|frame| frame.kind) else {
        return Err(Fault::Missing).within("snapshot").within("cfg");
    };
    Ok(AcceptMessage {
        mac: mac(accept.mac)?,
        certificate: accept.certificate,
        parent_address: accept.parent,
        session: SessionId(accept.session_id),
        epoch: accept.epoch,
        parent: node_id_from_proto(&accept.parent_id).within("parent_id")?,
        sync: SyncConfig {
            hello: Duration::from_millis(hello_ms),
            suspect: Duration::from_millis((hello_ms * 3).min(dead_ms)),
            dead: Duration::from_millis(dead_ms),
            ..SyncConfig::default()
        },
        mutations: mutation_set_from_proto(accept.mutations.unwrap_or_default())
            .within("mutations")?,
        cfg: snapshot_from_proto(cfg).within("cfg")?,
        dsc: whole_from_proto("values", accept.dsc.unwrap_or_default().values)
            .within("dsc")?
            .to_changes(),
        name: accept
            .node_name
            .parse()
            .map_err(Fault::Name)
            .within("node_name")?,
    })
}

fn bounded(ms: u32, least: u64) -> Result<u64, Fault> {
    let is = u64::from(ms);
    if (least..=MAX_TIMER_MS).contains(&is) {
        return Ok(is);
    }
    Err(Fault::Bounds {
        is,
        least,
        most: MAX_TIMER_MS,
    })
}
