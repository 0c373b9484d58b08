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
        let failing: Vec<Fire> = self.fired.drain(..).collect();
        let count = failing.len();
        for fire in failing {
            self.input(Input::MutationFailed {
                node: fire.node,
                mutation: fire.mutation,
                attempt: fire.attempt,
                text: "no answer".into(),
            });
        }
        count
    }

    fn holds(&self, n: u8) -> Vec<crate::mutation::report::Hold> {
        self.engine.report(id(n), self.now).unwrap().holds
    }

    fn kinds(&self, n: u8) -> Vec<&'static str> {
        self.holds(n).iter().map(|hold| hold.kind).collect()
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
    head.requests += 1;
    let write = Write {
        request: RequestId(head.requests),
        author: "test".into(),
        reason: "-".into(),
        if_revision: 0,
        now_ms: 0,
        ops: (1..=2)
            .map(|n| WriteOp::Set {
                node: id(n),
                changes: vec![change("/PhysState=POWER_OFF")],
            })
            .collect(),
    };
    head.engine.handle_input(Input::Write(write), head.now);
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
    head.input(Input::Lift(Lift::Breaker(MutationId::new(
        "power", "OFFtoON",
    ))));
    assert_eq!(head.alarms().last(), Some(&("breaker", true)));
    assert!(head.told().len() >= 5, "and then everybody");
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
