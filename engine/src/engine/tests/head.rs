//! A head whose store answers at once, with power, PXE and join as in set B of the reference; modules are played by the test.

use std::time::Duration;

use crate::engine::*;
use crate::event::{Discovery, Fire, RequestId, Write, WriteDone, WriteError, WriteOp};
use crate::extension::{Field, Kind};
use crate::memory::Memo;
use crate::mutation::{Condition, Mutation, UrlChange};
use crate::scenario::at_once::{self, HEAD};
use crate::state::{Change, NodeName, Value, core};

pub(in crate::engine) struct Head {
    pub(in crate::engine) engine: Engine,
    pub(in crate::engine) now: Instant,
    pub(in crate::engine) requests: u64,
    pub(in crate::engine) fired: Vec<Fire>,
    pub(in crate::engine) interrupted: Vec<MutationId>,
    pub(in crate::engine) events: Vec<Event>,
    /// Why sessions ended.
    ended: Vec<&'static str>,
    pub(in crate::engine) written: Vec<Result<WriteDone, WriteError>>,
    /// What the store was told to remember, and when.
    pub(in crate::engine) memos: Vec<(Instant, Memo)>,
}

pub(in crate::engine) fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub(in crate::engine) fn change(text: &str) -> Change {
    let (url, value) = text.split_once('=').unwrap();
    Change {
        url: url.parse().unwrap(),
        value: (!value.is_empty()).then(|| Value::from(value)),
    }
}

/// `module/NAME: /Url=from->to & /Url=from->to` with the requires and excludes given as `/Url=value`.
pub(in crate::engine) fn mutation(
    name: &str,
    context: MutationContext,
    changes: &[(&str, &str, &str)],
    requires: &[&str],
) -> Mutation {
    let value = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let (module, name) = name.split_once('/').unwrap();
    Mutation {
        requires: requires
            .iter()
            .map(|text| {
                let change = change(text);
                Condition::any_of(change.url, vec![change.value])
            })
            .collect(),
        timeout: Some(Duration::from_secs(10)),
        fail_to: vec![change("/PhysState=PHYS_HANG")],
        ..Mutation::new(
            MutationId::new(module, name),
            context,
            changes
                .iter()
                .map(|(url, from, to)| UrlChange {
                    url: url.parse().unwrap(),
                    from: vec![value(from)],
                    to: value(to),
                })
                .collect(),
        )
    }
}

/// Power, PXE and join, as in set B of the reference.
pub(in crate::engine) fn set_b() -> MutationSet {
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

/// One node may be disrupted at a time.
pub(in crate::engine) fn one_at_once() -> Guards {
    let cluster = Limit {
        at_once: Some(1),
        ..Limit::default()
    };
    Guards {
        limits: Limits {
            cluster,
            ..Limits::default()
        },
        ..Guards::default()
    }
}

/// An operator's write with this number.
pub(in crate::engine) fn write(request: u64, ops: Vec<WriteOp>) -> Write {
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
    pub(in crate::engine) fn new() -> Self {
        Self::with_nodes(&[])
    }

    pub(in crate::engine) fn with_nodes(kept: &[Node]) -> Self {
        Self::with_memory(kept, &[], Guards::default(), Instant::ZERO)
    }

    /// This head, killed and started again at once.
    pub(in crate::engine) fn again(&self, guards: Guards) -> Self {
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

    pub(in crate::engine) fn with_memory(
        kept: &[Node],
        memos: &[Memo],
        guards: Guards,
        start: Instant,
    ) -> Self {
        let mut schema = Schema::default();
        let mut field = |url: &str, kind, discoverable| {
            let field = crate::extension::Field {
                discoverable,
                ..Field::new(kind)
            };
            assert!(schema.add(url.into(), field));
        };
        for url in [core::PHYS_STATE, core::RUN_STATE, core::BUSY, "/pxe/state"] {
            field(url, Kind::Text, true);
        }
        field("/ipv4/boot/mac", Kind::Text, false);
        field("/ipv4/boot/address", Kind::Text, false);
        field("/Reboot", Kind::Bool, false);
        let mut engine = Engine::new(at_once::config(), schema, start);
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

    pub(in crate::engine) fn input(&mut self, input: Input) {
        self.engine.handle_input(input, self.now);
        self.flush();
    }

    pub(in crate::engine) fn flush(&mut self) {
        while let Some(output) = at_once::poll(&mut self.engine, self.now) {
            match output {
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

    pub(in crate::engine) fn sleep(&mut self, seconds: u64) {
        self.sleep_for(Duration::from_secs(seconds));
    }

    pub(in crate::engine) fn sleep_for(&mut self, time: Duration) {
        let end = self.now + time;
        while at_once::ring(&mut self.engine, &mut self.now, end) {
            self.flush();
        }
    }

    /// An operator's write, of which nothing is durable yet.
    pub(in crate::engine) fn submit(&mut self, ops: Vec<WriteOp>) {
        self.requests += 1;
        let write = write(self.requests, ops);
        self.engine.handle_input(Input::Write(write), self.now);
    }

    pub(in crate::engine) fn write(&mut self, ops: Vec<WriteOp>) -> Result<WriteDone, WriteError> {
        self.submit(ops);
        self.flush();
        self.written.pop().unwrap()
    }

    pub(in crate::engine) fn add(&mut self, n: u8, cfg: &[&str]) {
        let mut node = Node::new(id(n), format!("n{n}").parse::<NodeName>().unwrap(), None);
        node.cfg.apply(cfg.iter().map(|text| change(text)));
        self.write(vec![WriteOp::Add(Box::new(node))]).unwrap();
    }

    pub(in crate::engine) fn set(&mut self, n: u8, text: &str) -> Result<WriteDone, WriteError> {
        self.write(vec![WriteOp::Set {
            node: id(n),
            changes: vec![change(text)],
        }])
    }

    pub(in crate::engine) fn discover(&mut self, n: u8, changes: &[&str]) {
        self.input(Input::Discover(Discovery {
            node: id(n),
            source: "test".into(),
            changes: changes.iter().map(|text| change(text)).collect(),
        }));
    }

    /// Why sessions ended since the last call.
    pub(in crate::engine) fn ended(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.ended)
    }

    /// Names of what was fired since the last call.
    pub(in crate::engine) fn fired(&mut self) -> Vec<String> {
        self.fired
            .drain(..)
            .map(|fire| fire.mutation.to_string())
            .collect()
    }

    /// Lets modules fail at what they are told.
    pub(in crate::engine) fn let_fail(&mut self, text: &str) -> Vec<String> {
        let failing: Vec<Fire> = self.fired.drain(..).collect();
        let names = failing.iter().map(|fire| fire.mutation.to_string());
        let names = names.collect();
        for fire in failing {
            self.input(Input::MutationFailed {
                node: fire.node,
                mutation: fire.mutation,
                attempt: fire.attempt,
                text: text.into(),
            });
        }
        names
    }

    /// Lets modules do at once what they are told.
    pub(in crate::engine) fn obey(&mut self) -> Vec<String> {
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

    pub(in crate::engine) fn dsc(&self, n: u8, url: &str) -> Option<&str> {
        self.engine.tree().get(id(n)).unwrap().dsc.text(url)
    }
}
