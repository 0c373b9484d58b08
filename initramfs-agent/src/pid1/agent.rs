//! When to start the agent, when to give it up, and whether the machine is healthy: rules without a process.
//!
//! ```text
//!             started()            ended()
//!   Waiting ───────────▶ Running ───────────▶ Waiting, back-off
//!                           │ no heartbeat        ▲
//!                           ▼                     │ ended()
//!                        Condemned ───────────────┘
//! ```
//!
//! Times are durations since PID 1 started.

use std::time::Duration;

/// Wait after the first failure; within the second that a job may have to do without an agent (DESIGN 6).
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait in a crash loop.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// An agent that lived this long has not failed at starting; the next back-off is short again.
pub(crate) const GOOD_LIFE: Duration = Duration::from_secs(30);
/// Silence after which an agent counts as hung. Its heart beats every [`HEARTBEAT`].
pub(crate) const HEARTBEAT_LIMIT: Duration = Duration::from_secs(15);
/// Time between heartbeats.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);
/// Time that the kernel has to end a killed agent; one that lingers is stuck in the kernel, and only a reset helps.
pub(crate) const DEATH_LIMIT: Duration = Duration::from_secs(10);

const _: () = assert!(
    HEARTBEAT.as_secs() * 4 < HEARTBEAT_LIMIT.as_secs(),
    "one lost heartbeat is no hang"
);

/// The agent's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Duration },
    Running { since: Duration, beat: Duration },
    Condemned { since: Duration },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the agent; then say [`AgentPolicy::started`] or [`AgentPolicy::ended`].
    Start,
    /// Kill it: it hangs.
    Kill,
}

/// Decides over the agent process.
#[derive(Clone, Debug)]
pub(crate) struct AgentPolicy {
    state: State,
    failures: u32,
    starts: u32,
}

impl AgentPolicy {
    /// Before the first start, which is due at once.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Waiting {
                until: Duration::ZERO,
            },
            failures: 0,
            starts: 0,
        }
    }

    /// Starts so far.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// The next thing to do at `now`, if any.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Action> {
        match self.state {
            State::Waiting { until } if now >= until => Some(Action::Start),
            State::Running { beat, .. } if now.saturating_sub(beat) >= HEARTBEAT_LIMIT => {
                self.state = State::Condemned { since: now };
                Some(Action::Kill)
            }
            _ => None,
        }
    }

    /// When to ask again.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Running { beat, .. } => Some(beat + HEARTBEAT_LIMIT),
            State::Condemned { .. } => None,
        }
    }

    /// The process runs.
    pub(crate) fn started(&mut self, now: Duration) {
        self.starts = self.starts.saturating_add(1);
        self.state = State::Running {
            since: now,
            beat: now,
        };
    }

    /// Its heart beat.
    pub(crate) fn heartbeat(&mut self, now: Duration) {
        if let State::Running { beat, .. } = &mut self.state {
            *beat = now;
        }
    }

    /// It ended, or could not be started. Returns the wait until the next start.
    pub(crate) fn ended(&mut self, now: Duration) -> Duration {
        let lived_well = matches!(self.state, State::Running { since, .. } if now.saturating_sub(since) >= GOOD_LIFE);
        self.failures = if lived_well {
            1
        } else {
            self.failures.saturating_add(1)
        };
        let doublings = (self.failures - 1).min(16);
        let wait = BACKOFF_FIRST
            .saturating_mul(1 << doublings)
            .min(BACKOFF_MAX);
        self.state = State::Waiting { until: now + wait };
        wait
    }

    /// Whether the hardware watchdog may be petted: the agent beats, or PID 1 itself is about to bring one up. An agent that
    /// cannot even be killed is no such case.
    pub(crate) fn is_healthy(&self, now: Duration) -> bool {
        match self.state {
            State::Waiting { .. } | State::Running { .. } => true,
            State::Condemned { since } => now.saturating_sub(since) < DEATH_LIMIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn back_off_doubles_up_to_a_minute_and_forgets() {
        let mut policy = AgentPolicy::new();
        assert_eq!(policy.poll(s(0)), Some(Action::Start));
        let mut now = s(0);
        let mut waits = Vec::new();
        for _ in 0..12 {
            policy.started(now);
            waits.push(policy.ended(now));
            now += s(100);
        }
        assert_eq!(waits[0], BACKOFF_FIRST);
        assert!(
            waits
                .windows(2)
                .all(|pair| pair[1] == (pair[0] * 2).min(BACKOFF_MAX)),
            "{waits:?}"
        );
        assert_eq!(waits[11], BACKOFF_MAX);

        policy.started(now);
        policy.heartbeat(now + s(29));
        assert_eq!(policy.ended(now + GOOD_LIFE), BACKOFF_FIRST);
        assert_eq!(policy.starts(), 13);
    }

    #[test]
    fn a_silent_agent_is_killed_once() {
        let mut policy = AgentPolicy::new();
        policy.started(s(0));
        policy.heartbeat(s(10));
        assert_eq!(policy.poll(s(24)), None);
        assert_eq!(policy.poll_timeout(), Some(s(25)));
        assert_eq!(policy.poll(s(25)), Some(Action::Kill));
        assert_eq!(policy.poll(s(26)), None);
        policy.heartbeat(s(26));
        assert!(policy.is_healthy(s(34)), "the kernel is ending it");
        assert!(
            !policy.is_healthy(s(35)),
            "nothing ends it: let the hardware reset the machine"
        );
        policy.ended(s(36));
        assert!(policy.is_healthy(s(36)));
    }

    #[test]
    fn waiting_is_not_a_reason_to_start_early() {
        let mut policy = AgentPolicy::new();
        policy.started(s(1));
        let wait = policy.ended(s(2));
        assert_eq!(policy.poll(s(2)), None);
        assert_eq!(policy.poll(s(2) + wait), Some(Action::Start));
    }
}
