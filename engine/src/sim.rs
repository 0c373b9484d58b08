//! A simulated world: one head, its agents, and everything between them that can go wrong, on one thread and from one seed.
//!
//! Real are the engines, the join, the sealed frames and their conversion. Simulated are time, links, the store's disk, machines with their BMC
//! and firmware, the modules' work, operators, and an attacker who records everything on the wire. Two phases (reliability 4.1): in the first
//! anything may fail, in the second everything is healed and all nodes have to get where their Cfg wants them. [`check`] looks at the
//! invariants after every event.
//!
//! A run is a function of its [`Options`]; a failure names its seed, and the same seed gives the same [`Summary::trace`].

mod attacker;
pub mod check;
mod cluster;
mod disk;
mod faults;
mod happening;
mod head;
mod machine;
mod modules;
mod net;
mod rng;
mod stream;
mod world;

use std::time::Duration;

pub use cluster::mutations;
pub use faults::FAULTS;
pub use world::World;

/// What world to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Everything by chance follows from it.
    pub seed: u64,
    /// Number of agents.
    pub nodes: usize,
    /// How long things may go wrong.
    pub chaos: Duration,
    /// No fault that justifies a power action: no plug pulled, no dead BMC, no operator. Then no power action may be seen (I10).
    pub calm: bool,
    /// Datagrams lost, in a thousand, besides what faults lose.
    pub loss_permille: u64,
    /// Print each event.
    pub verbose: bool,
}

impl Options {
    /// A head and ten agents; every other seed is calm.
    pub const fn of_seed(seed: u64) -> Self {
        Self {
            seed,
            nodes: 10,
            chaos: Duration::from_secs(120),
            calm: seed.is_multiple_of(2),
            loss_permille: 10,
            verbose: false,
        }
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Events handled.
    pub events: u64,
    /// Time that passed in the world.
    pub elapsed: Duration,
    /// Hash over all events and their times.
    pub trace: u64,
    /// How often each fault was injected and each rare branch taken.
    pub hits: std::collections::BTreeMap<&'static str, u64>,
}

/// A run that broke a promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, at {at:?}: {what}")]
pub struct Violation {
    /// The seed that shows it again.
    pub seed: u64,
    /// When.
    pub at: Duration,
    /// What, by the invariant's number.
    pub what: String,
}

#[cfg(test)]
mod tests;
