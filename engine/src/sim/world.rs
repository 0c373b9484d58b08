//! The world's clock: what happens when, in which order, and whether everything ended where it should.

use std::collections::BTreeMap;
use std::time::Duration;

use super::attacker::Attacker;
use super::check::{Cause, Check};
use super::cluster::{RACK, goal, guards, mutations, schema};
use super::disk::Disk;
use super::happening::{Happening, host_number};
use super::head::{Head, WriteKind};
use super::machine::Machine;
use super::net::{Host, Net};
use super::rng::Rng;
use super::stream::Conn;
use super::{Options, Summary, Violation};
use crate::event::{ConnId, RequestId, WriteOp};
use crate::extension::Schema;
use crate::mutation::MutationSet;
use crate::mutation::graph::MutationGraph;
use crate::mutation::progress::Healing;
use crate::state::{Node, NodeId};
use crate::sync::signature::CfgSigner;
use crate::time::Instant;

/// Time for ten machines to boot when nothing fails.
const BOOT_BOUND: Duration = Duration::from_secs(120);
/// Time after which a healed world must have converged (L1): a power command that was lost times out, then the silent hold, a boot that hung
/// with its time-out and back-off, and one more boot.
const HEAL_BOUND: Duration = Duration::from_secs(900);
/// The head's clock at the start.
const WALL_MS: u64 = 1_700_000_000_000;
/// The head's node id.
pub(super) const HEAD: NodeId = NodeId::from_bytes([0xaa; 16]);
/// Events of one run; a world that spins is stopped.
const MAX_EVENTS: u64 = 2_000_000;

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nothing fails but a few datagrams.
    Boot,
    /// Anything may fail.
    Chaos,
    /// Nothing fails any more; all must get where they should be.
    Healed,
}

/// See [`super`].
pub struct World {
    pub(super) options: Options,
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) net: Net,
    pub(super) disk: Disk,
    pub(super) head: Option<Head>,
    pub(super) head_incarnation: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    pub(super) attacker: Attacker,
    pub(super) check: Check,
    pub(super) schema: Schema,
    pub(super) set: MutationSet,
    pub(super) cluster_seed: [u8; 32],
    pub(super) cluster_key: [u8; 32],
    pub(super) last_conn: u64,
    pub(super) last_request: u64,
    pub(super) writes: BTreeMap<RequestId, WriteKind>,
    /// Connection on which the attacker presents a used grant.
    pub(super) stolen_join: Option<ConnId>,
    pub(super) phase: Phase,
    pub(super) wall_offset_ms: i64,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    events: u64,
    trace: u64,
    hits: BTreeMap<&'static str, u64>,
}

impl World {
    /// A world in which nothing has happened.
    ///
    /// # Panics
    /// When the mutations of [`mutations`](super::mutations) are no graph.
    pub fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed ^ 0x006b_7261_6b65_6e00);
        let set = mutations();
        let graph = MutationGraph::new(&set).expect("the built-in mutations are a graph");
        let cluster_seed: [u8; 32] = rng.bytes();
        let signer = CfgSigner::from_seed(&cluster_seed).expect("every seed is a key");
        let machines: Vec<Machine> = (0..options.nodes).map(Machine::new).collect();
        let mut disk = Disk::default();
        for (index, machine) in machines.iter().enumerate() {
            let mut node = machine.node(index);
            disk.revision += 1;
            node.cfg_revision = disk.revision;
            disk.nodes.insert(node.id, node);
        }
        Self {
            net: Net::new(options.loss_permille),
            options,
            now: Instant::ZERO,
            rng,
            disk,
            head: None,
            head_incarnation: 0,
            machines,
            conns: BTreeMap::new(),
            attacker: Attacker::default(),
            check: Check::new(graph, guards(options.seed).limits),
            schema: schema(),
            set,
            cluster_key: signer.public_key(),
            cluster_seed,
            last_conn: 0,
            last_request: 0,
            writes: BTreeMap::new(),
            stolen_join: None,
            phase: Phase::Boot,
            wall_offset_ms: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            events: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            hits: BTreeMap::new(),
        }
    }

    /// Boots the cluster, lets things go wrong, heals them, and waits until every node is where it should be.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run(mut self) -> Result<Summary, Violation> {
        self.boot_all()?;
        self.check.powerless = self.options.calm;
        self.phase = Phase::Chaos;
        for first in [Happening::Fault, Happening::Attack, Happening::Operator] {
            let delay = self.rng.millis(100..3_000);
            self.after(delay, first);
        }
        self.run_for(self.options.chaos)?;
        self.heal();
        self.run_until_converged(HEAL_BOUND)?;
        self.run_for(Duration::from_secs(5))?;
        if let Some(head) = &self.head
            && let Some(difference) = self.disk.differs(
                head.engine.tree(),
                head.engine.revision(),
                head.engine.freezes(),
            )
        {
            return Err(self.violation(format!("I1: {difference}")));
        }
        Ok(self.summary())
    }

    /// Boots the cluster and lets time pass, in which nothing fails but the links' share of datagrams.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run_quietly(mut self, time: Duration) -> Result<Summary, Violation> {
        self.boot_all()?;
        self.check.powerless = true;
        self.run_for(time)?;
        match self.unconverged() {
            Some(late) => Err(self.violation(format!("L1: {late}"))),
            None => Ok(self.summary()),
        }
    }

    fn boot_all(&mut self) -> Result<(), Violation> {
        self.after(Duration::ZERO, Happening::StartHead);
        self.after(Duration::from_secs(2), Happening::Remember);
        for machine in 0..self.machines.len() {
            let delay = self.rng.millis(0..5_000);
            self.after(delay, Happening::Poll { machine });
        }
        self.run_until_converged(BOOT_BOUND)
    }

    fn summary(self) -> Summary {
        Summary {
            events: self.events,
            elapsed: self.now.since_origin(),
            trace: self.trace,
            hits: self.hits,
        }
    }

    fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        let end = self.now + time;
        while self.step(end)? {}
        self.now = end;
        Ok(())
    }

    fn run_until_converged(&mut self, bound: Duration) -> Result<(), Violation> {
        let end = self.now + bound;
        while self.unconverged().is_some() {
            if self.now >= end {
                let late = self.unconverged().unwrap_or_default();
                return Err(self.violation(format!("L1: after {bound:?} {late}")));
            }
            self.run_for(Duration::from_secs(1))?;
        }
        Ok(())
    }

    /// Handles the next thing before `end`; false: there is none.
    fn step(&mut self, end: Instant) -> Result<bool, Violation> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let timer = self.next_timer();
        let due = match (queued, timer) {
            (Some(at), Some((timer, _))) if timer < at => timer,
            (Some(at), _) => at,
            (None, Some((timer, _))) => timer,
            (None, None) => return Ok(false),
        };
        if due > end {
            return Ok(false);
        }
        self.now = self.now.max(due);
        self.events += 1;
        if queued == Some(due) {
            if let Some((_, happening)) = self.queue.pop_first() {
                self.happen(happening);
            }
        } else if let Some((_, host)) = timer {
            self.note("timer", host_number(host));
            self.timer(host);
        }
        if self.events > MAX_EVENTS {
            return Err(self.violation(format!("I12: more than {MAX_EVENTS} events")));
        }
        match self.check.broken() {
            Some(what) => Err(self.violation(what)),
            None => Ok(true),
        }
    }

    fn next_timer(&self) -> Option<(Instant, Host)> {
        let head = self
            .head
            .as_ref()
            .and_then(|head| Some((head.engine.poll_timeout()?, Host::Head)));
        let machines = self
            .machines
            .iter()
            .enumerate()
            .filter_map(|(index, machine)| {
                let at = machine.agent.as_ref()?.engine.poll_timeout()?;
                Some((at.max(machine.paused_until), Host::Machine(index)))
            });
        head.into_iter().chain(machines).min()
    }

    fn timer(&mut self, host: Host) {
        let now = self.now;
        match host {
            Host::Head => {
                if let Some(head) = &mut self.head {
                    head.engine.handle_timeout(now);
                }
                self.drain_head(Cause::Other);
            }
            Host::Machine(index) => {
                if let Some(agent) = &mut self.machines[index].agent {
                    agent.engine.handle_timeout(now);
                }
                self.drain_agent(index);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(machine) = happening.on_machine()
            && self.machines[machine].paused_until > self.now
        {
            let at = self.machines[machine].paused_until;
            return self.at(at, happening);
        }
        self.note(happening.name(), happening.number());
        if self.options.verbose {
            println!("{:?} {happening:?}", self.now);
        }
        match happening {
            Happening::Datagram { from, to, bytes } => self.datagram(from, to, &bytes),
            Happening::Stream { conn, to } => self.stream_due(conn, to),
            Happening::Closed { conn, at } => self.conn_closed(conn, at),
            Happening::JoinTimeout { conn, machine } => self.join_timeout(conn, machine),
            Happening::StartHead => self.start_head(),
            Happening::Commit {
                incarnation,
                commit,
            } => self.commit_due(incarnation, commit),
            Happening::Bmc {
                incarnation,
                fire,
                on,
            } => self.bmc(incarnation, fire, on),
            Happening::PowerSeen {
                incarnation,
                fire,
                on,
            } => self.power_seen(incarnation, &fire, on),
            Happening::Arm { incarnation, fire } => self.arm(incarnation, &fire),
            Happening::Poll { machine } => self.poll_power(machine),
            Happening::Remember => self.remember(),
            Happening::Boot {
                machine,
                cycle,
                step,
            } => self.boot(machine, cycle, step),
            Happening::StartAgent { machine, cycle } => self.start_agent(machine, cycle),
            Happening::AgentWork {
                machine,
                incarnation,
                fire,
            } => self.agent_work(machine, incarnation, &fire),
            Happening::Fault => self.fault(),
            Happening::Attack => self.attack(),
            Happening::Operator => self.operator(),
            Happening::ReAdd { machine } => self.add_again(machine),
        }
    }

    pub(super) fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    pub(super) fn at(&mut self, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// Counts a fault or a rare branch.
    pub(super) fn hit(&mut self, what: &'static str) {
        *self.hits.entry(what).or_default() += 1;
        self.note(what, 0);
        if self.options.verbose {
            println!("{:?} == {what}", self.now);
        }
    }

    /// Adds to the trace's hash (FNV-1a over time, word and number).
    pub(super) fn note(&mut self, what: &str, number: u64) {
        let nanos = self.now.since_origin().as_nanos() as u64;
        let bytes = nanos
            .to_le_bytes()
            .into_iter()
            .chain(what.bytes())
            .chain(number.to_le_bytes());
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn wall_ms(&self) -> u64 {
        let ms = self.now.since_origin().as_millis() as u64;
        (WALL_MS + ms).saturating_add_signed(self.wall_offset_ms)
    }

    pub(super) fn healing(&self) -> Healing {
        Healing {
            attempts: 3,
            backoff: Duration::from_secs(3),
            backoff_max: Duration::from_secs(30),
            relapse: Duration::from_secs(20),
            settle: Duration::from_secs(30),
            // In a calm world longer than any silence, so that no power action is right; else short, so that the other guard rails come to bear.
            silent_hold: Duration::from_secs(if self.options.calm { 180 } else { 15 }),
        }
    }

    fn violation(&self, what: String) -> Violation {
        Violation {
            seed: self.options.seed,
            at: self.now.since_origin(),
            what,
        }
    }

    /// The first node that is not where it should be, in words.
    fn unconverged(&self) -> Option<String> {
        let Some(head) = &self.head else {
            return Some("the head is down".into());
        };
        for machine in &self.machines {
            let Some(node) = head.engine.tree().get(machine.id) else {
                return Some(format!("{} is not in the tree", machine.name));
            };
            let wants =
                |url: &str| node.cfg.get(url).is_none() || node.cfg.get(url) == node.dsc.get(url);
            let there = ["/PhysState", "/RunState", "/image/state", "/tune/state"]
                .iter()
                .all(|url| wants(url));
            let synced = head.engine.has_session(machine.id)
                && machine.agrees_with(node, head.engine.freezes());
            if !(there && synced) {
                let agent = machine
                    .agent
                    .as_ref()
                    .and_then(|agent| agent.engine.tree().get(machine.id));
                return Some(format!(
                    "{} is not where it should be: Dsc {:?}, session {}, its own Cfg {:?} Dsc {:?}\n{}\nagent: {}",
                    machine.name,
                    brief(&node.dsc),
                    head.engine.has_session(machine.id),
                    agent.map(|node| brief(&node.cfg)),
                    agent.map(|node| brief(&node.dsc)),
                    report(&head.engine, machine.id, self.now),
                    machine.agent.as_ref().map_or_else(
                        || "none".into(),
                        |agent| report(&agent.engine, machine.id, self.now)
                    ),
                ));
            }
        }
        None
    }

    /// Ends all faults; operators want what they wanted at first.
    fn heal(&mut self) {
        self.note("heal", 0);
        self.phase = Phase::Healed;
        self.net.heal();
        self.disk.full_until = None;
        self.disk.slow_until = None;
        for index in 0..self.machines.len() {
            let machine = &mut self.machines[index];
            machine.bmc_dead_until = self.now;
            machine.paused_until = machine.paused_until.min(self.now);
            machine.hang_next_boot = false;
            self.set_busy(index, false);
        }
        self.operator_restores();
    }

    pub(super) fn restore_ops(&self) -> Vec<WriteOp> {
        let present = |id: NodeId| {
            self.head
                .as_ref()
                .is_some_and(|head| head.engine.tree().get(id).is_some())
        };
        let thaw = WriteOp::FreezeGroup {
            group: RACK.into(),
            by: None,
        };
        let mut ops = vec![WriteOp::FreezeCluster(false), thaw];
        for (index, machine) in self.machines.iter().enumerate() {
            if present(machine.id) {
                ops.push(WriteOp::Set {
                    node: machine.id,
                    changes: goal(),
                });
                ops.push(WriteOp::Freeze {
                    node: machine.id,
                    frozen: false,
                });
            } else {
                ops.push(WriteOp::Add(Box::new(machine.node(index))));
            }
        }
        ops
    }
}

fn brief(values: &crate::state::Values) -> String {
    let shown = values
        .iter()
        .filter(|(_, value)| value.as_text().is_none_or(|text| text.len() < 40));
    shown
        .map(|(url, value)| format!("{url}={value} "))
        .collect()
}

fn report(engine: &crate::Engine, node: NodeId, now: Instant) -> String {
    engine
        .report(node, now)
        .map_or_else(|| "nothing".into(), |report| report.to_string())
}

/// The node of the head itself.
pub(super) fn head_node() -> Node {
    Node::new(HEAD, "head".parse().expect("a literal name"), None)
}
