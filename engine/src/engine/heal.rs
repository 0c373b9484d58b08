//! Nodes on their paths: plan, hold or fire, time out (DESIGN 3). The rules of one path are in `mutation::progress`, the guard rails in
//! `guard`, which is asked before an intent is logged and again at the instant of firing.

use super::commit::Then;
use super::guard::Guard;
use super::look::Look;
use super::{Engine, Role, others};
use crate::event::{CommitError, Event, Fire, MutationEvent, Output, Record};
use crate::mutation::progress::{Action, Current, Phase, timeout_text};
use crate::mutation::{Mutation, MutationId};
use crate::state::{Change, NodeId, Value, core};

/// Attaching to the parent: carried out by the engine itself on an agent.
pub(super) const JOIN: &str = "core/INITtoSYNC";
/// Leaving sync, so that the node may be switched off: likewise.
const LEAVE: &str = "core/SYNCtoINIT";

impl Engine {
    /// Plans a node anew and takes the next step, if it may.
    pub(super) fn advance(&mut self, id: NodeId) {
        let view = self.guard_view();
        let now = self.now;
        #[cfg(test)]
        {
            self.advanced += 1;
        }
        let waited = self.rails.governor.leave(id);
        let (Some(node), Some(runtime)) = (self.tree.get(id), self.runtimes.get_mut(&id)) else {
            return;
        };
        runtime.plan_anew(&mut self.planner, node);
        let own = id == self.config.me;
        let was_parked = self.rails.parked.contains(&id);
        let guard = Guard {
            engine: view,
            node,
            confirmed: runtime.confirmed,
            silent_since: runtime.silent_since,
            rails: &self.rails,
            others: others::View {
                me: self.config.me,
                tree: &self.tree,
                staged: None,
                graph: self.planner.graph(),
                groups: &self.rails.groups,
            },
            frozen: &self.frozen,
        };
        let Look {
            actions,
            asked,
            gate,
            kinds,
            wake,
            settled,
            was_off,
        } = guard.look(runtime, own);
        let progress = &runtime.progress;
        let to_tell = progress.is_untold() || progress.parked().is_some() != runtime.told_parked;
        let goes_on = was_parked && progress.parked().is_none();
        if let Some(gate) = gate {
            self.rails.wait(gate, node, waited.as_ref(), now);
        }
        self.rails.note_held(id, kinds);
        if to_tell {
            self.node_to_tell(id);
        }
        self.look_again(id, wake);
        if goes_on {
            self.rails.parked.remove(&id);
            self.event(Event::Unparked { node: id });
        }
        // All are under way before the first is fired: what follows from firing one must not start another a second time.
        let mut starting = Vec::new();
        for action in actions {
            match action {
                Action::Done(current) => {
                    let elapsed = now.since(current.since);
                    self.measure(&current.mutation, elapsed);
                    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                    self.mutation_event(id, &current, MutationEvent::Done { elapsed_ms });
                    self.outcome(id, &current.mutation, true);
                }
                Action::Stop(current) => self.interrupt(id, current),
                Action::Start(mutation) => {
                    self.last_attempt += 1;
                    if let (Some(node), Some(declared)) =
                        (self.tree.get(id), self.planner.graph().mutation(&mutation))
                    {
                        self.rails.pass(node, declared, now);
                    }
                    self.begin(id, mutation.clone(), self.last_attempt, Phase::Intent);
                    starting.push((mutation, self.last_attempt));
                }
                // It is not told to go.
                Action::Await(mutation) if asked.waits.contains_key(&mutation) => {}
                Action::Await(mutation) => self.begin(id, mutation, 0, Phase::Awaited),
                Action::Park(reason) => {
                    let reason = self.scrubbed(id, reason);
                    self.rails.parked.insert(id);
                    self.event(Event::Parked { node: id, reason });
                }
            }
        }
        for (mutation, attempt) in starting {
            self.start(id, mutation, attempt);
        }
        if settled {
            self.rails.governor.release(id);
        }
        if matches!(self.config.role, Role::Head { .. }) {
            self.let_drain(id, waited);
            self.permit(id, asked);
        }
        if was_off && matches!(self.config.role, Role::Head { .. }) {
            self.rebooted(id);
        }
        if own && self.config.role == Role::Agent {
            self.tell_parked(id);
        }
    }

    /// An agent that gave up says so to its parent, where people look.
    fn tell_parked(&mut self, id: NodeId) {
        let parked = self
            .runtimes
            .get(&id)
            .and_then(|runtime| runtime.progress.parked());
        let value = parked.map(Value::from);
        let url = core::PARKED.parse().ok();
        self.apply_dsc(
            id,
            url.map(|url| Change { url, value }).into_iter().collect(),
        );
    }

    fn start(&mut self, id: NodeId, mutation: MutationId, attempt: u64) {
        match self.config.role {
            Role::Head { .. } => {
                let intent = Record::Intent {
                    node: id,
                    mutation: mutation.clone(),
                    attempt,
                };
                let fire = Then::Fire {
                    node: id,
                    mutation,
                    attempt,
                };
                self.commits.queue(intent, fire);
            }
            Role::Agent => self.fire(id, &mutation, attempt),
        }
    }

    fn begin(&mut self, id: NodeId, mutation: MutationId, attempt: u64, phase: Phase) {
        if let Some(runtime) = self.runtimes.get_mut(&id) {
            runtime.progress.begin(Current {
                mutation,
                attempt,
                phase,
                since: self.now,
                deadline: None,
            });
        }
    }

    /// The intent is durable: fires, if the step is still wanted and nothing holds it at this instant.
    pub(super) fn fire(&mut self, id: NodeId, mutation: &MutationId, attempt: u64) {
        if self.dirty.remove(&id) {
            self.advance(id);
        }
        let view = self.guard_view();
        let (Some(node), Some(runtime)) = (self.tree.get(id), self.runtimes.get_mut(&id)) else {
            return;
        };
        let Some(declared) = self.planner.graph().mutation(mutation) else {
            return;
        };
        let guard = Guard {
            engine: view,
            node,
            confirmed: runtime.confirmed,
            silent_since: runtime.silent_since,
            rails: &self.rails,
            others: others::View {
                me: self.config.me,
                tree: &self.tree,
                staged: None,
                graph: self.planner.graph(),
                groups: &self.rails.groups,
            },
            frozen: &self.frozen,
        };
        if !guard.holds(declared).is_empty() {
            runtime.progress.abandon(attempt);
            self.rails.give_back(id, mutation, self.now);
            self.dirty.insert(id);
            return;
        }
        let Some(current) = runtime
            .progress
            .intent_durable(attempt, self.now, declared.timeout)
        else {
            return;
        };
        self.rails.governor.fired(id, mutation);
        let current = current.clone();
        let fire = Fire {
            node: id,
            name: node.name.clone(),
            mutation: mutation.clone(),
            attempt,
            deadline: current.deadline,
            cfg: node.cfg.clone(),
            dsc: node.dsc.clone(),
        };
        self.look_again_by(id, current.deadline);
        self.mutation_event(id, &current, MutationEvent::Fired { ours: true });
        match (self.config.role, mutation.as_str()) {
            (Role::Agent, JOIN) => self.attach_now(),
            (Role::Agent, LEAVE) => self.observe(id, &[(core::RUN_STATE, Some(core::INIT))]),
            _ => self.outputs.push_back(Output::Fire(fire)),
        }
    }

    /// The intent could not be kept: the attempt never was.
    pub(super) fn not_fired(
        &mut self,
        id: NodeId,
        mutation: &MutationId,
        attempt: u64,
        error: &CommitError,
    ) {
        self.rails.give_back(id, mutation, self.now);
        let Some(runtime) = self.runtimes.get_mut(&id) else {
            return;
        };
        runtime.progress.abandon(attempt);
        let again = self.now + self.config.healing.backoff;
        self.look_again_by(id, Some(again));
        self.event(Event::Refused {
            node: Some(id),
            why: format!("nothing is fired while it cannot be logged: {error}"),
        });
    }

    /// Tells a module to stop, once, if it was told to start.
    pub(super) fn interrupt(&mut self, id: NodeId, current: Current) {
        self.rails.give_back(id, &current.mutation, self.now);
        if current.phase != Phase::Fired {
            return;
        }
        self.mutation_event(id, &current, MutationEvent::Interrupted);
        self.outputs.push_back(Output::Interrupt {
            node: id,
            mutation: current.mutation,
            attempt: current.attempt,
        });
    }

    /// A module could not do it.
    pub(super) fn mutation_failed(
        &mut self,
        id: NodeId,
        mutation: &MutationId,
        attempt: u64,
        text: String,
    ) {
        let healing = self.config.healing;
        let text = self.scrubbed(id, text);
        let Some(runtime) = self.runtimes.get_mut(&id) else {
            return;
        };
        let is_current = runtime
            .progress
            .currents()
            .iter()
            .any(|current| current.attempt == attempt && current.mutation == *mutation);
        if !is_current {
            return;
        }
        if let Some(current) = runtime.progress.fail(attempt, &text, &healing, self.now) {
            self.mutation_event(id, &current, MutationEvent::Failed { text });
            self.outcome(id, mutation, false);
            self.dirty.insert(id);
        }
    }

    /// A deadline has passed, or a wait is over.
    pub(super) fn step_due(&mut self, id: NodeId) {
        self.dirty.insert(id);
        let now = self.now;
        let Some(runtime) = self.runtimes.get(&id) else {
            return;
        };
        let is_due = |current: &&Current| {
            current.phase == Phase::Fired
                && current.deadline.is_some_and(|deadline| deadline <= now)
        };
        let currents = runtime.progress.currents().iter();
        let due: Vec<Current> = currents.filter(is_due).cloned().collect();
        for current in due {
            self.timed_out(id, current);
        }
    }

    fn timed_out(&mut self, id: NodeId, current: Current) {
        let declared = self.mutation(&current.mutation);
        let (timeout, fail_to) = declared.map_or((None, Vec::new()), |declared| {
            (declared.timeout, declared.fail_to.clone())
        });
        let text = timeout_text(timeout.unwrap_or_default(), &fail_to);
        let healing = self.config.healing;
        if let Some(runtime) = self.runtimes.get_mut(&id) {
            let progress = &mut runtime.progress;
            progress.fail(current.attempt, &text, &healing, self.now);
        }
        self.mutation_event(id, &current, MutationEvent::Failed { text });
        self.outcome(id, &current.mutation, false);
        self.outputs.push_back(Output::Interrupt {
            node: id,
            mutation: current.mutation,
            attempt: current.attempt,
        });
        self.apply_dsc(id, self.reportable(id, fail_to));
    }

    /// Without what only the parent may say, on an agent.
    fn reportable(&self, id: NodeId, mut changes: Vec<Change>) -> Vec<Change> {
        if self.config.role == Role::Agent && id == self.config.me {
            changes.retain(|change| !self.parents_word.contains(&change.url));
        }
        changes
    }

    fn mutation_event(&mut self, node: NodeId, current: &Current, what: MutationEvent) {
        self.event(Event::Mutation {
            node,
            mutation: current.mutation.clone(),
            attempt: current.attempt,
            what,
        });
    }
}

pub(super) fn carries_out(own: bool, mutation: &Mutation) -> bool {
    use crate::mutation::MutationContext;
    match mutation.context {
        MutationContext::SelfNode => own,
        MutationContext::Child => !own,
        MutationContext::All => true,
    }
}
