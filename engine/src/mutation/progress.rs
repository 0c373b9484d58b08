//! One node's path being followed (DESIGN 3, "Following a path" and "Bounded healing").
//!
//! ```text
//!              start            intent durable          all `to` discovered
//!   ┌──────┐ ────────▶ ┌────────┐ ─────────▶ ┌───────┐ ───────────────────▶ done
//!   │ ready│           │ intent │            │ fired │ ── timeout, failure ─▶ ready, back-off ─▶ … ─▶ parked
//!   └──────┘ ◀──────── └────────┘ ◀───────── └───────┘
//!      │     no longer a ready step         (one INTERRUPT)
//!      └──── not our context ────▶ awaited
//! ```
//!
//! Every step of the plan that nothing has to come before is *ready*; several may be under way at once, each with a deadline, attempts and a
//! back-off of its own. Which steps are ready, and which are tied to each other, is the plan's word: [`super::graph::MutationGraph::order`].
//!
//! The machine decides; the engine carries out: it numbers attempts, makes intents durable and emits what happened. Every attempt has a
//! number of its own, so that a timer or a late answer of an earlier one changes nothing.

mod history;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use history::{Attempt, Ending, MAX_HISTORY};
use smallvec::SmallVec;

use super::graph::MutationGraph;
use super::path::{Plan, PlanResult};
use super::{Mutation, MutationId};
use crate::state::{Change, Values};
use crate::time::Instant;

/// A parked node whose cause went away is tried again after [`Healing::backoff_max`], doubled at most this often: about every five hours.
const MAX_REVIVAL_DOUBLINGS: u32 = 6;

/// How patiently a node is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healing {
    /// Attempts of one mutation before the node is parked.
    pub attempts: u32,
    /// Longest wait after the first failure; doubles with each further one. The wait itself is between half of it and all of it, so that
    /// nodes which failed together do not come back together.
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

/// A step that a node is on.
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

/// How far a step is.
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

/// What a node's progress is judged by.
pub struct View<'a> {
    /// The plan from here.
    pub plan: &'a PlanResult,
    /// What it is made of.
    pub graph: &'a MutationGraph,
    /// What the node is.
    pub dsc: &'a Values,
    /// How patient to be.
    pub healing: &'a Healing,
    /// The time.
    pub now: Instant,
}

#[derive(Clone, Debug, Default)]
struct Tries {
    failed: u32,
    not_before: Option<Instant>,
    done_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Parked {
    on: MutationId,
    since: Instant,
    reason: String,
}

/// Where one node is on its path.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Under way, in the order of their start. No two are tied to each other; mostly there is one.
    currents: SmallVec<[Current; 1]>,
    tries: BTreeMap<MutationId, Tries>,
    history: VecDeque<Attempt>,
    /// How many of them, the latest, are not told to the store.
    untold: usize,
    parked: Option<Box<Parked>>,
    /// How often a visible change has ended a parking since the last success.
    revivals: u32,
    /// For jitter; see [`Progress::with_seed`].
    chance: u64,
}

impl Progress {
    /// The progress of a fresh node; equal seeds wait equally long after equal failures.
    pub fn with_seed(seed: u64) -> Self {
        Self {
            chance: seed,
            ..Self::default()
        }
    }

    /// Looks at the node anew, after anything that it depends on has changed. `ours` says who carries a mutation out, `may_start` answers for
    /// the guard rails: false holds the step.
    pub fn advance(
        &mut self,
        view: &View<'_>,
        ours: impl Fn(&Mutation) -> bool,
        mut may_start: impl FnMut(&Mutation) -> bool,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        self.look_at_currents(view, &mut actions);
        self.look_at_parking(view);
        if self.parked.is_some() {
            return actions;
        }
        for id in view.plan.ready() {
            let Some(mutation) = view.graph.mutation(id) else {
                continue;
            };
            let in_the_way = |current: &Current| {
                current.mutation == *id || view.graph.are_tied(id, &current.mutation)
            };
            if self.currents.iter().any(in_the_way) {
                continue;
            }
            if !ours(mutation) {
                actions.push(Action::Await(id.clone()));
            } else if self.is_used_up(id, view) {
                let reason = self.park(id, view.now);
                actions.push(Action::Park(reason));
                break;
            } else if self.backs_off_until(id, view.now).is_none() && may_start(mutation) {
                actions.push(Action::Start(id.clone()));
            }
        }
        actions
    }

    /// Which of the steps under way are done, and which are no longer wanted.
    fn look_at_currents(&mut self, view: &View<'_>, actions: &mut Vec<Action>) {
        let mut place = 0;
        while let Some(current) = self.currents.get(place) {
            let declared = view.graph.mutation(&current.mutation);
            let standing = declared.map_or(Standing::Gone, |mutation| standing(mutation, view.dsc));
            let is_told = current.phase != Phase::Intent;
            match standing {
                Standing::Reached if is_told => {
                    let current = self.currents.remove(place);
                    let tries = self.tries.entry(current.mutation.clone()).or_default();
                    tries.done_at = Some(view.now);
                    self.note(&current, view.now, Ending::Done);
                    actions.push(Action::Done(current));
                }
                Standing::Partly if is_told => place += 1,
                _ if view.plan.ready().any(|ready| *ready == current.mutation) => place += 1,
                _ => {
                    let current = self.currents.remove(place);
                    self.note_stop(&current, declared, view);
                    actions.push(Action::Stop(current));
                }
            }
        }
    }

    fn note_stop(&mut self, current: &Current, declared: Option<&Mutation>, view: &View<'_>) {
        match current.phase {
            Phase::Intent => {}
            Phase::Fired => self.note(current, view.now, Ending::Interrupted),
            // Somebody else's failure shows in what it left behind.
            Phase::Awaited => {
                let fail_to = declared.map_or(&[][..], |mutation| &mutation.fail_to);
                let failed = fail_to
                    .iter()
                    .find(|change| view.dsc.get(change.url.as_str()) == change.value.as_ref());
                if let Some(left) = failed {
                    let text = format!("it left {}", became(left));
                    self.note(current, view.now, Ending::Failed(text.into()));
                }
            }
        }
    }

    /// A parked node is there, or what comes next is no longer what failed: an outage has ended.
    fn look_at_parking(&mut self, view: &View<'_>) {
        if view.plan.plan == Plan::Converged {
            self.parked = None;
            self.revivals = 0;
        }
        if self
            .revives_at(view.plan, view.healing)
            .is_some_and(|at| at <= view.now)
            && let Some(parked) = self.parked.take()
        {
            self.tries.clear();
            self.revivals = self.revivals.saturating_add(1);
            // What failed before has one attempt: should the outage come back, this was no new start.
            let tries = self.tries.entry(parked.on).or_default();
            tries.failed = view.healing.attempts.saturating_sub(1);
        }
    }

    fn revives_at(&self, plan: &PlanResult, healing: &Healing) -> Option<Instant> {
        let parked = self.parked.as_deref()?;
        let moved_on =
            matches!(plan.plan, Plan::Path(_)) && !plan.ready().any(|ready| *ready == parked.on);
        let wait = healing.backoff_max * (1 << self.revivals.min(MAX_REVIVAL_DOUBLINGS));
        moved_on.then(|| parked.since + wait)
    }

    /// Whether a mutation has no attempt left; one that is wanted again soon after it succeeded has failed.
    fn is_used_up(&mut self, id: &MutationId, view: &View<'_>) -> bool {
        let tries = self.tries.entry(id.clone()).or_default();
        if let Some(done_at) = tries.done_at.take() {
            if view.now.since(done_at) < view.healing.relapse {
                tries.fail(view.healing, view.now, splitmix(&mut self.chance));
            } else {
                *tries = Tries::default();
            }
        }
        tries.failed >= view.healing.attempts
    }

    fn park(&mut self, on: &MutationId, now: Instant) -> String {
        let failed = self.tries.get(on).map_or(0, |tries| tries.failed);
        let mut texts = self.history.iter().rev();
        let last = texts.find_map(|attempt| match &attempt.ending {
            Ending::Failed(text) if attempt.mutation == *on => Some(text),
            _ => None,
        });
        let reason = match last {
            Some(text) => format!("{on} failed {failed} times, last: {text}"),
            None => format!("{on} was needed {failed} times in a row: its result does not last"),
        };
        self.parked = Some(Box::new(Parked {
            on: on.clone(),
            since: now,
            reason: reason.clone(),
        }));
        reason
    }

    /// A step is now under way.
    pub fn begin(&mut self, current: Current) {
        self.currents.push(current);
    }

    /// The intent of `attempt` is durable. Returns the step to fire, unless it is no longer wanted.
    pub fn intent_durable(
        &mut self,
        attempt: u64,
        now: Instant,
        timeout: Option<Duration>,
    ) -> Option<&Current> {
        let current = self
            .currents
            .iter_mut()
            .find(|current| current.attempt == attempt && current.phase == Phase::Intent)?;
        current.phase = Phase::Fired;
        current.since = now;
        current.deadline = timeout.map(|timeout| now + timeout);
        Some(current)
    }

    /// Drops the step `attempt` as if it had never been wanted; nothing was fired.
    pub fn abandon(&mut self, attempt: u64) {
        self.currents
            .retain(|current| current.attempt != attempt || current.phase != Phase::Intent);
    }

    /// The attempt failed: a timeout, or a module's word. `None` if it is not under way.
    pub fn fail(
        &mut self,
        attempt: u64,
        text: &str,
        healing: &Healing,
        now: Instant,
    ) -> Option<Current> {
        let at = self
            .currents
            .iter()
            .position(|current| current.attempt == attempt && current.phase == Phase::Fired)?;
        let current = self.currents.remove(at);
        let chance = splitmix(&mut self.chance);
        self.tries
            .entry(current.mutation.clone())
            .or_default()
            .fail(healing, now, chance);
        self.note(&current, now, Ending::Failed(text.into()));
        Some(current)
    }

    /// Forgets failed attempts, so that what waits or is parked is tried again: Cfg changed, or an operator says so.
    pub fn release(&mut self) {
        self.tries.clear();
        self.parked = None;
        self.revivals = 0;
    }

    /// The steps under way, in the order of their start.
    pub fn currents(&self) -> &[Current] {
        &self.currents
    }

    /// Why the node is parked.
    pub fn parked(&self) -> Option<&str> {
        self.parked.as_deref().map(|parked| &*parked.reason)
    }

    /// The latest attempts, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Attempt> {
        self.history.iter()
    }

    /// Until when `mutation` backs off.
    pub fn backs_off_until(&self, mutation: &MutationId, now: Instant) -> Option<Instant> {
        self.tries.get(mutation)?.not_before.filter(|at| *at > now)
    }

    /// When to look again: a deadline of a step under way, the end of a ready step's back-off, or of a parking whose cause went away.
    pub fn next_timeout(
        &self,
        plan: &PlanResult,
        healing: &Healing,
        now: Instant,
    ) -> Option<Instant> {
        let deadlines = self.currents.iter().filter_map(|current| current.deadline);
        let backoffs = plan
            .ready()
            .filter(|id| self.parked.is_none() && !self.is_under_way(id))
            .filter_map(|id| self.backs_off_until(id, now));
        deadlines
            .chain(backoffs)
            .chain(self.revives_at(plan, healing))
            .min()
    }

    fn is_under_way(&self, id: &MutationId) -> bool {
        self.currents.iter().any(|current| current.mutation == *id)
    }

    fn note(&mut self, current: &Current, now: Instant, ending: Ending) {
        self.untold = (self.untold + 1).min(MAX_HISTORY);
        self.push_history(Attempt {
            mutation: current.mutation.clone(),
            attempt: current.attempt,
            since: current.since,
            ended: now,
            ending,
        });
    }
}

impl Tries {
    fn fail(&mut self, healing: &Healing, now: Instant, chance: u64) {
        let doubled = healing.backoff.saturating_mul(1 << self.failed.min(16));
        let longest = doubled.min(healing.backoff_max);
        let jitter = (chance % 1000) as u32;
        self.not_before = Some(now + longest / 2 + longest / 2 * jitter / 1000);
        self.failed += 1;
    }
}

/// The next number of a splitmix64 sequence.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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

fn became(change: &Change) -> String {
    match &change.value {
        Some(value) => format!("{} is {value}", change.url),
        None => format!("{} is unknown", change.url),
    }
}

/// What a timeout discovers, in words.
pub fn timeout_text(timeout: Duration, fail_to: &[Change]) -> String {
    let outcome: Vec<String> = fail_to.iter().map(became).collect();
    if outcome.is_empty() {
        format!("no result within {timeout:?}")
    } else {
        format!("no result within {timeout:?}: {}", outcome.join(", "))
    }
}
