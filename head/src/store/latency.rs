//! Whether the disk is slow: a commit that hangs, or many in a row that drag (fault F06).
//!
//! Only writers wait for a slow disk, so nobody else would notice it: the alarm is for whoever can mend the disk.

use std::time::{Duration, Instant};

/// A commit that takes longer than this raises the alarm at once: a good disk flushes in a few milliseconds, a spinning one in 30.
const HANGS: Duration = Duration::from_secs(1);

/// A commit that takes longer than this drags.
const DRAGS: Duration = Duration::from_millis(200);

/// So many commits in a row that drag raise the alarm, so many that do not end it. A disk that cannot decide does not flood anybody.
const IN_A_ROW: u32 = 10;

/// Time that every changed node may take besides: writes of thousands are work, not a slow disk.
const PER_CHANGE: Duration = Duration::from_millis(1);

/// See the module. Calls come in the order of time.
#[derive(Debug, Default)]
pub(super) struct Latency {
    under_way: Option<UnderWay>,
    dragged: u32,
    quick: u32,
    slowest: Duration,
    alarmed: bool,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    since: Instant,
    allowance: Duration,
}

/// The alarm began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The slowest commit took this long, so far.
    Slow(Duration),
    /// Commits take as long as they should again.
    Good,
}

impl Latency {
    /// A commit of so many changes begins.
    pub(super) fn begun(&mut self, changes: usize, now: Instant) {
        let changes = u32::try_from(changes).unwrap_or(u32::MAX);
        self.under_way = Some(UnderWay {
            since: now,
            allowance: PER_CHANGE.saturating_mul(changes),
        });
    }

    /// It ended, well or not.
    pub(super) fn ended(&mut self, now: Instant) {
        let Some(took) = self.beyond_allowance(now) else {
            return;
        };
        self.under_way = None;
        match took > DRAGS {
            true => {
                self.dragged = self.dragged.saturating_add(1);
                self.quick = 0;
                self.slowest = self.slowest.max(took);
            }
            false => {
                self.quick = self.quick.saturating_add(1);
                self.dragged = 0;
                if !self.alarmed && self.slowest <= HANGS {
                    self.slowest = Duration::ZERO;
                }
            }
        }
    }

    /// What has changed since the last look.
    pub(super) fn look(&mut self, now: Instant) -> Option<Verdict> {
        let hangs = self.beyond_allowance(now).unwrap_or_default();
        let slowest = self.slowest.max(hangs);
        if !self.alarmed && (slowest > HANGS || self.dragged >= IN_A_ROW) {
            (self.alarmed, self.quick) = (true, 0);
            return Some(Verdict::Slow(slowest));
        }
        if self.alarmed && self.quick >= IN_A_ROW {
            (self.alarmed, self.slowest) = (false, Duration::ZERO);
            return Some(Verdict::Good);
        }
        None
    }

    /// Whether the alarm stands.
    pub(super) fn is_slow(&self) -> bool {
        self.alarmed
    }

    fn beyond_allowance(&self, now: Instant) -> Option<Duration> {
        let UnderWay { since, allowance } = self.under_way?;
        let took = now.saturating_duration_since(since);
        Some(took.saturating_sub(allowance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Disk {
        latency: Latency,
        now: Instant,
    }

    impl Disk {
        fn new() -> Self {
            Self {
                latency: Latency::default(),
                now: Instant::now(),
            }
        }

        fn commits(&mut self, count: u32, changes: usize, ms: u64) -> Option<Verdict> {
            for _ in 0..count {
                self.latency.begun(changes, self.now);
                self.now += Duration::from_millis(ms);
                self.latency.ended(self.now);
            }
            self.latency.look(self.now)
        }
    }

    #[test]
    fn f06_a_commit_that_hangs_is_told_before_it_ends() {
        let mut disk = Disk::new();
        disk.latency.begun(1, disk.now);
        assert_eq!(disk.latency.look(disk.now + HANGS), None);
        let later = disk.now + Duration::from_secs(3);
        let took = Duration::from_millis(2_999);
        assert_eq!(disk.latency.look(later), Some(Verdict::Slow(took)));
        assert_eq!(disk.latency.look(later + HANGS), None, "told once");
        disk.now = later + HANGS;
        disk.latency.ended(disk.now);
        assert_eq!(disk.commits(IN_A_ROW - 1, 1, 5), None);
        assert_eq!(disk.commits(1, 1, 5), Some(Verdict::Good));
        assert_eq!(disk.commits(1, 1, 5), None);
    }

    #[test]
    fn f06_commits_that_drag_are_told_when_there_are_many_in_a_row() {
        let mut disk = Disk::new();
        assert_eq!(disk.commits(IN_A_ROW - 1, 1, 500), None);
        assert_eq!(disk.commits(1, 1, 5), None);
        assert_eq!(disk.commits(IN_A_ROW - 1, 1, 500), None);
        let slowest = Duration::from_millis(599);
        assert_eq!(disk.commits(1, 1, 600), Some(Verdict::Slow(slowest)));
        assert_eq!(disk.commits(IN_A_ROW - 1, 1, 5), None);
        assert_eq!(disk.commits(1, 1, 500), None, "it is not over");
        assert_eq!(disk.commits(IN_A_ROW, 1, 5), Some(Verdict::Good));
    }

    #[test]
    fn large_writes_may_take_their_time() {
        let mut disk = Disk::new();
        assert_eq!(disk.commits(IN_A_ROW, 10_000, 5_000), None);
        assert!(disk.commits(1, 1_000, 5_000).is_some());
        // One that hung between two looks is told, though quick ones followed.
        let mut disk = Disk::new();
        disk.latency.begun(1, disk.now);
        disk.now += 2 * HANGS;
        disk.latency.ended(disk.now);
        assert!(matches!(disk.commits(3, 1, 5), Some(Verdict::Slow(_))));
    }
}
