//! Which counters of a session came already (RFC 4303, 3.4.3; the ring of words is RFC 6479's idea).

/// Counters that are told apart behind the newest one: far more than a LAN reorders.
pub const WINDOW_BITS: u64 = 1024;

const WORDS: usize = (WINDOW_BITS / 64) as usize;

/// The newest counters that came. Ask it only about authenticated frames.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    /// One above the newest counter.
    next: u64,
    /// Bit `c % 1024` stands for counter `c` of the last 1,024.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Takes a counter in. False if it came before, is too old to tell, or is the one that has no successor.
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter == u64::MAX {
            return false;
        }
        if counter >= self.next {
            let skipped = (counter - self.next).min(WINDOW_BITS);
            for passed in 0..skipped {
                self.clear(self.next.wrapping_add(passed));
            }
            self.next = counter + 1;
        } else if self.next - counter > WINDOW_BITS || self.is_set(counter) {
            return false;
        }
        self.set(counter);
        true
    }

    fn is_set(&self, counter: u64) -> bool {
        self.seen[Self::word(counter)] & Self::bit(counter) != 0
    }

    fn set(&mut self, counter: u64) {
        self.seen[Self::word(counter)] |= Self::bit(counter);
    }

    fn clear(&mut self, counter: u64) {
        self.seen[Self::word(counter)] &= !Self::bit(counter);
    }

    const fn word(counter: u64) -> usize {
        ((counter % WINDOW_BITS) / 64) as usize
    }

    const fn bit(counter: u64) -> u64 {
        1 << (counter % 64)
    }
}
