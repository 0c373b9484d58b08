//! What was tried on a node and how it went, for `explain`.

use std::time::Duration;

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
