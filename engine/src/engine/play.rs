//! What a session with an agent does to its node, for scenarios, which have no agent: no keys, no frames.

use super::Engine;
use crate::state::{Change, NodeId};
use crate::time::Instant;

impl Engine {
    /// As if the node's agent had joined with this report.
    pub(crate) fn play_agent_back(&mut self, node: NodeId, report: Vec<Change>, now: Instant) {
        self.now = now;
        self.confirm(node);
        self.apply_dsc(node, report);
        self.dirty.insert(node);
        self.settle();
    }

    /// As if the node's agent had not been heard for the dead interval.
    pub(crate) fn play_agent_lost(&mut self, node: NodeId, now: Instant) {
        self.now = now;
        self.dead(node);
        self.settle();
    }
}
