//! When to look at what again.

use std::collections::BTreeSet;

use crate::index::Index;
use crate::state::NodeId;
use crate::time::Instant;

/// Something that waits for a moment; each has at most one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Timer {
    /// A step's deadline, the end of a back-off, or of a hold.
    Step(NodeId),
    /// The session with a neighbor.
    Neighbor(NodeId),
    /// The next attempt to attach to the parent.
    Attach,
    /// A guard rail at which nodes wait opens.
    Rails,
    /// More nodes are to be planned than one turn has time for.
    Plan,
    /// Costs are learned from what was measured.
    Costs,
    /// The store is told what to remember.
    Remember,
}

/// All timers.
///
/// Most are set anew or cancelled long before they are due: a step's deadline with every step. So a place in the queue stays where it is while it
/// is not too late, and is looked at again when its time comes; then [`next`](Self::next) was too early, and nothing is due.
#[derive(Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Instant, Timer)>,
    set: Index<Timer, Set>,
}

/// One timer.
struct Set {
    /// When it is due; `None`: cancelled.
    at: Option<Instant>,
    /// Its place in the queue, not after `at`.
    queued: Instant,
}

impl Timers {
    /// Sets `timer`, or cancels it with `None`.
    pub(super) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        match (self.set.get_mut(&timer), at) {
            (Some(set), at) => {
                set.at = at;
                if let Some(at) = at.filter(|at| *at < set.queued) {
                    self.queue.remove(&(set.queued, timer));
                    self.queue.insert((at, timer));
                    set.queued = at;
                }
            }
            (None, Some(at)) => {
                self.queue.insert((at, timer));
                let set = Set {
                    at: Some(at),
                    queued: at,
                };
                self.set.insert(timer, set);
            }
            (None, None) => {}
        }
    }

    /// When `timer` is due.
    pub(super) fn at(&self, timer: Timer) -> Option<Instant> {
        self.set.get(&timer)?.at
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        while let Some((_, timer)) = self.queue.first().filter(|(at, _)| *at <= now).copied() {
            self.queue.pop_first();
            match self.set.get_mut(&timer) {
                Some(Set {
                    at: Some(at),
                    queued,
                }) if *at > *queued => {
                    *queued = *at;
                    self.queue.insert((*at, timer));
                }
                Some(Set { at, .. }) => {
                    let is_due = at.is_some();
                    self.set.swap_remove(&timer);
                    if is_due {
                        return Some(timer);
                    }
                }
                None => {}
            }
        }
        None
    }

    /// Not after the moment at which the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn timer(number: u8) -> Timer {
        Timer::Step(NodeId::from_bytes([number; 16]))
    }

    proptest! {
        /// Against a plain map: what is due comes in the order of time, what was cancelled or put off does not, and nobody is woken too late.
        #[test]
        fn takes_what_is_due_in_order(steps in vec((0..6u8, of(0..20u64), 0..3u64), 1..60)) {
            let mut timers = Timers::default();
            let mut expected: BTreeMap<Timer, Instant> = BTreeMap::new();
            let mut now = 0;
            for (number, after, passed) in steps {
                let timer = timer(number);
                let due = after.map(|after| at(now + after));
                timers.set(timer, due);
                match due {
                    Some(due) => expected.insert(timer, due),
                    None => expected.remove(&timer),
                };
                prop_assert_eq!(timers.at(timer), due);
                now += passed;
                let next = expected.iter().map(|(timer, at)| (*at, *timer)).min();
                if let Some((due, _)) = next {
                    prop_assert!(timers.next().is_some_and(|next| next <= due));
                }
                let mut order: Vec<_> = expected.iter().map(|(timer, at)| (*at, *timer)).collect();
                order.retain(|(due, _)| *due <= at(now));
                order.sort();
                expected.retain(|_, due| *due > at(now));
                let taken: Vec<_> = std::iter::from_fn(|| timers.take_due(at(now))).collect();
                let order: Vec<_> = order.into_iter().map(|(_, timer)| timer).collect();
                prop_assert_eq!(taken, order);
                prop_assert!(timers.next().is_none_or(|next| next > at(now)), "it never asks to be called at once for nothing");
            }
            prop_assert_eq!(timers.queue.len(), timers.set.len());
        }
    }
}
