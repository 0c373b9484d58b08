//! Schemas that change while the head runs, nodes whose schema is older, and secrets that stay where they belong.

use super::*;
use crate::event::SchemaEdit;
use crate::extension::{Field, Kind};
use crate::sync::SessionId;

/// Fields of an extension that came later than the agents.
fn site() -> Vec<(&'static str, Field)> {
    let text = || Field::new(Kind::Text);
    vec![
        ("/site/rack", text()),
        (
            "/site/inlet",
            Field {
                discoverable: true,
                ..Field::new(Kind::Float)
            },
        ),
        (
            "/site/cap",
            Field {
                discoverable: true,
                ..Field::new(Kind::Int { min: 0, max: 700 })
            },
        ),
        (
            "/site/token",
            Field {
                secret: true,
                node_reads: true,
                ..text()
            },
        ),
        (
            "/power/password",
            Field {
                secret: true,
                ..text()
            },
        ),
        (
            "/power/last_error",
            Field {
                discoverable: true,
                ..text()
            },
        ),
    ]
}

fn with(schema: &Schema, fields: Vec<(&'static str, Field)>) -> Schema {
    let mut schema = schema.clone();
    for (pattern, field) in fields {
        assert!(schema.add(pattern.into(), field), "{pattern}");
    }
    schema
}

fn schema_op(schema: &Schema) -> WriteOp {
    WriteOp::Schema {
        schema: Arc::new(schema.clone()),
        text: "test".into(),
        edit: SchemaEdit::default(),
    }
}

impl Head {
    fn with_site() -> Self {
        let mut head = Self::new();
        let schema = with(&head.engine.schema, site());
        head.write(vec![schema_op(&schema)]).unwrap();
        head
    }

    fn wanted(&self, n: u8) -> &Values {
        &self.engine.tree.get(id(n)).unwrap().cfg
    }

    fn known(&self, n: u8) -> &Values {
        &self.engine.tree.get(id(n)).unwrap().dsc
    }

    fn refusals(&mut self) -> Vec<String> {
        let events = std::mem::take(&mut self.events);
        let why = |event| match event {
            Event::Refused { why, .. } => Some(why),
            _ => None,
        };
        events.into_iter().filter_map(why).collect()
    }
}

/// A head and an agent of node 1 whose schema knows nothing but its own inventory; frames travel at once.
struct Pair {
    head: Head,
    agent: Engine,
    fired: Vec<Fire>,
    snapshots_wanted: usize,
}

impl Pair {
    fn new(mut head: Head) -> Self {
        let signer = CfgSigner::from_seed(&[7; 32]).unwrap();
        let public_key = signer.public_key();
        head.engine.set_signer(signer);
        let attach = head
            .engine
            .seat(id(1), SessionId(5), crate::event::ConnId(1));
        let config = EngineConfig {
            me: id(1),
            role: Role::Agent,
            sync: SyncConfig::default(),
            healing: Healing::default(),
            seed: 2,
        };
        let mut agent = Engine::new(config, Schema::default(), head.now);
        agent.set_cluster_key(public_key);
        agent.handle_input(Input::Attached(attach), head.now);
        let mut pair = Self {
            head,
            agent,
            fired: Vec::new(),
            snapshots_wanted: 0,
        };
        pair.travel();
        pair
    }

    /// Carries frames until nobody has anything to say.
    fn travel(&mut self) {
        let now = self.head.now;
        loop {
            let mut quiet = true;
            while let Some(output) = self.agent.poll_output() {
                match output {
                    Output::Send { session, frame } => {
                        quiet = false;
                        self.count(&frame);
                        self.head
                            .engine
                            .handle_input(Input::Frame { session, frame }, now);
                    }
                    Output::Commit { commit, .. } => {
                        let result = Ok(());
                        self.agent
                            .handle_input(Input::Committed { commit, result }, now);
                    }
                    Output::Fire(fire) => self.fired.push(fire),
                    _ => {}
                }
            }
            while let Some(output) = self.head.engine.poll_output() {
                match output {
                    Output::Send { session, frame } => {
                        quiet = false;
                        self.count(&frame);
                        self.agent
                            .handle_input(Input::Frame { session, frame }, now);
                    }
                    Output::Commit { commit, .. } => {
                        let result = Ok(());
                        self.head
                            .engine
                            .handle_input(Input::Committed { commit, result }, now);
                    }
                    Output::Event(event) => self.head.events.push(event),
                    Output::Written { result, .. } => self.head.written.push(result),
                    _ => {}
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn count(&mut self, frame: &crate::sync::message::Frame) {
        if matches!(frame, crate::sync::message::Frame::SnapshotRequest { .. }) {
            self.snapshots_wanted += 1;
        }
    }

    fn write(&mut self, ops: Vec<WriteOp>) {
        self.head.submit(ops);
        self.travel();
        self.head.written.pop().unwrap().unwrap();
    }

    fn set(&mut self, text: &str) {
        self.write(vec![WriteOp::Set {
            node: id(1),
            changes: vec![change(text)],
        }]);
    }

    fn agent_discovers(&mut self, url: &str, value: Option<Value>) {
        let changes = vec![Change {
            url: url.parse().unwrap(),
            value,
        }];
        let discovery = Discovery {
            node: id(1),
            source: "test".into(),
            changes,
        };
        self.agent
            .handle_input(Input::Discover(discovery), self.head.now);
        self.travel();
    }

    fn agent_cfg(&self) -> &Values {
        &self.agent.tree.get(id(1)).unwrap().cfg
    }
}

#[test]
fn a_node_with_an_older_schema_loses_nothing() {
    let mut head = Head::with_site();
    head.add(1, &["/site/rack=r7"]);
    let mut set = set_b();
    let int = |n| Some(Value::Int(n));
    set.mutations.push(Mutation {
        mutates: vec![UrlChange {
            url: "/site/cap".parse().unwrap(),
            from: vec![None],
            to: int(300),
        }],
        ..mutation(
            "site/CAP",
            MutationContext::SelfNode,
            &[],
            &["/site/rack=r7"],
        )
    });
    head.input(Input::Declare(set));
    let mut pair = Pair::new(head);
    assert_eq!(pair.agent_cfg().text("/site/rack"), Some("r7"));

    // A change of what it does not know arrives as a delta, and the agent's own mutations can use it.
    pair.write(vec![WriteOp::Set {
        node: id(1),
        changes: vec![Change {
            url: "/site/cap".parse().unwrap(),
            value: int(300),
        }],
    }]);
    assert_eq!(pair.agent_cfg().get("/site/cap"), int(300).as_ref());
    let fired: Vec<&str> = pair
        .fired
        .iter()
        .map(|fire| fire.mutation.as_str())
        .collect();
    assert_eq!(fired, ["site/CAP"]);
    pair.agent_discovers("/site/cap", int(300));
    assert_eq!(pair.head.known(1).get("/site/cap"), int(300).as_ref());
    assert_eq!(pair.snapshots_wanted, 0, "digests agreed all the way");
}

#[test]
fn what_the_head_does_not_know_is_refused_by_name_and_heard_once_it_does() {
    let mut head = Head::new();
    head.add(1, &[]);
    let mut pair = Pair::new(head);
    let degrees = Some(Value::Float(crate::state::Float(21.5)));
    pair.agent_discovers("/site/inlet", degrees.clone());
    let refusals = pair.head.refusals();
    assert_eq!(
        refusals,
        [
            "/site/inlet cannot be discovered: no extension of this head has it (krakenctl extension add)"
        ]
    );
    assert_eq!(pair.head.known(1).get("/site/inlet"), None);

    let schema = with(&pair.head.engine.schema, site());
    pair.write(vec![schema_op(&schema)]);
    assert_eq!(pair.head.known(1).get("/site/inlet"), degrees.as_ref());
    assert_eq!(pair.snapshots_wanted, 0);
}

#[test]
fn secrets_of_the_head_do_not_travel() {
    let mut head = Head::with_site();
    head.add(
        1,
        &[
            "/power/password=hunter2",
            "/site/token=t0k3n",
            "/site/rack=r1",
        ],
    );
    let mut pair = Pair::new(head);
    assert_eq!(pair.agent_cfg().get("/power/password"), None);
    assert_eq!(pair.agent_cfg().text("/site/token"), Some("t0k3n"));
    // Its signature is over what travels, so the node goes on to believe it.
    pair.set("/power/password=hunter3");
    pair.set("/site/rack=r2");
    assert_eq!(pair.agent_cfg().text("/site/rack"), Some("r2"));
    assert_eq!(pair.agent_cfg().get("/power/password"), None);
    assert_eq!(pair.head.wanted(1).text("/power/password"), Some("hunter3"));
    assert_eq!(pair.snapshots_wanted, 0);

    // A schema by which the token is the head's alone takes it away from the node, at once.
    let mut fields = site();
    fields[3].1.node_reads = false;
    let schema = with(&Head::new().engine.schema, fields);
    pair.write(vec![schema_op(&schema)]);
    assert_eq!(pair.agent_cfg().get("/site/token"), None);
    assert_eq!(pair.agent_cfg().text("/site/rack"), Some("r2"));
}

#[test]
fn a_secret_that_a_mutation_of_the_node_looks_at_goes_there() {
    let mut head = Head::with_site();
    head.add(1, &["/power/password=hunter2"]);
    let mut set = set_b();
    set.mutations.push(mutation(
        "bmc/SET",
        MutationContext::SelfNode,
        &[("/site/inlet", "", "x")],
        &["/power/password=other"],
    ));
    head.input(Input::Declare(set));
    let pair = Pair::new(head);
    assert_eq!(pair.agent_cfg().text("/power/password"), Some("hunter2"));
}

#[test]
fn a_schema_under_which_values_have_no_place_is_refused_by_name() {
    let mut head = Head::with_site();
    head.add(1, &["/site/rack=r1"]);
    head.add(2, &["/site/rack=r2", "/site/token=abc"]);
    let base = Head::new().engine.schema.clone();
    let revision = head.engine.revision();
    let mut check = |schema: &Schema, expect: &str| {
        let error = head.write(vec![schema_op(schema)]).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
    };
    check(
        &base,
        "n1, n2 have a value of /site/rack: its field is gone",
    );
    let mut fields = site();
    fields[0].1 = Field::new(Kind::Int { min: 0, max: 9 });
    check(
        &with(&base, fields),
        "n1, n2 have a value of /site/rack: it no longer fits: a whole number",
    );
    let mut fields = site();
    fields[3].1.secret = false;
    check(
        &with(&base, fields),
        "n2 has a value of /site/token: its field is secret no longer",
    );
    let mut fields = site();
    fields[0].1.secret = true;
    check(&with(&base, fields), "becomes secret");
    assert_eq!(head.engine.revision(), revision);

    // More fields, other words and wider bounds hurt nobody; and what goes with its values, in one write, goes.
    let mut fields = site();
    fields[0].1.doc = "Where it stands.".into();
    fields.push(("/site/row", Field::new(Kind::Text)));
    head.write(vec![schema_op(&with(&base, fields))]).unwrap();
    head.discover(1, &["/power/last_error=no answer"]);
    assert!(head.known(1).get("/power/last_error").is_some());
    let unset = |n, url: &str| WriteOp::Set {
        node: id(n),
        changes: vec![Change::unset(url.parse().unwrap())],
    };
    head.write(vec![
        unset(1, "/site/rack"),
        unset(2, "/site/rack"),
        unset(2, "/site/token"),
        schema_op(&base),
    ])
    .unwrap();
    assert_eq!(
        head.known(1).get("/power/last_error"),
        None,
        "nobody knows it"
    );
    let gone = head.set(1, "/site/rack=r9").unwrap_err();
    assert!(gone.to_string().contains("no extension has /site/rack"));
}

#[test]
fn the_mark_of_a_secret_means_unchanged_where_there_is_one() {
    let mut head = Head::with_site();
    head.add(1, &["/site/token=abc"]);
    head.set(1, "/site/token=(secret)").unwrap();
    assert_eq!(head.wanted(1).text("/site/token"), Some("abc"));
    let error = head.set(1, "/power/password=(secret)").unwrap_err();
    assert_eq!(
        error.to_string(),
        "/power/password is (secret), which means unchanged, but node n1 has none: write the secret itself, or leave it out"
    );
    let error = head.set(1, "/site/rack=(secret)").unwrap_err();
    assert_eq!(
        error.to_string(),
        "/site/rack is no secret, so (secret) does not mean unchanged there: write the value itself, or leave it out"
    );
    assert_eq!(head.wanted(1).text("/site/rack"), None);
}

#[test]
fn words_about_a_node_have_no_secrets_of_it() {
    let mut head = Head::with_site();
    head.add(1, &["/power/password=hunter2", "/PhysState=POWER_ON"]);
    let Some(fire) = head.fired.pop() else {
        panic!("power/UKtoOFF is fired")
    };
    assert!(!format!("{fire:?}").contains("hunter2"));
    head.discover(1, &["/power/last_error=ipmitool -P hunter2: no answer"]);
    assert_eq!(
        head.known(1).text("/power/last_error"),
        Some("ipmitool -P (secret): no answer")
    );
    head.input(Input::MutationFailed {
        node: id(1),
        mutation: fire.mutation,
        attempt: fire.attempt,
        text: "hunter2 is wrong".into(),
    });
    assert!(!format!("{:?}", head.events).contains("hunter2 is wrong"));
    let report = head.engine.report(id(1), head.now).unwrap();
    assert!(
        report
            .failures
            .iter()
            .any(|failure| failure.text == "(secret) is wrong")
    );
}

/// S9: of what a node reports, only what nodes may report counts; the rest is refused, and how much it can report is bounded.
#[test]
fn s09_a_node_reports_only_what_it_may_and_only_so_much() {
    let mut head = Head::with_site();
    head.add(1, &[]);
    let wild = Field {
        discoverable: true,
        ..Field::new(Kind::Text)
    };
    let schema = with(&head.engine.schema, vec![("/site/words/*", wild)]);
    head.write(vec![schema_op(&schema)]).unwrap();
    let mut pair = Pair::new(head);

    pair.agent_discovers("/site/rack", Some("r1".into()));
    assert_eq!(
        pair.head.refusals(),
        ["/site/rack cannot be discovered"],
        "intent is no observation"
    );
    pair.agent_discovers(core::PHYS_STATE, Some(core::POWER_OFF.into()));
    assert_eq!(
        pair.head.known(1).text(core::PHYS_STATE),
        None,
        "only its parent may say that"
    );
    pair.agent_discovers(
        "/site/inlet",
        Some(Value::Float(crate::state::Float(f64::NAN))),
    );
    let refused = pair.head.refusals().join("\n");
    assert!(refused.contains("/site/inlet cannot be"), "{refused}");

    // An honest agent has the same bounds; one that is broken into has none.
    let word = "x".repeat(32 << 10);
    for n in 0..40 {
        let said = change(&format!("/site/words/w{n}={word}"));
        pair.head.engine.child_reports(id(1), vec![said]);
    }
    pair.travel();
    let size = pair.head.known(1).size();
    assert!(
        size <= crate::state::MAX_VALUES_BYTES && size > 512 << 10,
        "{size}"
    );
    let refused = pair.head.refusals().join("\n");
    assert!(refused.contains("at most 4096 values"), "{refused}");
    // One that is there may still change.
    pair.agent_discovers("/site/words/w0", Some("short".into()));
    assert_eq!(pair.head.known(1).text("/site/words/w0"), Some("short"));
}

#[test]
fn a_condition_on_what_the_schema_reports_is_about_the_node() {
    let calm = Mutation {
        requires: vec![Condition::is("/power/last_error".parse().unwrap(), "none")],
        ..Mutation::new(
            MutationId::new("x", "calm"),
            MutationContext::Child,
            vec![UrlChange {
                url: "/pxe/state".parse().unwrap(),
                from: vec![None],
                to: Some("A".into()),
            }],
        )
    };
    let last_error: StateUrl = "/power/last_error".parse().unwrap();
    let mut head = Head::new();
    let bare = head.engine.schema.as_ref().clone();
    let declared = MutationSet {
        generation: 2,
        mutations: vec![calm],
        ..MutationSet::default()
    };
    head.input(Input::Declare(declared.clone()));
    head.add(1, &["/pxe/state=A"]);
    assert!(!head.engine.graph().is_discoverable(&last_error));

    // The extension comes; nobody declares anything anew.
    head.write(vec![schema_op(&with(&bare, site()))]).unwrap();
    assert!(head.engine.graph().is_discoverable(&last_error));
    assert_eq!(head.fired, [], "intent says nothing of it");
    head.discover(1, &["/power/last_error=none"]);
    assert_eq!(head.fired.len(), 1);

    // An agent whose schema knows nothing of it plans with the head's word; so it does with every later set.
    let pair = Pair::new(head);
    assert!(pair.agent.graph().is_discoverable(&last_error));
    let Pair { mut head, .. } = pair;
    head.input(Input::Declare(declared));
    assert!(head.engine.graph().is_discoverable(&last_error));

    // It goes with the extension, unless a module lists it itself.
    head.write(vec![schema_op(&bare)]).unwrap();
    assert_eq!(head.known(1).get("/power/last_error"), None);
}
