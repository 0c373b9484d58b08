//! The guard rails that look beyond one node, put together: governor, breakers, mass failure, conditions on others (DESIGN 3).
//!
//! `guard` asks them before each firing; here the engine tells them what happened, and lets those who waited try again.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::breaker::{Breakers, Breaking, Tripped};
use super::governor::{Gate, Governor, Limits, Opening, Sizes};
use super::groups::Groups;
use super::mass::MassGuard;
use super::others::{OthersIndex, View};
use super::permits::Permits;
use super::timers::Timer;
use super::what_if::{GroupHold, kind_of_lift};
use crate::event::{Event, Lift};
use crate::mutation::report::Hold;
use crate::mutation::{Mutation, MutationId};
use crate::state::{Node, NodeId};
use crate::time::Instant;

/// Nodes that are asked to try again in one go; the rest follows at once, in the next one, so that nothing else waits for them.
const MAX_WOKEN: usize = 256;

/// The word for a node that has given up.
const PARKED: &str = "parked";

/// Most nodes that an alarm names.
const MAX_NAMED: usize = 8;

/// What an operator sets of the guard rails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// How much may be disrupted, and how fast.
    pub limits: Limits,
    /// When a mutation that fails on many nodes is tried on no more.
    pub breaking: Breaking,
    /// A parent that loses more than this percentage of its children at once suspects itself; `None`: 20.
    pub mass_percent: Option<u32>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Rails {
    pub(super) governor: Governor,
    pub(super) breakers: Breakers,
    pub(super) mass: MassGuard,
    pub(super) groups: Groups,
    pub(super) others: OthersIndex,
    pub(super) permits: Permits,
    pub(super) nodes: usize,
    /// Nodes that are parked, as far as anybody was told.
    pub(super) parked: BTreeSet<NodeId>,
    /// Why nodes are held, for those that are.
    held: BTreeMap<NodeId, Vec<&'static str>>,
    held_by_kind: BTreeMap<&'static str, usize>,
}

/// How the guard rails stand, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RailsReport {
    /// Held nodes by kind of hold.
    pub holds: BTreeMap<&'static str, usize>,
    /// Slots taken, by the limit's name.
    pub slots: BTreeMap<String, usize>,
    /// Nodes that wait, by what they wait for.
    pub waiting: BTreeMap<String, usize>,
    /// Mutations whose breaker is open.
    pub open_breakers: Vec<MutationId>,
    /// Whether a mass failure holds everything disruptive.
    pub mass_failure: bool,
    /// Nodes that are parked.
    pub parked: usize,
}

impl Sizes for Rails {
    fn behind(&self, gate: &Gate) -> usize {
        match gate {
            Gate::Group(group) => self.groups.len(group),
            _ => self.nodes,
        }
    }
}

impl Rails {
    /// Notes why a node is held; nothing: it is not.
    pub(super) fn note_held(&mut self, node: NodeId, mut kinds: Vec<&'static str>) {
        kinds.sort_unstable();
        kinds.dedup();
        let before = match kinds.is_empty() {
            true => self.held.remove(&node),
            false => self.held.insert(node, kinds.clone()),
        };
        for kind in kinds {
            *self.held_by_kind.entry(kind).or_default() += 1;
        }
        for kind in before.into_iter().flatten() {
            if let Some(count) = self.held_by_kind.get_mut(kind) {
                *count -= 1;
            }
        }
    }

    fn opening(&self, gate: &Gate, view: View<'_>, now: Instant) -> Opening {
        let open = match gate {
            Gate::Others(key) => return self.others.opening(key, view),
            Gate::Mass => self.mass.suspect().is_none(),
            Gate::Breaker(mutation) => self.breakers.held(mutation, None, now).is_none(),
            limited => self.governor.shut(limited, self, now).is_none(),
        };
        if open { Opening::Open } else { Opening::Shut }
    }

    /// When the first gate opens by itself at which somebody waits.
    fn next_opening(&self, now: Instant) -> Option<Instant> {
        let opens = self.governor.queues().filter_map(|(gate, _)| match gate {
            Gate::Breaker(mutation) => self.breakers.next_try(mutation),
            gate => self.governor.shut(gate, self, now)?.opens(),
        });
        opens.min()
    }

    /// Lets a node wait at a gate; one that is looked at again for another reason keeps its place.
    pub(super) fn wait(
        &mut self,
        gate: Gate,
        node: &Node,
        waited: Option<&(Gate, Instant)>,
        now: Instant,
    ) {
        let since = waited.filter(|(at, _)| *at == gate);
        let since = since.map_or(now, |(_, since)| *since);
        self.governor.wait(gate, node, since);
    }

    /// The next one who waits at a gate that is open.
    pub(super) fn next_in_line(&self, view: View<'_>, now: Instant) -> Option<NodeId> {
        self.governor
            .next_in_line(|gate| self.opening(gate, view, now))
    }

    /// Forgets a node that is gone.
    pub(super) fn forget(&mut self, node: &Node, now: Instant) {
        self.governor.leave(node.id);
        self.governor.release(node.id);
        self.breakers.forget(node.id, now);
        self.permits.forget(node.id);
        self.parked.remove(&node.id);
        self.note_held(node.id, Vec::new());
        self.groups
            .changed(node.id, &node.groups, &Default::default());
    }

    /// What the head suspects itself of, while it does.
    pub(super) fn mass_text(&self) -> Option<String> {
        let suspect = self.mass.suspect()?;
        Some(format!(
            "{} of {} nodes fell silent at once: this head suspects itself or its network",
            suspect.lost.len(),
            suspect.of
        ))
    }

    /// What an open breaker says.
    pub(super) fn breaker_text(&self, mutation: &MutationId) -> String {
        let failed = match self.breakers.failed(mutation).count() {
            1 => "1 node".to_owned(),
            count => format!("{count} nodes"),
        };
        format!("{mutation} failed on {failed} and is frozen for all")
    }

    /// What there is to lift, in words.
    pub(super) fn words(&self, lift: &Lift) -> Option<GroupHold> {
        let (mutation, text) = match lift {
            Lift::Breaker(mutation) => {
                let mut open = self.breakers.open();
                open.find(|open| *open == mutation)?;
                (Some(mutation.clone()), self.breaker_text(mutation))
            }
            Lift::MassFailure => (None, self.mass_text()?),
        };
        let hold = Hold {
            kind: kind_of_lift(lift),
            text,
            lifted_by: String::new(),
        };
        Some(GroupHold {
            hold,
            mutation,
            nodes: Vec::new(),
        })
    }

    /// Lifts it; false: there was nothing to lift.
    pub(super) fn lift(&mut self, lift: &Lift) -> bool {
        match lift {
            Lift::Breaker(mutation) => self.breakers.thaw(mutation),
            Lift::MassFailure => self.mass.lift(),
        }
    }

    /// An intent to fire passes.
    pub(super) fn pass(&mut self, node: &Node, mutation: &Mutation, now: Instant) {
        self.governor.pass(node, mutation, now);
        self.breakers.started(&mutation.id, node.id);
    }

    /// The intent came to nothing.
    pub(super) fn give_back(&mut self, node: NodeId, mutation: &MutationId, now: Instant) {
        self.governor.give_back(node, mutation);
        self.breakers.given_up(mutation, node, now);
    }
}

impl Engine {
    /// Sets the guard rails: at the start, or when an operator changes them.
    pub fn set_guards(&mut self, guards: Guards) {
        self.rails.governor.limit(guards.limits);
        self.rails.breakers.configure(guards.breaking);
        let percent = guards.mass_percent.unwrap_or(super::mass::PERCENT);
        self.rails.mass.configure(percent);
    }

    /// Whether there is nothing to lift.
    pub fn is_lifted(&self, lift: &Lift) -> bool {
        self.rails.words(lift).is_none()
    }

    /// How the guard rails stand.
    pub fn rails_report(&self) -> RailsReport {
        let (rails, runtimes) = (&self.rails, self.runtimes.values());
        let by_name = |gate: &Gate, count| (gate.to_string(), count);
        RailsReport {
            holds: rails.held_by_kind.clone(),
            slots: rails.governor.slots().map(|(g, n)| by_name(g, n)).collect(),
            waiting: rails
                .governor
                .queues()
                .map(|(gate, count)| by_name(gate, count))
                .collect(),
            open_breakers: rails.breakers.open().cloned().collect(),
            mass_failure: rails.mass.suspect().is_some(),
            parked: runtimes
                .filter(|one| one.progress.parked().is_some())
                .count(),
        }
    }

    /// What keeps a node from its next step, a word each: "parked", and the kinds of holds. Nothing: it goes its way, or is there.
    pub fn stopped_by(&self, id: NodeId) -> Vec<&'static str> {
        let runtime = self.runtimes.get(&id);
        let parked = runtime.filter(|runtime| runtime.progress.parked().is_some());
        let held = self.rails.held.get(&id).into_iter().flatten().copied();
        parked.map(|_| PARKED).into_iter().chain(held).collect()
    }

    pub(super) fn others_view(&self) -> View<'_> {
        View {
            me: self.config.me,
            tree: &self.tree,
            staged: None,
            graph: self.planner.graph(),
            groups: &self.rails.groups,
        }
    }

    /// A node came into the tree.
    pub(super) fn rails_added(&mut self, id: NodeId) {
        if let Some(node) = self.tree.get(id) {
            let groups = node.groups.clone();
            self.rails.groups.changed(id, &Default::default(), &groups);
        }
        self.rails.nodes = self.tree.len().saturating_sub(1);
        self.rails_changed(id);
    }

    /// A node left the tree.
    pub(super) fn rails_removed(&mut self, node: &Node) {
        self.rails.forget(node, self.now);
        self.rails.nodes = self.tree.len().saturating_sub(1);
        self.accounted_for(node.id);
        self.rails_changed(node.id);
    }

    /// Values or groups of a node changed: conditions on it may hold now, or no longer.
    pub(super) fn rails_changed(&mut self, id: NodeId) {
        let view = View {
            me: self.config.me,
            tree: &self.tree,
            staged: None,
            graph: self.planner.graph(),
            groups: &self.rails.groups,
        };
        let turned = self.rails.others.changed(id, view);
        self.look_at_permits(id, turned);
    }

    /// Other mutations are declared.
    pub(super) fn rails_declared(&mut self) {
        let graph = self.planner.graph().clone();
        let view = View {
            me: self.config.me,
            tree: &self.tree,
            staged: None,
            graph: &graph,
            groups: &self.rails.groups,
        };
        self.rails.others.declare(graph.set(), view);
        self.rails.permits.declare(graph.set());
    }

    /// An attempt ended: a breaker may open or close.
    pub(super) fn outcome(&mut self, node: NodeId, mutation: &MutationId, good: bool) {
        self.breaker_to_tell(mutation);
        match self.rails.breakers.outcome(mutation, node, good, self.now) {
            None => {}
            Some(Tripped::Opened { failed, of }) => {
                let names: Vec<String> = failed.iter().map(|id| self.name_of(*id)).collect();
                let shown = names[..names.len().min(MAX_NAMED)].join(", ");
                let text = format!(
                    "{mutation} failed on {} of the last {of} nodes that tried it ({shown}): nobody else tries it until `krakenctl thaw --mutation {mutation}`, or until one node may try it in {:?}",
                    names.len(),
                    self.rails
                        .breakers
                        .next_try(mutation)
                        .map_or(Default::default(), |retry| retry.since(self.now))
                );
                self.alarm("breaker", mutation.as_str(), text, false);
            }
            Some(Tripped::Closed) => {
                let text = format!("{mutation} worked again: everybody may try it");
                self.alarm("breaker", mutation.as_str(), text, true);
            }
        }
    }

    /// A child that was in SYNC fell silent.
    pub(super) fn child_lost(&mut self, child: NodeId) {
        let (alive, dead) = (self.sessions.count(), self.sessions.config.dead);
        let begins = self.rails.mass.lost(child, alive, dead, self.now);
        if let (true, Some(suspect)) = (begins, self.rails.mass.suspect()) {
            let text = format!(
                "{} of {} nodes fell silent at once: this head suspects itself or its network and starts nothing disruptive until most of them are back, or until `krakenctl thaw --mass-failure`",
                suspect.lost.len(),
                suspect.of
            );
            self.alarm("mass_failure", "", text, false);
        }
    }

    /// A child joined, was found switched off, was released, or is gone.
    pub(super) fn accounted_for(&mut self, child: NodeId) {
        if self.rails.mass.found(child) {
            let text = "most of the nodes that fell silent are accounted for".to_owned();
            self.alarm("mass_failure", "", text, true);
        }
    }

    /// An operator lifts a guard rail.
    pub(super) fn lift(&mut self, lift: &Lift) {
        if !self.rails.lift(lift) {
            return;
        }
        let (about, text) = match lift {
            Lift::Breaker(mutation) => {
                self.breaker_to_tell(mutation);
                let text = format!("an operator lets everybody try {mutation} again");
                (mutation.as_str(), text)
            }
            Lift::MassFailure => {
                let text = "an operator says that this head is not at fault".to_owned();
                ("", text)
            }
        };
        self.alarm(kind_of_lift(lift), about, text, true);
    }

    /// Lets nodes try again whose gate is open; whether any does.
    pub(super) fn wake_waiting(&mut self) -> bool {
        if self.woken >= MAX_WOKEN {
            // More may be ready: at once, but after whatever else there is to do.
            self.timers.set(Timer::Rails, Some(self.now));
            return false;
        }
        let view = View {
            me: self.config.me,
            tree: &self.tree,
            staged: None,
            graph: self.planner.graph(),
            groups: &self.rails.groups,
        };
        let now = self.now;
        match self.rails.next_in_line(view, now) {
            Some(node) => {
                self.rails.governor.leave(node);
                self.woken += 1;
                self.dirty.insert(node);
                true
            }
            None => {
                let at = self.rails.next_opening(now);
                self.timers.set(Timer::Rails, at);
                false
            }
        }
    }

    pub(super) fn name_of(&self, id: NodeId) -> String {
        let node = self.tree.get(id);
        node.map_or_else(|| id.to_string(), |node| node.name.to_string())
    }

    pub(super) fn alarm(&mut self, kind: &'static str, about: &str, text: String, over: bool) {
        let about = about.to_owned();
        self.event(Event::Alarm {
            kind,
            about,
            text,
            over,
        });
    }
}
