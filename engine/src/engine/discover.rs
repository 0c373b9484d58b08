//! Dsc: what is reported, what becomes unknown by it, and who has to know.

use super::timers::Timer;
use super::{Engine, Role};
use crate::event::{Discovery, Event};
use crate::mutation::graph::MutationGraph;
use crate::state::{Change, Node, NodeId, StateUrl, Value, Values, core};

/// State of a node's network boot, which the engine moves when a grant is made or handed out.
pub(super) const PXE_STATE: &str = "/pxe/state";
/// Whether mutations are held, as a child sees it in its Cfg.
pub(super) const FROZEN: &str = "/Frozen";

/// Applies changes to a Dsc with all that can no longer be known by them; returns what has really changed.
pub(super) fn apply(
    graph: &MutationGraph,
    dsc: &mut Values,
    cfg: &Values,
    changes: Vec<Change>,
) -> Vec<Change> {
    let mut real = dsc.apply(changes);
    let changed: Vec<StateUrl> = real.iter().map(|change| change.url.clone()).collect();
    for url in graph.forget(dsc, cfg, &changed) {
        if dsc.set(url.clone(), None) {
            real.push(Change::unset(url));
        }
    }
    real
}

impl Engine {
    /// A module's report.
    pub(super) fn discovered(&mut self, discovery: Discovery) {
        let node = discovery.node;
        if self.tree.get(node).is_none() {
            return;
        }
        let (good, bad) = self.checked_dsc(discovery.changes);
        if let Some(why) = bad {
            self.event(Event::Refused {
                node: Some(node),
                why: format!("{}: {why}", discovery.source),
            });
        }
        self.apply_dsc(node, good);
    }

    /// Keeps the changes that are acceptable as observations; the first refusal in words.
    pub(super) fn checked_dsc(&self, changes: Vec<Change>) -> (Vec<Change>, Option<String>) {
        let mut bad = None;
        let mut good = Vec::with_capacity(changes.len());
        for change in changes {
            let field = self.schema.field(&change.url);
            if !self.graph().is_discoverable(&change.url)
                && !field.is_some_and(|field| field.discoverable)
            {
                bad.get_or_insert_with(|| format!("{} cannot be discovered", change.url));
                continue;
            }
            match (field, change.value) {
                (Some(_), Some(value)) => match self.schema.check(&change.url, value) {
                    Ok(value) => good.push(Change {
                        url: change.url,
                        value,
                    }),
                    Err(error) => {
                        bad.get_or_insert_with(|| error.to_string());
                    }
                },
                (_, value) => good.push(Change {
                    url: change.url,
                    value,
                }),
            }
        }
        (good, bad)
    }

    /// Sets Dsc values of the core and of pxe, as far as they are declared.
    pub(super) fn observe(&mut self, node: NodeId, values: &[(&str, Option<&str>)]) {
        let changes = values
            .iter()
            .filter_map(|(url, value)| {
                let url: StateUrl = url.parse().ok()?;
                let known = self.graph().is_discoverable(&url);
                known.then(|| Change {
                    url,
                    value: value.map(Value::from),
                })
            })
            .collect();
        self.apply_dsc(node, changes);
    }

    /// Changes Dsc, forgets what can no longer be known, and marks the node for planning.
    pub(super) fn apply_dsc(&mut self, id: NodeId, changes: Vec<Change>) {
        let Some(node) = self.tree.get_mut(id) else {
            return;
        };
        let real = apply(self.planner.graph(), &mut node.dsc, &node.cfg, changes);
        if real.is_empty() {
            return;
        }
        if node.dsc.text(core::PHYS_STATE) == Some(core::POWER_OFF) {
            self.confirm(id);
            if id != self.config.me {
                // Its silence to come says nothing about the boot that follows.
                self.end_session(id, "the node is switched off");
            }
        }
        self.dirty.insert(id);
        if self.config.role == Role::Agent && id == self.config.me {
            let parents_word = &self.parents_word;
            let ours = real
                .iter()
                .filter(|change| !parents_word.contains(&change.url))
                .cloned();
            let ours: Vec<Change> = ours.collect();
            self.own_dsc_changed(ours);
        }
        self.event(Event::Dsc {
            node: id,
            changes: real,
        });
    }

    /// Cfg of non-discoverable urls is part of what dependencies look at.
    pub(super) fn forget_after_cfg(&mut self, id: NodeId) {
        let Some(node) = self.tree.get(id) else {
            return;
        };
        let forgotten = self.forgotten_by_cfg(node);
        self.apply_dsc(id, forgotten);
    }

    /// What of a node's Dsc can no longer be known under its Cfg.
    pub(super) fn forgotten_by_cfg(&self, node: &Node) -> Vec<Change> {
        let changed: Vec<StateUrl> = node.cfg.iter().map(|(url, _)| url.clone()).collect();
        let forgotten = self.graph().forget(&node.dsc, &node.cfg, &changed);
        forgotten.into_iter().map(Change::unset).collect()
    }

    /// What an earlier run of the head knew of this node no longer matters.
    pub(super) fn confirm(&mut self, id: NodeId) {
        if let Some(runtime) = self.runtimes.get_mut(&id) {
            runtime.confirmed = true;
            runtime.silent_since = None;
        }
        if let Some(node) = self.tree.get_mut(id) {
            node.last_known = Default::default();
        }
    }

    /// Arms the timer that looks at a node again.
    pub(super) fn look_again(&mut self, id: NodeId, at: Option<crate::time::Instant>) {
        self.timers.set(Timer::Step(id), at);
    }
}
