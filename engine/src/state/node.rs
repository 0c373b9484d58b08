//! One node of the tree.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, NodeId, NodeName, Value, Values, core};
use crate::time::Instant;

/// A node: its names, its place, what it should be and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Identity for life.
    pub id: NodeId,
    /// What people type; unique.
    pub name: NodeName,
    /// Who serves and mutates it; `None` for the head itself.
    pub parent: Option<NodeId>,
    /// Group names without `@`.
    pub groups: BTreeSet<String>,
    /// Free words for people and tools.
    pub labels: BTreeMap<String, String>,
    /// Intent.
    pub cfg: Values,
    /// Observation.
    pub dsc: Values,
    /// Revision of the last write to Cfg or attributes.
    pub cfg_revision: u64,
    /// No mutation starts on a frozen node.
    pub frozen: bool,
    /// When the agent was last heard by this engine.
    pub last_seen: Option<Instant>,
    /// What an earlier run of the head knew; a hint, never an observation.
    pub last_known: LastKnown,
}

/// Dsc as an earlier run of the head saw it (promise P4: never relied upon).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LastKnown {
    /// The values.
    pub dsc: Values,
    /// When they were written, milliseconds since the Unix epoch; 0: never.
    pub at_ms: u64,
}

impl LastKnown {
    /// What of a change of Dsc is worth keeping for the next run of the head.
    ///
    /// When an agent falls silent, whether its job runs becomes unknown; the next head must still leave it alone. So the job is kept until
    /// the agent joins again or the power is seen off.
    pub fn to_keep(changes: &[Change]) -> Vec<Change> {
        let becomes = |url: &str, text: &str| {
            let mut values = changes.iter().filter(|change| change.url.as_str() == url);
            values.any(|change| change.value.as_ref().and_then(Value::as_text) == Some(text))
        };
        let is_busy = |change: &&Change| change.url.as_str() == core::BUSY;
        let silent = becomes(core::RUN_STATE, core::ERROR);
        let heard =
            becomes(core::RUN_STATE, core::SYNC) || becomes(core::PHYS_STATE, core::POWER_OFF);
        let ended = core::BUSY.parse().ok().filter(|_| heard).map(Change::unset);
        let kept = changes.iter().filter(|change| !(silent && is_busy(change)));
        ended.into_iter().chain(kept.cloned()).collect()
    }
}

impl Node {
    /// A node with nothing but its names.
    pub fn new(id: NodeId, name: NodeName, parent: Option<NodeId>) -> Self {
        Self {
            id,
            name,
            parent,
            groups: BTreeSet::new(),
            labels: BTreeMap::new(),
            cfg: Values::default(),
            dsc: Values::default(),
            cfg_revision: 0,
            frozen: false,
            last_seen: None,
            last_known: LastKnown::default(),
        }
    }

    /// True while a job is known, or was last known, to run here.
    pub fn is_busy(&self) -> bool {
        self.says_busy() || has_job(&self.last_known.dsc)
    }

    /// True while its agent says that a job runs here.
    pub fn says_busy(&self) -> bool {
        has_job(&self.dsc)
    }
}

fn has_job(values: &Values) -> bool {
    values.text(core::BUSY) == Some(core::BUSY_BUSY)
}
