//! Sync between a node and its parent (DESIGN 4, docs/sync-protocol.md): Cfg flows down, Dsc flows up.
//!
//! - [`message`]: what the two sides say to each other once a session stands.
//! - [`neighbor`]: one live session, the same machine on both sides: deltas, snapshots, hellos, suspect and dead.
//! - [`join`]: KJ1, the parent's side (grants, proofs) and the child's side.
//! - [`signature`]: the cluster's signature over a Cfg.
//!
//! Sealing of datagrams is `wire::seal`; sockets and TLS belong to head and agent.

pub mod join;
pub mod message;
pub mod neighbor;
pub mod signature;

use std::fmt;
use std::time::Duration;

/// One session between a parent and a child, from join to death; chosen at random by the parent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Timers of sync (DESIGN 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncConfig {
    /// Time between hellos.
    pub hello: Duration,
    /// Silence after which a neighbor is suspect: three hellos missed.
    pub suspect: Duration,
    /// Time between probes of a suspect neighbor.
    pub probe: Duration,
    /// Silence after which a neighbor is dead.
    pub dead: Duration,
    /// Time after which an unacknowledged change is sent again.
    pub resend: Duration,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(2),
            suspect: Duration::from_secs(6),
            probe: Duration::from_millis(250),
            dead: Duration::from_secs(10),
            resend: Duration::from_millis(300),
        }
    }
}
