//! KJ1, the join protocol (docs/sync-protocol.md): a one-time grant or a node certificate becomes a session.
//!
//! - [`Acceptor`]: the parent's side: grants, their delivery, and handshakes under way.
//! - [`ChildJoin`]: the child's side of one handshake.
//! - [`GrantFile`]: the text by which a grant reaches the child.
//! - [`proof`]: transcript, proofs and keys, the same on both sides.
//!
//! TLS, its exporter and certificates belong to the shells; so does the back-off between attempts (the engine's `Attach` output).

mod acceptor;
mod child;
mod grant_file;
pub mod proof;

use std::fmt;
use std::hint::black_box;

use uuid::Uuid;

pub use acceptor::{
    Acceptor, Delivery, HANDSHAKE_MS, MAX_DELIVERIES, MAX_HANDSHAKES, Proven, RETRY_MS, Refusal,
};
pub use child::{ChildJoin, Identity, JoinError};
pub use grant_file::{GrantFile, GrantFileError, MAX_FILE_BYTES};

use super::SessionId;
use crate::state::{Change, NodeId, NodeName};

/// Protocol versions that this engine speaks, best first.
pub const VERSIONS: &[u32] = &[1];

/// Identity of a boot grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct GrantId(pub Uuid);

/// A 256-bit secret; never printed, compared in constant time, wiped when dropped.
#[derive(Clone)]
pub struct Secret(pub [u8; 32]);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |all, (a, b)| all | (a ^ b));
        black_box(difference) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0 = [0; 32];
        // Without a reader the compiler may leave the zeros out.
        black_box(&self.0);
    }
}

/// The right of one node to join once, during one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Identity.
    pub id: GrantId,
    /// Whose.
    pub node: NodeId,
    /// Which boot.
    pub boot: Uuid,
    /// S of KJ1; `None` once consumed.
    pub secret: Option<Secret>,
    /// Wall clock, milliseconds since the Unix epoch, after which it is void.
    pub expires_ms: u64,
    /// Times it was delivered.
    pub deliveries: u32,
    /// SHA-256 of the public key that used it, and when (wall clock).
    pub consumed_by: Option<([u8; 32], u64)>,
}

/// What the pxe module wants made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// For which node.
    pub node: NodeId,
    /// Identity, random.
    pub id: GrantId,
    /// Identity of the boot, random.
    pub boot: Uuid,
    /// 32 random bytes.
    pub secret: Secret,
    /// Wall clock, milliseconds since the Unix epoch, after which it is void.
    pub expires_ms: u64,
}

/// What TLS says about a child's connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Channel {
    /// TLS exporter, label "kraken-join-v1", no context, 32 bytes (RFC 8446, 7.5). Session keys grow from it: it is never printed.
    pub exporter: [u8; 32],
    /// The node of the client certificate, if the connection has a valid one.
    pub certified: Option<NodeId>,
}

/// `JoinHello` of the schema, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloMessage {
    /// Who it says it is.
    pub node: NodeId,
    /// `None`: a re-join by certificate.
    pub grant: Option<GrantId>,
    /// Which boot.
    pub boot: Uuid,
    /// Versions it speaks.
    pub versions: Vec<u32>,
    /// Version of the agent, for people.
    pub agent_version: String,
    /// DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// 32 random bytes.
    pub nonce: [u8; 32],
    /// Newest Cfg version it holds.
    pub cfg_version: u64,
}

/// `JoinChallenge` of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeMessage {
    /// 32 random bytes.
    pub nonce: [u8; 32],
    /// Wall clock of the head, milliseconds since the Unix epoch.
    pub head_time_ms: u64,
    /// Chosen version.
    pub version: u32,
}

/// `JoinProof` of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofMessage {
    /// HMAC-SHA256(Kj, "c" | transcript | exporter); empty on a re-join.
    pub mac: Vec<u8>,
}

/// What the parent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// Prove it.
    Challenge {
        /// 32 random bytes.
        nonce: [u8; 32],
        /// Wall clock of the head.
        head_time_ms: u64,
        /// Chosen version.
        version: u32,
    },
    /// Welcome. The shell issues a certificate for `public_key`, opens a session with `keys`, and sends the rest.
    Accept(Box<Accepted>),
    /// No.
    Refuse {
        /// Why.
        reason: RefuseReason,
        /// For the console: what to do next.
        text: String,
        /// Try again after this many milliseconds; 0: do not.
        retry_after_ms: u32,
    },
}

/// `JoinRefused.Reason` of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// No such node.
    UnknownNode,
    /// The grant is void or unknown.
    GrantExpired,
    /// Another key used the grant.
    GrantUsed,
    /// The proof is wrong.
    BadProof,
    /// No common version.
    Version,
    /// The certificate is missing, expired or another node's.
    Certificate,
    /// Too many joins at once.
    Busy,
}

/// A join that succeeded, on the parent's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who joined.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The new session.
    pub session: SessionId,
    /// Its keys.
    pub keys: SessionKeys,
    /// HMAC-SHA256(Kj, "s" | transcript | exporter); empty on a re-join.
    pub mac: Vec<u8>,
    /// To be named by the certificate.
    pub public_key: Vec<u8>,
    /// The parent.
    pub parent: NodeId,
    /// The head's epoch.
    pub epoch: u64,
    /// The node's Cfg and its version.
    pub cfg: (u64, Vec<Change>),
    /// The cluster's signature over that Cfg.
    pub cfg_signature: Vec<u8>,
    /// What the parent knows of the node, to seed the child's Dsc.
    pub dsc: Vec<Change>,
    /// The declared mutations.
    pub mutations: crate::mutation::MutationSet,
}

/// One key a direction (ChaCha20-Poly1305).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKeys {
    /// Child to parent.
    pub up: Secret,
    /// Parent to child.
    pub down: Secret,
}

/// A join that succeeded, on the child's side; all proofs are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The session.
    pub session: SessionId,
    /// The connection that carries its stream.
    pub conn: crate::event::ConnId,
    /// The parent.
    pub parent: NodeId,
    /// Our name.
    pub name: NodeName,
    /// The head's epoch.
    pub epoch: u64,
    /// Our Cfg and its version.
    pub cfg: (u64, Vec<Change>),
    /// The cluster's signature over that Cfg.
    pub cfg_signature: Vec<u8>,
    /// What the parent knows of us.
    pub dsc: Vec<Change>,
    /// The declared mutations.
    pub mutations: crate::mutation::MutationSet,
    /// Timers.
    pub sync: super::SyncConfig,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("certified", &self.certified)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownNode => "no such node",
            Self::GrantExpired => "the grant is void",
            Self::GrantUsed => "the grant was used by another key",
            Self::BadProof => "the proof is wrong",
            Self::Version => "no common protocol version",
            Self::Certificate => "the certificate does not prove the node",
            Self::Busy => "too many joins at once",
        })
    }
}

#[cfg(test)]
mod tests;
