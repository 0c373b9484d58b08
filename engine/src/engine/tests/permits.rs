//! Conditions on other nodes of what nodes carry out by themselves: the head's word, and an agent that waits for it.

use super::*;
use crate::mutation::{Others, OthersCondition};

const LEAVE: &str = "core/SYNCtoINIT";

/// Set B, in which a node leaves SYNC only while all of these are switched on.
fn set_of(who: &str) -> MutationSet {
    let mut set = set_b();
    for mutation in &mut set.mutations {
        if mutation.id.as_str() == LEAVE {
            mutation.requires_of = vec![OthersCondition {
                who: Others::parse(who).unwrap(),
                condition: Condition::is(core::PHYS_STATE.parse().unwrap(), core::POWER_ON),
            }];
        }
    }
    set
}

/// Nodes 1 to `count` of the rack `rack`, in SYNC.
fn head(who: &str, count: u8) -> Head {
    let mut head = Head::new();
    head.input(Input::Declare(set_of(who)));
    for n in 1..=count {
        let mut node = Node::new(id(n), format!("n{n}").parse::<NodeName>().unwrap(), None);
        node.groups.insert("rack".into());
        node.cfg.apply([change("/RunState=SYNC")]);
        head.write(vec![WriteOp::Add(Box::new(node))]).unwrap();
        head.discover(n, &["/PhysState=POWER_ON"]);
        head.discover(n, &["/pxe/state=INIT", "/RunState=SYNC"]);
    }
    head
}

fn told(head: &Head, n: u8) -> Option<String> {
    let node = head.engine.tree().get(id(n)).unwrap();
    let told = head.engine.told(node);
    told.text("/Allowed").map(str::to_owned)
}

fn holds(head: &Head, n: u8) -> Vec<(&'static str, String)> {
    let report = head.engine.report(id(n), head.now).unwrap();
    let holds = report.holds.into_iter();
    holds.map(|hold| (hold.kind, hold.text)).collect()
}

#[test]
fn the_head_lets_go_only_what_is_next_and_whose_conditions_hold() {
    let mut head = head("@rack", 3);
    assert_eq!(told(&head, 1), None, "it is where it should be");
    head.set(1, "/RunState=INIT").unwrap();
    assert_eq!(told(&head, 1).as_deref(), Some(LEAVE));
    assert_eq!(told(&head, 2), None);
    assert_eq!(holds(&head, 1), []);

    head.discover(2, &["/PhysState=POWER_OFF"]);
    assert_eq!(told(&head, 1), None, "the word is taken back");
    let text = "waits for @rack: n2 not at /PhysState=POWER_ON".to_owned();
    assert_eq!(holds(&head, 1), [("other_nodes", text)]);
    head.discover(2, &["/PhysState=POWER_ON"]);
    assert_eq!(told(&head, 1).as_deref(), Some(LEAVE));

    head.discover(1, &["/RunState=INIT"]);
    assert_eq!(told(&head, 1), None, "it is done");
}

#[test]
fn a_node_that_was_never_let_go_is_held_and_counted() {
    let mut head = head("@rack", 2);
    head.discover(2, &["/PhysState=POWER_OFF"]);
    head.set(1, "/RunState=INIT").unwrap();
    let report = head.engine.report(id(1), head.now).unwrap();
    assert_eq!(
        report.outcome,
        crate::mutation::report::Outcome::Held,
        "{report}"
    );
    assert_eq!(head.engine.rails_report().holds["other_nodes"], 1);
    assert_eq!(head.engine.rails_report().waiting["other nodes"], 1);
    let awaited = |event: &Event| matches!(event, Event::Mutation { mutation, .. } if mutation.as_str() == LEAVE);
    assert!(!head.events.iter().any(awaited));
    head.discover(2, &["/PhysState=POWER_ON"]);
    assert_eq!(told(&head, 1).as_deref(), Some(LEAVE));
    assert_eq!(head.engine.rails_report().holds["other_nodes"], 0);
    assert!(head.engine.rails_report().waiting.is_empty());
}

#[test]
fn a_parent_that_changes_takes_the_word_back() {
    let mut head = head("parent", 1);
    let mut child = Node::new(id(9), "n9".parse::<NodeName>().unwrap(), Some(id(1)));
    child.cfg.apply([change("/RunState=INIT")]);
    head.write(vec![WriteOp::Add(Box::new(child))]).unwrap();
    head.discover(9, &["/PhysState=POWER_ON"]);
    head.discover(9, &["/pxe/state=INIT", "/RunState=SYNC"]);
    assert_eq!(told(&head, 9).as_deref(), Some(LEAVE));
    head.discover(1, &["/PhysState=PHYS_HANG"]);
    assert_eq!(told(&head, 9), None);
    let text = "waits for its parent n1 to be at /PhysState=POWER_ON".to_owned();
    assert_eq!(holds(&head, 9), [("other_nodes", text)]);
    head.discover(1, &["/PhysState=POWER_ON"]);
    assert_eq!(told(&head, 9).as_deref(), Some(LEAVE));
}

#[test]
fn another_parent_gives_the_word_or_takes_it_back() {
    let mut head = head("parent", 2);
    let mut child = Node::new(id(9), "n9".parse::<NodeName>().unwrap(), Some(id(1)));
    child.cfg.apply([change("/RunState=INIT")]);
    head.write(vec![WriteOp::Add(Box::new(child))]).unwrap();
    head.discover(9, &["/PhysState=POWER_ON"]);
    head.discover(9, &["/pxe/state=INIT", "/RunState=SYNC"]);
    head.discover(2, &["/PhysState=PHYS_HANG"]);
    assert_eq!(told(&head, 9).as_deref(), Some(LEAVE));
    let to = |parent| WriteOp::Move {
        node: id(9),
        parent,
    };
    head.write(vec![to(id(2))]).unwrap();
    assert_eq!(told(&head, 9), None);
    let text = "waits for its parent n2 to be at /PhysState=POWER_ON".to_owned();
    assert_eq!(holds(&head, 9), [("other_nodes", text)]);
    // Its old parent is nothing to it any more.
    head.discover(1, &["/PhysState=PHYS_HANG"]);
    head.discover(1, &["/PhysState=POWER_ON"]);
    assert_eq!(told(&head, 9), None);
    head.write(vec![to(id(1))]).unwrap();
    assert_eq!(told(&head, 9).as_deref(), Some(LEAVE));
}

#[test]
fn a_set_without_conditions_takes_every_word_back() {
    let mut head = head("@rack", 2);
    head.set(1, "/RunState=INIT").unwrap();
    assert_eq!(told(&head, 1).as_deref(), Some(LEAVE));
    head.input(Input::Declare(set_b()));
    assert_eq!(told(&head, 1), None);
}

#[test]
fn an_agent_goes_only_when_it_was_told() {
    let head = head("@rack", 1);
    let config = EngineConfig {
        me: id(1),
        role: Role::Agent,
        ..head.engine.config.clone()
    };
    let mut agent = Engine::new(config, Schema::clone(&head.engine.schema), Instant::ZERO);
    let mut node = Node::new(id(1), "n1".parse::<NodeName>().unwrap(), Some(HEAD));
    node.cfg.apply([change("/RunState=INIT")]);
    agent.restore_node(node);
    agent.handle_input(Input::Declare(set_of("@rack")), Instant::ZERO);
    let state = |agent: &mut Engine, changes: &[&str]| {
        let discovery = Discovery {
            node: id(1),
            source: "test".into(),
            changes: changes.iter().map(|text| change(text)).collect(),
        };
        agent.handle_input(Input::Discover(discovery), Instant::ZERO);
        let node = agent.tree().get(id(1)).unwrap();
        node.dsc.text(core::RUN_STATE).map(str::to_owned)
    };
    let up = ["/PhysState=POWER_ON", "/RunState=SYNC"];
    assert_eq!(state(&mut agent, &up).as_deref(), Some("SYNC"));
    let report = agent.report(id(1), Instant::ZERO).unwrap();
    assert_eq!(report.holds[0].kind, "other_nodes");
    assert!(report.failures.is_empty());

    let tell = |agent: &mut Engine, word: &str| {
        let node = agent.tree.get_mut(id(1)).unwrap();
        node.cfg.apply([change(word)]);
    };
    tell(&mut agent, "/Allowed=core/OTHER");
    assert_eq!(state(&mut agent, &["/Busy=FREE"]).as_deref(), Some("SYNC"));
    tell(&mut agent, "/Allowed=core/OTHER,core/SYNCtoINIT");
    assert_eq!(state(&mut agent, &["/Busy=BUSY"]).as_deref(), Some("INIT"));
}
