//! What a head would like to know again after a restart, beyond what is durable: attempts, measured times, breakers, slots of the governor.
//!
//! The engine tells it as [`Output::Remember`](crate::event::Output::Remember), in batches, a moment after it changed; the store writes it down
//! when it has time, and may lose the last of it (P4 of DESIGN 2). At the start it comes back through
//! [`Engine::restore_memo`](crate::Engine::restore_memo).
//!
//! Times are ages, from the moment at which a memo is told or given back: the engine has no wall clock.

use std::time::Duration;

use crate::mutation::MutationId;
use crate::mutation::measured::Times;
use crate::mutation::progress::Ending;
use crate::state::NodeId;

/// One thing to remember. All but attempts replace what was told of the same thing before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memo {
    /// An attempt has ended. The latest [`MAX_HISTORY`](crate::mutation::progress::MAX_HISTORY) of a node are wanted.
    Attempt {
        /// On which node.
        node: NodeId,
        /// What became of it.
        attempt: PastAttempt,
    },
    /// A node is parked, on which mutation and why; `None`: it is not.
    Parked {
        /// Which.
        node: NodeId,
        /// The mutation that used up its attempts, and the reason in words.
        parked: Option<(MutationId, Box<str>)>,
    },
    /// How long a mutation took lately.
    Times {
        /// Which.
        mutation: MutationId,
        /// How long.
        times: Times,
        /// The seconds that it counts with, where costs are learned.
        seconds: Option<u32>,
        /// How long ago it succeeded last.
        age: Duration,
    },
    /// Where the breaker of a mutation stands; the default is not worth keeping.
    Breaker {
        /// Of which mutation.
        mutation: MutationId,
        /// Where.
        breaker: PastBreaker,
    },
    /// What has passed a limit of the governor; without nodes and times it is not worth keeping.
    Limit {
        /// Its name: `cluster`, `@group`, `module/NAME`.
        name: String,
        /// Nodes that hold a slot.
        holders: Vec<NodeId>,
        /// How long ago nodes passed, within the last minute.
        passed: Vec<Duration>,
    },
}

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastAttempt {
    /// What was tried.
    pub mutation: MutationId,
    /// Number of the firing; 0 when somebody else carried it out.
    pub attempt: u64,
    /// How it ended.
    pub ending: Ending,
    /// How long ago.
    pub age: Duration,
    /// How long it took.
    pub took: Duration,
}

/// Where a breaker stood.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PastBreaker {
    /// It is open; one node may try after this time. `None`: closed.
    pub open: Option<Duration>,
    /// The latest outcome of each of the last nodes that tried, oldest first: whether it was good, and how long ago.
    pub outcomes: Vec<(NodeId, bool, Duration)>,
}

impl Memo {
    /// The same, told so much earlier.
    #[must_use]
    pub fn aged(mut self, by: Duration) -> Self {
        match &mut self {
            Self::Attempt { attempt, .. } => attempt.age += by,
            Self::Breaker { breaker, .. } => {
                breaker.open = breaker.open.map(|open| open.saturating_sub(by));
                let ages = breaker.outcomes.iter_mut();
                ages.for_each(|(_, _, age)| *age += by);
            }
            Self::Limit { passed, .. } => passed.iter_mut().for_each(|age| *age += by),
            Self::Times { age, .. } => *age += by,
            Self::Parked { .. } => {}
        }
        self
    }
}
