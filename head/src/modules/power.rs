//! The power module: switches machines through their BMCs, and looks at them all the time.
//!
//! A BMC is asked before it is told, and asked again until the power state is what was wanted: its answer to a reset means nothing. A BMC that
//! does not answer leaves the power state as it was known; it never means off. What a look finds while a mutation is under way is dropped, for
//! it may be older than what the mutation found.

mod command;
mod redfish;
mod target;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::event::Fire;
use engine::mutation::{MutationContext, MutationId};
use engine::state::{Change, NodeId, NodeName, Value};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use self::redfish::Redfish;
use self::target::{Driver, Target};
use super::declare::{mutation, url};
use super::{Declaration, Module, Reports};
use crate::config::PowerCommand;
pub(crate) use command::check_template;

/// Questions of mutations to BMCs under way at once: a rack's worth of dead ones, at 15 s each, leaves room for the others. Waiting for a
/// machine to do what it was told takes no place.
const MAX_SWITCHING: usize = 256;

/// Looks under way at once; their own, so that they hold up no mutation.
const MAX_LOOKS: usize = 256;

/// First pause between two readings while a mutation waits for its power state; doubles.
const REREAD: Duration = Duration::from_millis(250);

/// Longest such pause: what a machine's coming up may be known late.
const REREAD_MAX: Duration = Duration::from_secs(2);

/// Longest time that a BMC which does not answer is not looked at.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);

/// A BMC that took a reset and did nothing is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(15);

/// Pause after a BMC did not answer.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(2);

/// Time to ask a device once or twice.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// Time to switch: BMCs of large servers take up to 30 s to act.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(60);

/// A mutation whose BMC is silent says so this long before the engine's own deadline, which knows less.
const SAY_BEFORE: Duration = Duration::from_secs(1);

/// Longest error text that becomes a value of a node.
const MAX_ERROR_BYTES: usize = 300;

const LAST_ERROR: &str = "/power/last_error";

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerState {
    /// Switched on.
    On,
    /// Switched off.
    Off,
}

/// Why a driver has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DriverError {
    /// May be better in a moment.
    Unreachable(String),
    /// Stays so until somebody changes something.
    Refused(String),
}

impl DriverError {
    fn text(&self) -> &str {
        let (Self::Unreachable(text) | Self::Refused(text)) = self;
        let end = (0..=MAX_ERROR_BYTES.min(text.len()))
            .rev()
            .find(|at| text.is_char_boundary(*at));
        &text[..end.unwrap_or(0)]
    }
}

/// One node, as the module looks at it between mutations.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    node: NodeId,
    target: Target,
    phys: Option<String>,
}

impl Observed {
    /// What there is to look at on a node; `None` without a driver.
    pub(crate) fn of(node: &engine::state::Node) -> Option<Self> {
        let target = Target::of(&node.name, &node.cfg)?;
        Some(Self {
            node: node.id,
            target,
            phys: node.dsc.text("/PhysState").map(str::to_owned),
        })
    }
}

/// What a look means for `/PhysState`; `None`: nothing.
///
/// A node that hangs is on, so only "off" is news about it. An error of the power control is over when it answers.
fn news(phys: Option<&str>, state: PowerState) -> Option<&'static str> {
    let found = name_of(state);
    match phys {
        Some(known) if known == found => None,
        Some("PHYS_HANG") if state == PowerState::On => None,
        _ => Some(found),
    }
}

fn name_of(state: PowerState) -> &'static str {
    match state {
        PowerState::On => "POWER_ON",
        PowerState::Off => "POWER_OFF",
    }
}

/// What a mutation wants of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Only its state.
    Ask,
    /// This state.
    Reach(PowerState),
}

fn task_of(fire: &Fire) -> Option<Task> {
    // An agent that is in sync proves that its machine runs: whatever went wrong, it is not healed by cutting the power.
    let alive = fire.dsc.text("/RunState") == Some("SYNC");
    match fire.mutation.name() {
        "UKtoOFF" => Some(Task::Ask),
        "OFFtoON" => Some(Task::Reach(PowerState::On)),
        "HANGtoOFF" | "ERRORtoOFF" if alive => Some(Task::Ask),
        "ONtoOFF" | "HANGtoOFF" | "ERRORtoOFF" => Some(Task::Reach(PowerState::Off)),
        _ => None,
    }
}

impl Work {
    fn mended_target(&mut self) -> Option<Target> {
        std::mem::take(&mut self.mended)
            .then(|| self.known.clone())
            .flatten()
    }

    /// A look is over: a BMC that does not answer is left alone for a while, which doubles, so that dead ones cost little.
    fn looked(&mut self, poll: Duration) {
        self.looking = false;
        self.unanswered.1 = match self.unanswered.0 {
            0 => None,
            times => {
                let rest = poll.saturating_mul(1 << times.min(16));
                Some(Instant::now() + rest.min(LOOK_AGAIN_MAX.max(poll)))
            }
        };
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Power(Arc<Shared>);

/// How long things take; shorter in tests.
#[derive(Clone, Copy, Debug)]
struct Limits {
    ask: Duration,
    switch: Duration,
    say_before: Duration,
    tell_again: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ask: ASK_TIMEOUT,
            switch: SWITCH_TIMEOUT,
            say_before: SAY_BEFORE,
            tell_again: TELL_AGAIN,
        }
    }
}

struct Shared {
    limits: Limits,
    reports: Reports,
    redfish: Redfish,
    command: Option<PowerCommand>,
    switching: Semaphore,
    looks: Arc<Semaphore>,
    work: Mutex<HashMap<NodeId, Work>>,
}

/// What goes on with one node.
#[derive(Default)]
struct Work {
    /// The attempt under way.
    firing: Option<(u64, AbortHandle)>,
    /// Rises with each start and end of an attempt: a look from before says nothing.
    generation: u64,
    looking: bool,
    /// Looks in a row that had no answer, and when to look again.
    unanswered: (u32, Option<Instant>),
    /// How to reach the switch, as of the last look.
    known: Option<Target>,
    /// It changed while an attempt was under way: a Cfg that is mended mends the attempt.
    mended: bool,
    last_error: String,
}

impl Power {
    /// A module with these programs for the COMMAND driver.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(crate) fn new(
        reports: Reports,
        command: Option<PowerCommand>,
    ) -> Result<Self, reqwest::Error> {
        Self::with_limits(reports, command, Limits::default())
    }

    fn with_limits(
        reports: Reports,
        command: Option<PowerCommand>,
        limits: Limits,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self(Arc::new(Shared {
            limits,
            reports,
            redfish: Redfish::new()?,
            command,
            switching: Semaphore::new(MAX_SWITCHING),
            looks: Arc::new(Semaphore::new(MAX_LOOKS)),
            work: Mutex::default(),
        })))
    }

    /// Looks at these nodes, spread over `within`. Those whose last look has no answer yet are left out.
    pub(crate) fn look(&self, nodes: Vec<Observed>, within: Duration) {
        let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1);
        {
            // Nodes that are gone, or lost their driver, need no memory.
            let mut work = self.0.work();
            if work.len() > nodes.len() {
                let there: std::collections::HashSet<NodeId> =
                    nodes.iter().map(|node| node.node).collect();
                work.retain(|id, work| there.contains(id) || work.firing.is_some());
            }
        }
        for (i, observed) in nodes.into_iter().enumerate() {
            let delay = within / count * u32::try_from(i).unwrap_or(u32::MAX);
            let generation = {
                let mut work = self.0.work();
                let work = work.entry(observed.node).or_default();
                if work.known.as_ref() != Some(&observed.target) {
                    work.known = Some(observed.target.clone());
                    work.mended = work.firing.is_some();
                    work.unanswered = (0, None);
                }
                let rests = work
                    .unanswered
                    .1
                    .is_some_and(|until| Instant::now() < until);
                if work.looking || work.firing.is_some() || rests {
                    continue;
                }
                work.looking = true;
                work.generation
            };
            let shared = Arc::clone(&self.0);
            tokio::spawn(async move {
                sleep(delay).await;
                shared.look(&observed, generation).await;
                shared.with(observed.node, |work| work.looked(within));
            });
        }
    }
}

/// What the module declares, always.
pub(super) fn declared() -> Declaration {
    let declare = |name| {
        mutation("power", name, MutationContext::Child)
            .requires("/power/driver", &["REDFISH", "COMMAND"])
    };
    Declaration {
        mutations: vec![
            declare("UKtoOFF")
                .change("/PhysState", &[""], "POWER_OFF")
                .within(ASK_TIMEOUT, "/PhysState", "PHYS_ERROR")
                .done(),
            declare("OFFtoON")
                .change("/PhysState", &["POWER_OFF"], "POWER_ON")
                .within(SWITCH_TIMEOUT, "/PhysState", "PHYS_HANG")
                .done(),
            declare("ONtoOFF")
                .change("/PhysState", &["POWER_ON"], "POWER_OFF")
                .excludes("/RunState", "SYNC")
                .excludes("/Busy", "BUSY")
                .within(SWITCH_TIMEOUT, "/PhysState", "PHYS_HANG")
                .disruptive()
                .done(),
            declare("HANGtoOFF")
                .change("/PhysState", &["PHYS_HANG"], "POWER_OFF")
                .excludes("/Busy", "BUSY")
                .within(SWITCH_TIMEOUT, "/PhysState", "PHYS_ERROR")
                .disruptive()
                .done(),
            declare("ERRORtoOFF")
                .change("/PhysState", &["PHYS_ERROR", "POWER_CYCLE"], "POWER_OFF")
                .excludes("/Busy", "BUSY")
                .within(SWITCH_TIMEOUT, "/PhysState", "PHYS_HANG")
                .disruptive()
                .done(),
        ],
        discoverables: vec![url(LAST_ERROR)],
        ..Declaration::default()
    }
}

impl Module for Power {
    fn name(&self) -> &str {
        "power"
    }

    fn declaration(&self) -> Declaration {
        declared()
    }

    fn fire(&self, fire: Fire) {
        let (node, attempt) = (fire.node, fire.attempt);
        let shared = Arc::clone(&self.0);
        // The table is locked until the entry is in, so that the attempt cannot end before it is known.
        let mut work = self.0.work();
        let task = tokio::spawn(async move {
            shared.carry_out(&fire).await;
            shared.with(node, |work| {
                if work
                    .firing
                    .take_if(|(firing, _)| *firing == attempt)
                    .is_some()
                {
                    work.generation += 1;
                }
            });
        });
        let work = work.entry(node).or_default();
        work.generation += 1;
        if let Some((_, earlier)) = work.firing.replace((attempt, task.abort_handle())) {
            earlier.abort();
        }
    }

    fn interrupt(&self, node: NodeId, _: &MutationId, attempt: u64) {
        self.0.with(node, |work| {
            if let Some((_, task)) = work.firing.take_if(|(firing, _)| *firing == attempt) {
                work.generation += 1;
                task.abort();
            }
        });
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, HashMap<NodeId, Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, node: NodeId, change: impl FnOnce(&mut Work) -> T) -> Option<T> {
        self.work().get_mut(&node).map(change)
    }

    async fn carry_out(&self, fire: &Fire) {
        let Some(task) = task_of(fire) else {
            return self
                .reports
                .fail(
                    fire,
                    format!("{} is no mutation of this module", fire.mutation),
                )
                .await;
        };
        let Some(mut target) = Target::of(&fire.name, &fire.cfg) else {
            return self
                .reports
                .fail(fire, "the node has no /power/driver".into())
                .await;
        };
        let limit = match fire.mutation.name() {
            "UKtoOFF" => self.limits.ask,
            _ => self.limits.switch,
        };
        let speak_at = Instant::now() + limit - self.limits.say_before;
        let mut told: Option<Instant> = None;
        // What the BMC did last: nothing yet, answered, or this.
        let mut last: Option<Result<(), DriverError>> = None;
        let mut pause = REREAD;
        // What an earlier look saw may be older than what the engine fired with.
        self.with(fire.node, |work| {
            (work.known, work.mended) = (Some(target.clone()), false);
        });
        loop {
            if let Some(newer) = self.with(fire.node, Work::mended_target).flatten() {
                target = newer;
            }
            let step = self.step(&target, task, &mut told);
            let error = match tokio::time::timeout_at(speak_at, step).await {
                Ok(Ok(Some(state))) => return self.found(fire, state).await,
                Ok(Ok(None)) => None,
                Ok(Err(error)) => Some(error),
                // A BMC that answers and does nothing is for the engine's deadline: the machine hangs.
                Err(_) if last == Some(Ok(())) => return,
                Err(_) => {
                    let silent = || DriverError::Unreachable("the BMC does not answer".into());
                    let error = last.and_then(Result::err).unwrap_or_else(silent);
                    return self.give_up(fire, &error).await;
                }
            };
            match error {
                Some(error @ DriverError::Refused(_)) => return self.give_up(fire, &error).await,
                Some(error) => {
                    debug!(node = %fire.name, mutation = %fire.mutation, why = error.text(), "power control");
                    self.note_error(fire.node, &fire.name, error.text()).await;
                    last = Some(Err(error));
                    sleep(UNREACHABLE_PAUSE).await;
                }
                None => {
                    last = Some(Ok(()));
                    sleep(pause).await;
                    pause = (pause * 2).min(REREAD_MAX);
                }
            }
        }
    }

    async fn give_up(&self, fire: &Fire, error: &DriverError) {
        self.note_error(fire.node, &fire.name, error.text()).await;
        self.reports.fail(fire, error.text().to_owned()).await;
    }

    /// Reads, and tells the device what is wanted if it is due. `Some` when there is nothing more to do.
    async fn step(
        &self,
        target: &Target,
        task: Task,
        told: &mut Option<Instant>,
    ) -> Result<Option<PowerState>, DriverError> {
        let Ok(_place) = self.switching.acquire().await else {
            return Ok(None);
        };
        let Some(state) = self.read(target).await? else {
            return Ok(None);
        };
        match task {
            Task::Ask => Ok(Some(state)),
            Task::Reach(want) if state == want => Ok(Some(state)),
            Task::Reach(want) => {
                if told.is_none_or(|told| told.elapsed() >= self.limits.tell_again) {
                    info!(node = %target.name, ?want, again = told.is_some(), "power switched");
                    metrics::counter!("kraken_power_switched_total", "to" => name_of(want))
                        .increment(1);
                    // Noted before it is sent: a lost answer does not make us tell twice at once.
                    *told = Some(Instant::now());
                    self.switch(target, want).await?;
                }
                Ok(None)
            }
        }
    }

    async fn found(&self, fire: &Fire, state: PowerState) {
        self.note_error(fire.node, &fire.name, "").await;
        let changes = vec![Change::set(url("/PhysState"), Value::from(name_of(state)))];
        self.reports.discover(fire.node, "power", changes).await;
    }

    async fn look(&self, observed: &Observed, generation: u64) {
        let Ok(_permit) = self.looks.acquire().await else {
            return;
        };
        let result = self.read(&observed.target).await;
        let is_current = self.with(observed.node, |work| {
            work.generation == generation && work.firing.is_none()
        });
        if is_current != Some(true) {
            return;
        }
        self.with(observed.node, |work| {
            work.unanswered.0 = match &result {
                Ok(_) => 0,
                Err(_) => work.unanswered.0.saturating_add(1),
            };
        });
        match result {
            Ok(state) => {
                self.note_error(observed.node, &observed.target.name, "")
                    .await;
                let found = state.and_then(|state| news(observed.phys.as_deref(), state));
                if let Some(found) = found {
                    info!(node = %observed.target.name, known = observed.phys, found, "power state found");
                    let changes = vec![Change::set(url("/PhysState"), Value::from(found))];
                    self.reports.discover(observed.node, "power", changes).await;
                }
            }
            Err(error) => {
                metrics::counter!("kraken_power_unanswered_total").increment(1);
                self.note_error(observed.node, &observed.target.name, error.text())
                    .await;
            }
        }
    }

    /// Reports trouble, or its end, once.
    async fn note_error(&self, node: NodeId, name: &NodeName, text: &str) {
        let changed = {
            let mut work = self.work();
            let work = work.entry(node).or_default();
            let changed = work.last_error != text;
            if changed {
                text.clone_into(&mut work.last_error);
            }
            changed
        };
        if changed {
            if !text.is_empty() {
                warn!(node = %name, why = text, "power control does not work");
            }
            let changes = vec![Change {
                url: url(LAST_ERROR),
                value: Some(Value::from(text)),
            }];
            self.reports.discover(node, "power", changes).await;
        }
    }

    async fn read(&self, target: &Target) -> Result<Option<PowerState>, DriverError> {
        match target.driver {
            Driver::Redfish => self.redfish.read(target).await,
            Driver::Command => command::read(self.programs()?, target).await,
        }
    }

    async fn switch(&self, target: &Target, want: PowerState) -> Result<(), DriverError> {
        match target.driver {
            Driver::Redfish => self.redfish.switch(target, want).await,
            Driver::Command => command::switch(self.programs()?, target, want).await,
        }
    }

    fn programs(&self) -> Result<&PowerCommand, DriverError> {
        self.command.as_ref().ok_or_else(|| {
            DriverError::Refused(
                "/power/driver is COMMAND, but the head's configuration has no power.command"
                    .into(),
            )
        })
    }
}
