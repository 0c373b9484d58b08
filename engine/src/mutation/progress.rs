//! One node's path being followed (DESIGN 3, "Following a path" and "Bounded healing").
//!
//! ```text
//!              start            intent durable          all `to` discovered
//!   ┌──────┐ ────────▶ ┌────────┐ ─────────▶ ┌───────┐ ───────────────────▶ idle
//!   │ idle │           │ intent │            │ fired │ ── timeout, failure ─▶ idle, back-off ─▶ … ─▶ parked
//!   └──────┘ ◀──────── └────────┘ ◀───────── └───────┘
//!      │       no longer the first step        (one INTERRUPT)
//!      └──── not our context ────▶ awaited
//! ```
//!
//! The machine decides; the engine carries out: it numbers attempts, makes intents durable and emits what happened. Every attempt has a
//! number of its own, so that a timer or a late answer of an earlier one changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::path::Plan;
use super::{Mutation, MutationId};
use crate::state::{Change, Values};
use crate::time::Instant;

/// Failures kept for `explain`; enough to see a pattern.
pub const MAX_FAILURES: usize = 8;

/// How patiently a node is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healing {
    /// Attempts of one mutation before the node is parked.
    pub attempts: u32,
    /// Wait after the first failure; doubles with each further one.
    pub backoff: Duration,
    /// Longest wait between attempts.
    pub backoff_max: Duration,
    /// A mutation that is wanted again within this time of its success has not held: it counts as failed.
    pub relapse: Duration,
    /// After a start, nothing disruptive fires this long on a node that has not been heard: three dead intervals.
    pub settle: Duration,
    /// Nothing disruptive fires this long on a node that was in SYNC and fell silent: it may run a job behind a cut cable.
    pub silent_hold: Duration,
}

impl Default for Healing {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Duration::from_secs(5),
            backoff_max: Duration::from_secs(300),
            relapse: Duration::from_secs(60),
            settle: Duration::from_secs(30),
            silent_hold: Duration::from_secs(600),
        }
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub mutation: MutationId,
    /// Which attempt.
    pub attempt: u64,
    /// When it failed.
    pub at: Instant,
    /// Why, in words.
    pub text: String,
}

/// The step that a node is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// What.
    pub mutation: MutationId,
    /// Number of the firing; 0 when another context carries it out.
    pub attempt: u64,
    /// How far it is.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// When it counts as timed out.
    pub deadline: Option<Instant>,
}

/// How far the current step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its intent is being made durable; nothing has been told to a module.
    Intent,
    /// A module carries it out.
    Fired,
    /// Somebody else carries it out.
    Awaited,
}

/// What the engine has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The step reached its values.
    Done(Current),
    /// The step is no longer wanted; tell the module if it was fired.
    Stop(Current),
    /// Number an attempt of this mutation, make its intent durable, and fire it.
    Start(MutationId),
    /// Somebody else is to carry this out.
    Await(MutationId),
    /// Attempts are used up.
    Park(String),
}

#[derive(Clone, Debug, Default)]
struct Tries {
    failed: u32,
    not_before: Option<Instant>,
    done_at: Option<Instant>,
}

/// Where one node is on its path.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    current: Option<Current>,
    tries: BTreeMap<MutationId, Tries>,
    failures: VecDeque<Failure>,
    parked: Option<String>,
}

impl Progress {
    /// Looks at the node anew, after anything that it depends on has changed. `may_start` answers for the guard rails: false
    /// holds the step.
    pub fn advance<'g>(
        &mut self,
        plan: &Plan,
        dsc: &Values,
        lookup: impl Fn(&MutationId) -> Option<(&'g Mutation, bool)>,
        may_start: impl FnOnce(&Mutation) -> bool,
        healing: &Healing,
        now: Instant,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let first = match plan {
            Plan::Path(path) => path.steps.first(),
            Plan::Converged => {
                self.parked = None;
                None
            }
            Plan::NoPath(_) => None,
        };
        if let Some(current) = self.current.take() {
            let declared = lookup(&current.mutation).map(|(mutation, _)| mutation);
            match declared.map_or(Standing::Gone, |mutation| standing(mutation, dsc)) {
                Standing::Reached if current.phase != Phase::Intent => {
                    self.tries
                        .entry(current.mutation.clone())
                        .or_default()
                        .done_at = Some(now);
                    actions.push(Action::Done(current));
                }
                Standing::Partly if current.phase != Phase::Intent => self.current = Some(current),
                _ if first == Some(&current.mutation) => self.current = Some(current),
                _ => actions.push(Action::Stop(current)),
            }
        }
        if self.current.is_some() || self.parked.is_some() {
            return actions;
        }
        let Some((mutation, ours)) = first.and_then(lookup) else {
            return actions;
        };
        if !ours {
            actions.push(Action::Await(mutation.id.clone()));
            return actions;
        }
        let tries = self.tries.entry(mutation.id.clone()).or_default();
        if let Some(done_at) = tries.done_at.take() {
            if now.since(done_at) < healing.relapse {
                tries.fail(healing, now);
            } else {
                *tries = Tries::default();
            }
        }
        if tries.failed >= healing.attempts {
            let reason = park_reason(&mutation.id, tries.failed, self.failures.back());
            self.parked = Some(reason.clone());
            actions.push(Action::Park(reason));
        } else if tries.not_before.is_none_or(|at| at <= now) && may_start(mutation) {
            actions.push(Action::Start(mutation.id.clone()));
        }
        actions
    }

    /// The step now under way.
    pub fn begin(&mut self, current: Current) {
        self.current = Some(current);
    }

    /// The intent of `attempt` is durable. Returns the step to fire, unless it is no longer wanted.
    pub fn intent_durable(
        &mut self,
        attempt: u64,
        now: Instant,
        timeout: Option<Duration>,
    ) -> Option<&Current> {
        let current = self
            .current
            .as_mut()
            .filter(|current| current.attempt == attempt && current.phase == Phase::Intent)?;
        current.phase = Phase::Fired;
        current.since = now;
        current.deadline = timeout.map(|timeout| now + timeout);
        self.current.as_ref()
    }

    /// Drops the step `attempt` as if it had never been wanted; nothing was fired.
    pub fn abandon(&mut self, attempt: u64) {
        self.current.take_if(|current| current.attempt == attempt);
    }

    /// The attempt failed: a timeout, or a module's word. `None` if it is not the current one.
    pub fn fail(
        &mut self,
        attempt: u64,
        text: String,
        healing: &Healing,
        now: Instant,
    ) -> Option<Current> {
        let current = self
            .current
            .take_if(|current| current.attempt == attempt && current.phase == Phase::Fired)?;
        self.tries
            .entry(current.mutation.clone())
            .or_default()
            .fail(healing, now);
        if self.failures.len() == MAX_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(Failure {
            mutation: current.mutation.clone(),
            attempt,
            at: now,
            text,
        });
        Some(current)
    }

    /// Forgets all attempts: Cfg changed, or an operator released the node.
    pub fn release(&mut self) {
        self.tries.clear();
        self.parked = None;
    }

    /// The step under way.
    pub fn current(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    /// Why the node is parked.
    pub fn parked(&self) -> Option<&str> {
        self.parked.as_deref()
    }

    /// The latest failures, oldest first.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.failures.iter()
    }

    /// Until when `mutation` backs off.
    pub fn backs_off_until(&self, mutation: &MutationId, now: Instant) -> Option<Instant> {
        self.tries.get(mutation)?.not_before.filter(|at| *at > now)
    }

    /// When to look again: the current step's deadline, or the end of the next step's back-off.
    pub fn next_timeout(&self, plan: &Plan, now: Instant) -> Option<Instant> {
        if let Some(current) = &self.current {
            return current.deadline;
        }
        match plan {
            Plan::Path(path) if self.parked.is_none() => {
                self.backs_off_until(path.steps.first()?, now)
            }
            _ => None,
        }
    }
}

impl Tries {
    fn fail(&mut self, healing: &Healing, now: Instant) {
        let doubled = healing.backoff.saturating_mul(1 << self.failed.min(16));
        self.not_before = Some(now + doubled.min(healing.backoff_max));
        self.failed += 1;
    }
}

/// Where the urls of a mutation stand.
enum Standing {
    /// All at `to`.
    Reached,
    /// Some at `to`, the others still at `from`: the rest is on its way.
    Partly,
    /// None has moved.
    Untouched,
    /// Elsewhere.
    Gone,
}

fn standing(mutation: &Mutation, dsc: &Values) -> Standing {
    let mut reached = 0;
    for change in &mutation.mutates {
        let value = dsc.get(change.url.as_str());
        if value == change.to.as_ref() {
            reached += 1;
        } else if !change.from.iter().any(|from| from.as_ref() == value) {
            return Standing::Gone;
        }
    }
    match reached {
        0 => Standing::Untouched,
        n if n == mutation.mutates.len() => Standing::Reached,
        _ => Standing::Partly,
    }
}

fn park_reason(mutation: &MutationId, failed: u32, last: Option<&Failure>) -> String {
    match last.filter(|failure| failure.mutation == *mutation) {
        Some(failure) => format!("{mutation} failed {failed} times, last: {}", failure.text),
        None => format!("{mutation} was needed {failed} times in a row: its result does not last"),
    }
}

/// What a timeout discovers, in words.
pub fn timeout_text(timeout: Duration, fail_to: &[Change]) -> String {
    let outcome: Vec<String> = fail_to
        .iter()
        .map(|change| match &change.value {
            Some(value) => format!("{} is {value}", change.url),
            None => format!("{} is unknown", change.url),
        })
        .collect();
    if outcome.is_empty() {
        format!("no result within {timeout:?}")
    } else {
        format!("no result within {timeout:?}: {}", outcome.join(", "))
    }
}
