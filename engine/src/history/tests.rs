//! What is written is taken back by its inverse, for random writes on random nodes; cells say what happened in between.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::state::Change;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn node(n: u8, group: bool, value: u8) -> Node {
    let parent = Some(id(10 + value));
    let mut node = Node::new(id(n), format!("n{n}").parse().unwrap(), parent);
    node.groups = BTreeSet::from_iter(group.then(|| "g0".to_owned()));
    node.cfg.apply([set("/a", value)]);
    node.labels.insert("rack".into(), value.to_string());
    node
}

fn set(url: &str, value: u8) -> Change {
    Change {
        url: url.parse().unwrap(),
        value: (value > 0).then(|| Value::from(value.to_string().as_str())),
    }
}

fn any_op() -> impl Strategy<Value = WriteOp> {
    let node_number = 1..4_u8;
    let groups = || {
        prop::collection::btree_set(0..3_u8, 0..3)
            .prop_map(|all| all.into_iter().map(|n| format!("g{n}")).collect::<Vec<_>>())
    };
    prop_oneof![
        2 => (node_number.clone(), any::<bool>(), 0..3_u8).prop_map(|(n, group, value)| WriteOp::Add(Box::new(node(n, group, value)))),
        2 => node_number.clone().prop_map(|n| WriteOp::Delete(id(n))),
        4 => (node_number.clone(), 0..3_u8, 0..3_u8).prop_map(|(n, a, b)| WriteOp::Set { node: id(n), changes: vec![set("/a", a), set("/b", b)] }),
        3 => (node_number.clone(), groups(), groups()).prop_map(|(n, add, remove)| WriteOp::Groups { node: id(n), add, remove }),
        2 => (node_number.clone(), 10..13_u8).prop_map(|(n, parent)| WriteOp::Move { node: id(n), parent: id(parent) }),
        1 => (node_number, any::<bool>()).prop_map(|(n, frozen)| WriteOp::Freeze { node: id(n), frozen }),
        1 => any::<bool>().prop_map(WriteOp::FreezeCluster),
        1 => (0..3_u8, prop::option::of(0..3_u8)).prop_map(|(group, by)| WriteOp::FreezeGroup {
            group: format!("g{group}"),
            by: by.map(|n| Freezer { by: format!("user{n}"), reason: "heat".into() }),
        }),
    ]
}

/// Does those operations that can be done; returns them and what takes them back.
fn write(tree: &mut Tree, frozen: &mut Frozen, ops: Vec<WriteOp>) -> (Vec<WriteOp>, Vec<WriteOp>) {
    let (mut done, mut back) = (Vec::new(), Vec::new());
    for op in ops {
        let undo = inverse(&op, node_of(&op).and_then(|id| tree.get(id)), frozen);
        if apply(tree, frozen, &op) {
            back.extend(undo);
            done.push(op);
        }
    }
    back.reverse();
    (done, back)
}

fn all(tree: &Tree) -> Vec<Node> {
    tree.iter().cloned().collect()
}

proptest! {
    #[test]
    fn an_inverse_takes_everything_back(
        past in prop::collection::vec(any_op(), 0..12),
        first in prop::collection::vec(any_op(), 0..6),
        second in prop::collection::vec(any_op(), 0..6),
    ) {
        let (mut tree, mut frozen) = (Tree::default(), Frozen::default());
        write(&mut tree, &mut frozen, past);
        let start = (all(&tree), frozen.clone());
        let (old_tree, old_frozen) = (tree.clone(), frozen.clone());

        let (ops, back) = write(&mut tree, &mut frozen, first);
        let mut sum = cells(&ops, &back);
        for (cell, (was, is)) in &sum {
            prop_assert_eq!(&cell.get(&old_tree, &old_frozen), was, "{:?}", cell);
            prop_assert_eq!(&cell.get(&tree, &frozen), is, "{:?}", cell);
        }
        let (ops, back_again) = write(&mut tree, &mut frozen, second);
        add_up(&mut sum, cells(&ops, &back_again));
        for (cell, (was, is)) in &sum {
            prop_assert_eq!((&cell.get(&old_tree, &old_frozen), &cell.get(&tree, &frozen)), (was, is), "{:?}", cell);
        }
        if sum.is_empty() {
            prop_assert_eq!(&(all(&tree), frozen.clone()), &start);
        }
        for op in back_again.iter().chain(&back) {
            prop_assert!(apply(&mut tree, &mut frozen, op), "{:?}", op);
        }
        prop_assert_eq!((all(&tree), frozen), start);
    }
}
