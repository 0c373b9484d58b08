//! How long mutations took: the latest successes of each, over all nodes together. `estimate` and learned costs are made of it.
//!
//! Failures are not in it: how long something tried before it gave up says nothing about how long it takes, and would make a mutation that fails
//! at once look quick.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{MAX_MUTATIONS, MutationId};
use crate::time::Instant;

/// Successes of one mutation that count: enough for a median that one odd node does not move, few enough to follow a change of hardware.
pub const MAX_TIMES: usize = 16;

/// A mutation that did not succeed for so long is stale: what it took then says little of what it would take. Hardware, firmware and images change
/// every few months, so a month is soon enough to see it, and rare enough for what looking costs (`learned`).
pub const FRESH: Duration = Duration::from_secs(30 * 86_400);

/// Times of a stale mutation that are kept beside the first fresh one: one odd node is outvoted by them, three fresh ones outvote them.
pub(super) const KEPT_STALE: usize = 2;

/// How long one mutation took lately, in milliseconds, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(VecDeque<u32>);

impl Times {
    /// The latest of these, which are milliseconds, oldest first.
    pub fn new(millis: impl IntoIterator<Item = u32>) -> Self {
        let mut times = Self::default();
        millis.into_iter().for_each(|ms| times.push(ms));
        times
    }

    /// Milliseconds, oldest first.
    pub fn millis(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, ms: u32) {
        if self.0.len() == MAX_TIMES {
            self.0.pop_front();
        }
        self.0.push_back(ms);
    }

    fn keep(&mut self, latest: usize) {
        let earlier = self.0.len().saturating_sub(latest);
        self.0.drain(..earlier);
    }

    /// The median: the greater of the two in the middle. `None`: never measured.
    pub fn typical(&self) -> Option<Duration> {
        let mut sorted: Vec<u32> = self.millis().collect();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2)?;
        Some(Duration::from_millis(u64::from(*median)))
    }
}

/// The times of one mutation, and when it succeeded last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lately {
    times: Times,
    last: Instant,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured(BTreeMap<MutationId, Lately>);

impl Measured {
    /// A mutation succeeded after this time. If it was stale, only the latest of its earlier times stay.
    pub fn note(&mut self, mutation: &MutationId, took: Duration, now: Instant) {
        let ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        let is_stale = self.stale(mutation, now) > 0;
        if let Some(lately) = self.0.get_mut(mutation) {
            if is_stale {
                lately.times.keep(KEPT_STALE);
            }
            lately.times.push(ms);
            lately.last = now;
        } else {
            self.restore(mutation.clone(), Times::new([ms]), now);
        }
    }

    /// Puts back what an earlier run measured, up to `last`.
    pub fn restore(&mut self, mutation: MutationId, times: Times, last: Instant) {
        if self.0.len() < MAX_MUTATIONS {
            self.0.insert(mutation, Lately { times, last });
        }
    }

    /// How long a mutation took lately.
    pub fn get(&self, mutation: &MutationId) -> Option<&Times> {
        self.0.get(mutation).map(|lately| &lately.times)
    }

    /// Since when a mutation did not succeed.
    pub fn age(&self, mutation: &MutationId, now: Instant) -> Option<Duration> {
        Some(now.since(self.0.get(mutation)?.last))
    }

    /// How often [`FRESH`] has passed since a mutation succeeded last; 0: its times are fresh, or there are none.
    pub fn stale(&self, mutation: &MutationId, now: Instant) -> u32 {
        let age = self.age(mutation, now).unwrap_or_default();
        u32::try_from(age.as_secs() / FRESH.as_secs()).unwrap_or(u32::MAX)
    }

    /// How long a mutation usually takes; `None`: never measured.
    pub fn typical(&self, mutation: &MutationId) -> Option<Duration> {
        self.get(mutation)?.typical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typical(millis: &[u32]) -> Option<u64> {
        let median = Times::new(millis.iter().copied()).typical();
        median.map(|median| u64::try_from(median.as_millis()).unwrap())
    }

    #[test]
    fn one_odd_node_does_not_move_the_median() {
        assert_eq!(typical(&[]), None);
        assert_eq!(typical(&[3_000]), Some(3_000));
        assert_eq!(typical(&[9_000, 3_000]), Some(9_000));
        assert_eq!(typical(&[3_000, 900_000, 3_100]), Some(3_100));
    }

    #[test]
    fn only_the_latest_count() {
        let slow = [60_000; MAX_TIMES];
        let mut times = Times::new(slow);
        for _ in 0..=MAX_TIMES / 2 {
            times.push(1_000);
        }
        assert_eq!(times.typical(), Some(Duration::from_secs(1)));
        assert_eq!(times.millis().count(), MAX_TIMES);
    }

    #[test]
    fn mutations_are_bounded() {
        let mut measured = Measured::default();
        for n in 0..=MAX_MUTATIONS {
            let mutation = MutationId::new("m", &n.to_string());
            measured.note(&mutation, Duration::MAX, Instant::ZERO);
        }
        assert_eq!(measured.0.len(), MAX_MUTATIONS);
        let first = measured.typical(&MutationId::new("m", "0")).unwrap();
        assert_eq!(first, Duration::from_millis(u64::from(u32::MAX)));
    }

    #[test]
    fn what_was_measured_long_ago_is_outvoted_by_three_successes() {
        let mutation = MutationId::new("m", "A");
        let mut measured = Measured::default();
        assert_eq!(measured.stale(&mutation, Instant::ZERO + FRESH * 9), 0);
        let mut now = Instant::ZERO;
        for _ in 0..3 {
            measured.note(&mutation, Duration::from_secs(60), now);
            now = now + FRESH - Duration::from_secs(1);
        }
        assert_eq!(measured.get(&mutation).map(Times::len), Some(3));
        assert_eq!(measured.stale(&mutation, now), 0);
        now = now + Duration::from_secs(1);
        assert_eq!(measured.stale(&mutation, now), 1);
        assert_eq!(measured.stale(&mutation, now + FRESH), 2);
        // Until then it is the best that is known.
        assert_eq!(measured.typical(&mutation), Some(Duration::from_secs(60)));
        let again = [(); 3].map(|()| {
            measured.note(&mutation, Duration::from_secs(2), now);
            measured.typical(&mutation).map(|time| time.as_secs())
        });
        assert_eq!(again, [Some(60), Some(60), Some(2)]);
        assert_eq!(measured.stale(&mutation, now), 0);
    }
}
