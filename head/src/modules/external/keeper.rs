//! Keeps one module running: starts it, speaks with it, and starts it again when it fails (fault F32).
//!
//! ```text
//!           START, or at the head's start        declared
//!   STOP ──────────────────────────────▶ INIT ────────────▶ RUN ◀───────────────────┐
//!     ▲                                                      │ ends, hangs,         │ declares
//!     │ STOP                                                 ▼ breaks rules         │
//!     └────────────── from everywhere           RESTARTING: wait 0.5 s, 1 s, … 32 s ┘
//!                                               after 8 failures in a row: ERROR, then every 5 min
//! ```
//!
//! A module runs unless the Cfg of its state says STOP: when that goes, it starts as it would with the head. A mutation for a module that
//! waits to be started again starts it at once; START does so only once it is in ERROR, for it comes by itself whenever a module fails.

mod session;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::event::Fire;
use engine::mutation::MutationId;
use engine::state::{Float, NodeId, Value, Values};
use engine::wire::module::{ModuleHost, Place};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::link::{DialError, Link, dial};
use super::programs::{Program, is_live_change};
use super::spawn::Process;
use super::status::{ERROR, INIT, RESTARTING, STOP};
use super::{Hosted, Shared};
use crate::config::{Limits, ModuleConfig};

/// First wait before a failed module is started again; doubles.
const BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait, until the breaker opens.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// So many failures in a row open the breaker: two minutes of trying.
const BREAKER: u32 = 8;
/// Wait while the breaker is open.
const BREAKER_WAIT: Duration = Duration::from_secs(300);
/// A module that ran so long starts its count of failures anew.
const STEADY: Duration = Duration::from_secs(60);
/// Time from the start of a program to its socket.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the socket is looked for.
const LISTEN_POLL: Duration = Duration::from_millis(50);
/// How often a module's use of the machine is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Mutations that may wait for a module that is being started.
const MAX_WAITING: usize = 16_384;

/// Why mutations of a module fail that the configuration names no more.
const LEFT: &str = "the configuration names it no more";

/// What a keeper is told.
#[derive(Debug)]
pub(super) enum Order {
    Fire(Box<Fire>),
    Interrupt(NodeId, MutationId, u64),
    /// Start it, or stop it.
    Want(bool),
    /// The Cfg that configures it has changed.
    Configure,
    /// The configuration file says something else of it.
    Program(Box<Program>),
    /// The configuration file does not name it any more.
    Leave,
}

/// Why a module's life is over.
enum End {
    /// It was told to stop.
    Stopped,
    /// It runs otherwise from now on.
    Changed,
    /// It is not wanted any more.
    Left,
    /// The head stops.
    Head,
    Failed(String),
}

/// See the module.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    hosted: Arc<Hosted>,
    orders: mpsc::Receiver<Order>,
    /// The program; `None`: somebody else runs it.
    program: Option<ModuleConfig>,
    socket: PathBuf,
    /// Who may speak for it.
    allowed: Vec<u32>,
    waiting: VecDeque<Fire>,
    wanted: bool,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        hosted: Arc<Hosted>,
        orders: mpsc::Receiver<Order>,
        program: Option<ModuleConfig>,
        socket: PathBuf,
        allowed: Vec<u32>,
    ) -> Self {
        Self {
            shared,
            hosted,
            orders,
            program,
            socket,
            allowed,
            waiting: VecDeque::new(),
            wanted: true,
        }
    }

    fn name(&self) -> &str {
        &self.hosted.name
    }

    /// Until the head stops or the configuration names the module no more; one that somebody else runs, until its socket is gone.
    pub(super) async fn run(mut self) {
        self.wanted = self.shared.wanted(self.name()).await;
        loop {
            if !self.wanted {
                self.fail_waiting("the module is stopped").await;
                self.show(|status| status.state = STOP).await;
                if !self.rest(None).await {
                    return;
                }
                continue;
            }
            self.show(|status| {
                if status.in_a_row == 0 || status.state == STOP {
                    status.state = INIT;
                }
            })
            .await;
            let begun = Instant::now();
            let end = self.live().await;
            let lived = begun.elapsed();
            self.show(|status| {
                status.disconnected();
                if lived >= STEADY {
                    status.in_a_row = 0;
                }
            })
            .await;
            let why = match end {
                End::Head => return,
                End::Left => return self.fail_waiting(LEFT).await,
                End::Stopped => continue,
                End::Changed => {
                    self.hosted.status().in_a_row = 0;
                    continue;
                }
                End::Failed(why) => self.hosted.told.scrubbed(why),
            };
            if self.program.is_none() && !self.socket.exists() {
                info!(
                    module = self.name(),
                    "its socket is gone, and so is the module"
                );
                return;
            }
            let failures = self.failed(&why).await;
            let wait = match failures {
                BREAKER.. => BREAKER_WAIT,
                n => BACKOFF
                    .saturating_mul(1 << (n - 1).min(16))
                    .min(BACKOFF_MAX),
            };
            if !self.rest(Some(wait)).await {
                return;
            }
        }
    }

    async fn failed(&mut self, why: &str) -> u32 {
        let mut failures = 0;
        self.show(|status| {
            status.failed(why);
            failures = status.in_a_row;
            status.state = if failures >= BREAKER {
                ERROR
            } else {
                RESTARTING
            };
        })
        .await;
        metrics::counter!("kraken_module_failures_total", "module" => self.name().to_owned())
            .increment(1);
        if failures == BREAKER {
            error!(
                module = self.name(),
                why,
                "the module has failed {failures} times in a row: it is tried again every {BREAKER_WAIT:?}"
            );
        } else {
            warn!(
                module = self.name(),
                why, failures, "the module has failed and is started again"
            );
        }
        failures
    }

    /// Waits for so long, or for ever, unless an order makes it worth while to start at once. False: this is the end.
    async fn rest(&mut self, wait: Option<Duration>) -> bool {
        let end = wait.map(|wait| Instant::now() + wait);
        loop {
            let order = tokio::select! {
                () = self.shared.stop.cancelled() => return false,
                () = async { sleep_until(end.unwrap_or_else(Instant::now)).await }, if end.is_some() => return true,
                order = self.orders.recv() => order,
            };
            match order {
                None => return false,
                Some(Order::Want(true)) => {
                    if !self.wanted || self.is_broken() {
                        self.wanted = true;
                        return true;
                    }
                }
                Some(Order::Want(false)) => {
                    self.wanted = false;
                    return true;
                }
                Some(Order::Fire(fire)) => {
                    self.wanted = self.wanted || self.shared.wanted(self.name()).await;
                    if !self.wanted {
                        self.refuse(&fire, "an operator has stopped it").await;
                    } else if self.is_broken() {
                        self.refuse(&fire, "it has failed too often").await;
                    } else {
                        info!(
                            module = self.name(),
                            mutation = %fire.mutation,
                            "the module is started at once: a mutation needs it"
                        );
                        self.queue(*fire).await;
                        return true;
                    }
                }
                Some(Order::Interrupt(node, mutation, attempt)) => {
                    self.forget(node, &mutation, attempt)
                }
                Some(Order::Configure) if self.wanted => {}
                Some(Order::Configure) => {
                    self.wanted = self.shared.wanted(self.name()).await;
                    if self.wanted {
                        return true;
                    }
                }
                Some(Order::Program(program)) => {
                    self.take(*program);
                    self.hosted.status().in_a_row = 0;
                    return true;
                }
                Some(Order::Leave) => {
                    self.fail_waiting(LEFT).await;
                    return false;
                }
            }
        }
    }

    /// It has failed so often that it is tried but from time to time.
    fn is_broken(&self) -> bool {
        self.hosted.status().in_a_row >= BREAKER
    }

    /// Takes what the configuration file says now. True: only a fresh start brings it about.
    fn take(&mut self, program: Program) -> bool {
        let old = self.program.replace(program.module);
        (self.socket, self.allowed) = (program.socket, program.allowed);
        match (&old, &self.program) {
            (Some(old), Some(new)) => !is_live_change(old, new),
            _ => true,
        }
    }

    /// One life, from start to end.
    async fn live(&mut self) -> End {
        let mut process = None;
        if let Some(program) = &self.program {
            let _ = std::fs::remove_file(&self.socket);
            let cgroup = self.shared.cgroup(program);
            let limited_by = cgroup.as_ref().map_or("rlimits", |_| "cgroup");
            let told = Arc::clone(&self.hosted.told);
            match Process::start(program, &self.socket, cgroup, told) {
                Ok(started) => {
                    let pid = started.pid();
                    info!(module = self.name(), pid, limited_by, "module started");
                    self.show(|status| {
                        status.pid = Some(pid);
                        status.limited_by = limited_by;
                    })
                    .await;
                    process = Some(started);
                }
                Err(error) => {
                    return End::Failed(format!(
                        "{} cannot be started: {error}",
                        program.command[0]
                    ));
                }
            }
        }
        let end = match self.connect(&mut process).await {
            Ok((link, host)) => self.session(link, host, &mut process).await,
            Err(end) => end,
        };
        if let Some(process) = process {
            process.end().await;
        }
        end
    }

    /// Waits for the module to listen, and makes the call.
    async fn connect(&mut self, process: &mut Option<Process>) -> Result<(Link, ModuleHost), End> {
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let config = self.shared.config(self.name(), self.program.as_ref()).await;
            let mut host = ModuleHost::new(self.place(), &config, self.shared.clock.now());
            let hello = std::iter::from_fn(|| host.poll_transmit()).collect();
            let dialed = tokio::select! {
                dialed = dial(&self.socket, &self.allowed, hello) => dialed,
                why = ended(process) => return Err(End::Failed(why)),
                () = self.shared.stop.cancelled() => return Err(End::Head),
            };
            match dialed {
                Ok(link) => return Ok((link, host)),
                Err(DialError::Absent { .. }) if Instant::now() < deadline && process.is_some() => {
                }
                Err(error) => {
                    return Err(End::Failed(end_words(process, &error.to_string()).await));
                }
            }
            tokio::select! {
                () = sleep(LISTEN_POLL) => {}
                _ = looks.tick() => {
                    if let Some(why) = process.as_ref().and_then(Process::excess) {
                        return Err(End::Failed(why));
                    }
                }
                why = ended(process) => return Err(End::Failed(why)),
                () = self.shared.stop.cancelled() => return Err(End::Head),
                order = self.orders.recv() => match order {
                    None => return Err(End::Head),
                    Some(Order::Want(false)) => {
                        self.wanted = false;
                        return Err(End::Stopped);
                    }
                    Some(Order::Fire(fire)) => self.queue(*fire).await,
                    Some(Order::Interrupt(node, mutation, attempt)) => self.forget(node, &mutation, attempt),
                    Some(Order::Want(true) | Order::Configure) => {}
                    Some(Order::Program(program)) => if self.take(*program) {
                        return Err(End::Changed);
                    }
                    Some(Order::Leave) => return Err(End::Left),
                },
            }
        }
    }

    fn place(&self) -> Place {
        let limits = self
            .program
            .as_ref()
            .map_or_else(Limits::default, |program| program.limits);
        Place {
            module: self.name().to_owned(),
            host: self.shared.me,
            host_name: self.shared.name.clone(),
            on_node: false,
            values_per_second: limits.discoveries_per_second,
        }
    }

    async fn queue(&mut self, fire: Fire) {
        if self.waiting.len() >= MAX_WAITING {
            return self.refuse(&fire, "too many mutations wait for it").await;
        }
        self.waiting.push_back(fire);
    }

    fn forget(&mut self, node: NodeId, mutation: &MutationId, attempt: u64) {
        let is_it = |fire: &Fire| {
            fire.node == node && fire.mutation == *mutation && fire.attempt == attempt
        };
        self.waiting.retain(|fire| !is_it(fire));
    }

    async fn fail_waiting(&mut self, why: &str) {
        while let Some(fire) = self.waiting.pop_front() {
            self.refuse(&fire, why).await;
        }
    }

    async fn refuse(&self, fire: &Fire, why: &str) {
        let name = self.name();
        let text = format!(
            "module {name} does not run: {why}; see krakenctl module list, start it with krakenctl node set {} /services/{name}/state=RUN",
            self.shared.name
        );
        self.shared.reports.fail(fire, text).await;
    }

    async fn show(&self, change: impl FnOnce(&mut super::status::Status)) {
        change(&mut self.hosted.status());
        let up = f64::from(u8::from(self.hosted.status().up));
        metrics::gauge!("kraken_module_up", "module" => self.name().to_owned()).set(up);
        self.hosted.report(&self.shared).await;
    }
}

/// The end of the module's process, if the head started it.
async fn ended(process: &mut Option<Process>) -> String {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

/// Why the call ended: how the process did, if that comes within a moment.
async fn end_words(process: &mut Option<Process>, why: &str) -> String {
    match tokio::time::timeout(Duration::from_secs(1), ended(process)).await {
        Ok(ended) => ended,
        Err(_) => why.to_owned(),
    }
}

/// What `/services/NAME/config/*` and `secret/*` of a node say, over what the configuration file says.
pub(super) fn merged(
    module: &str,
    program: Option<&ModuleConfig>,
    cfg: &Values,
) -> BTreeMap<String, Value> {
    let mut config = program
        .map(|program| program.config.clone())
        .unwrap_or_default();
    let below = ["config", "secret"].map(|of| format!("/services/{module}/{of}/"));
    for (url, value) in cfg.iter() {
        let mut below = below.iter();
        let Some(key) = below.find_map(|below| url.as_str().strip_prefix(below)) else {
            continue;
        };
        let value = match config.get(key) {
            Some(written) => typed_like(written, value).unwrap_or_else(|| {
                warn!(module, %url, "is not of the type that the configuration file gives it: the module is told a text");
                value.clone()
            }),
            None => value.clone(),
        };
        config.insert(key.to_owned(), value);
    }
    config
}

/// What the tree has as a text, as all of a module's configuration there, in the type that the file gave it; `None`: it does not fit.
fn typed_like(written: &Value, value: &Value) -> Option<Value> {
    let Value::Text(text) = value else {
        return Some(value.clone());
    };
    match written {
        Value::Int(_) => text.parse().ok().map(Value::Int),
        Value::Bool(_) => text.parse().ok().map(Value::Bool),
        Value::Float(_) => {
            let number = text.parse::<f64>().ok();
            let number = number.filter(|number| number.is_finite());
            number.map(|number| Value::Float(Float(number)))
        }
        Value::List(_) => {
            let items = text.split(',').map(str::trim);
            let items = items.filter(|item| !item.is_empty()).map(Value::text);
            Some(Value::List(items.collect()))
        }
        Value::Text(_) | Value::Bytes(_) => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests;
