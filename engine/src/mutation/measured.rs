//! How long mutations took: the latest successes of each, over all nodes together. `estimate` and learned costs are made of it.
//!
//! Failures are not in it: how long something tried before it gave up says nothing about how long it takes, and would make a mutation that fails
//! at once look quick.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{MAX_MUTATIONS, MutationId};

/// Successes of one mutation that count: enough for a median that one odd node does not move, few enough to follow a change of hardware.
pub const MAX_TIMES: usize = 16;

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

    /// The median: the greater of the two in the middle. `None`: never measured.
    pub fn typical(&self) -> Option<Duration> {
        let mut sorted: Vec<u32> = self.millis().collect();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2)?;
        Some(Duration::from_millis(u64::from(*median)))
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured(BTreeMap<MutationId, Times>);

impl Measured {
    /// A mutation succeeded after this time.
    pub fn note(&mut self, mutation: &MutationId, took: Duration) {
        let ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        if let Some(times) = self.0.get_mut(mutation) {
            times.push(ms);
        } else if self.0.len() < MAX_MUTATIONS {
            self.0.insert(mutation.clone(), Times::new([ms]));
        }
    }

    /// Puts back what an earlier run measured.
    pub fn restore(&mut self, mutation: MutationId, times: Times) {
        if self.0.len() < MAX_MUTATIONS {
            self.0.insert(mutation, times);
        }
    }

    /// How long a mutation took lately.
    pub fn get(&self, mutation: &MutationId) -> Option<&Times> {
        self.0.get(mutation)
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
            measured.note(&MutationId::new("m", &n.to_string()), Duration::MAX);
        }
        assert_eq!(measured.0.len(), MAX_MUTATIONS);
        let first = measured.typical(&MutationId::new("m", "0")).unwrap();
        assert_eq!(first, Duration::from_millis(u64::from(u32::MAX)));
    }
}
