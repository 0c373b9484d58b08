//! Machines: power, firmware, and the agent's process with its image and host modules.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::v1;

use super::World;
use super::check::{Cause, Version};
use super::cluster::{IMAGE_TIMEOUT, change, goal, groups};
use super::happening::Happening;
use super::head::cut;
use super::net::Host;
use super::world::{HEAD, Phase};
use crate::Engine;
use crate::engine::{EngineConfig, Role};
use crate::event::{ConnId, Discovery, Event, Fire, Input, MutationEvent, Output, RequestId};
use crate::mutation::Mutation;
use crate::state::{Frozen, Node, NodeId, NodeName, Value, core};
use crate::sync::SessionId;
use crate::sync::SyncConfig;
use crate::sync::join::{ChildJoin, GrantFile};
use crate::sync::message::Frame;
use crate::wire::convert::frame_to_proto;
use crate::wire::seal::{SealError, Sessions};

/// A machine.
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) name: NodeName,
    pub(super) powered: bool,
    /// Rises with every change of power: what belongs to an older one is void.
    pub(super) cycle: u64,
    pub(super) bmc_dead_until: crate::time::Instant,
    pub(super) paused_until: crate::time::Instant,
    pub(super) hang_next_boot: bool,
    pub(super) ram: Option<Ram>,
    pub(super) agent: Option<Agent>,
    pub(super) agent_incarnation: u64,
}

/// What lives until the power goes, whatever happens to the agent.
pub(super) struct Ram {
    pub(super) grant: Option<GrantFile>,
    pub(super) boot: uuid::Uuid,
    pub(super) public_key: Vec<u8>,
    pub(super) certificate: bool,
    pub(super) image: Image,
    pub(super) busy: bool,
}

impl Ram {
    /// What the marks of jobs say.
    pub(super) fn mark(&self) -> &'static str {
        if self.busy { "/Busy=BUSY" } else { "/Busy=" }
    }
}

/// The image on a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Image {
    Idle,
    Active,
    Dead,
}

/// A running agent.
pub(super) struct Agent {
    pub(super) engine: Engine,
    pub(super) sealed: Sessions,
    pub(super) incarnation: u64,
    pub(super) conn: Option<ConnId>,
    pub(super) join: Option<(ConnId, ChildJoin)>,
    pub(super) session: Option<SessionId>,
    announced: bool,
    interrupted: BTreeSet<u64>,
    pub(super) obeyed: Version,
}

/// Where a boot is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Boot {
    /// The loader asks for its script.
    Script,
    /// The grant has arrived.
    Granted(String),
}

impl Machine {
    pub(super) fn new(index: usize) -> Self {
        let mut id = [0; 16];
        id[0] = 1;
        id[15] = index as u8 + 1;
        Self {
            id: NodeId::from_bytes(id),
            name: format!("n{}", index + 1).parse().expect("a literal name"),
            powered: false,
            cycle: 0,
            bmc_dead_until: crate::time::Instant::ZERO,
            paused_until: crate::time::Instant::ZERO,
            hang_next_boot: false,
            ram: None,
            agent: None,
            agent_incarnation: 0,
        }
    }

    /// The node as an operator enrolls it.
    pub(super) fn node(&self, index: usize) -> Node {
        let mut node = Node::new(self.id, self.name.clone(), Some(HEAD));
        node.groups.extend(groups(index));
        node.cfg.apply(goal());
        node.cfg.apply([change(&format!(
            "/ipv4/boot/mac=52:54:00:00:00:{:02x}",
            index + 1
        ))]);
        node
    }

    /// Whether the agent holds the Cfg of the head's node, and the head the Dsc of the agent's.
    pub(super) fn agrees_with(&self, at_head: &Node, frozen: &Frozen) -> bool {
        let Some(own) = self
            .agent
            .as_ref()
            .and_then(|agent| agent.engine.tree().get(self.id))
        else {
            return false;
        };
        let mut cfg = at_head.cfg.clone();
        if frozen.holds(at_head) {
            cfg.apply([crate::state::Change::set(
                change("/Frozen=x").url,
                Value::Bool(true),
            )]);
        }
        let mut own_cfg = own.cfg.clone();
        // What it may do meanwhile is the head's word, not a write.
        own_cfg.apply([change("/Allowed=")]);
        let reported = [
            "/tune/state",
            "/image/state",
            "/host/cpu_model",
            "/Busy",
            "/RunState",
        ];
        own_cfg == cfg
            && reported
                .iter()
                .all(|url| own.dsc.get(url) == at_head.dsc.get(url))
    }
}

impl World {
    pub(super) fn set_power(&mut self, index: usize, on: bool) {
        let machine = &mut self.machines[index];
        if machine.powered == on {
            return;
        }
        machine.powered = on;
        machine.cycle += 1;
        machine.agent = None;
        machine.ram = None;
        machine.paused_until = self.now;
        let cycle = machine.cycle;
        self.check.forget(Host::Machine(index));
        // Nobody tells the other end: to the head the connections stay open.
        self.conns
            .values_mut()
            .filter(|conn| conn.machine == index)
            .for_each(|conn| conn.agent_open = false);
        if on {
            let delay = self.rng.millis(1_000..3_000);
            self.after(
                delay,
                Happening::Boot {
                    machine: index,
                    cycle,
                    step: Boot::Script,
                },
            );
        }
    }

    pub(super) fn boot(&mut self, index: usize, cycle: u64, step: Boot) {
        if self.machines[index].cycle != cycle || self.machines[index].ram.is_some() {
            return;
        }
        if std::mem::take(&mut self.machines[index].hang_next_boot) {
            return self.hit("boot hangs");
        }
        match step {
            Boot::Script => self.ask_for_grant(index, cycle),
            Boot::Granted(text) => self.granted(index, cycle, &text),
        }
    }

    fn ask_for_grant(&mut self, index: usize, cycle: u64) {
        let again = Happening::Boot {
            machine: index,
            cycle,
            step: Boot::Script,
        };
        // Answered or not, the loader asks again unless the kernel runs by then.
        self.after(Duration::from_secs(5), again);
        let host = Host::Machine(index);
        if self.net.is_cut(host, Host::Head, self.now)
            || self.net.is_cut(Host::Head, host, self.now)
        {
            return;
        }
        let Some(head) = &mut self.head else { return };
        let id = self.machines[index].id;
        let Some(grant) = head.engine.armed(id).map(|grant| grant.id) else {
            return;
        };
        self.last_request += 1;
        let request = RequestId(self.last_request);
        head.fetches.insert(request, (index, cycle));
        let input = Input::FetchGrant {
            request,
            grant,
            secret: self.rng.bytes(),
            now_ms: self.wall_ms(),
        };
        self.feed_head(input, Cause::Other);
    }

    fn granted(&mut self, index: usize, cycle: u64, text: &str) {
        match text.parse::<GrantFile>() {
            Ok(file) => {
                self.attacker.steal(&file);
                self.machines[index].ram = Some(Ram {
                    boot: file.boot,
                    grant: Some(file),
                    public_key: self.rng.bytes::<91>().to_vec(),
                    certificate: false,
                    image: Image::Idle,
                    busy: false,
                });
                let delay = self.rng.millis(1_500..4_000);
                self.after(
                    delay,
                    Happening::StartAgent {
                        machine: index,
                        cycle,
                    },
                );
            }
            Err(error) => self
                .check
                .fail(format!("a grant file cannot be read: {error}")),
        }
    }

    pub(super) fn start_agent(&mut self, index: usize, cycle: u64) {
        let (seed, healing) = (self.rng.next(), self.healing());
        let machine = &mut self.machines[index];
        if machine.cycle != cycle || machine.ram.is_none() || machine.agent.is_some() {
            return;
        }
        machine.agent_incarnation += 1;
        let config = EngineConfig {
            me: machine.id,
            role: Role::Agent,
            sync: SyncConfig::default(),
            healing,
            seed,
        };
        let mut engine = Engine::new(config, self.schema.clone(), self.now);
        engine.set_cluster_key(self.cluster_key);
        machine.agent = Some(Agent {
            engine,
            sealed: Sessions::default(),
            incarnation: machine.agent_incarnation,
            conn: None,
            join: None,
            session: None,
            announced: false,
            interrupted: BTreeSet::new(),
            obeyed: (0, 0),
        });
    }

    /// SIGKILL: the image goes on, the supervisor starts another agent.
    pub(super) fn kill_agent(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        if machine.agent.take().is_none() {
            return;
        }
        let cycle = machine.cycle;
        self.check.forget(Host::Machine(index));
        let conns: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.machine == index)
            .map(|(id, _)| *id)
            .collect();
        conns
            .into_iter()
            .for_each(|conn| self.close_conn(conn, Host::Machine(index)));
        let delay = self.rng.millis(300..1_000);
        self.after(
            delay,
            Happening::StartAgent {
                machine: index,
                cycle,
            },
        );
    }

    pub(super) fn feed_agent(&mut self, index: usize, input: Input) {
        let now = self.now;
        if let Some(agent) = &mut self.machines[index].agent {
            agent.engine.handle_input(input, now);
        }
        self.drain_agent(index);
    }

    pub(super) fn drain_agent(&mut self, index: usize) {
        while let Some(output) = self.machines[index]
            .agent
            .as_mut()
            .and_then(|agent| agent.engine.poll_output())
        {
            if self.options.verbose {
                println!(
                    "{:?}   {}: {}",
                    self.now,
                    self.machines[index].name,
                    cut(&output)
                );
            }
            self.agent_output(index, output);
        }
        self.check_obeyed(index);
    }

    fn check_obeyed(&mut self, index: usize) {
        let id = self.machines[index].id;
        let Some(agent) = &mut self.machines[index].agent else {
            return;
        };
        if let Some(node) = agent.engine.tree().get(id) {
            let version = (agent.engine.epoch(), node.cfg_revision);
            self.check.cfg_obeyed(id, agent.obeyed, version, &node.cfg);
            agent.obeyed = version;
        }
    }

    fn agent_output(&mut self, index: usize, output: Output) {
        match output {
            Output::Attach { .. } => self.connect(index),
            Output::Send { session, frame } => self.agent_sends(index, session, frame),
            Output::EndSession { session, .. } => {
                self.hit("agent ends a session");
                let Some(agent) = &mut self.machines[index].agent else {
                    return;
                };
                agent.sealed.remove(session);
                agent.session.take_if(|live| *live == session);
                if let Some(conn) = agent.conn.take_if(|id| {
                    self.conns
                        .get(id)
                        .is_some_and(|conn| conn.session == Some(session))
                }) {
                    self.close_conn(conn, Host::Machine(index));
                }
            }
            Output::Fire(fire) => self.agent_fires(index, fire),
            Output::Interrupt { attempt, .. } => {
                self.hit("agent interrupts a mutation");
                if let Some(agent) = &mut self.machines[index].agent {
                    agent.interrupted.insert(attempt);
                }
            }
            Output::Event(event) => self.agent_event(index, &event),
            other => self.check.fail(format!("an agent wants {other:?}")),
        }
    }

    fn agent_event(&mut self, index: usize, event: &Event) {
        match event {
            Event::Refused { why, .. } if why.contains("signed") || why.contains("older") => {
                self.check
                    .fail(format!("I5: a genuine Cfg is refused: {why}"));
            }
            Event::Mutation {
                what: MutationEvent::Failed { .. },
                ..
            } => self.hit("mutation fails on an agent"),
            _ => {}
        }
        self.check.event(Host::Machine(index), event, Cause::Other);
        if self.check.runs_side_by_side(Host::Machine(index)) {
            self.hit("side by side");
        }
    }

    fn agent_sends(&mut self, index: usize, session: SessionId, frame: Frame) {
        let Some(agent) = &mut self.machines[index].agent else {
            return;
        };
        let conn = agent.conn;
        let sealed = agent.sealed.seal(session, &frame);
        self.count_frame(&frame);
        match (sealed, conn) {
            (Ok(bytes), _) => self.send_datagram(Host::Machine(index), Host::Head, bytes),
            (Err(SealError::TooLong(_)), Some(conn)) => {
                self.hit("frame over the stream");
                self.tell_parent(conn, v1::to_parent::Kind::Frame(frame_to_proto(&frame)));
            }
            (Err(_), _) => {}
        }
    }

    /// The session stands: what the modules know from the start.
    pub(super) fn announce(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let (Some(agent), Some(ram)) = (&mut machine.agent, &machine.ram) else {
            return;
        };
        if std::mem::replace(&mut agent.announced, true) {
            return;
        }
        let (busy, image) = (ram.mark(), ram.image);
        // What a real image module knows when it starts; which module is first is nobody's to say.
        match image {
            Image::Idle => {}
            Image::Active => {
                self.hit("image adopted");
                self.discover_at_agent(index, &["/image/state=ACTIVE"]);
            }
            Image::Dead => self.discover_at_agent(index, &["/image/state=ERROR"]),
        }
        // Longer than a datagram, as a real inventory is.
        let inventory = format!("/host/cpu_model={}", "c".repeat(1500));
        self.discover_at_agent(index, &[busy, &inventory]);
    }

    pub(super) fn discover_at_agent(&mut self, index: usize, changes: &[&str]) {
        let discovery = Discovery {
            node: self.machines[index].id,
            source: "agent".into(),
            changes: changes.iter().map(|text| change(text)).collect(),
        };
        self.feed_agent(index, Input::Discover(discovery));
    }

    pub(super) fn set_busy(&mut self, index: usize, busy: bool) {
        let Some(ram) = &mut self.machines[index].ram else {
            return;
        };
        ram.busy = busy;
        let mark = ram.mark();
        self.discover_at_agent(index, &[mark]);
    }

    pub(super) fn image_dies(&mut self, index: usize) {
        let Some(ram) = self.machines[index]
            .ram
            .as_mut()
            .filter(|ram| ram.image == Image::Active)
        else {
            return;
        };
        ram.image = Image::Dead;
        self.hit("image dies");
        self.discover_at_agent(index, &["/image/state=ERROR"]);
    }

    fn agent_fires(&mut self, index: usize, fire: Fire) {
        let frozen = fire.cfg.get("/Frozen") == Some(&Value::Bool(true));
        self.check.fired(Host::Machine(index), &fire, frozen);
        let allowed = fire.cfg.text("/Allowed").unwrap_or_default();
        if fire.mutation.module() == "tune" && allowed != fire.mutation.as_str() {
            let what = format!(
                "{} goes without the head's word: {allowed:?}",
                fire.mutation
            );
            self.check.fail(what);
        }
        let machine = &self.machines[index];
        let (Some(agent), Some(ram)) = (&machine.agent, &machine.ram) else {
            return;
        };
        let declared = self.set.mutations.iter();
        let mut declared = declared.filter(|mutation| mutation.id == fire.mutation);
        let spares_jobs = |mutation: &Mutation| {
            let mut excludes = mutation.excludes.iter();
            excludes.any(|condition| condition.url.as_str() == core::BUSY)
        };
        if ram.busy && declared.any(spares_jobs) {
            // The job itself, whatever the engine was told of it.
            let what = format!("I9: {} begins where a job runs", fire.mutation);
            self.check.fail(what);
        }
        let incarnation = agent.incarnation;
        if ["image", "tune"].contains(&fire.mutation.module()) {
            let slow = self.phase == Phase::Chaos && self.rng.permille(80);
            let delay = if slow {
                self.hit("module slow");
                IMAGE_TIMEOUT + self.rng.millis(500..12_000)
            } else {
                self.rng.millis(20..1_500)
            };
            let fire = Box::new(fire);
            self.after(
                delay,
                Happening::AgentWork {
                    machine: index,
                    incarnation,
                    fire,
                },
            );
        }
    }

    pub(super) fn agent_work(&mut self, index: usize, incarnation: u64, fire: &Fire) {
        let machine = &mut self.machines[index];
        let (Some(agent), Some(ram)) = (&machine.agent, &mut machine.ram) else {
            return;
        };
        if agent.incarnation != incarnation {
            return;
        }
        if agent.interrupted.contains(&fire.attempt) {
            self.hit("late reply");
            return self.agent_fails(index, fire);
        }
        let fails = self.phase == Phase::Chaos && self.rng.permille(30);
        let report = match fire.mutation.name() {
            "UKtoFAST" if !fails => "/tune/state=FAST",
            "UKtoIDLE" => match ram.image {
                Image::Idle => "/image/state=IDLE",
                Image::Active => "/image/state=ACTIVE",
                Image::Dead => "/image/state=ERROR",
            },
            _ if fails => {
                self.hit("module fails");
                return self.agent_fails(index, fire);
            }
            "IDLEtoACTIVE" | "ERRORtoACTIVE" => {
                ram.image = Image::Active;
                "/image/state=ACTIVE"
            }
            _ => {
                ram.image = Image::Idle;
                "/image/state=IDLE"
            }
        };
        self.discover_at_agent(index, &[report]);
    }

    /// The module gives this attempt up, whether it is still wanted or not.
    fn agent_fails(&mut self, index: usize, fire: &Fire) {
        self.check.replies = Some(fire.attempt);
        let input = Input::MutationFailed {
            node: fire.node,
            mutation: fire.mutation.clone(),
            attempt: fire.attempt,
            text: "simulated".into(),
        };
        self.feed_agent(index, input);
        self.check.replies = None;
    }
}
