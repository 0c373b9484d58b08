//! The host's half of the module API (module.proto): what a module out of process may say, and what comes of it.
//!
//! One [`ModuleHost`] is one connection. The shell dials, hands in messages and the time, and carries out what comes out; nothing here
//! opens or waits. A module is not trusted: what it did not declare is refused, what makes no sense is refused and counted, what comes
//! too fast waits or is dropped, and silence ends the connection (fault F32).
//!
//! After any `handle_*` call, drain [`poll_transmit`](ModuleHost::poll_transmit) and [`poll_event`](ModuleHost::poll_event), then wait
//! until [`poll_timeout`](ModuleHost::poll_timeout). While [`may_read`](ModuleHost::may_read) says no, take no message from the module.

mod scope;
mod tokens;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proto::v1::{self, from_module, to_module};

pub use self::scope::Scope;
use self::tokens::Tokens;
use super::convert::{
    ConvertError, Declared, MAX_QUERY, change_from_proto, declared_from_proto, node_id_from_proto,
    url_from_proto, value_to_proto,
};
use crate::event::Fire;
use crate::mutation::MutationId;
use crate::state::{Change, NodeId, NodeName, StateUrl, Value};
use crate::time::Instant;

/// Newest version of the module API that we speak.
pub const API_VERSION: u32 = 1;
/// Oldest one.
pub const API_OLDEST: u32 = 1;
/// Time from the connection to the first declaration; an interpreter that loads its libraries takes a second or two.
pub const DECLARE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two pings.
pub const PING: Duration = Duration::from_secs(5);
/// A module that says nothing for so long after a ping hangs.
pub const PONG_TIMEOUT: Duration = Duration::from_secs(15);
/// Values that may wait for their turn, the latest of each url: one of every node of the largest cluster.
pub const MAX_HELD: usize = 16_384;
/// Values in one report; a node has at most so many.
const MAX_REPORT: usize = crate::state::MAX_VALUES;
/// Refused messages in a row that a module may send, and how many more a second: beyond, it does not know what it says.
const REFUSALS: (u32, u32) = (100, 10);
/// Questions a second.
const QUESTIONS: u32 = 100;
/// Log lines a second.
const LINES: u32 = 20;
/// Longest log line that is kept.
const MAX_LINE: usize = 4096;
/// Messages for each value that a module may report: the rest of what it says. Beyond that nobody reads for a moment.
const MESSAGES_A_VALUE: u32 = 2;
/// How often held values move on.
const TURN: Duration = Duration::from_millis(100);

/// What a module is told about its place.
#[derive(Clone, Debug)]
pub struct Place {
    /// The name under which it runs.
    pub module: String,
    /// The host's node.
    pub host: NodeId,
    /// Its name.
    pub host_name: NodeName,
    /// The host is an agent: the module speaks of this node only.
    pub on_node: bool,
    /// Values it may report a second.
    pub values_per_second: u32,
}

/// What a module's messages come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleEvent {
    /// It declares something else than before.
    Declared(Declared),
    /// It reports values that it may report.
    Discovered {
        /// Of which node.
        node: NodeId,
        /// What.
        changes: Vec<Change>,
    },
    /// It could not do what it was told.
    Failed {
        /// Of which node.
        node: NodeId,
        /// What.
        mutation: MutationId,
        /// Which attempt.
        attempt: u64,
        /// Why.
        text: String,
    },
    /// A line for the log.
    Line {
        /// How bad.
        level: v1::module_log::Level,
        /// About which node.
        node: Option<NodeId>,
        /// Free of control characters.
        text: String,
    },
    /// It asks for values; answer with a query result of this id, filtered by the [`Scope`].
    Asked {
        /// Names the question.
        id: u64,
        /// Which nodes; empty: all.
        nodes: Vec<NodeId>,
        /// Which urls; empty: all that it may see.
        urls: Vec<StateUrl>,
    },
    /// Something odd, for the log: said once a flood, not once a message.
    Odd(String),
    /// The connection is of no use any more: close it.
    End(String),
}

/// Figures of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Values that were passed on.
    pub values: u64,
    /// Values that a later one of the same url replaced while they waited, or that found no room.
    pub values_cut: u64,
    /// Messages that were refused.
    pub refused: u64,
    /// Log lines that were dropped.
    pub lines_dropped: u64,
}

/// See the module.
pub struct ModuleHost {
    place: Place,
    scope: Scope,
    declared: Option<Declared>,
    connected: Instant,
    heard: Instant,
    /// Token and time of the last ping.
    ping: (u64, Instant),
    values: Tokens,
    messages: Tokens,
    refusals: Tokens,
    questions: Tokens,
    lines: Tokens,
    held: BTreeMap<(NodeId, StateUrl), Option<Value>>,
    /// Told, and neither failed nor interrupted since.
    told: BTreeMap<(NodeId, MutationId), u64>,
    flooded: bool,
    ended: bool,
    counts: Counts,
    out: VecDeque<v1::ToModule>,
    events: VecDeque<ModuleEvent>,
}

impl ModuleHost {
    /// A fresh connection; the first thing to transmit is the hello.
    pub fn new(place: Place, config: &BTreeMap<String, Value>, now: Instant) -> Self {
        let hello = v1::ModuleHello {
            api_version: API_VERSION,
            api_oldest: API_OLDEST,
            module: place.module.clone(),
            host_id: place.host.as_bytes().to_vec(),
            host_name: place.host_name.to_string(),
            on_node: place.on_node,
            config: Some(config_to_proto(config)),
        };
        let rate = place.values_per_second.max(1);
        let mut host = Self {
            scope: Scope::new(&place.module, &Declared::default()),
            place,
            declared: None,
            connected: now,
            heard: now,
            ping: (0, now),
            values: Tokens::new(rate, rate, now),
            messages: Tokens::new(
                rate.saturating_mul(MESSAGES_A_VALUE),
                rate.saturating_mul(MESSAGES_A_VALUE),
                now,
            ),
            refusals: Tokens::new(REFUSALS.0, REFUSALS.1, now),
            questions: Tokens::new(QUESTIONS, QUESTIONS, now),
            lines: Tokens::new(LINES, LINES, now),
            held: BTreeMap::new(),
            told: BTreeMap::new(),
            flooded: false,
            ended: false,
            counts: Counts::default(),
            out: VecDeque::new(),
            events: VecDeque::new(),
        };
        host.say(to_module::Kind::Hello(hello));
        host
    }

    /// The module says something.
    pub fn handle_message(&mut self, message: v1::FromModule, now: Instant) {
        if self.ended {
            return;
        }
        self.heard = now;
        self.messages.take(1, now);
        match message.kind {
            Some(from_module::Kind::Declare(declaration)) => self.declare(declaration),
            Some(_) if self.declared.is_none() => {
                self.end("it has to declare before it says anything else".into())
            }
            Some(from_module::Kind::Discovery(discovery)) => {
                if let Err(why) = self.discover(discovery, now) {
                    self.refuse(format!("discovery: {why}"), now);
                }
            }
            Some(from_module::Kind::Failed(failed)) => {
                if let Err(error) = self.failed(failed) {
                    self.refuse(format!("failed: {error}"), now);
                }
            }
            Some(from_module::Kind::Log(line)) => self.log(&line, now),
            Some(from_module::Kind::Query(query)) => {
                let id = query.id;
                if let Err(why) = self.ask(query, now) {
                    self.answer(v1::QueryResult {
                        id,
                        nodes: Vec::new(),
                        error: why.clone(),
                    });
                    self.refuse(format!("query: {why}"), now);
                }
            }
            Some(from_module::Kind::Pong(_)) => {}
            None => self.refuse(
                "a message without content, or of a later version".into(),
                now,
            ),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        if self.declared.is_none() {
            if now.since(self.connected) >= DECLARE_TIMEOUT {
                self.end(format!("it does not declare within {DECLARE_TIMEOUT:?}"));
            }
            return;
        }
        let (token, pinged) = self.ping;
        if self.heard < pinged && now.since(pinged) >= PONG_TIMEOUT {
            return self.end(format!(
                "it hangs: no answer to a ping within {PONG_TIMEOUT:?}"
            ));
        }
        if now.since(pinged) >= PING && self.heard >= pinged {
            self.ping = (token + 1, now);
            self.say(to_module::Kind::Ping(v1::Ping { token: token + 1 }));
        }
        self.move_on(now);
    }

    /// Tells the module to carry something out; `values` are what it may see of the node's Cfg and Dsc.
    pub fn fire(&mut self, fire: &Fire, mutate: v1::Mutate) {
        self.told
            .insert((fire.node, fire.mutation.clone()), fire.attempt);
        self.say(to_module::Kind::Mutate(mutate));
    }

    /// Tells the module to stop carrying something out, if it was told to.
    pub fn interrupt(&mut self, node: NodeId, mutation: &MutationId, attempt: u64) {
        if self.told.remove(&(node, mutation.clone())).is_some() {
            self.say(to_module::Kind::Interrupt(v1::Interrupt {
                node_id: node.as_bytes().to_vec(),
                mutation: mutation.name().to_owned(),
                attempt,
            }));
        }
    }

    /// The configuration has changed.
    pub fn configure(&mut self, config: &BTreeMap<String, Value>) {
        self.say(to_module::Kind::Config(config_to_proto(config)));
    }

    /// The answer to a question.
    pub fn answer(&mut self, result: v1::QueryResult) {
        self.say(to_module::Kind::QueryResult(result));
    }

    /// What was not taken, in words for the module's author.
    pub fn refuse(&mut self, text: String, now: Instant) {
        self.counts.refused += 1;
        if !self.refusals.take(1, now) {
            return self.end(format!("it goes on saying what is not taken, last: {text}"));
        }
        if self.counts.refused == 1 {
            self.events
                .push_back(ModuleEvent::Odd(format!("not taken: {text}")));
        }
        self.say(to_module::Kind::Refused(v1::Refused { text }));
    }

    /// The next message for the module.
    pub fn poll_transmit(&mut self) -> Option<v1::ToModule> {
        self.out.pop_front()
    }

    /// The next thing that came of its messages.
    pub fn poll_event(&mut self) -> Option<ModuleEvent> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self, now: Instant) -> Instant {
        if self.declared.is_none() {
            return self.connected + DECLARE_TIMEOUT;
        }
        let (_, pinged) = self.ping;
        let life = if self.heard < pinged {
            pinged + PONG_TIMEOUT
        } else {
            pinged + PING
        };
        let hurry = !self.held.is_empty() || self.messages.is_empty();
        if hurry { life.min(now + TURN) } else { life }
    }

    /// Whether a further message may be taken now. A module that says more than it may waits, and its transport with it.
    pub fn may_read(&mut self, now: Instant) -> bool {
        self.messages.refill(now);
        !self.messages.is_empty()
    }

    /// Whether it has said what it can do.
    pub fn has_declared(&self) -> bool {
        self.declared.is_some()
    }

    /// What it may see and say.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Figures so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What it was told and has not said to have failed; with the connection these fail.
    pub fn told(&self) -> impl Iterator<Item = (NodeId, &MutationId, u64)> {
        self.told
            .iter()
            .map(|((node, mutation), attempt)| (*node, mutation, *attempt))
    }

    fn declare(&mut self, declaration: v1::Declaration) {
        let version = declaration.api_version;
        if !(API_OLDEST..=API_VERSION).contains(&version) {
            return self.end(format!(
                "it speaks version {version} of the module API, this host {API_OLDEST} to {API_VERSION}: use a module made for it, or a newer Kraken"
            ));
        }
        if declaration.module != self.place.module {
            return self.end(format!(
                "it says that it is {:?}, but runs here as {:?}: give both one name",
                declaration.module.chars().take(64).collect::<String>(),
                self.place.module
            ));
        }
        match declared_from_proto(declaration) {
            Ok(declared) => {
                self.scope = Scope::new(&self.place.module, &declared);
                if self.declared.as_ref() != Some(&declared) {
                    self.events
                        .push_back(ModuleEvent::Declared(declared.clone()));
                }
                self.declared = Some(declared);
            }
            Err(error) => self.end(format!("its declaration makes no sense: {error}")),
        }
    }

    fn node(&self, bytes: &[u8]) -> Result<NodeId, String> {
        let node = match bytes {
            [] => self.place.host,
            bytes => node_id_from_proto(bytes).map_err(|error| format!("node_id {error}"))?,
        };
        if self.place.on_node && node != self.place.host {
            return Err("a module on a node speaks of that node only".into());
        }
        Ok(node)
    }

    fn discover(&mut self, discovery: v1::Discovery, now: Instant) -> Result<(), String> {
        let node = self.node(&discovery.node_id)?;
        if discovery.values.len() > MAX_REPORT {
            return Err(format!("more than {MAX_REPORT} values in one message"));
        }
        let mut changes = Vec::with_capacity(discovery.values.len());
        for value in discovery.values {
            let change = change_from_proto(value).map_err(|error| error.to_string())?;
            if !self.scope.may_report(&change.url) {
                return Err(format!("{} is not declared", change.url));
            }
            changes.push(change);
        }
        let mut good = Vec::with_capacity(changes.len());
        for change in changes {
            let key = (node, change.url);
            if self.held.contains_key(&key) || !self.values.take(1, now) {
                self.hold(key, change.value);
            } else {
                good.push(Change {
                    url: key.1,
                    value: change.value,
                });
            }
        }
        self.pass(node, good);
        Ok(())
    }

    /// Lets a value wait for its turn.
    fn hold(&mut self, key: (NodeId, StateUrl), value: Option<Value>) {
        if !self.flooded {
            self.flooded = true;
            let rate = self.place.values_per_second;
            self.events.push_back(ModuleEvent::Odd(format!(
                "it reports more than {rate} values a second: what is too much waits, and only the latest value of each url goes on"
            )));
        }
        if self.held.contains_key(&key) || self.held.len() >= MAX_HELD {
            self.counts.values_cut += 1;
        }
        if self.held.contains_key(&key) || self.held.len() < MAX_HELD {
            self.held.insert(key, value);
        }
    }

    /// Passes on what has waited long enough.
    fn move_on(&mut self, now: Instant) {
        let mut ready: BTreeMap<NodeId, Vec<Change>> = BTreeMap::new();
        while !self.held.is_empty() && self.values.take(1, now) {
            let Some(((node, url), value)) = self.held.pop_first() else {
                break;
            };
            ready.entry(node).or_default().push(Change { url, value });
        }
        for (node, changes) in ready {
            self.pass(node, changes);
        }
        if self.held.is_empty() && self.values.is_full(now) {
            self.flooded = false;
        }
    }

    fn pass(&mut self, node: NodeId, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.counts.values += changes.len() as u64;
            self.events
                .push_back(ModuleEvent::Discovered { node, changes });
        }
    }

    fn failed(&mut self, failed: v1::MutationFailed) -> Result<(), String> {
        let node = self.node(&failed.node_id)?;
        let mutation = MutationId::new(&self.place.module, &failed.mutation);
        let known = self.told.get(&(node, mutation.clone()));
        if known != Some(&failed.attempt) {
            // It crossed an interrupt, or a timeout.
            return Ok(());
        }
        self.told.remove(&(node, mutation.clone()));
        self.events.push_back(ModuleEvent::Failed {
            node,
            mutation,
            attempt: failed.attempt,
            text: clean(&failed.text),
        });
        Ok(())
    }

    fn log(&mut self, line: &v1::ModuleLog, now: Instant) {
        if !self.lines.take(1, now) {
            self.counts.lines_dropped += 1;
            return;
        }
        let node = (!line.node_id.is_empty())
            .then(|| self.node(&line.node_id).ok())
            .flatten();
        self.events.push_back(ModuleEvent::Line {
            level: line.level(),
            node,
            text: clean(&line.text),
        });
    }

    fn ask(&mut self, query: v1::Query, now: Instant) -> Result<(), String> {
        if query.node_ids.len() > MAX_QUERY || query.urls.len() > MAX_QUERY {
            return Err(format!("more than {MAX_QUERY} nodes or urls in one query"));
        }
        if !self.questions.take(1, now) {
            return Err(format!("more than {QUESTIONS} queries a second"));
        }
        let nodes: Result<Vec<NodeId>, String> = query
            .node_ids
            .iter()
            .map(|bytes| self.node(bytes))
            .collect();
        let urls: Result<Vec<StateUrl>, ConvertError> =
            query.urls.iter().map(|url| url_from_proto(url)).collect();
        let mut nodes = nodes?;
        if self.place.on_node && nodes.is_empty() {
            nodes.push(self.place.host);
        }
        let urls = urls.map_err(|error| error.to_string())?;
        self.events.push_back(ModuleEvent::Asked {
            id: query.id,
            nodes,
            urls,
        });
        Ok(())
    }

    fn end(&mut self, why: String) {
        if !self.ended {
            self.ended = true;
            self.events.push_back(ModuleEvent::End(why));
        }
    }

    fn say(&mut self, kind: to_module::Kind) {
        if !self.ended {
            self.out.push_back(v1::ToModule { kind: Some(kind) });
        }
    }
}

fn config_to_proto(config: &BTreeMap<String, Value>) -> v1::ModuleConfig {
    let values = config
        .iter()
        .map(|(key, value)| (key.clone(), value_to_proto(value)));
    v1::ModuleConfig {
        values: values.collect(),
    }
}

/// Text of a module for a log: cut, and free of what could fake other lines.
fn clean(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut end = text.len().min(MAX_LINE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim_end().chars().map(printable).collect()
}

#[cfg(test)]
mod tests;
