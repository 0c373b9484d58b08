//! Dsc: what is reported, what becomes unknown by it, and who has to know.

use super::timers::Timer;
use super::{Engine, Role};
use crate::event::{Discovery, Event};
use crate::extension::Schema;
use crate::mutation::graph::MutationGraph;
use crate::state::{
    Change, MAX_VALUES, MAX_VALUES_BYTES, Node, NodeId, StateUrl, Value, Values, core,
};

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

/// Changes of fewer bytes, on nodes of fewer values, are taken without counting the bytes of all.
const SMALL: usize = 4 << 10;
/// See [`SMALL`]. An inventory of a few hundred short texts is far from the limit.
const FEW: usize = 1024;

/// What a node's Dsc can still take.
struct Room<'a> {
    dsc: Option<&'a Values>,
    values: usize,
    bytes: usize,
}

impl Room<'_> {
    /// Takes a change, if it fits.
    fn takes(&mut self, change: &Change) -> bool {
        let Some(value) = &change.value else {
            return true;
        };
        let old = self.dsc.and_then(|dsc| dsc.get(change.url.as_str()));
        let (values, bytes) = match old {
            Some(old) => (0, value.size().saturating_sub(old.size())),
            None => (1, value.size() + change.url.as_str().len()),
        };
        if self.values < values || self.bytes < bytes {
            return false;
        }
        self.values -= values;
        self.bytes -= bytes;
        true
    }
}

impl Engine {
    /// A module's report.
    pub(super) fn discovered(&mut self, discovery: Discovery) {
        let node = discovery.node;
        if self.tree.get(node).is_none() {
            return;
        }
        let changes = self.scrubbed_changes(node, discovery.changes);
        let (good, bad) = self.checked_dsc(node, changes);
        if let Some(why) = bad {
            self.event(Event::Refused {
                node: Some(node),
                why: format!("{}: {why}", discovery.source),
            });
        }
        if node == self.config.me {
            // Nobody has to come back for it: what reports it is this process.
            self.confirm(node);
        }
        self.apply_dsc(node, good);
    }

    /// Keeps the changes that are acceptable as observations of a node; the first refusal in words.
    ///
    /// An agent's schema holds what its own modules report. Urls beyond it are kept as they are, for the head to judge: its schema may be newer.
    pub(super) fn checked_dsc(
        &self,
        node: NodeId,
        changes: Vec<Change>,
    ) -> (Vec<Change>, Option<String>) {
        let mut bad = None;
        let mut good = Vec::with_capacity(changes.len());
        let mut room = self.room(node, &changes);
        for change in changes {
            let field = self.schema.field(&change.url);
            let is_beyond = field.is_none() && self.config.role == Role::Agent;
            if !is_beyond
                && !self.graph().is_discoverable(&change.url)
                && !field.is_some_and(|field| field.discoverable)
            {
                bad.get_or_insert_with(|| match field {
                    Some(_) => format!("{} cannot be discovered", change.url),
                    None => format!(
                        "{} cannot be discovered: no extension of this head has it (krakenctl extension add)",
                        change.url
                    ),
                });
                continue;
            }
            if !room.takes(&change) {
                bad.get_or_insert_with(|| {
                    format!(
                        "{} finds no place: a node has at most {MAX_VALUES} values of {MAX_VALUES_BYTES} bytes in all",
                        change.url
                    )
                });
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

    fn room(&self, node: NodeId, changes: &[Change]) -> Room<'_> {
        let dsc = self.tree.get(node).map(|node| &node.dsc);
        let size = |change: &Change| {
            let value = change.value.as_ref();
            value.map_or(0, |value| value.size() + change.url.as_str().len())
        };
        let more = changes.iter().map(size).sum::<usize>();
        let values = dsc.map_or(0, Values::len);
        // Counting bytes takes longer than most changes; what is small has to come often before it could matter.
        let counts = more > SMALL || values + changes.len() > FEW;
        Room {
            dsc,
            values: MAX_VALUES.saturating_sub(values),
            bytes: match (dsc, counts) {
                (Some(dsc), true) => MAX_VALUES_BYTES.saturating_sub(dsc.size()),
                _ => usize::MAX,
            },
        }
    }

    /// Texts without the secrets of the node: a module's tool may repeat its own command line.
    fn scrubbed_changes(&self, node: NodeId, mut changes: Vec<Change>) -> Vec<Change> {
        for change in &mut changes {
            if let Some(Value::Text(text)) = &change.value
                && !self.schema.is_secret(&change.url)
                && let Some(clean) = self.clean(node, text)
            {
                change.value = Some(Value::text(clean));
            }
        }
        changes
    }

    /// `text` about a node, without its secrets.
    pub fn scrubbed(&self, node: NodeId, text: String) -> String {
        self.clean(node, &text).unwrap_or(text)
    }

    fn clean(&self, node: NodeId, text: &str) -> Option<String> {
        let node = self.tree.get(node)?;
        self.schema.scrubbed(&[&node.cfg, &node.dsc], text)
    }

    /// Another schema is in force: what no longer fits it is forgotten, what agents reported and it knows is heard, and every child gets what
    /// it may read by it.
    pub(super) fn schema_replaced(&mut self, old: &Schema) {
        self.report_by_schema();
        let nodes: Vec<NodeId> = self.tree.iter().map(|node| node.id).collect();
        for id in nodes {
            let Some(node) = self.tree.get(id) else {
                continue;
            };
            let misfits = node.dsc.iter().filter(|(url, value)| {
                let was_declared = old.field(url).is_some() && !self.graph().is_discoverable(url);
                was_declared
                    && (self
                        .schema
                        .field(url)
                        .is_none_or(|field| !field.discoverable)
                        || old.strands(&self.schema, url, value).is_some())
            });
            let gone = misfits.map(|(url, _)| Change::unset(url.clone())).collect();
            self.apply_dsc(id, gone);
        }
        self.hear_again();
        self.push_all();
        self.dirty.extend(self.runtimes.keys());
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
        self.rails_changed(id);
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
        self.accounted_for(id);
        if let Some(node) = self.tree.get_mut(id) {
            node.last_known = Default::default();
        }
    }

    /// Arms the timer that looks at a node again.
    pub(super) fn look_again(&mut self, id: NodeId, at: Option<crate::time::Instant>) {
        self.timers.set(Timer::Step(id), at);
    }

    /// The same, unless it is looked at before anyway.
    pub(super) fn look_again_by(&mut self, id: NodeId, at: Option<crate::time::Instant>) {
        let sooner = self.timers.at(Timer::Step(id)).into_iter().chain(at).min();
        self.look_again(id, sooner);
    }
}
