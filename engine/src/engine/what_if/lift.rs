//! What would follow if an operator lifted a guard rail of the whole cluster: who waits there, and what they would do, or wait for, then.
//!
//! Plans stay as they are, for guard rails hold firings only; the rail is lifted in a copy of all of them, where those who wait go on.

use super::rehearsal::Rehearsal;
use super::{GroupHold, Groups, WhatIf, note_hold};
use crate::engine::held::Held;
use crate::engine::{Engine, Runtime};
use crate::event::Lift;
use crate::mutation::progress::Phase;
use crate::mutation::{Mutation, MutationId};
use crate::state::Node;
use crate::time::Instant;

impl Engine {
    /// What would follow if this were lifted. Its `lifts` are empty if there is nothing to lift.
    pub fn what_if_lifted(&self, lift: &Lift, now: Instant) -> WhatIf {
        let mut rails = self.rails.clone();
        let rail = rails.words(lift);
        rails.lift(lift);
        let mut rehearsal = Rehearsal::new(self, &self.frozen, rails, now);
        rehearsal.play();
        let (mut lifts, mut none, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(rail) = rail {
            for node in self.tree.iter_by_name() {
                if let Some((mutation, hold)) = self.held_by(node, lift, now) {
                    note_hold(&mut lifts, hold, &mutation, &node.name);
                    waiting.push(node.id);
                }
            }
            if lifts.is_empty() {
                none.push(rail);
            }
        }
        WhatIf {
            revision: self.revision,
            lifts: lifts.into_iter().map(GroupHold::from).chain(none).collect(),
            groups: Groups::of(&rehearsal, waiting),
            ..WhatIf::default()
        }
    }

    /// The first step of a node that this rail keeps from firing, and the hold.
    fn held_by(&self, node: &Node, lift: &Lift, now: Instant) -> Option<(MutationId, Held)> {
        let runtime = self.runtimes.get(&node.id)?;
        let standing = self.standing(node, runtime);
        let steps = runtime.plan.plan.steps().iter();
        let steps = steps.filter_map(|step| self.mutation(step));
        let mut steps = steps.filter(|step| concerns(lift, step) && !is_under_way(runtime, step));
        steps.find_map(|step| {
            let holds = self.holds_of(&standing, step, now).into_iter();
            let mut holds = holds.filter(|held| held.hold.kind == kind(lift));
            Some((step.id.clone(), holds.next()?))
        })
    }
}

/// The word of the hold that goes with it.
pub(in crate::engine) fn kind(lift: &Lift) -> &'static str {
    match lift {
        Lift::Breaker(_) => "breaker",
        Lift::MassFailure => "mass_failure",
    }
}

fn concerns(lift: &Lift, step: &Mutation) -> bool {
    match lift {
        Lift::Breaker(mutation) => step.id == *mutation,
        Lift::MassFailure => step.disruptive,
    }
}

fn is_under_way(runtime: &Runtime, step: &Mutation) -> bool {
    let mut currents = runtime.progress.currents().iter();
    currents.any(|current| current.mutation == step.id && current.phase != Phase::Intent)
}
