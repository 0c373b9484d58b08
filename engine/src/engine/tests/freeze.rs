//! A group that is frozen: whoever is in it starts nothing, until the group itself is thawed.

use super::*;
use crate::state::{Freezer, MAX_FROZEN_GROUPS};

pub(in crate::engine) fn freeze(group: &str, frozen: bool) -> WriteOp {
    let by = Freezer {
        by: "alice".into(),
        reason: "cooling failed".into(),
    };
    WriteOp::FreezeGroup {
        group: group.into(),
        by: frozen.then_some(by),
    }
}

pub(in crate::engine) fn groups(n: u8, add: &[&str], remove: &[&str]) -> WriteOp {
    let all = |groups: &[&str]| groups.iter().map(|group| (*group).to_owned()).collect();
    WriteOp::Groups {
        node: id(n),
        add: all(add),
        remove: all(remove),
    }
}

fn holds(head: &Head, n: u8) -> Vec<(String, String)> {
    let report = head.engine.report(id(n), head.now).unwrap();
    let holds = report.holds.into_iter();
    holds.map(|hold| (hold.text, hold.lifted_by)).collect()
}

fn told(head: &mut Head, n: u8) -> bool {
    let (_, cfg, _) = head.engine.child_cfg(id(n)).unwrap();
    cfg.get("/Frozen") == Some(&Value::Bool(true))
}

#[test]
fn a_group_stays_frozen_until_it_is_thawed_itself() {
    let mut head = Head::new();
    head.write(vec![freeze("rack3", true)]).unwrap();
    head.add(1, &["/RunState=SYNC"]);
    assert_eq!(head.fired().len(), 1, "it is in no group");
    head.add(2, &[]);
    head.write(vec![groups(2, &["rack3"], &[])]).unwrap();
    head.set(2, "/RunState=SYNC").unwrap();
    assert_eq!(head.fired().len(), 0, "who comes into the group is frozen");
    let why = (
        "its group rack3 is frozen by alice: cooling failed".to_owned(),
        "krakenctl thaw @rack3".to_owned(),
    );
    assert_eq!(holds(&head, 2), std::slice::from_ref(&why));
    assert!(told(&mut head, 2) && !told(&mut head, 1));

    for other in [
        WriteOp::FreezeCluster(false),
        WriteOp::Freeze {
            node: id(2),
            frozen: false,
        },
        freeze("rack4", false),
    ] {
        head.write(vec![other]).unwrap();
        assert_eq!(holds(&head, 2), std::slice::from_ref(&why));
    }
    head.sleep(600);
    assert!(head.fired.iter().all(|fire| fire.node == id(1)));
    head.fired.clear();
    head.write(vec![freeze("rack3", false)]).unwrap();
    assert_eq!(head.fired().len(), 1);
    assert!(!told(&mut head, 2));
}

#[test]
fn who_leaves_a_frozen_group_goes_on() {
    let mut head = Head::new();
    head.write(vec![freeze("a", true), freeze("b", true)])
        .unwrap();
    head.add(1, &[]);
    head.write(vec![groups(1, &["a", "b"], &[])]).unwrap();
    head.set(1, "/RunState=SYNC").unwrap();
    assert_eq!(holds(&head, 1).len(), 2);
    head.write(vec![groups(1, &[], &["a"])]).unwrap();
    assert_eq!(holds(&head, 1).len(), 1);
    assert!(head.fired().is_empty());
    head.write(vec![groups(1, &[], &["b"])]).unwrap();
    assert_eq!(head.fired().len(), 1);
}

#[test]
fn a_head_that_restarts_knows_who_froze_what() {
    let mut head = Head::new();
    head.write(vec![freeze("rack3", true)]).unwrap();
    let mut kept = Node::new(id(1), "n1".parse::<NodeName>().unwrap(), Some(HEAD));
    kept.groups.insert("rack3".into());
    kept.cfg.apply([change("/RunState=SYNC")]);
    let frozen = head.engine.freezes().clone();
    let mut next = Head::new();
    next.engine.restore_counters(1, 0, frozen);
    next.engine.restore_node(kept);
    next.input(Input::Declare(set_b()));
    next.sleep(600);
    assert!(next.fired().is_empty());
    assert_eq!(holds(&next, 1)[0].1, "krakenctl thaw @rack3");
}

#[test]
fn frozen_groups_are_bounded_and_have_names() {
    let mut head = Head::new();
    assert!(head.write(vec![freeze("a b", true)]).is_err());
    let all = (0..MAX_FROZEN_GROUPS).map(|n| freeze(&format!("g{n}"), true));
    head.write(all.collect()).unwrap();
    assert!(head.write(vec![freeze("more", true)]).is_err());
    head.write(vec![freeze("g7", true)]).unwrap();
    head.write(vec![freeze("g7", false), freeze("more", true)])
        .unwrap();
    assert_eq!(head.engine.freezes().groups.len(), MAX_FROZEN_GROUPS);
}
