//! Guard rails that look beyond one node: governor, breakers, mass failure, conditions on others.

use super::*;
use crate::engine::{Breaking, Guards, Limit, Limits};
use crate::event::Lift;

fn at_once(count: u32) -> Limit {
    Limit {
        at_once: Some(count),
        ..Limit::default()
    }
}

fn rack_of(count: u32) -> Limits {
    Limits {
        groups: [("rack".to_owned(), at_once(count))].into(),
        ..Limits::default()
    }
}

impl Head {
    fn guarded(limits: Limits) -> Self {
        let mut head = Self::new();
        head.engine.set_guards(Guards {
            limits,
            ..Guards::default()
        });
        head
    }

    /// Nodes of the group `rack` with this Cfg, found switched on or off.
    fn add_rack(&mut self, nodes: std::ops::RangeInclusive<u8>, cfg: &[&str], found: &str) {
        for n in nodes {
            let mut node = Node::new(id(n), format!("n{n}").parse::<NodeName>().unwrap(), None);
            node.cfg.apply(cfg.iter().map(|text| change(text)));
            node.groups.insert("rack".into());
            self.write(vec![WriteOp::Add(Box::new(node))]).unwrap();
            self.discover(n, &[found]);
        }
        self.fired.clear();
    }

    /// Which nodes were told what since the last call.
    fn told(&mut self) -> Vec<(u8, String)> {
        let fired = self.fired.drain(..);
        fired
            .map(|fire| (fire.node.as_bytes()[0], fire.mutation.to_string()))
            .collect()
    }

    fn fail(&mut self) -> usize {
        self.let_fail("no answer").len()
    }

    fn holds(&self, n: u8) -> Vec<crate::mutation::report::Hold> {
        self.engine.report(id(n), self.now).unwrap().holds
    }

    fn kinds(&self, n: u8) -> Vec<&'static str> {
        self.holds(n).iter().map(|hold| hold.kind).collect()
    }

    /// Who waits at a rail, and who of them would go on without it; and that asking changes nothing.
    fn lifted(&self, lift: &Lift, kind: &str) -> (BTreeSet<u8>, BTreeSet<u8>) {
        let stands = (self.engine.rails_report(), self.engine.poll_timeout());
        let what = self.engine.what_if_lifted(lift, self.now);
        assert_eq!(
            stands,
            (self.engine.rails_report(), self.engine.poll_timeout())
        );
        let number = |name: &NodeName| name.as_str()[1..].parse::<u8>().unwrap();
        let [lifts] = &what.lifts[..] else {
            panic!("{:?}", what.lifts)
        };
        assert_eq!(lifts.hold.kind, kind);
        let held = what.groups.iter().flat_map(|group| &group.holds);
        assert!(held.clone().all(|held| held.hold.kind != kind), "{what:?}");
        let held: BTreeSet<u8> = held.flat_map(|held| &held.nodes).map(number).collect();
        let waiting = lifts.nodes.iter().map(number).collect();
        let groups = what.groups.iter().flat_map(|group| &group.nodes);
        assert_eq!(groups.map(number).collect::<BTreeSet<u8>>(), waiting);
        let go = waiting.difference(&held).copied().collect();
        (waiting, go)
    }

    fn alarms(&self) -> Vec<(&'static str, bool)> {
        let alarm = |event: &Event| match event {
            Event::Alarm { kind, over, .. } => Some((*kind, *over)),
            _ => None,
        };
        self.events.iter().filter_map(alarm).collect()
    }
}

#[test]
fn a_group_with_one_slot_goes_one_by_one() {
    let mut head = Head::guarded(rack_of(1));
    head.add_rack(1..=4, &["/PhysState=POWER_ON"], "/PhysState=POWER_ON");
    for n in 1..=4 {
        head.set(n, "/PhysState=POWER_OFF").unwrap();
    }
    assert_eq!(head.told(), [(1, "power/ONtoOFF".to_owned())]);
    let holds = head.holds(3);
    assert_eq!(holds.len(), 1, "{holds:?}");
    assert_eq!(
        holds[0].text,
        "group @rack lets 1 node be disrupted at once: n1"
    );
    assert_eq!(
        holds[0].lifted_by,
        "n1 being where its Cfg wants it; 1 node before this one"
    );
    assert_eq!(head.engine.rails_report().holds["governor"], 3);
    assert_eq!(head.engine.rails_report().waiting["@rack"], 3);
    for n in 1..=3 {
        head.discover(n, &["/PhysState=POWER_OFF"]);
        assert_eq!(head.told(), [(n + 1, "power/ONtoOFF".to_owned())]);
    }
    head.discover(4, &["/PhysState=POWER_OFF"]);
    assert!(head.told().is_empty());
    let report = head.engine.rails_report();
    assert_eq!(report.holds.values().sum::<usize>(), 0, "{report:?}");
    assert!(report.slots.is_empty() && report.waiting.is_empty());
}

#[test]
fn a_parked_or_deleted_node_gives_its_slot_away() {
    let mut head = Head::guarded(rack_of(1));
    head.add_rack(1..=3, &["/PhysState=POWER_ON"], "/PhysState=POWER_ON");
    for n in 1..=3 {
        head.set(n, "/PhysState=POWER_OFF").unwrap();
    }
    while head.fired.first().is_none_or(|fire| fire.node == id(1)) {
        head.fail();
        head.sleep(1);
    }
    assert_eq!(
        head.told(),
        [(2, "power/ONtoOFF".to_owned())],
        "1 is parked"
    );
    head.write(vec![WriteOp::Delete(id(2))]).unwrap();
    assert_eq!(head.told(), [(3, "power/ONtoOFF".to_owned())]);
}

#[test]
fn who_waits_and_becomes_busy_does_not_keep_others_waiting() {
    let mut head = Head::guarded(rack_of(1));
    head.add_rack(1..=3, &["/PhysState=POWER_ON"], "/PhysState=POWER_ON");
    for n in 1..=3 {
        head.set(n, "/PhysState=POWER_OFF").unwrap();
    }
    head.told();
    head.discover(2, &["/Busy=BUSY"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert_eq!(head.told(), [(3, "power/ONtoOFF".to_owned())]);
    head.discover(3, &["/PhysState=POWER_OFF"]);
    assert!(head.told().is_empty());
    head.discover(2, &["/Busy="]);
    assert_eq!(head.told(), [(2, "power/ONtoOFF".to_owned())]);
}

#[test]
fn the_governor_is_asked_again_when_the_intent_is_durable() {
    let mut head = Head::guarded(rack_of(1));
    head.add_rack(1..=2, &["/PhysState=POWER_ON"], "/PhysState=POWER_ON");
    let off = (1..=2).map(|n| WriteOp::Set {
        node: id(n),
        changes: vec![change("/PhysState=POWER_OFF")],
    });
    head.submit(off.collect());
    let commit = |head: &mut Head| {
        std::iter::from_fn(|| head.engine.poll_output()).find_map(|output| match output {
            Output::Commit { commit, .. } => Some(commit),
            _ => None,
        })
    };
    // The write, then the intent of n1, whose disk is full: n2 goes instead, and never both.
    let written = commit(&mut head).unwrap();
    let result = Ok(());
    head.engine.handle_input(
        Input::Committed {
            commit: written,
            result,
        },
        head.now,
    );
    let intent = commit(&mut head).unwrap();
    head.input(Input::Committed {
        commit: intent,
        result: Err(crate::event::CommitError::DiskFull),
    });
    assert_eq!(head.told(), [(2, "power/ONtoOFF".to_owned())]);
    head.sleep(30);
    head.told();
    assert_eq!(head.kinds(1), ["governor"]);
}

#[test]
fn ten_thousand_who_wait_are_not_planned_anew_at_every_slot() {
    let mut head = Head::guarded(Limits {
        cluster: Limit {
            per_minute: Some(1),
            ..Limit::default()
        },
        ..Limits::default()
    });
    head.add_rack(1..=150, &["/PhysState=POWER_ON"], "/PhysState=POWER_ON");
    let all = |n: u8| WriteOp::Set {
        node: id(n),
        changes: vec![change("/PhysState=POWER_OFF")],
    };
    head.write((1..=150).map(all).collect()).unwrap();
    let [first] = &head.told()[..] else {
        panic!("one goes");
    };
    head.discover(first.0, &["/PhysState=POWER_OFF"]);
    head.engine.advanced = 0;
    head.sleep(60);
    assert_eq!(head.told().len(), 1);
    assert!(head.engine.advanced < 10, "{}", head.engine.advanced);
}

#[test]
fn power_on_is_staggered_and_everybody_gets_on() {
    let mut head = Head::guarded(Limits {
        power_on_gap: Duration::from_millis(100),
        ..Limits::default()
    });
    head.add_rack(1..=30, &[], "/PhysState=POWER_OFF");
    let on = |n: u8| WriteOp::Set {
        node: id(n),
        changes: vec![change("/PhysState=POWER_ON")],
    };
    head.write((1..=30).map(on).collect()).unwrap();
    assert_eq!(head.told().len(), 1);
    head.sleep(1);
    assert_eq!(head.told().len(), 10);
    head.sleep(5);
    assert_eq!(head.told().len(), 19);
}

/// F34.
#[test]
fn f34_what_fails_on_many_nodes_is_frozen_and_the_rest_goes_on() {
    let mut head = Head::guarded(Limits::default());
    head.engine.set_guards(Guards {
        breaking: Breaking {
            retry: Duration::from_secs(300),
            ..Breaking::default()
        },
        ..Guards::default()
    });
    head.add_rack(1..=20, &[], "/PhysState=POWER_OFF");
    let on = |n: u8| WriteOp::Set {
        node: id(n),
        changes: vec![change("/PhysState=POWER_ON")],
    };
    head.write((1..=14).map(on).collect()).unwrap();
    // Seven of ten come up, the others fail.
    for fire in head.fired.drain(..).collect::<Vec<_>>() {
        let n = fire.node.as_bytes()[0];
        match n % 10 {
            0 | 3 | 6 | 9 => head.input(Input::MutationFailed {
                node: fire.node,
                mutation: fire.mutation,
                attempt: fire.attempt,
                text: "no answer".into(),
            }),
            _ => head.discover(n, &["/PhysState=POWER_ON"]),
        }
    }
    assert_eq!(head.alarms(), [], "four of the last ten");
    head.write(vec![on(16)]).unwrap();
    assert_eq!(head.fail(), 1);
    assert_eq!(head.alarms(), [("breaker", false)]);
    head.write((15..=20).map(on).collect()).unwrap();
    assert!(head.told().is_empty());
    assert_eq!(head.kinds(17), ["breaker"]);
    assert!(
        head.holds(17)[0]
            .lifted_by
            .starts_with("krakenctl thaw --mutation power/OFFtoON, or one try")
    );
    head.set(1, "/PhysState=POWER_OFF").unwrap();
    assert_eq!(
        head.told(),
        [(1, "power/ONtoOFF".to_owned())],
        "other mutations go on"
    );
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.sleep(200);
    assert!(head.told().is_empty());
    head.sleep(101);
    assert_eq!(head.told().len(), 1, "one tries");
    let lift = Lift::Breaker(MutationId::new("power", "OFFtoON"));
    let (waiting, go) = head.lifted(&lift, "breaker");
    assert!(
        go.len() >= 5 && go.is_subset(&waiting),
        "{go:?} {waiting:?}"
    );
    head.input(Input::Lift(lift.clone()));
    assert_eq!(head.alarms().last(), Some(&("breaker", true)));
    let told = head.told().into_iter().map(|(n, _)| n).collect();
    assert_eq!(go, told, "and then everybody");
    assert_eq!(head.engine.what_if_lifted(&lift, head.now).lifts, []);
}

#[test]
fn a_breaker_closes_when_the_one_that_tries_succeeds() {
    let mut head = Head::guarded(Limits::default());
    head.add_rack(1..=8, &[], "/PhysState=POWER_OFF");
    let on = |n: u8| WriteOp::Set {
        node: id(n),
        changes: vec![change("/PhysState=POWER_ON")],
    };
    head.write((1..=5).map(on).collect()).unwrap();
    assert_eq!(head.fail(), 5);
    head.write((6..=8).map(on).collect()).unwrap();
    assert!(head.told().is_empty());
    head.sleep(601);
    let [tries] = &head.told()[..] else {
        panic!("one tries");
    };
    head.discover(tries.0, &["/PhysState=POWER_ON"]);
    assert_eq!(head.alarms(), [("breaker", false), ("breaker", true)]);
    assert!(!head.told().is_empty());
}

/// Lets modules and nodes do what they are told. What a node does by itself it does when its plan says so and nothing holds it.
fn obey_all(head: &mut Head, nodes: std::ops::RangeInclusive<u8>) -> (Vec<String>, usize) {
    let (mut offs, mut most) = (Vec::new(), 0);
    loop {
        let mut doing: Vec<(NodeId, MutationId)> = Vec::new();
        doing.extend(head.fired.drain(..).map(|fire| (fire.node, fire.mutation)));
        for n in nodes.clone() {
            let report = head.engine.report(id(n), head.now).unwrap();
            let step = report.steps.first();
            let own = step.filter(|step| step.context == MutationContext::SelfNode);
            if let (Some(step), true) = (own, report.holds.is_empty()) {
                doing.push((id(n), step.mutation.clone()));
            }
        }
        if doing.is_empty() {
            return (offs, most);
        }
        for (node, mutation) in doing {
            if mutation.as_str() == "power/ONtoOFF" {
                offs.push(head.engine.name_of(node));
            }
            let declared = head.engine.graph().mutation(&mutation).unwrap();
            let changes = declared.mutates.iter().map(|change| Change {
                url: change.url.clone(),
                value: change.to.clone(),
            });
            let changes = changes.collect();
            head.input(Input::Discover(Discovery {
                node,
                source: "test".into(),
                changes,
            }));
            let down = |n: &u8| head.dsc(*n, core::RUN_STATE) != Some("SYNC");
            most = most.max(nodes.clone().filter(down).count());
        }
    }
}

fn reboot(n: u8, wanted: bool) -> WriteOp {
    let value = wanted.then_some(Value::Bool(true));
    WriteOp::Set {
        node: id(n),
        changes: vec![Change {
            url: "/Reboot".parse().unwrap(),
            value,
        }],
    }
}

#[test]
fn a_rack_reboots_one_by_one() {
    let mut head = Head::guarded(rack_of(1));
    let up = ["/PhysState=POWER_ON", "/pxe/state=INIT", "/RunState=SYNC"];
    head.add_rack(1..=4, &["/RunState=SYNC"], "/PhysState=POWER_ON");
    (1..=4).for_each(|n| head.discover(n, &up));
    head.sleep(120);
    head.fired.clear();
    head.write((1..=4).map(|n| reboot(n, true)).collect())
        .unwrap();
    assert_eq!(head.kinds(1), [] as [&str; 0], "it may drain");
    assert_eq!(head.kinds(2), ["governor"], "it is not told to drain");
    let told = |head: &Head, n| head.engine.told(head.engine.tree().get(id(n)).unwrap());
    assert_eq!(told(&head, 1).text(core::PHYS_STATE), Some("POWER_OFF"));
    assert_eq!(told(&head, 2).text(core::PHYS_STATE), None);
    let (offs, most) = obey_all(&mut head, 1..=4);
    assert_eq!(offs, ["n1", "n2", "n3", "n4"]);
    assert_eq!(most, 1, "never two are down at once");
    for n in 1..=4 {
        assert_eq!(head.dsc(n, core::RUN_STATE), Some("SYNC"));
        let node = head.engine.tree().get(id(n)).unwrap();
        assert_eq!(node.cfg.get("/Reboot"), None, "the wish is fulfilled");
    }
    head.sleep(600);
    assert!(head.told().is_empty(), "and that once");
}

#[test]
fn a_reboot_can_be_taken_back_before_it_begins() {
    let mut head = Head::guarded(rack_of(1));
    let up = ["/PhysState=POWER_ON", "/pxe/state=INIT", "/RunState=SYNC"];
    head.add_rack(1..=2, &["/RunState=SYNC"], "/PhysState=POWER_ON");
    (1..=2).for_each(|n| head.discover(n, &up));
    head.fired.clear();
    head.write((1..=2).map(|n| reboot(n, true)).collect())
        .unwrap();
    let report = head.engine.report(id(2), head.now).unwrap();
    assert!(
        report.reason.starts_with("a reboot is asked for"),
        "{report}"
    );
    head.write(vec![reboot(2, false)]).unwrap();
    let report = head.engine.report(id(2), head.now).unwrap();
    assert_eq!(
        report.outcome,
        crate::mutation::report::Outcome::Converged,
        "{report}"
    );
    assert_eq!(obey_all(&mut head, 1..=2), (vec!["n1".to_owned()], 1));
}

#[test]
fn a_reboot_does_not_end_while_the_store_cannot_take_it() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.obey();
    head.write(vec![reboot(1, true)]).unwrap();
    let off: Vec<Fire> = head.fired.drain(..).collect();
    assert_eq!(off[0].mutation.as_str(), "power/ONtoOFF");
    let found = Discovery {
        node: id(1),
        source: "test".into(),
        changes: vec![change("/PhysState=POWER_OFF")],
    };
    head.engine.handle_input(Input::Discover(found), head.now);
    let commit = std::iter::from_fn(|| head.engine.poll_output()).find_map(|output| match output {
        Output::Commit { commit, .. } => Some(commit),
        _ => None,
    });
    head.input(Input::Committed {
        commit: commit.unwrap(),
        result: Err(crate::event::CommitError::DiskFull),
    });
    assert!(head.told().is_empty(), "the power stays off");
    head.sleep(6);
    assert_eq!(head.told(), [(1, "power/OFFtoON".to_owned())]);
}

#[test]
fn conditions_on_others_hold_and_let_go() {
    let mut head = Head::new();
    let mut set = set_b();
    let on = set
        .mutations
        .iter_mut()
        .find(|mutation| mutation.id.as_str() == "power/OFFtoON");
    let sync = |who: &str| crate::mutation::OthersCondition {
        who: crate::mutation::Others::parse(who).unwrap(),
        condition: Condition::is(core::RUN_STATE.parse().unwrap(), core::SYNC),
    };
    on.unwrap().requires_of = vec![sync("parent"), sync("@io")];
    head.input(Input::Declare(set));
    head.add_rack(1..=3, &[], "/PhysState=POWER_OFF");
    head.set(1, "/PhysState=POWER_ON").unwrap();
    assert_eq!(head.kinds(1), ["other_nodes"]);
    assert_eq!(
        head.holds(1)[0].text,
        "waits for @io, and no node is in that group"
    );
    let join = |n: u8| WriteOp::Groups {
        node: id(n),
        add: vec!["io".into()],
        remove: Vec::new(),
    };
    head.write(vec![join(2), join(3)]).unwrap();
    assert_eq!(head.holds(1)[0].text, "waits for @io: n2, n3 not in SYNC");
    let up = ["/PhysState=POWER_ON", "/RunState=SYNC"];
    head.discover(2, &up);
    assert_eq!(head.holds(1)[0].text, "waits for @io: n3 not in SYNC");
    assert_eq!(head.holds(1)[0].lifted_by, "all nodes of @io being in SYNC");
    assert!(head.told().is_empty());
    head.discover(3, &up);
    assert_eq!(
        head.told(),
        [(1, "power/OFFtoON".to_owned())],
        "its parent is the head, which runs"
    );
    // A node of the group waits for the others of it.
    head.discover(3, &["/PhysState=POWER_OFF"]);
    head.set(3, "/PhysState=POWER_ON").unwrap();
    assert_eq!(head.told(), [(3, "power/OFFtoON".to_owned())]);
}

#[test]
fn a_head_that_loses_many_suspects_itself() {
    let mut head = Head::new();
    head.add_rack(1..=20, &["/PhysState=POWER_OFF"], "/PhysState=PHYS_HANG");
    head.add_rack(21..=30, &["/RunState=SYNC"], "/PhysState=POWER_ON");
    for n in 21..=30 {
        head.engine.child_lost(id(n));
    }
    head.input(Input::Release(Vec::new()));
    assert_eq!(head.alarms(), [("mass_failure", false)]);
    head.add(31, &["/PhysState=POWER_OFF"]);
    head.fired.clear();
    head.discover(31, &["/PhysState=POWER_ON"]);
    assert_eq!(head.kinds(31), ["mass_failure"]);
    assert!(head.told().is_empty());
    assert!(head.engine.rails_report().mass_failure);
    head.discover(21, &["/PhysState=POWER_OFF"]);
    assert!(
        head.engine.rails_report().mass_failure,
        "the power went there"
    );
    for n in 32..=34 {
        head.add(n, &["/PhysState=POWER_OFF"]);
        head.discover(n, &["/PhysState=POWER_ON"]);
    }
    head.write(vec![WriteOp::Freeze {
        node: id(33),
        frozen: true,
    }])
    .unwrap();
    head.fired.clear();
    let (waiting, go) = head.lifted(&Lift::MassFailure, "mass_failure");
    assert_eq!(waiting, BTreeSet::from([31, 32, 33, 34]));
    assert_eq!(go, BTreeSet::from([31, 32, 34]), "one is frozen, too");
    head.input(Input::Lift(Lift::MassFailure));
    assert_eq!(head.alarms().last(), Some(&("mass_failure", true)));
    let told = head.told().into_iter().map(|(n, _)| n).collect();
    assert_eq!(go, told);
    let lifts = |head: &Head| {
        head.engine
            .what_if_lifted(&Lift::MassFailure, head.now)
            .lifts
    };
    assert_eq!(lifts(&head), []);
    // What nobody waits for can be lifted all the same.
    (22..=30).for_each(|n| head.engine.child_lost(id(n)));
    head.write((31..=34).map(|n| WriteOp::Delete(id(n))).collect())
        .unwrap();
    let lifts = lifts(&head);
    assert_eq!((lifts.len(), lifts[0].nodes.len()), (1, 0), "{lifts:?}");
    assert!(lifts[0].hold.text.contains("nodes fell silent at once"));
}

#[test]
fn f35_a_thaw_obeys_the_governor() {
    let mut head = Head::guarded(rack_of(1));
    head.add_rack(1..=4, &["/PhysState=POWER_ON"], "/PhysState=POWER_ON");
    head.write(vec![WriteOp::FreezeCluster(true)]).unwrap();
    let off = (1..=4).map(|n| WriteOp::Set {
        node: id(n),
        changes: vec![change("/PhysState=POWER_OFF")],
    });
    head.write(off.collect()).unwrap();
    head.sleep(3600);
    assert!(head.told().is_empty());
    head.write(vec![WriteOp::FreezeCluster(false)]).unwrap();
    for n in 1..=4 {
        let told = head.told();
        assert_eq!(
            told,
            [(n, "power/ONtoOFF".to_owned())],
            "one after the other"
        );
        head.discover(n, &["/PhysState=POWER_OFF"]);
    }
    assert!(head.told().is_empty());
}
