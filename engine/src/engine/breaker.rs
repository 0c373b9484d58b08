//! One breaker a mutation: what fails on many nodes is tried on no more (fault F34).
//!
//! ```text
//!   closed ── five of the last ten nodes that tried it failed ──▶ open ── after a time ──▶ one node tries
//!      ▲                                                           ▲  │                       │      │
//!      └──────────── `krakenctl thaw --mutation` ─────────────────────┘    it fails ──────────┘      │
//!      └────────────────────────────── it succeeds ──────────────────────────────────────────────────┘
//! ```
//!
//! Of each node only its latest outcome counts, and only for an hour: a node that fails alone is parked by its own attempts, however often it
//! tries, and never stops the others. An open one stays open when the head restarts (`remember`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::memory::PastBreaker;
use crate::mutation::MutationId;
use crate::state::NodeId;
use crate::time::Instant;

/// Longest time that an outcome counts: what failed last night says nothing about this morning.
const MEMORY: Duration = Duration::from_secs(3600);

/// When a breaker opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaking {
    /// Nodes that must have failed; 0 switches breakers off.
    pub failures: usize,
    /// Out of this many that tried last.
    pub of: usize,
    /// Time after which one node may try.
    pub retry: Duration,
}

impl Default for Breaking {
    fn default() -> Self {
        Self {
            failures: 5,
            of: 10,
            retry: Duration::from_secs(600),
        }
    }
}

/// Where a breaker stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Closed,
    /// Open; from `retry` on one node may try.
    Open { retry: Instant },
    /// This node tries.
    Trying(NodeId),
}

#[derive(Clone, Debug, Default)]
struct Breaker {
    state: State,
    /// The latest outcome of each of the last nodes that tried, oldest first.
    latest: VecDeque<(NodeId, bool, Instant)>,
}

/// What an outcome changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Tripped {
    /// These nodes failed, out of so many: nobody else tries.
    Opened { failed: Vec<NodeId>, of: usize },
    /// Works again.
    Closed,
}

/// All breakers.
#[derive(Clone, Debug, Default)]
pub(super) struct Breakers {
    breaking: Breaking,
    breakers: BTreeMap<MutationId, Breaker>,
}

impl Breakers {
    pub(super) fn configure(&mut self, breaking: Breaking) {
        self.breaking = breaking;
    }

    /// An attempt of `mutation` on `node` ended.
    pub(super) fn outcome(
        &mut self,
        mutation: &MutationId,
        node: NodeId,
        good: bool,
        now: Instant,
    ) -> Option<Tripped> {
        let Breaking {
            failures,
            of,
            retry,
        } = self.breaking;
        let breaker = self.breakers.entry(mutation.clone()).or_default();
        match (breaker.state, good) {
            (State::Trying(trying), true) if trying == node => {
                *breaker = Breaker::default();
                return Some(Tripped::Closed);
            }
            (State::Trying(trying), false) if trying == node => {
                breaker.state = State::Open { retry: now + retry };
            }
            _ => {}
        }
        let latest = &mut breaker.latest;
        latest.retain(|(tried, _, at)| *tried != node && *at + MEMORY > now);
        latest.push_back((node, good, now));
        while latest.len() > of {
            latest.pop_front();
        }
        let failed = latest.iter().filter(|(_, good, _)| !good);
        let failed: Vec<NodeId> = failed.map(|(node, _, _)| *node).collect();
        let trips = failures > 0 && failed.len() >= failures && breaker.state == State::Closed;
        trips.then(|| {
            breaker.state = State::Open { retry: now + retry };
            Tripped::Opened {
                failed,
                of: breaker.latest.len(),
            }
        })
    }

    /// Whether `mutation` is held for `node`, or for one that has not tried it, and from when on one node may try, if that is known.
    pub(super) fn held(
        &self,
        mutation: &MutationId,
        node: Option<NodeId>,
        now: Instant,
    ) -> Option<Option<Instant>> {
        match self.breakers.get(mutation)?.state {
            State::Closed => None,
            State::Open { retry } => (retry > now).then_some(Some(retry)),
            State::Trying(trying) => (node != Some(trying)).then_some(None),
        }
    }

    /// The nodes whose failures count now.
    pub(super) fn failed(&self, mutation: &MutationId) -> impl Iterator<Item = NodeId> {
        let breaker = self.breakers.get(mutation);
        let latest = breaker.into_iter().flat_map(|breaker| &breaker.latest);
        latest
            .filter(|(_, good, _)| !good)
            .map(|(node, _, _)| *node)
    }

    /// `node` starts `mutation`, which is not held for it.
    pub(super) fn started(&mut self, mutation: &MutationId, node: NodeId) {
        if let Some(breaker) = self.breakers.get_mut(mutation)
            && matches!(breaker.state, State::Open { .. })
        {
            breaker.state = State::Trying(node);
        }
    }

    /// What `node` had started came to nothing: another may try at once.
    pub(super) fn given_up(&mut self, mutation: &MutationId, node: NodeId, now: Instant) {
        if let Some(breaker) = self.breakers.get_mut(mutation)
            && breaker.state == State::Trying(node)
        {
            breaker.state = State::Open { retry: now };
        }
    }

    /// The node is gone.
    pub(super) fn forget(&mut self, node: NodeId, now: Instant) {
        let mutations: Vec<MutationId> = self.breakers.keys().cloned().collect();
        for mutation in mutations {
            self.given_up(&mutation, node, now);
            if let Some(breaker) = self.breakers.get_mut(&mutation) {
                breaker.latest.retain(|(tried, _, _)| *tried != node);
            }
        }
    }

    /// An operator closes a breaker; false: it was closed.
    pub(super) fn thaw(&mut self, mutation: &MutationId) -> bool {
        let breaker = self.breakers.remove(mutation);
        breaker.is_some_and(|breaker| breaker.state != State::Closed)
    }

    /// Where a breaker stands, for after a restart. Who tries has come to nothing then: another may at once.
    pub(super) fn past(&self, mutation: &MutationId, now: Instant) -> PastBreaker {
        let Some(breaker) = self.breakers.get(mutation) else {
            return PastBreaker::default();
        };
        let open = match breaker.state {
            State::Closed => None,
            State::Open { retry } => Some(retry.since(now)),
            State::Trying(_) => Some(Duration::ZERO),
        };
        let latest = breaker.latest.iter();
        let is_good = open.is_none() && latest.clone().all(|(_, good, _)| *good);
        let outcomes = latest.map(|(node, good, at)| (*node, *good, now.since(*at)));
        PastBreaker {
            open,
            // What never failed has nothing that is worth keeping.
            outcomes: if is_good {
                Vec::new()
            } else {
                outcomes.collect()
            },
        }
    }

    /// Puts a breaker back.
    pub(super) fn restore(&mut self, mutation: &MutationId, past: &PastBreaker, now: Instant) {
        let state = match past.open {
            None => State::Closed,
            Some(_) if self.breaking.failures == 0 => State::Closed,
            // A wall clock that went back in between makes nobody wait longer.
            Some(open) => State::Open {
                retry: now + open.min(self.breaking.retry),
            },
        };
        let latest = past.outcomes.iter();
        let latest = latest.map(|(node, good, age)| (*node, *good, now - *age));
        let breaker = Breaker {
            state,
            latest: latest.collect(),
        };
        self.breakers.insert(mutation.clone(), breaker);
    }

    /// Mutations that are held for everybody, or tried by one.
    pub(super) fn open(&self) -> impl Iterator<Item = &MutationId> {
        let all = self.breakers.iter();
        all.filter(|(_, breaker)| breaker.state != State::Closed)
            .map(|(mutation, _)| mutation)
    }

    /// When a breaker next lets a node try.
    pub(super) fn next_try(&self, mutation: &MutationId) -> Option<Instant> {
        match self.breakers.get(mutation)?.state {
            State::Open { retry } => Some(retry),
            State::Closed | State::Trying(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
