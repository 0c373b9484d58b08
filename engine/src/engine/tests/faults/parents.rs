//! F23: parents form a tree, whatever is written, and a node that is given another one works on.

use super::*;

#[test]
fn f23_parents_form_a_tree_that_is_not_too_deep() {
    let mut head = Head::new();
    let node = |n: u8, parent: u8| {
        let name = format!("n{n}").parse().unwrap();
        WriteOp::Add(Box::new(Node::new(id(n), name, Some(id(parent)))))
    };
    let mut refused = |ops: Vec<WriteOp>, part: &str| {
        let result = head.write(ops);
        let Err(WriteError::Invalid(text)) = result else {
            panic!("{result:?}")
        };
        assert!(text.contains(part), "{text}");
    };
    refused(vec![node(1, 1)], "its own ancestor");
    refused(vec![node(1, 2)], "does not exist");
    // A cycle would need a parent that is not there yet.
    refused(vec![node(1, 2), node(2, 1)], "does not exist");
    let chain = |deepest: u8| {
        let rest = (2..=deepest).map(|n| node(n, n - 1));
        let first = Node::new(id(1), "n1".parse().unwrap(), Some(HEAD));
        std::iter::once(WriteOp::Add(Box::new(first)))
            .chain(rest)
            .collect::<Vec<_>>()
    };
    refused(chain(100), "more than 8 ancestors");
    assert_eq!(head.engine.tree().len(), 1);
    head.write(chain(8)).unwrap();
    assert!(matches!(
        head.write(vec![WriteOp::Delete(id(7))]),
        Err(WriteError::Invalid(text)) if text.contains("n7 is the parent of n8")
    ));
    // From the leaves up, in one write.
    head.write((1..=8).rev().map(|n| WriteOp::Delete(id(n))).collect())
        .unwrap();
    assert_eq!(head.engine.tree().len(), 1);
}

#[test]
fn f23_a_node_that_syncs_gets_another_parent_or_keeps_the_one_it_has() {
    let mut head = Head::new();
    head.add(8, &[]);
    head.add(9, &[]);
    let below = |parent: u8| {
        let mut node = Node::new(id(1), "n1".parse().unwrap(), Some(id(parent)));
        node.cfg.apply([change("/RunState=SYNC")]);
        WriteOp::Add(Box::new(node))
    };
    let to = |parent: u8| WriteOp::Move {
        node: id(1),
        parent: id(parent),
    };
    head.write(vec![below(8)]).unwrap();
    let session = join(&mut head, id(1), 1).unwrap();
    let frame = report(&["/Busy=BUSY"]);
    head.input(Input::Frame { session, frame });
    head.fired.clear();
    let parent = |head: &Head| head.engine.tree().get(id(1)).unwrap().parent;
    // A parent that is not there, and the one that it has: nothing has happened, and its connection lives.
    for write in [
        vec![to(77)],
        vec![WriteOp::Delete(id(1)), below(77)],
        vec![to(9), to(1)],
    ] {
        assert!(matches!(head.write(write), Err(WriteError::Invalid(_))));
    }
    head.write(vec![to(8)]).unwrap();
    assert_eq!((parent(&head), head.ended()), (Some(id(8)), vec![]));

    // By a move, and as the same machine that is deleted and added: its agent joins again, its job runs on.
    for (round, (write, now)) in [
        (vec![to(9)], 9),
        (vec![WriteOp::Delete(id(1)), below(8)], 8),
    ]
    .into_iter()
    .enumerate()
    {
        head.write(write).unwrap();
        assert_eq!(parent(&head), Some(id(now)));
        let children = |n: u8| head.engine.tree().children(id(n));
        assert_eq!((children(now), children(17 - now)), (1, 0));
        assert_eq!(head.ended(), ["the node has another parent"]);
        assert_eq!(head.dsc(1, core::BUSY), Some(core::BUSY_BUSY));
        head.sleep(5);
        let session = join(&mut head, id(1), 2 + round as u64).unwrap();
        let frame = report(&["/Busy=BUSY"]);
        head.input(Input::Frame { session, frame });
        assert_eq!(head.dsc(1, core::RUN_STATE), Some(core::SYNC));
        assert!(matches!(
            head.write(vec![WriteOp::Delete(id(now))]),
            Err(WriteError::Invalid(text)) if text.contains("is the parent of n1")
        ));
    }
    assert_eq!(head.fired(), [""; 0]);

    // One that does not come back is missed as ever.
    head.write(vec![to(9)]).unwrap();
    head.sleep(60);
    assert_eq!(head.dsc(1, core::RUN_STATE), Some(core::ERROR));
    assert_eq!(head.fired(), [""; 0], "a job was last seen there");
    head.write(vec![WriteOp::Delete(id(8))]).unwrap();
}

#[test]
fn f23_moves_keep_the_tree_a_tree() {
    let mut head = Head::new();
    (1..=9).for_each(|n| head.add(n, &[]));
    let to = |n: u8, parent: u8| WriteOp::Move {
        node: id(n),
        parent: id(parent),
    };
    let mut refused = |ops: Vec<WriteOp>, part: &str| {
        let before: Vec<Node> = head.engine.tree().iter().cloned().collect();
        let result = head.write(ops);
        let Err(WriteError::Invalid(text)) = result else {
            panic!("{result:?}")
        };
        assert!(text.contains(part), "{text}");
        let after: Vec<Node> = head.engine.tree().iter().cloned().collect();
        assert_eq!(before, after);
    };
    refused(vec![to(1, 1)], "node n1 cannot be its own parent");
    refused(vec![to(1, 77)], "there is no such node");
    refused(vec![to(0xaa, 1)], "node head is this head");
    refused(
        vec![to(2, 1), to(3, 2), to(1, 3)],
        "node n1 cannot be below n3, which is below n1 itself: move n3 first",
    );
    // Seven below n1 in a chain of their own, then n1 below two others: too deep for the last of them.
    let chain: Vec<WriteOp> = (2..=7).map(|n| to(n, n - 1)).collect();
    head.write(chain).unwrap();
    let mut refused = |ops: Vec<WriteOp>, part: &str| {
        let result = head.write(ops);
        assert!(
            matches!(&result, Err(WriteError::Invalid(text)) if text.contains(part)),
            "{result:?}"
        );
    };
    refused(
        vec![to(9, 8), to(1, 9)],
        "node n7 would have more than 8 ancestors",
    );
    head.write(vec![to(1, 9)]).unwrap();
    // Upside down, in one write: from the end of the chain on.
    let mut back: Vec<WriteOp> = (2..=7).rev().map(|n| to(n, 0xaa)).collect();
    back.extend((1..=6).map(|n| to(n, n + 1)));
    head.write(back).unwrap();
    assert_eq!(head.engine.tree().get(id(1)).unwrap().parent, Some(id(2)));
    let children = |head: &Head, n: u8| head.engine.tree().children(id(n));
    assert_eq!((children(&head, 9), children(&head, 7)), (0, 1));
    assert_eq!(head.engine.tree().children(HEAD), 3, "n7, n8 and n9");
}
