//! The end of the machine, in stages, each with a time limit.
//!
//! The agent first, which stops the image in order; then every process politely; then by force; then the kernel.

use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Starts anew.
    Reboot,
    /// Stays on, without a system.
    Halt,
    /// Switches off.
    PowerOff,
}

/// Time for the agent to stop the image: the image's own ten seconds, and some.
pub(crate) const AGENT_LIMIT: Duration = Duration::from_secs(15);
/// Time for all others after SIGTERM.
pub(crate) const TERM_LIMIT: Duration = Duration::from_secs(3);
/// Time for the kernel after SIGKILL.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(1);

/// Where the end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The agent has SIGTERM.
    Agent,
    /// Everybody has SIGTERM.
    Term,
    /// Everybody has SIGKILL.
    Kill,
    /// Nothing is left to wait for.
    Gone,
}

/// The end of the machine under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shutdown {
    /// To what end.
    pub(crate) ending: Ending,
    /// Where it stands.
    pub(crate) stage: Stage,
    /// When the stage is over in any case.
    pub(crate) deadline: Duration,
}

impl Shutdown {
    /// Begins; without an agent, with the second stage.
    pub(crate) fn new(ending: Ending, has_agent: bool, now: Duration) -> Self {
        let (stage, limit) = if has_agent {
            (Stage::Agent, AGENT_LIMIT)
        } else {
            (Stage::Term, TERM_LIMIT)
        };
        Self {
            ending,
            stage,
            deadline: now + limit,
        }
    }

    /// Moves on when the stage has done its work or run out of time. Returns the stage to begin, if it is another one.
    pub(crate) fn advance(
        &mut self,
        has_agent: bool,
        has_children: bool,
        now: Duration,
    ) -> Option<Stage> {
        let done = match self.stage {
            Stage::Agent => !has_agent,
            Stage::Term | Stage::Kill => !has_children,
            Stage::Gone => false,
        };
        if !done && now < self.deadline {
            return None;
        }
        let (stage, limit) = match self.stage {
            Stage::Agent => (Stage::Term, TERM_LIMIT),
            Stage::Term if has_children => (Stage::Kill, KILL_LIMIT),
            Stage::Term | Stage::Kill | Stage::Gone => (Stage::Gone, Duration::ZERO),
        };
        (self.stage, self.deadline) = (stage, now + limit);
        Some(stage)
    }
}

/// Asks the kernel; returns only if it refuses.
pub(crate) fn end(ending: Ending) -> String {
    nix::unistd::sync();
    let mode = match ending {
        Ending::Reboot => RebootMode::RB_AUTOBOOT,
        Ending::Halt => RebootMode::RB_HALT_SYSTEM,
        Ending::PowerOff => RebootMode::RB_POWER_OFF,
    };
    match reboot(mode) {
        Err(error) => format!("the kernel refuses to end ({ending:?}): {error}"),
        Ok(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn stages_follow_each_other_when_done() {
        let mut end = Shutdown::new(Ending::PowerOff, true, s(0));
        assert_eq!(end.advance(true, true, s(1)), None);
        assert_eq!(end.advance(false, true, s(2)), Some(Stage::Term));
        assert_eq!(end.advance(false, true, s(3)), None);
        assert_eq!(end.advance(false, false, s(3)), Some(Stage::Gone));
    }

    #[test]
    fn stages_end_by_time() {
        let mut end = Shutdown::new(Ending::Reboot, true, s(0));
        assert_eq!(end.advance(true, true, AGENT_LIMIT), Some(Stage::Term));
        let later = AGENT_LIMIT + TERM_LIMIT;
        assert_eq!(end.advance(true, true, later), Some(Stage::Kill));
        assert_eq!(end.advance(true, true, later), None);
        assert_eq!(
            end.advance(true, true, later + KILL_LIMIT),
            Some(Stage::Gone)
        );
    }

    #[test]
    fn without_an_agent_nobody_waits_for_it() {
        assert_eq!(Shutdown::new(Ending::Halt, false, s(0)).stage, Stage::Term);
    }
}
