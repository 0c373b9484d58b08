//! How a module out of process is doing, for `krakenctl module list` and for the values under `/services/NAME`.

use std::time::Duration;

use engine::mutation::MutationId;
use engine::state::{Change, StateUrl, Value};
use engine::wire::module::Counts;
use proto::v1;
use tokio::time::Instant;

/// Values of `/services/NAME/state` (core.proto).
pub(super) const STOP: &str = "STOP";
pub(super) const INIT: &str = "INIT";
pub(super) const RUN: &str = "RUN";
pub(super) const RESTARTING: &str = "RESTARTING";
pub(super) const ERROR: &str = "ERROR";

/// [`Health::word`](super::health::Health::word) of one that says so.
pub(super) const NOT_SERVING: &str = "not serving";

/// Longest text of a failure that is kept.
const MAX_ERROR: usize = 300;

/// Time over which a rate is taken.
const WINDOW: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Status {
    /// [`STOP`], [`INIT`], [`RUN`], [`RESTARTING`] or [`ERROR`].
    pub(super) state: &'static str,
    /// It answers, and says that it serves if it says anything of that.
    pub(super) up: bool,
    /// What it says about its health: [`Health::word`](super::health::Health::word).
    pub(super) health: &'static str,
    /// Of the first process, if the head started one.
    pub(super) pid: Option<u32>,
    /// What bounds its memory and processes; empty: somebody else runs it.
    pub(super) limited_by: &'static str,
    /// Failures since the head started.
    pub(super) failures: u64,
    /// Failures since it last ran for a while.
    pub(super) in_a_row: u32,
    /// The last failure, in words.
    pub(super) last_error: String,
    /// Its version, as it says.
    pub(super) version: String,
    /// Mutations that it declares.
    pub(super) mutations: usize,
    /// Figures of earlier connections.
    before: Counts,
    /// Figures of this one.
    counts: Counts,
    window: (Instant, u64),
    rate: f64,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: STOP,
            up: false,
            health: "",
            pid: None,
            limited_by: "",
            failures: 0,
            in_a_row: 0,
            last_error: String::new(),
            version: String::new(),
            mutations: 0,
            before: Counts::default(),
            counts: Counts::default(),
            window: (Instant::now(), 0),
            rate: 0.0,
        }
    }
}

impl Status {
    /// Takes over the figures of the connection that is open.
    pub(super) fn count(&mut self, module: &str, counts: Counts) {
        let add = |name: &'static str, now: u64, old: u64| {
            metrics::counter!(name, "module" => module.to_owned())
                .increment(now.saturating_sub(old));
        };
        let old = self.counts;
        add("kraken_module_values_total", counts.values, old.values);
        add(
            "kraken_module_values_cut_total",
            counts.values_cut,
            old.values_cut,
        );
        add("kraken_module_refused_total", counts.refused, old.refused);
        self.counts = counts;
    }

    /// The connection is over.
    pub(super) fn disconnected(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        self.before.values += counts.values;
        self.before.values_cut += counts.values_cut;
        self.before.refused += counts.refused;
        self.before.lines_dropped += counts.lines_dropped;
        self.up = false;
        self.health = "";
        self.pid = None;
    }

    /// Another failure.
    pub(super) fn failed(&mut self, why: &str) {
        self.failures += 1;
        self.in_a_row += 1;
        self.trouble(why);
    }

    /// What is wrong with it now, failure or not.
    pub(super) fn trouble(&mut self, why: &str) {
        self.last_error = why.chars().take(MAX_ERROR).collect();
    }

    /// It should run, and does not.
    pub(super) fn is_in_trouble(&self) -> bool {
        let fails = self.in_a_row > 0 || self.health == NOT_SERVING;
        fails && !self.up && self.state != STOP
    }

    /// What is wrong with it, for an explanation.
    pub(super) fn trouble_words(&self, module: &str) -> String {
        let state = match self.health {
            NOT_SERVING => "NOT SERVING",
            _ => self.state,
        };
        let why = match self.last_error.as_str() {
            "" => String::new(),
            error => format!(" ({error})"),
        };
        format!("module {module} is {state}{why}")
    }

    /// The values of `/services/NAME` on the head's node.
    pub(super) fn values(&self, module: &str) -> Vec<Change> {
        let text = |text: &str| (!text.is_empty()).then(|| Value::text(text));
        let restarts = i64::try_from(self.failures).unwrap_or(i64::MAX);
        let values = [
            ("state", text(self.state)),
            ("up", self.up.then_some(Value::Bool(true))),
            ("restarts", (restarts > 0).then_some(Value::Int(restarts))),
            ("last_error", text(&self.last_error)),
        ];
        let change = |(field, value)| {
            let url: StateUrl = format!("/services/{module}/{field}").parse().ok()?;
            Some(Change { url, value })
        };
        values.into_iter().filter_map(change).collect()
    }

    /// As the API shows it.
    pub(super) fn info(&mut self, name: &str, kind: v1::module_info::Kind) -> v1::ModuleInfo {
        let values = self.before.values + self.counts.values;
        let (since, then) = self.window;
        if since.elapsed() >= WINDOW {
            self.rate = (values - then.min(values)) as f64 / since.elapsed().as_secs_f64();
            self.window = (Instant::now(), values);
        }
        v1::ModuleInfo {
            name: name.to_owned(),
            kind: kind.into(),
            state: self.state.to_owned(),
            up: self.up,
            pid: self.pid.unwrap_or_default(),
            failures: self.failures,
            last_error: self.last_error.clone(),
            version: self.version.clone(),
            mutations: u32::try_from(self.mutations).unwrap_or(u32::MAX),
            values,
            values_per_second: self.rate,
            values_cut: self.before.values_cut + self.counts.values_cut,
            refused: self.before.refused + self.counts.refused,
            health: self.health.to_owned(),
            limited_by: self.limited_by.to_owned(),
        }
    }
}

/// The mutation that starts a module, or stops it: `service/fan.START`.
pub(super) fn service_mutation(module: &str, verb: &str) -> MutationId {
    MutationId::new("service", &format!("{module}.{verb}"))
}

/// Which module a service mutation is about, and whether it starts it.
pub(super) fn of_service(mutation: &MutationId) -> Option<(&str, bool)> {
    match mutation.name().rsplit_once('.')? {
        (module, "START") => Some((module, true)),
        (module, "STOP") => Some((module, false)),
        _ => None,
    }
}
