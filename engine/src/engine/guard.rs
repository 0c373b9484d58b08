//! Whether a mutation may fire on a node at this instant, and if not, why and what lifts that (DESIGN 3, "Guard rails").
//!
//! Asked before an intent is logged, again when it is durable, and by `explain`: so what explains a hold is what holds. The rules that look
//! at one node are here, those that look at many in [`rails`](super::rails).

use std::time::Duration;

use super::discover::FROZEN;
use super::explain::{BUSY_HOLD, job_hold};
use super::governor::{Gate, Shut};
use super::held::{Held, TIME_MARK, nodes};
use super::others::View;
use super::rails::Rails;
use super::{Engine, Role};
use crate::mutation::Mutation;
use crate::mutation::progress::Healing;
use crate::mutation::report::time;
use crate::state::{Frozen, Node, Value, core};
use crate::time::Instant;

/// Kind of the hold of what is frozen.
pub(super) const FROZEN_HOLD: &str = "frozen";
/// Kind of the hold of a condition on other nodes.
pub(super) const OTHER_NODES: &str = "other_nodes";

/// What the guard rails look at.
pub(super) struct Guard<'a> {
    pub(super) engine: GuardView,
    pub(super) node: &'a Node,
    pub(super) confirmed: bool,
    pub(super) silent_since: Option<Instant>,
    pub(super) rails: &'a Rails,
    pub(super) others: View<'a>,
    pub(super) frozen: &'a Frozen,
}

/// The engine's part of a [`Guard`], copied so that a node's runtime can be borrowed beside it.
#[derive(Clone, Copy)]
pub(super) struct GuardView {
    role: Role,
    started: Instant,
    pub(super) now: Instant,
    healing: Healing,
    dead: Duration,
}

impl GuardView {
    pub(super) fn healing(&self) -> &Healing {
        &self.healing
    }

    /// At another instant.
    pub(super) fn at(mut self, now: Instant) -> Self {
        self.now = now;
        self
    }
}

impl Engine {
    pub(super) fn guard_view(&self) -> GuardView {
        GuardView {
            role: self.config.role,
            started: self.started,
            now: self.now,
            healing: self.config.healing,
            dead: self.sessions.config.dead,
        }
    }
}

impl Guard<'_> {
    /// Everything that keeps `mutation` from firing now.
    pub(super) fn holds(&self, mutation: &Mutation) -> Vec<Held> {
        let mut held = Vec::new();
        self.frozen(&mut held);
        self.unconfirmed(mutation, &mut held);
        if mutation.disruptive {
            self.running(&mut held);
            self.mass_failure(&mut held);
        }
        self.breaker(mutation, &mut held);
        self.others(mutation, &mut held);
        self.governor(mutation, &mut held);
        held
    }

    pub(super) fn is_head(&self) -> bool {
        matches!(self.engine.role, Role::Head { .. })
    }

    fn release(&self) -> String {
        format!("krakenctl node release {}", self.node.name)
    }

    fn frozen(&self, held: &mut Vec<Held>) {
        let name = &self.node.name;
        if self.frozen.cluster {
            let text = "the cluster is frozen".to_owned();
            held.push(Held::new(FROZEN_HOLD, text, "krakenctl thaw"));
        }
        for (group, by) in self.frozen.groups_of(self.node) {
            let text = format!("its group {group} is frozen by {by}");
            let lift = format!("krakenctl thaw @{group}");
            held.push(Held::new(FROZEN_HOLD, text, lift));
        }
        if self.node.frozen || self.node.cfg.get(FROZEN) == Some(&Value::Bool(true)) {
            let lift = format!("krakenctl thaw {name}");
            held.push(Held::new(
                FROZEN_HOLD,
                format!("node {name} is frozen"),
                lift,
            ));
        }
    }

    fn unconfirmed(&self, mutation: &Mutation, held: &mut Vec<Held>) {
        let view = &self.engine;
        if !self.is_head() || self.confirmed {
            return;
        }
        let was_in_sync = self.node.last_known.dsc.text(core::RUN_STATE) == Some(core::SYNC);
        let settles = view.started
            + if mutation.disruptive {
                view.healing.settle
            } else {
                view.dead
            };
        let mut changes = mutation.mutates.iter();
        let asks_only = !mutation.disruptive
            && changes.all(|change| {
                change.url.as_str() == core::PHYS_STATE && change.from.contains(&None)
            });
        if view.now < settles && (mutation.disruptive || was_in_sync) && !asks_only {
            let text =
                "this head has just started and waits for the node's agent to come back".to_owned();
            let lift = format!("its agent's join, or time: {TIME_MARK}");
            let left = settles.since(view.now);
            held.push(
                Held::new("unconfirmed", text, lift)
                    .until(settles)
                    .left(left),
            );
        }
    }

    /// What may run on the node.
    fn running(&self, held: &mut Vec<Held>) {
        let (view, name, release) = (&self.engine, &self.node.name, self.release());
        if self.node.is_busy() {
            held.push(if self.node.says_busy() {
                job_hold(name)
            } else {
                let text =
                    format!("node {name} was BUSY when it was last heard: a job may run on it");
                let lift = format!("its return, power found off, or {release}");
                Held::new(BUSY_HOLD, text, lift)
            });
        }
        if let Some(since) = self.silent_since {
            let until = since + view.healing.silent_hold;
            if view.now < until {
                let text = match since == view.started {
                    true => {
                        format!("node {name} was not heard since this head started, and may run")
                    }
                    false => format!("node {name} fell silent while in SYNC and may still run"),
                };
                let lift = format!("its return, power found off, {release}, or time: {TIME_MARK}");
                let left = until.since(view.now);
                held.push(Held::new("silent", text, lift).until(until).left(left));
            }
        }
    }

    fn mass_failure(&self, held: &mut Vec<Held>) {
        if let Some(text) = self.rails.mass_text() {
            let lift = "the return of most of them, or krakenctl thaw --mass-failure";
            held.push(Held::new("mass_failure", text, lift).at(Gate::Mass));
        }
    }

    fn breaker(&self, mutation: &Mutation, held: &mut Vec<Held>) {
        let breakers = &self.rails.breakers;
        let now = self.engine.now;
        let Some(retry) = breakers.held(&mutation.id, Some(self.node.id), now) else {
            return;
        };
        let text = self.rails.breaker_text(&mutation.id);
        let by_itself = match retry {
            Some(at) => format!("one try of a node in {}", time(at.since(now))),
            None => "the success of the one node that tries it".to_owned(),
        };
        let lift = format!("krakenctl thaw --mutation {}, or {by_itself}", mutation.id);
        held.push(Held::new("breaker", text, lift).at(Gate::Breaker(mutation.id.clone())));
    }

    fn others(&self, mutation: &Mutation, held: &mut Vec<Held>) {
        if !self.is_head() {
            if self.waits_for_word(mutation) {
                let text = format!("{} waits for other nodes", mutation.id);
                let lift = "the word of its head, where krakenctl node explain names them";
                held.push(Held::new(OTHER_NODES, text, lift));
            }
            return;
        }
        for others in &mutation.requires_of {
            let obstacle = self.rails.others.obstacle(others, self.node, self.others);
            if let Some((gate, text, lift)) = obstacle {
                held.push(Held::new(OTHER_NODES, text, lift).at(gate));
            }
        }
    }

    fn governor(&self, mutation: &Mutation, held: &mut Vec<Held>) {
        let (rails, now) = (self.rails, self.engine.now);
        let governor = &rails.governor;
        let Some((gate, shut)) = governor.refusal(self.node, mutation, rails, now) else {
            return;
        };
        let whose = match &gate {
            Gate::Group(group) => format!("group @{group}"),
            Gate::Mutation(mutation) => format!("mutation {mutation}"),
            _ => "the cluster".to_owned(),
        };
        let (text, lift) = match &shut {
            Shut::Slots { of, by } => {
                let by = self.others.name(*by);
                let among = if *of == 1 { "" } else { " among others" };
                (
                    format!(
                        "{whose} lets {} be disrupted at once: {by}{among}",
                        nodes(*of as usize)
                    ),
                    format!("{by} being where its Cfg wants it"),
                )
            }
            Shut::Rate { of, .. } => (
                format!("{whose} lets {} be disrupted a minute", nodes(*of)),
                format!("time: the next may go in {TIME_MARK}"),
            ),
            Shut::Gap { .. } => (
                "machines are switched on one after the other".to_owned(),
                format!("time: the next is due in {TIME_MARK}"),
            ),
        };
        let opens = shut.opens().map(|opens| opens.since(now));
        let before = governor.ahead(self.node.id);
        let hold = Held::new("governor", text, lift).at(gate).behind(before);
        held.push(opens.into_iter().fold(hold, Held::left));
    }
}
