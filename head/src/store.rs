//! What survives: the durable side of the tree (DESIGN 2, persistence promises P1-P9).
//!
//! The engine decides what is written and in which groups; the store makes one group durable at a time and says when. It lives on a
//! thread of its own, so a slow disk delays writers and nobody else. `Store` is the seam for a second backend.

mod codec;
mod history;
mod latency;
mod load;
mod log_check;
mod memory;
mod migrate;
mod open;
mod reserve;
mod sqlite;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use engine::engine::Trial;
use engine::event::{CommitError, Record, WriteKey};
use engine::memory::Memo;
use engine::state::{Frozen, Node, NodeId, Values};
use engine::sync::join::Grant;

pub(crate) use history::{Entry, History, Span};
pub(crate) use sqlite::Sqlite;
pub(crate) use worker::{StoreHealth, StoreWorker};

/// A durable tree with one writer.
pub(crate) trait Store: Send {
    /// Makes all records durable, or none. `own` ones, of which nothing is an operator's, may take room that is kept in reserve (P7).
    ///
    /// # Errors
    /// [`CommitError::DiskFull`] passes by itself; after [`CommitError::Failed`] every further commit fails (P6).
    fn commit(&mut self, records: &[Record], own: bool) -> Result<(), CommitError>;

    /// Tries whether an operator's write would work.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn probe(&mut self) -> Result<(), CommitError>;

    /// Whether the reserve is in use: the disk is full.
    fn is_on_reserve(&self) -> bool;

    /// Notes what is known of nodes, for after a restart. May be lost (P4).
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn note_last_known(
        &mut self,
        known: &[(NodeId, Values)],
        at_ms: u64,
    ) -> Result<(), CommitError>;

    /// Writes down what the engine wants to remember, each with the time at which it was told (milliseconds since the Unix epoch). May be lost.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn remember(&mut self, memos: &[(u64, Memo)]) -> Result<(), CommitError>;

    /// Forgets old history.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn prune(&mut self, keep: &Retention, now_ms: u64) -> Result<(), CommitError>;

    /// Whether it takes writes, and why not.
    fn failed(&self) -> Option<&str>;
}

/// How much history is kept: what breaks any of these goes, but never a revision that is on trial, nor the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Revisions.
    pub(crate) revisions: u64,
    /// Age.
    pub(crate) age: Duration,
    /// Bytes of all of them.
    pub(crate) bytes: u64,
}

impl Default for Retention {
    /// A year of a busy cluster; a write to 10,000 nodes takes a MiB or two.
    fn default() -> Self {
        Self {
            revisions: 10_000,
            age: Duration::from_secs(365 * 86_400),
            bytes: 256 << 20,
        }
    }
}

/// Everything that a head starts from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Nodes with Cfg and what was last known of them.
    pub(crate) nodes: Vec<Node>,
    /// Grants that are armed or were used lately.
    pub(crate) grants: Vec<Grant>,
    /// Writes on trial, by revision.
    pub(crate) trials: Vec<(u64, Trial)>,
    /// Keys of writes that may be repeated, oldest first, with their revisions.
    pub(crate) keys: Vec<(WriteKey, u64)>,
    /// What an earlier run wanted to remember.
    pub(crate) memos: Vec<Memo>,
    /// Last revision.
    pub(crate) revision: u64,
    /// Highest attempt of any mutation that was ever fired.
    pub(crate) last_attempt: u64,
    /// What is frozen beyond single nodes.
    pub(crate) frozen: Frozen,
    /// Fencing epoch: rises with every start, also over a restore of an old backup.
    pub(crate) epoch: u64,
    /// This start's number on this store.
    pub(crate) starts: u64,
    /// Identity of the head's own node, chosen at the first start.
    pub(crate) head: NodeId,
}

/// Why the store does not open. Each is a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The folder cannot be made or read.
    #[error("cannot use the state directory {}: {source}; create it, or set state_dir in the configuration", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else's folder.
    #[error("the state directory {} belongs to uid {owner}, but kraken-head runs as uid {me}: start it as its owner, or chown the folder", path.display())]
    WrongOwner {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Us.
        me: u32,
    },
    /// It can be read but not written.
    #[error("the state directory {} cannot be written: {source}; check its mode and that the file system is not mounted read-only", path.display())]
    ReadOnly {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Two heads on one folder.
    #[error("another kraken-head uses the state directory {}{}: stop it first, or give this one another state_dir", path.display(), .pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The other's process.
        pid: Option<String>,
    },
    /// Damage.
    #[error("the database {} is damaged: {what}; nothing was changed. Restore the newest good backup, or run `sqlite3 {} .recover` on a copy", path.display(), path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Written by a later release.
    #[error("the database {} has format {is}, this kraken-head knows up to {knows}: use the release that wrote it", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        is: i64,
        /// Ours.
        knows: i64,
    },
    /// Anything else.
    #[error("cannot open the database {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}
