//! Links: what becomes of a datagram, and who can reach whom.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rng::Rng;
use crate::time::Instant;

/// An end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Host {
    Head,
    Machine(usize),
}

/// The network between the head and its machines.
pub(super) struct Net {
    loss_permille: u64,
    burst: Option<(Instant, u64)>,
    slow: Option<(Instant, u64)>,
    cuts: BTreeMap<(Host, Host), Instant>,
}

impl Net {
    pub(super) const fn new(loss_permille: u64) -> Self {
        Self {
            loss_permille,
            burst: None,
            slow: None,
            cuts: BTreeMap::new(),
        }
    }

    /// Cuts one direction until then.
    pub(super) fn cut(&mut self, from: Host, to: Host, until: Instant) {
        self.cuts.insert((from, to), until);
    }

    /// Loses this share of all datagrams until then.
    pub(super) const fn lose(&mut self, permille: u64, until: Instant) {
        self.burst = Some((until, permille));
    }

    /// Delays some datagrams by up to this many milliseconds until then.
    pub(super) const fn delay(&mut self, millis: u64, until: Instant) {
        self.slow = Some((until, millis));
    }

    pub(super) fn heal(&mut self) {
        self.burst = None;
        self.slow = None;
        self.cuts.clear();
    }

    pub(super) fn is_cut(&self, from: Host, to: Host, now: Instant) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| now < *until)
    }

    /// Time on the way of each copy that arrives; none: lost.
    pub(super) fn fate(&self, rng: &mut Rng, from: Host, to: Host, now: Instant) -> Vec<Duration> {
        let burst = self.burst.filter(|(until, _)| now < *until);
        let loss = self
            .loss_permille
            .max(burst.map_or(0, |(_, permille)| permille));
        if self.is_cut(from, to, now) || rng.permille(loss) {
            return Vec::new();
        }
        let mut copies = vec![self.latency(rng, now)];
        if rng.permille(10) {
            copies.push(self.latency(rng, now) + Duration::from_millis(3));
        }
        copies
    }

    fn latency(&self, rng: &mut Rng, now: Instant) -> Duration {
        let base = Duration::from_micros(100 + rng.next() % 400);
        match self.slow {
            Some((until, millis)) if now < until && rng.permille(300) => {
                base + rng.millis(0..millis)
            }
            _ => base,
        }
    }
}
