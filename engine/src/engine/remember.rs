//! What the engine tells the store to remember ([`Memo`]), and how it takes it back at the start.
//!
//! Changes are collected for [`AFTER`] and told together, so a storm of firings makes one memo of each thing, not one for each firing. Only a head
//! remembers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::timers::Timer;
use super::{Engine, Role};
use crate::event::Output;
use crate::memory::{Memo, PastAttempt};
use crate::mutation::MutationId;
use crate::mutation::progress::Attempt;
use crate::state::NodeId;
use crate::time::Instant;

/// From the first change until it is told.
const AFTER: Duration = Duration::from_secs(2);

/// What has changed since it was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Untold {
    /// It will be told soon.
    is_due: bool,
    /// Nodes with attempts that have ended, parked ones, and released ones.
    nodes: BTreeSet<NodeId>,
    /// Mutations that were measured.
    measured: BTreeSet<MutationId>,
    /// Mutations whose breaker heard of an outcome, or was closed by an operator.
    breakers: BTreeSet<MutationId>,
    /// Breakers that were told with something worth keeping.
    told_breakers: BTreeSet<MutationId>,
}

impl Engine {
    /// A node has something to tell.
    pub(super) fn node_to_tell(&mut self, node: NodeId) {
        self.untold.nodes.insert(node);
        self.tell_soon();
    }

    /// A mutation was measured, or counts otherwise.
    pub(super) fn times_to_tell(&mut self, mutation: &MutationId) {
        if !self.untold.measured.contains(mutation) {
            self.untold.measured.insert(mutation.clone());
        }
        self.tell_soon();
    }

    /// A breaker has something to tell.
    pub(super) fn breaker_to_tell(&mut self, mutation: &MutationId) {
        if !self.untold.breakers.contains(mutation) {
            self.untold.breakers.insert(mutation.clone());
        }
        self.tell_soon();
    }

    /// Slots were taken or given back.
    pub(super) fn tell_soon(&mut self) {
        let is_head = matches!(self.config.role, Role::Head { .. });
        if is_head && !self.untold.is_due {
            self.untold.is_due = true;
            self.timers.set(Timer::Remember, Some(self.now + AFTER));
        }
    }

    /// Tells at once what there is to remember: the engine will not be called again.
    pub fn remember_now(&mut self, now: Instant) {
        self.now = now;
        self.tell();
    }

    /// Tells what has changed.
    pub(super) fn tell(&mut self) {
        self.untold.is_due = false;
        for node in std::mem::take(&mut self.untold.nodes) {
            self.tell_node(node);
        }
        for mutation in std::mem::take(&mut self.untold.measured) {
            let times = self.costs.measured.get(&mutation).cloned();
            let seconds = self.costs.learned.seconds(&mutation);
            let age = self.costs.measured.age(&mutation, self.now);
            if let Some((times, age)) = times.zip(age) {
                self.remember(Memo::Times {
                    mutation,
                    times,
                    seconds,
                    age,
                });
            }
        }
        for mutation in std::mem::take(&mut self.untold.breakers) {
            let breaker = self.rails.breakers.past(&mutation, self.now);
            let told = &mut self.untold.told_breakers;
            let is_news = if breaker == Default::default() {
                told.remove(&mutation)
            } else {
                told.insert(mutation.clone());
                true
            };
            if is_news {
                self.remember(Memo::Breaker { mutation, breaker });
            }
        }
        for memo in self.rails.governor.untold(self.now) {
            self.remember(memo);
        }
    }

    fn tell_node(&mut self, node: NodeId) {
        let Some(runtime) = self.runtimes.get_mut(&node) else {
            return;
        };
        let attempts = runtime.progress.take_untold();
        let parked = runtime.progress.parking();
        let parked = parked.map(|(on, reason)| (on.clone(), reason.into()));
        let is_parked = parked.is_some();
        let was_parked = std::mem::replace(&mut runtime.told_parked, is_parked);
        for attempt in attempts {
            let took = attempt.took();
            let attempt = PastAttempt {
                mutation: attempt.mutation,
                attempt: attempt.attempt,
                ending: attempt.ending,
                age: self.now.since(attempt.ended),
                took,
            };
            self.remember(Memo::Attempt { node, attempt });
        }
        if is_parked || was_parked {
            self.remember(Memo::Parked { node, parked });
        }
    }

    fn remember(&mut self, memo: Memo) {
        self.outputs.push_back(Output::Remember(memo));
    }

    /// Puts back what an earlier run of this head told, in the order in which it was told. After the nodes, before the first input.
    pub fn restore_memo(&mut self, memo: Memo) {
        let now = self.started;
        match memo {
            Memo::Attempt { node, attempt } => {
                if let Some(runtime) = self.runtimes.get_mut(&node) {
                    let ended = now - attempt.age;
                    runtime.progress.restore(Attempt {
                        mutation: attempt.mutation,
                        attempt: attempt.attempt,
                        since: ended - attempt.took,
                        ended,
                        ending: attempt.ending,
                    });
                }
            }
            Memo::Parked { node, parked } => {
                if let Some(runtime) = self.runtimes.get_mut(&node) {
                    runtime.told_parked = parked.is_some();
                    let attempts = self.config.healing.attempts;
                    runtime.progress.restore_parking(parked, attempts, now);
                }
            }
            Memo::Times {
                mutation,
                times,
                seconds,
                age,
            } => {
                if let Some(seconds) = seconds {
                    self.costs.learned.restore(mutation.clone(), seconds);
                }
                self.costs.measured.restore(mutation, times, now - age);
            }
            Memo::Breaker { mutation, breaker } => {
                let is_open = breaker.open.is_some();
                if breaker != Default::default() {
                    self.untold.told_breakers.insert(mutation.clone());
                }
                self.rails.breakers.restore(&mutation, &breaker, now);
                if is_open {
                    let text = format!(
                        "{mutation} failed on many nodes before this head started: nobody else tries it until `krakenctl thaw --mutation {mutation}`, or until one node may try it"
                    );
                    self.alarm("breaker", mutation.as_str(), text, false);
                }
            }
            Memo::Limit {
                name,
                holders,
                passed,
            } => self.rails.governor.restore(&name, &holders, &passed, now),
        }
    }
}

#[cfg(test)]
mod tests;
