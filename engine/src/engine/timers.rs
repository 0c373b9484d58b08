//! When to look at what again.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::NodeId;
use crate::time::Instant;

/// Something that waits for a moment; each has at most one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// A step's deadline, the end of a back-off, or of a hold.
    Step(NodeId),
    /// The session with a neighbor.
    Neighbor(NodeId),
    /// The next attempt to attach to the parent.
    Attach,
    /// A guard rail at which nodes wait opens.
    Rails,
    /// Costs are learned from what was measured.
    Costs,
    /// The store is told what to remember.
    Remember,
}

/// All timers. Setting, cancelling and taking one cost O(log n), with nothing done for those that are not due.
#[derive(Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets `timer`, or cancels it with `None`.
    pub(super) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.at.insert(timer, at),
            None => self.at.remove(&timer),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.due.remove(&(old, timer));
        }
        if let Some(at) = at {
            self.due.insert((at, timer));
        }
    }

    /// When `timer` is due.
    pub(super) fn at(&self, timer: Timer) -> Option<Instant> {
        self.at.get(&timer).copied()
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.set(timer, None);
        Some(timer)
    }

    /// The next moment at which one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}
