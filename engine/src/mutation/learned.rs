//! Costs made of measured times, for who does not want to guess them (`[engine] costs = "learned"`).
//!
//! A mutation's cost is its declared cost times the seconds that it usually takes. The declared cost stays the operator's word: 0 is free whatever
//! it takes, 10 is ten times as reluctant as its time alone.
//!
//! ```text
//!   seconds   0      1      2             4                           8
//!   counts as [  1   ](  2  ](      4     ](            8             ](   16 ...      powers of two
//!                                    ├───────╌╌╌╌╌╌┤ 8 stays 8 between 3 s and 10 s     a quarter beyond either end
//! ```
//!
//! So noise changes no cost: neither small differences, nor a time that lies on a border. What was measured less than three times counts with its
//! timeout: nothing is tried only to learn what it takes, and a guess is never better than what is known. Failures count nowhere (`measured`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::measured::Measured;
use super::{Mutation, MutationId};

/// Successes before a time counts: one odd node sets no cost.
pub const MIN_TIMES: usize = 3;

/// What a mutation counts with, in seconds, that was not measured and has no timeout: longer than most take.
const UNKNOWN_SECONDS: u32 = 64;

/// The seconds with which measured mutations count, powers of two. What each of them is depends on the times since the start, not on other mutations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned(BTreeMap<MutationId, u32>);

impl Learned {
    /// Puts back what an earlier run counted with.
    pub fn restore(&mut self, mutation: MutationId, seconds: u32) {
        self.0
            .insert(mutation, seconds.clamp(1, 1 << 31).next_power_of_two());
    }

    /// The seconds with which a mutation counts, if it was measured often enough.
    pub fn seconds(&self, mutation: &MutationId) -> Option<u32> {
        self.0.get(mutation).copied()
    }

    /// Looks at the measured times of these mutations anew.
    pub fn refresh<'m>(
        &mut self,
        mutations: impl Iterator<Item = &'m Mutation>,
        measured: &Measured,
    ) {
        for mutation in mutations {
            let times = measured.get(&mutation.id);
            let enough = times.filter(|times| times.len() >= MIN_TIMES);
            if let Some(time) = enough.and_then(|times| times.typical()) {
                let before = self.seconds(&mutation.id);
                self.0.insert(mutation.id.clone(), counted(time, before));
            }
        }
    }

    /// What a mutation costs that was declared with `cost`.
    pub fn cost(&self, mutation: &Mutation, cost: u32) -> u32 {
        let guess = || match mutation.timeout {
            Some(timeout) => counted(timeout, None),
            None => UNKNOWN_SECONDS,
        };
        let seconds = self.seconds(&mutation.id).unwrap_or_else(guess);
        cost.saturating_mul(seconds)
    }
}

/// The power of two for a time; the one before while that still fits.
fn counted(time: Duration, before: Option<u32>) -> u32 {
    let millis = time.as_millis();
    let fits = |seconds: &u32| {
        let bound = u128::from(*seconds) * 1000;
        (*seconds == 1 || millis * 8 > bound * 3) && millis * 4 <= bound * 5
    };
    if let Some(before) = before.filter(fits) {
        return before;
    }
    let seconds = u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX);
    let power = seconds.max(1).checked_next_power_of_two();
    power.unwrap_or(1 << 31)
}

#[cfg(test)]
mod tests;
