//! The composition: writes, healing and guard rails on a head whose store answers at once, with modules played by the test.

mod extensions;

use std::time::Duration;

use super::*;
use crate::event::{Discovery, Fire, RequestId, Write, WriteDone, WriteError, WriteOp};
use crate::memory::Memo;
use crate::mutation::{Condition, Mutation, UrlChange};
use crate::state::{Change, NodeName, Value, core};

mod follow;
mod freeze;
mod full_disk;
mod permits;
mod rails;

const HEAD: NodeId = NodeId::from_bytes([0xaa; 16]);

pub(super) struct Head {
    pub(super) engine: Engine,
    pub(super) now: Instant,
    requests: u64,
    pub(super) fired: Vec<Fire>,
    pub(super) interrupted: Vec<MutationId>,
    events: Vec<Event>,
    /// Why sessions ended.
    ended: Vec<&'static str>,
    pub(super) written: Vec<Result<WriteDone, WriteError>>,
    /// What the store was told to remember, and when.
    pub(super) memos: Vec<(Instant, Memo)>,
}

pub(super) fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub(super) fn change(text: &str) -> Change {
    let (url, value) = text.split_once('=').unwrap();
    Change {
        url: url.parse().unwrap(),
        value: (!value.is_empty()).then(|| Value::from(value)),
    }
}

/// `module/NAME: /Url=from->to & /Url=from->to` with the requires and excludes given as `/Url=value`.
fn mutation(
    name: &str,
    context: MutationContext,
    changes: &[(&str, &str, &str)],
    requires: &[&str],
) -> Mutation {
    let value = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let (module, name) = name.split_once('/').unwrap();
    Mutation {
        id: MutationId::new(module, name),
        context,
        mutates: changes
            .iter()
            .map(|(url, from, to)| UrlChange {
                url: url.parse().unwrap(),
                from: vec![value(from)],
                to: value(to),
            })
            .collect(),
        requires: requires
            .iter()
            .map(|text| {
                let change = change(text);
                Condition::any_of(change.url, vec![change.value])
            })
            .collect(),
        excludes: Vec::new(),
        requires_of: Vec::new(),
        timeout: Some(Duration::from_secs(10)),
        fail_to: vec![change("/PhysState=PHYS_HANG")],
        cost: 1,
        disruptive: false,
    }
}

/// Power, PXE and join, as in set B of the reference.
fn set_b() -> MutationSet {
    use MutationContext::{All, Child};
    let power = |name, from, to| mutation(name, Child, &[(core::PHYS_STATE, from, to)], &[]);
    let mut off = power("power/ONtoOFF", "POWER_ON", "POWER_OFF");
    off.excludes = vec![
        Condition::is(core::RUN_STATE.parse().unwrap(), core::SYNC),
        Condition::is(core::BUSY.parse().unwrap(), core::BUSY_BUSY),
    ];
    off.disruptive = true;
    let mut hang = power("power/HANGtoOFF", "PHYS_HANG", "POWER_OFF");
    hang.disruptive = true;
    let on = &["/PhysState=POWER_ON"];
    let mut mutations = vec![
        power("power/UKtoOFF", "", "POWER_OFF"),
        power("power/OFFtoON", "POWER_OFF", "POWER_ON"),
        off,
        hang,
        mutation("pxe/NONEtoWAIT", Child, &[("/pxe/state", "", "WAIT")], on),
        mutation(
            "pxe/WAITtoINIT",
            Child,
            &[
                ("/pxe/state", "WAIT", "INIT"),
                (core::RUN_STATE, "", "INIT"),
            ],
            on,
        ),
        mutation(
            "core/INITtoSYNC",
            All,
            &[(core::RUN_STATE, "INIT", "SYNC")],
            on,
        ),
        mutation(
            "core/SYNCtoINIT",
            MutationContext::SelfNode,
            &[(core::RUN_STATE, "SYNC", "INIT")],
            &[],
        ),
    ];
    mutations.sort_by(|a, b| a.id.cmp(&b.id));
    MutationSet {
        generation: 1,
        mutations,
        ..MutationSet::default()
    }
}

/// An operator's write with this number.
fn write(request: u64, ops: Vec<WriteOp>) -> Write {
    Write {
        request: RequestId(request),
        author: "test".into(),
        reason: "-".into(),
        if_revision: 0,
        key: None,
        now_ms: 0,
        ops,
    }
}

impl Head {
    pub(super) fn new() -> Self {
        Self::with_nodes(&[])
    }

    fn with_nodes(kept: &[Node]) -> Self {
        Self::with_memory(kept, &[], Guards::default(), Instant::ZERO)
    }

    /// This head, killed and started again at once.
    pub(super) fn again(&self, guards: Guards) -> Self {
        let nodes = self.engine.tree().iter().filter(|node| node.id != HEAD);
        let nodes: Vec<Node> = nodes
            .cloned()
            .map(|node| Node {
                dsc: Values::default(),
                ..node
            })
            .collect();
        let memos = self.memos.iter();
        let memos: Vec<Memo> = memos
            .map(|(told, memo)| memo.clone().aged(self.now.since(*told)))
            .collect();
        let mut head = Self::with_memory(&nodes, &memos, guards, self.now);
        head.engine.last_attempt = self.engine.last_attempt;
        head
    }

    fn with_memory(kept: &[Node], memos: &[Memo], guards: Guards, start: Instant) -> Self {
        let config = EngineConfig {
            me: HEAD,
            role: Role::Head { epoch: 1 },
            sync: SyncConfig::default(),
            healing: Healing::default(),
            seed: 1,
        };
        let mut schema = Schema::default();
        for url in [
            core::PHYS_STATE,
            core::RUN_STATE,
            core::BUSY,
            "/pxe/state",
            "/ipv4/boot/mac",
        ] {
            let field = crate::extension::Field {
                kind: crate::extension::Kind::Text,
                repeated: false,
                format: crate::extension::Format::Plain,
                secret: false,
                discoverable: url != "/ipv4/boot/mac",
                unit: String::new(),
                doc: String::new(),
                zero: String::new(),
                node_reads: false,
            };
            assert!(schema.add(url.into(), field));
        }
        let reboot = crate::extension::Field {
            kind: crate::extension::Kind::Bool,
            repeated: false,
            format: crate::extension::Format::Plain,
            secret: false,
            discoverable: false,
            unit: String::new(),
            doc: String::new(),
            zero: String::new(),
            node_reads: false,
        };
        assert!(schema.add("/Reboot".into(), reboot));
        let mut engine = Engine::new(config, schema, start);
        engine.set_guards(guards);
        engine.restore_node(Node::new(HEAD, "head".parse().unwrap(), None));
        kept.iter()
            .for_each(|node| engine.restore_node(node.clone()));
        memos
            .iter()
            .for_each(|memo| engine.restore_memo(memo.clone()));
        let mut head = Self {
            engine,
            now: start,
            requests: 0,
            fired: Vec::new(),
            interrupted: Vec::new(),
            events: Vec::new(),
            ended: Vec::new(),
            written: Vec::new(),
            memos: Vec::new(),
        };
        head.input(Input::Declare(set_b()));
        // Past the time in which a fresh head holds back.
        head.sleep(60);
        head
    }

    pub(super) fn input(&mut self, input: Input) {
        self.engine.handle_input(input, self.now);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Commit { commit, .. } => {
                    let result = Ok(());
                    self.engine
                        .handle_input(Input::Committed { commit, result }, self.now);
                }
                Output::Fire(fire) => self.fired.push(fire),
                Output::Interrupt { mutation, .. } => self.interrupted.push(mutation),
                Output::Event(event) => self.events.push(event),
                Output::EndSession { why, .. } => self.ended.push(why),
                Output::Written { result, .. } => self.written.push(result),
                Output::Remember(memo) => self.memos.push((self.now, memo)),
                _ => {}
            }
        }
    }

    pub(super) fn sleep(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.engine.handle_timeout(self.now);
            self.flush();
        }
        self.now = end;
    }

    pub(super) fn write(&mut self, ops: Vec<WriteOp>) -> Result<WriteDone, WriteError> {
        self.requests += 1;
        self.input(Input::Write(write(self.requests, ops)));
        self.written.pop().unwrap()
    }

    pub(super) fn add(&mut self, n: u8, cfg: &[&str]) {
        let mut node = Node::new(id(n), format!("n{n}").parse::<NodeName>().unwrap(), None);
        node.cfg.apply(cfg.iter().map(|text| change(text)));
        self.write(vec![WriteOp::Add(Box::new(node))]).unwrap();
    }

    pub(super) fn set(&mut self, n: u8, text: &str) -> Result<WriteDone, WriteError> {
        self.write(vec![WriteOp::Set {
            node: id(n),
            changes: vec![change(text)],
        }])
    }

    pub(super) fn discover(&mut self, n: u8, changes: &[&str]) {
        self.input(Input::Discover(Discovery {
            node: id(n),
            source: "test".into(),
            changes: changes.iter().map(|text| change(text)).collect(),
        }));
    }

    /// Why sessions ended since the last call.
    fn ended(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.ended)
    }

    /// Names of what was fired since the last call.
    fn fired(&mut self) -> Vec<String> {
        self.fired
            .drain(..)
            .map(|fire| fire.mutation.to_string())
            .collect()
    }

    /// Lets modules do at once what they are told.
    pub(super) fn obey(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while !self.fired.is_empty() {
            for fire in std::mem::take(&mut self.fired) {
                all.push(fire.mutation.to_string());
                let declared = self
                    .engine
                    .graph()
                    .mutation(&fire.mutation)
                    .unwrap()
                    .clone();
                let changes = declared.mutates.into_iter().map(|change| Change {
                    url: change.url,
                    value: change.to,
                });
                self.input(Input::Discover(Discovery {
                    node: fire.node,
                    source: "test".into(),
                    changes: changes.collect(),
                }));
            }
        }
        all
    }

    fn dsc(&self, n: u8, url: &str) -> Option<&str> {
        self.engine.tree().get(id(n)).unwrap().dsc.text(url)
    }
}

const BOOT: [&str; 5] = [
    "power/UKtoOFF",
    "power/OFFtoON",
    "pxe/NONEtoWAIT",
    "pxe/WAITtoINIT",
    "core/INITtoSYNC",
];

mod faults;

#[test]
fn an_unknown_node_takes_the_whole_path_once() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    assert_eq!(head.obey(), BOOT);
    assert_eq!(head.dsc(1, core::RUN_STATE), Some("SYNC"));
    head.sleep(600);
    assert!(head.fired().is_empty());
}

#[test]
fn lost_power_is_forgotten_through_and_comes_back_with_one_command_each() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.obey();
    head.sleep(120);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert_eq!(head.dsc(1, core::RUN_STATE), None);
    assert_eq!(head.dsc(1, "/pxe/state"), None);
    assert_eq!(head.obey(), BOOT[1..]);
}

#[test]
fn power_found_on_with_a_live_agent_means_no_power_action() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC", "/PhysState=POWER_ON"]);
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
    head.discover(
        1,
        &["/PhysState=POWER_ON", "/pxe/state=INIT", "/RunState=SYNC"],
    );
    head.sleep(600);
    assert!(head.fired().is_empty());
}

#[test]
fn f31_a_timeout_discovers_fail_to_once_and_backs_off() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert_eq!(head.fired(), ["power/UKtoOFF", "power/OFFtoON"]);
    head.sleep(10);
    assert_eq!(head.dsc(1, core::PHYS_STATE), Some("PHYS_HANG"));
    assert_eq!(head.interrupted.last().unwrap().as_str(), "power/OFFtoON");
    assert_eq!(head.fired(), ["power/HANGtoOFF"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert!(head.fired().is_empty(), "the failed step waits");
    head.sleep(6);
    assert_eq!(head.fired(), ["power/OFFtoON"]);
}

#[test]
fn a_step_that_always_fails_parks_the_node_until_released() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    for _ in 0..200 {
        head.sleep(1);
        let failing: Vec<Fire> = head.fired.drain(..).collect();
        for fire in failing {
            head.input(Input::MutationFailed {
                node: fire.node,
                mutation: fire.mutation,
                attempt: fire.attempt,
                text: "no answer".into(),
            });
        }
    }
    let parked = |head: &Head| {
        head.events
            .iter()
            .filter(|event| matches!(event, Event::Parked { .. }))
            .count()
    };
    assert_eq!(parked(&head), 1);
    let goes_on = Event::Unparked { node: id(1) };
    assert!(!head.events.contains(&goes_on));
    head.input(Input::Release(vec![id(1)]));
    assert!(head.events.contains(&goes_on));
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
}

#[test]
fn f31_an_answer_to_an_earlier_attempt_changes_nothing() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    let first = head.fired.pop().unwrap();
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.fired.clear();
    head.input(Input::MutationFailed {
        node: id(1),
        mutation: first.mutation,
        attempt: first.attempt,
        text: "late".into(),
    });
    head.sleep(1);
    assert!(head.fired().is_empty());
    assert!(head.interrupted.is_empty());
}

#[test]
fn f30_a_changed_goal_interrupts_once() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.fired.clear();
    head.interrupted.clear();
    head.set(1, "/PhysState=POWER_OFF").unwrap();
    assert_eq!(head.interrupted.len(), 1);
    head.sleep(60);
    assert_eq!(head.interrupted.len(), 1);
    assert!(
        head.fired().is_empty(),
        "off is what is wanted, and sync waits for power"
    );
}

#[test]
fn frozen_nodes_and_clusters_start_nothing() {
    let mut head = Head::new();
    head.write(vec![WriteOp::FreezeCluster(true)]).unwrap();
    head.add(1, &["/RunState=SYNC"]);
    head.sleep(60);
    assert!(head.fired().is_empty());
    head.write(vec![
        WriteOp::FreezeCluster(false),
        WriteOp::Freeze {
            node: id(1),
            frozen: true,
        },
    ])
    .unwrap();
    head.sleep(60);
    assert!(head.fired().is_empty());
    head.write(vec![WriteOp::Freeze {
        node: id(1),
        frozen: false,
    }])
    .unwrap();
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
}

#[test]
fn busy_holds_what_is_disruptive_even_if_the_module_forgot() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_OFF"]);
    head.discover(1, &["/PhysState=PHYS_HANG", "/Busy=BUSY"]);
    head.fired.clear();
    head.sleep(60);
    assert!(head.fired().is_empty());
    head.discover(1, &["/Busy="]);
    assert_eq!(head.fired(), ["power/HANGtoOFF"]);
}

#[test]
fn f08_after_a_restart_nothing_disruptive_fires_on_what_was_in_sync() {
    let mut kept = Node::new(id(1), "n1".parse().unwrap(), Some(HEAD));
    kept.cfg.apply([change("/RunState=SYNC")]);
    kept.last_known
        .dsc
        .apply([change("/RunState=SYNC"), change("/Busy=BUSY")]);
    let mut head = Head::with_nodes(&[kept]);
    head.discover(1, &["/PhysState=POWER_ON"]);
    head.sleep(3600);
    let fired = head.fired();
    assert!(
        !fired
            .iter()
            .any(|name| name.ends_with("toOFF") && name != "power/UKtoOFF"),
        "{fired:?}"
    );
}

#[test]
fn writes_are_whole_checked_and_numbered() {
    let mut head = Head::new();
    head.add(1, &["/ipv4/boot/mac=52:54:00:00:00:01"]);
    head.add(2, &[]);
    let before = head.engine.revision();
    let taken = head.write(vec![
        WriteOp::Set {
            node: id(2),
            changes: vec![change("/RunState=SYNC")],
        },
        WriteOp::Set {
            node: id(2),
            changes: vec![change("/ipv4/boot/mac=52:54:00:00:00:01")],
        },
    ]);
    assert!(
        matches!(&taken, Err(WriteError::Taken(text)) if text.contains("n1") && text.contains("n2")),
        "{taken:?}"
    );
    assert_eq!(head.engine.revision(), before);
    assert!(
        head.engine.tree().get(id(2)).unwrap().cfg.is_empty(),
        "nothing of a refused write stays"
    );
    head.set(1, "/ipv4/boot/mac=52:54:00:00:00:02").unwrap();
    assert_eq!(
        head.set(2, "/ipv4/boot/mac=52:54:00:00:00:01")
            .unwrap()
            .revision,
        before + 2
    );
    assert!(matches!(
        head.set(2, "/nonsense=1"),
        Err(WriteError::Invalid(_))
    ));
    assert!(matches!(
        head.set(9, "/RunState=SYNC"),
        Err(WriteError::NoSuchNode(_))
    ));
}

#[test]
fn f05_a_failed_commit_changes_nothing_and_says_so() {
    let mut head = Head::new();
    head.requests += 1;
    head.engine.handle_input(
        Input::Write(Write {
            request: RequestId(1),
            author: "test".into(),
            reason: "-".into(),
            if_revision: 0,
            key: None,
            now_ms: 0,
            ops: vec![WriteOp::Add(Box::new(Node::new(
                id(1),
                "n1".parse().unwrap(),
                None,
            )))],
        }),
        head.now,
    );
    let Some(Output::Commit { commit, .. }) = head.engine.poll_output() else {
        panic!("a write has to be committed");
    };
    let result = Err(crate::event::CommitError::DiskFull);
    head.input(Input::Committed { commit, result });
    assert!(matches!(
        head.written.pop(),
        Some(Err(WriteError::Store(_)))
    ));
    assert_eq!(head.engine.tree().len(), 1);
    head.add(1, &[]);
    assert_eq!(head.engine.tree().len(), 2);
}

#[test]
fn f24_a_deleted_node_is_interrupted_and_gone() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
    head.write(vec![WriteOp::Delete(id(1))]).unwrap();
    assert_eq!(head.interrupted.len(), 1);
    head.sleep(600);
    assert!(head.fired().is_empty());
    assert!(head.write(vec![WriteOp::Delete(HEAD)]).is_err());
}
