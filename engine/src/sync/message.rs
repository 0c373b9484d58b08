//! What neighbors say to each other inside a session. The wire form is `proto/kraken/v1/sync.proto`.

use crate::state::Change;

/// Ed25519 signature of the cluster over a Cfg; empty for Dsc.
pub type Signature = Vec<u8>;

/// One message of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Liveness, and where both streams stand.
    Hello(Hello),
    /// A change of the sender's values.
    Delta(Delta),
    /// All of the sender's values.
    Snapshot(Snapshot),
    /// The sender has a gap: send a snapshot.
    SnapshotRequest {
        /// Version of the receiver's stream that the sender holds.
        have: u64,
    },
}

/// "I live, this is where my stream stands, and this is what I have of yours."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the sender's stream.
    pub version: u64,
    /// Short digest of the sender's values at that version.
    pub digest: u64,
    /// Version of the receiver's stream that the sender has applied.
    pub have: u64,
    /// The sender counts the receiver as suspect and wants an answer at once.
    pub probe: bool,
}

/// A change; applies to `base` and to every version between it and `version`, since it holds last values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Version before.
    pub base: u64,
    /// Version after.
    pub version: u64,
    /// What changed.
    pub changes: Vec<Change>,
    /// Short digest of all values after it.
    pub digest: u64,
    /// Cfg only.
    pub signature: Signature,
    /// As in [`Hello`].
    pub have: u64,
}

/// All values at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Their version.
    pub version: u64,
    /// All of them.
    pub values: Vec<Change>,
    /// Short digest of them.
    pub digest: u64,
    /// Cfg only.
    pub signature: Signature,
    /// As in [`Hello`].
    pub have: u64,
}
