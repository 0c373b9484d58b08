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
//!
//! **A way that was left is taken again one day.** Who is not chosen is not measured, so a mutation that took long once would be left for ever,
//! though what made it slow was mended. So a mutation counts with half its seconds once it has not succeeded for 30 days ([`FRESH`]), with a
//! quarter after 60, down to 1. When the way through it is the cheapest at last, it is taken: a success makes it count in full again, three tell
//! what it takes by then. The wait grows with how much slower it was: twice as slow, a month or two; sixteen times as slow, four months or five.
//! Where nothing is carried out all counts sink together, and after a year declared costs alone are left.
//!
//! ```text
//!   counts  64 ┤────╮                      ╭────╮         still slow: in full again at the next look, and left for as long
//!           32 ┤    ╰────╮                 │    ╰────╮
//!           16 ┤         ╰─────────────────╯         ╰──  the other way costs 20
//!              0    30   60 days: taken, and tried by whoever plans within five minutes
//!            2 ┤                           ╰───────────── mended: from the third success on
//! ```
//!
//! Not forgotten at one stroke: a mutation of which nothing is known counts with its timeout, which is more than it ever took, and would never be
//! taken. Not tried by chance, nor by some nodes only: plans would depend on a draw.
//!
//! [`FRESH`]: super::measured::FRESH

use std::collections::BTreeMap;
use std::time::Duration;

use super::measured::{KEPT_STALE, Measured};
use super::{Mutation, MutationId};

/// Successes before a time counts: one odd node sets no cost.
pub const MIN_TIMES: usize = 3;

// What is left of stale times is outvoted by as many fresh ones as make a time count.
const _: () = assert!(KEPT_STALE < MIN_TIMES);

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

    /// What a mutation costs that was declared with `cost` and is so stale.
    pub fn cost(&self, mutation: &Mutation, cost: u32, stale: u32) -> u32 {
        let guess = || match mutation.timeout {
            Some(timeout) => counted(timeout, None),
            None => UNKNOWN_SECONDS,
        };
        let known = self.seconds(&mutation.id);
        let seconds = known.map_or_else(guess, |seconds| sunk(seconds, stale));
        cost.saturating_mul(seconds)
    }
}

/// Half as much for each time that a mutation's times went stale.
fn sunk(seconds: u32, stale: u32) -> u32 {
    seconds.checked_shr(stale).unwrap_or(0).max(1)
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
