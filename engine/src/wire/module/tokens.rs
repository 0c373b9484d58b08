//! A token bucket: so many at once, so many a second.

use std::time::Duration;

use crate::time::Instant;

/// See the module. Counts in millionths, so that a slow rate loses nothing between two looks.
pub(super) struct Tokens {
    most: u64,
    per_second: u64,
    left: u64,
    at: Instant,
}

const ONE: u64 = 1_000_000;

impl Tokens {
    pub(super) fn new(most: u32, per_second: u32, now: Instant) -> Self {
        let most = u64::from(most) * ONE;
        Self {
            most,
            per_second: u64::from(per_second),
            left: most,
            at: now,
        }
    }

    pub(super) fn refill(&mut self, now: Instant) {
        // A minute fills every bucket of ours.
        let passed = now.since(self.at).min(Duration::from_secs(60));
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        self.left = (self.left + micros * self.per_second).min(self.most);
        self.at = self.at.max(now);
    }

    /// Takes so many if they are there.
    pub(super) fn take(&mut self, count: u32, now: Instant) -> bool {
        self.refill(now);
        let wanted = u64::from(count) * ONE;
        let enough = self.left >= wanted;
        if enough {
            self.left -= wanted;
        }
        enough
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left < ONE
    }

    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left == self.most
    }
}
