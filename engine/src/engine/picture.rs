//! The engine at one instant, for who explains many nodes: all of them as one revision left them, worked out elsewhere and in its own time.
//!
//! Nodes are shared, not copied; what is copied is what reports look at beyond them: the guard rails, and how far the asked nodes are. A picture is
//! an engine that is told nothing, so a report from it is the report that the engine itself would have given.

use std::sync::Arc;

use super::{Engine, Runtime};
use crate::extension::Schema;
use crate::mutation::path::Planner;
use crate::mutation::report::Report;
use crate::state::NodeId;
use crate::time::Instant;

/// See the module.
pub struct Picture {
    engine: Engine,
    nodes: Vec<NodeId>,
}

impl Engine {
    /// A picture in which these nodes can be explained, in this order.
    pub fn picture(&self, nodes: Vec<NodeId>, now: Instant) -> Picture {
        let runtime = |id: &NodeId| Some((*id, self.runtimes.get(id)?.clone()));
        let runtimes = nodes.iter().filter_map(runtime).collect();
        let mut engine = Self::new(self.config.clone(), Schema::default(), now);
        engine.schema = Arc::clone(&self.schema);
        engine.tree = self.tree.still();
        engine.frozen = self.frozen.clone();
        engine.started = self.started;
        engine.planner = Planner::new(Arc::clone(self.planner.graph()));
        engine.runtimes = runtimes;
        engine.sessions.config = self.sessions.config;
        engine.rails = self.rails.clone();
        engine.costs = self.costs.clone();
        Picture { engine, nodes }
    }
}

impl Picture {
    /// Why each of its nodes is where it was, in the order in which they were asked for.
    pub fn reports(&self) -> impl Iterator<Item = Report> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|node| self.engine.report(*node, self.engine.now))
    }
}

const _: () = {
    /// Reports are worked out on another thread.
    const fn travels<T: Send>() {}
    travels::<Picture>();
    travels::<Runtime>();
};

#[cfg(test)]
mod tests;
