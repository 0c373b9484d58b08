//! What a dry run says in plain cases; [`properties`] has the random ones.

mod properties;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::engine::tests::freeze::groups;
use crate::engine::tests::{Head, change, id};
use crate::engine::{Guards, Limit, Limits};
use crate::history::Cell;
use crate::state::{Change, Value};

fn set(n: u8, texts: &[&str]) -> WriteOp {
    WriteOp::Set {
        node: id(n),
        changes: texts.iter().map(|text| change(text)).collect(),
    }
}

fn reboot(n: u8) -> WriteOp {
    WriteOp::Set {
        node: id(n),
        changes: vec![Change::set("/Reboot".parse().unwrap(), Value::Bool(true))],
    }
}

fn steps(group: &PlanGroup) -> Vec<String> {
    group
        .report
        .steps
        .iter()
        .map(|step| step.mutation.to_string())
        .collect()
}

fn nodes(names: &[NodeName]) -> String {
    names
        .iter()
        .map(NodeName::as_str)
        .collect::<Vec<_>>()
        .join(",")
}

#[test]
fn nodes_with_equal_plans_are_one_group() {
    let mut head = Head::new();
    for n in 1..=4 {
        head.add(n, &[]);
        head.discover(n, &["/PhysState=POWER_OFF"]);
    }
    head.discover(4, &["/PhysState=POWER_ON"]);
    let ops: Vec<WriteOp> = (1..=4).map(|n| set(n, &["/PhysState=POWER_ON"])).collect();
    let what = head.engine.what_if(&ops, &[], head.now).unwrap();
    let found: Vec<_> = what
        .groups
        .iter()
        .map(|group| {
            (
                nodes(&group.nodes),
                group.report.outcome,
                steps(group),
                group.estimate.power_ons,
            )
        })
        .collect();
    let on = vec!["power/OFFtoON".to_owned()];
    assert_eq!(
        found,
        [
            ("n1,n2,n3".into(), Outcome::Path, on, 1),
            ("n4".into(), Outcome::Converged, vec![], 0)
        ]
    );
    let cell = Cell::Value(id(2), "/PhysState".parse().unwrap());
    assert_eq!(what.changes[&cell], (None, Some(Value::from("POWER_ON"))));
    // The same without a write: nobody wants anything.
    let what = head.engine.what_if(&[], &[id(1), id(2)], head.now).unwrap();
    assert_eq!(
        (
            what.groups.len(),
            what.groups[0].report.outcome,
            what.changes.len()
        ),
        (1, Outcome::Converged, 0)
    );
}

#[test]
fn a_group_is_told_how_long_each_and_all_of_it_take() {
    let mut head = Head::new();
    let mut guards = Guards::default();
    guards.limits.power_on_gap = Duration::from_secs(5);
    head.engine.set_guards(guards);
    for n in 1..=4 {
        head.add(n, &[]);
        head.discover(n, &["/PhysState=POWER_OFF"]);
    }
    let told = |head: &Head, n| {
        let ops: Vec<WriteOp> = (n..=4).map(|n| set(n, &["/PhysState=POWER_ON"])).collect();
        let what = head.engine.what_if(&ops, &[], head.now).unwrap();
        let all = what.groups[0].all.unwrap();
        (what.groups[0].estimate.to_string(), all.to_string())
    };
    let at_most = |text: &str| text.contains("never measured");
    let (each, _) = told(&head, 1);
    assert!(at_most(&each), "{each}");

    head.set(1, "/PhysState=POWER_ON").unwrap();
    head.sleep(3);
    head.discover(1, &["/PhysState=POWER_ON"]);
    assert_eq!(
        told(&head, 2),
        (
            "about 3 s (measured), 1 power-on".into(),
            "about 13 s (measured)".into()
        )
    );
}

#[test]
fn a_reboot_is_told_with_its_way_back() {
    let mut head = Head::new();
    head.engine.set_guards(Guards {
        limits: crate::engine::Limits {
            cluster: crate::engine::Limit {
                at_once: Some(1),
                ..crate::engine::Limit::default()
            },
            ..crate::engine::Limits::default()
        },
        ..Guards::default()
    });
    let up = ["/PhysState=POWER_ON", "/pxe/state=INIT", "/RunState=SYNC"];
    // Two that come back into sync, one that is to be on, one that stays off, one with a job, one that is off.
    for (n, cfg) in [
        (1, "/RunState=SYNC"),
        (2, "/RunState=SYNC"),
        (3, "/PhysState=POWER_ON"),
        (4, "/Busy="),
        (5, "/RunState=SYNC"),
        (6, "/PhysState=POWER_ON"),
    ] {
        head.add(n, &[cfg]);
        head.discover(n, &up);
    }
    head.discover(5, &["/Busy=BUSY"]);
    head.discover(6, &["/PhysState=POWER_OFF"]);
    let ops: Vec<WriteOp> = (1..=6).map(reboot).collect();
    let what = head.engine.what_if(&ops, &[], head.now).unwrap();
    let off = ["core/SYNCtoINIT", "power/ONtoOFF"];
    let sync = [
        "power/OFFtoON",
        "pxe/NONEtoWAIT",
        "pxe/WAITtoINIT",
        "core/INITtoSYNC",
    ];
    let told = what.groups.iter().map(|group| {
        let (estimate, back) = (group.estimate, group.report.back.iter());
        let back: Vec<&str> = back.map(|step| step.mutation.as_str()).collect();
        let each = estimate.time.map_or(0, |time| time.time.as_secs());
        let all = group.all.map_or(0, |all| all.time.as_secs());
        let switched = (estimate.power_offs, estimate.power_ons);
        (
            nodes(&group.nodes),
            steps(group),
            back.join(" "),
            each,
            all,
            switched,
        )
    });
    let off: Vec<String> = off.iter().map(|step| (*step).to_owned()).collect();
    let sync = sync.join(" ");
    let on = "power/OFFtoON".to_owned();
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            // Steps of at most ten seconds; with one slot, everybody's time adds up.
            ("n1,n2".into(), off.clone(), sync.clone(), 60, 230, (1, 1)),
            ("n3".into(), off.clone(), on.clone(), 30, 230, (1, 1)),
            ("n4".into(), off.clone(), String::new(), 20, 230, (1, 0)),
            ("n5".into(), off, sync, 60, 230, (1, 1)),
            ("n6".into(), vec![], on, 10, 10, (0, 1)),
        ]
    );
    let reason = &what.groups[2].report.reason;
    assert!(reason.starts_with("it stays off then: its Cfg"), "{reason}");
    let busy = &what.groups[3];
    assert_eq!(busy.report.outcome, Outcome::Held, "{:?}", busy.holds);

    // Once it is asked for, explain says the same, and less as it goes on.
    head.write(vec![reboot(1)]).unwrap();
    let takes = |head: &Head| {
        let report = head.engine.report(id(1), head.now).unwrap();
        (
            report.back.len(),
            report.estimate().time.unwrap().time.as_secs(),
        )
    };
    assert_eq!(takes(&head), (4, 60));
    head.discover(1, &["/RunState=INIT"]);
    assert_eq!(takes(&head), (4, 50));
    head.obey();
    head.sleep(60);
    assert_eq!(
        head.engine.tree().get(id(1)).unwrap().cfg.get("/Reboot"),
        None
    );
    let report = head.engine.report(id(1), head.now).unwrap();
    assert!(report.back.is_empty(), "{report}");
}

/// The first of them take the slots that hold the others.
#[test]
fn holds_are_those_that_the_nodes_will_meet() {
    let off = |nodes: std::ops::RangeInclusive<u8>| -> Vec<WriteOp> {
        let nodes = nodes.map(|n| set(n, &["/PhysState=POWER_OFF"]));
        nodes.collect()
    };
    let on = |limits, count| {
        let mut head = Head::new();
        let guards = Guards {
            limits,
            ..Guards::default()
        };
        head.engine.set_guards(guards);
        for n in 1..=count {
            head.add(n, &[]);
            head.write(vec![groups(n, &["rack"], &[])]).unwrap();
            head.discover(n, &["/PhysState=POWER_ON"]);
        }
        head
    };
    let mut limits = Limits::default();
    limits.cluster.percent_per_minute = Some(27);
    let head = on(limits, 100);
    let what = head.engine.what_if(&off(1..=100), &[], head.now).unwrap();
    let group = &what.groups[0];
    assert_eq!(
        (what.groups.len(), group.report.outcome),
        (1, Outcome::Path)
    );
    let told = group.holds.iter().map(|held| {
        let (hold, nodes) = (&held.hold, held.nodes.len());
        (hold.text.as_str(), hold.lifted_by.as_str(), nodes)
    });
    let text = "the cluster lets 27 nodes be disrupted a minute";
    let lift = "time: the next may go in 60 s; 0 to 72 nodes before each of them";
    assert_eq!(told.collect::<Vec<_>>(), [(text, lift, 73)]);
    assert!(
        nodes(&group.nodes).starts_with("n1,n2,n3,"),
        "n10 comes later"
    );

    let mut limits = Limits::default();
    let rack = Limit {
        at_once: Some(1),
        ..Limit::default()
    };
    limits.groups.insert("rack".into(), rack);
    let mut head = on(limits, 8);
    let what = head.engine.what_if(&off(3..=8), &[], head.now).unwrap();
    let held = what.groups[0].holds.iter().flat_map(|hold| &hold.nodes);
    assert_eq!(
        held.map(NodeName::as_str).collect::<Vec<_>>(),
        ["n4", "n5", "n6", "n7", "n8"]
    );
    // Two groups go through one gate: a node of the second stands behind the first.
    head.discover(8, &["/PhysState=PHYS_HANG"]);
    let what = head.engine.what_if(&off(7..=8), &[], head.now).unwrap();
    let told = what.groups.iter().map(|group| {
        (
            nodes(&group.nodes),
            group.holds.len(),
            group.all.unwrap().time.as_secs(),
        )
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [("n7".into(), 0, 20), ("n8".into(), 1, 20)]
    );
    // A node that goes its way lets the next in line take its place.
    head.write(off(7..=8)).unwrap();
    let what = head
        .engine
        .what_if(&[set(7, &["/PhysState=POWER_ON"])], &[id(8)], head.now)
        .unwrap();
    let told = what
        .groups
        .iter()
        .map(|group| (nodes(&group.nodes), group.holds.len()));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [("n7".into(), 0), ("n8".into(), 0)]
    );
}

#[test]
fn a_write_that_would_be_refused_is_refused() {
    let mut head = Head::new();
    head.add(1, &["/ipv4/boot/mac=52:54:00:00:00:01"]);
    head.add(2, &[]);
    let error = head
        .engine
        .what_if(
            &[set(2, &["/ipv4/boot/mac=52:54:00:00:00:01"])],
            &[],
            head.now,
        )
        .unwrap_err();
    assert!(
        error.to_string().contains("belongs to node n1 already"),
        "{error}"
    );
    assert_eq!(
        head.engine
            .what_if(&[WriteOp::Delete(id(9))], &[], head.now),
        Err(WriteError::NoSuchNode(id(9)))
    );
}

#[test]
fn holds_name_the_nodes_that_meet_them() {
    let mut head = Head::new();
    for n in 1..=3 {
        head.add(n, &[]);
        head.discover(n, &["/PhysState=POWER_ON"]);
    }
    head.discover(2, &["/Busy=BUSY"]);
    head.write(vec![WriteOp::Freeze {
        node: id(3),
        frozen: true,
    }])
    .unwrap();
    let ops: Vec<WriteOp> = (1..=3).map(|n| set(n, &["/PhysState=POWER_OFF"])).collect();
    let what = head.engine.what_if(&ops, &[], head.now).unwrap();
    let by_nodes = |text: &str| {
        what.groups
            .iter()
            .find(|group| nodes(&group.nodes).contains(text))
            .unwrap()
    };
    // That mutation excludes a busy node: the path is the one after its job.
    let busy = by_nodes("n2");
    assert_eq!(busy.report.outcome, Outcome::Held);
    assert_eq!((busy.holds.len(), busy.holds[0].hold.kind), (1, "busy"));
    let group = by_nodes("n1");
    assert_eq!(
        (nodes(&group.nodes), group.report.outcome),
        ("n1,n3".into(), Outcome::Path)
    );
    let frozen = group
        .holds
        .iter()
        .find(|held| held.hold.kind == "frozen")
        .unwrap();
    assert_eq!(nodes(&frozen.nodes), "n3");
    assert_eq!(frozen.hold.text, "node {node} is frozen");
    assert_eq!(frozen.hold.lifted_by, "krakenctl thaw {node}");
    let all = head
        .engine
        .what_if(
            &[WriteOp::FreezeCluster(true), ops[0].clone()],
            &[],
            head.now,
        )
        .unwrap();
    assert_eq!(
        (
            all.groups[0].report.outcome,
            all.groups[0].holds[0].hold.kind
        ),
        (Outcome::Held, "frozen")
    );
}

#[test]
fn running_steps_are_told_and_so_is_their_end() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    let now = head.engine.what_if(&[], &[id(1)], head.now).unwrap();
    assert!(now.groups[0].report.steps[0].in_flight);
    let off = head
        .engine
        .what_if(&[set(1, &["/PhysState=POWER_OFF"])], &[], head.now)
        .unwrap();
    assert_eq!(
        off.groups[0].interrupts,
        [MutationId::new("power", "OFFtoON")]
    );
    assert_eq!(off.groups[0].report.outcome, Outcome::Converged);
}

#[test]
fn what_a_retry_and_a_release_lift_is_told() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_OFF"]);
    head.let_fail("no answer");
    let held = |what: &WhatIf| -> Vec<&str> {
        let holds = what.groups.iter().flat_map(|group| &group.holds);
        holds.map(|held| held.hold.kind).collect()
    };
    let now = head.engine.what_if(&[], &[id(1)], head.now).unwrap();
    assert_eq!(held(&now), ["backoff"]);
    let retry = head.engine.what_if_again(Again::Retry, &[id(1)], head.now);
    assert_eq!(held(&retry), [""; 0]);
    assert_eq!(retry.groups[0].report.outcome, Outcome::Path);
    // What the head has read back of a job is forgotten by a release alone.
    let node = head.engine.tree.get_mut(id(1)).unwrap();
    node.last_known.dsc.apply([change("/Busy=BUSY")]);
    head.discover(1, &["/PhysState=PHYS_HANG"]);
    let again = |how| head.engine.what_if_again(how, &[id(1)], head.now);
    assert_eq!(held(&again(Again::Retry)), ["busy"]);
    assert_eq!(held(&again(Again::Release)), [""; 0]);
}

#[test]
fn a_name_is_marked_where_it_is_a_word() {
    let text = "node n1 is not n11, x-n1 or on/n1: krakenctl thaw n1";
    assert_eq!(
        without_name(text, "n1"),
        "node {node} is not n11, x-n1 or on/n1: krakenctl thaw {node}"
    );
}

/// Ten thousand nodes of a few classes cost a few searches.
#[test]
fn nodes_of_one_class_share_a_search() {
    let mut head = Head::new();
    for n in 1..=100 {
        head.add(n, &[]);
    }
    let ops: Vec<WriteOp> = (1..=100).map(|n| set(n, &["/RunState=SYNC"])).collect();
    let mut rehearsal = Rehearsal::new(
        &head.engine,
        &head.engine.frozen,
        head.engine.rails.clone(),
        head.now,
    );
    let touched = ops.iter().map(|op| {
        let WriteOp::Set { node, changes } = op else {
            unreachable!()
        };
        let mut node = head.engine.tree.get(*node).unwrap().clone();
        node.cfg.apply(changes.iter().cloned());
        (node.id, Some(node))
    });
    rehearsal.write(touched.collect());
    rehearsal.play();
    let groups = Groups::of(&rehearsal, (1..=100).map(id));
    assert_eq!((rehearsal.planner.searches(), groups.len()), (1, 1));
}
