//! What was tried on a node and how it went, for `explain`.

use std::time::Duration;

use super::{Parked, Progress};
use crate::mutation::MutationId;
use crate::time::Instant;

/// Attempts kept of one node: three tries of each step of a usual boot, in about 1 KiB.
pub const MAX_HISTORY: usize = 16;

/// One attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was tried.
    pub mutation: MutationId,
    /// Number of the firing; 0 when somebody else carried it out.
    pub attempt: u64,
    /// When it was fired.
    pub since: Instant,
    /// When it ended.
    pub ended: Instant,
    /// How.
    pub ending: Ending,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All its values were discovered.
    Done,
    /// It timed out, or could not be done; why, in words.
    Failed(Box<str>),
    /// It was no longer wanted.
    Interrupted,
}

impl Attempt {
    /// How long it took.
    pub fn took(&self) -> Duration {
        self.ended.since(self.since)
    }
}

impl Ending {
    /// The word for a failure.
    pub const FAILED: &str = "failed";

    /// The word for it in every output.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(_) => Self::FAILED,
            Self::Interrupted => "interrupted",
        }
    }
}

impl Progress {
    pub(super) fn push_history(&mut self, attempt: Attempt) {
        if self.history.len() == MAX_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(attempt);
    }

    /// Whether attempts have ended that were not taken by [`take_untold`](Self::take_untold).
    pub fn is_untold(&self) -> bool {
        self.untold > 0
    }

    /// The attempts that have ended since the last call, oldest first.
    pub fn take_untold(&mut self) -> Vec<Attempt> {
        let told = self.history.len() - self.untold.min(self.history.len());
        self.untold = 0;
        self.history.iter().skip(told).cloned().collect()
    }

    /// Puts back an attempt of an earlier run. It is shown, and counts for nothing else.
    pub fn restore(&mut self, attempt: Attempt) {
        self.push_history(attempt);
    }

    /// The mutation on which the node is parked, and why.
    pub fn parking(&self) -> Option<(&MutationId, &str)> {
        let parked = self.parked.as_deref()?;
        Some((&parked.on, &parked.reason))
    }

    /// Parks the node as an earlier run had parked it, or not; `attempts` are used up.
    pub fn restore_parking(
        &mut self,
        parked: Option<(MutationId, Box<str>)>,
        attempts: u32,
        now: Instant,
    ) {
        self.parked = parked.map(|(on, reason)| {
            self.tries.entry(on.clone()).or_default().failed = attempts;
            // From here on: the node has to be looked at anew before it can be told that its outage has ended.
            Box::new(Parked {
                on,
                since: now,
                reason: reason.into(),
            })
        });
    }
}
