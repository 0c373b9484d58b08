//! A store that was restored from an old backup (fault F11), and what only looks like one.

use super::*;
use crate::engine::session::version_at;

#[test]
fn f11_a_head_with_an_old_store_leads_nobody_back() {
    // The backup is of revision 50; the cluster went on to 80, in which the second node was given another Cfg.
    let mut head = restarted(&[was_in_sync(1, false), was_in_sync(2, false)]);
    assert_eq!(head.engine.revision(), 50);
    let same = join_with(&mut head, many(1), 1, version_at(50)).unwrap();
    assert_eq!(
        (same.cfg.0, head.engine.revision()),
        (version_at(50), 50),
        "as it was at the backup"
    );
    let ahead = join_with(&mut head, many(2), 2, version_at(80) + 3).unwrap();
    assert!(
        ahead.cfg.0 > version_at(80) + 3,
        "the node obeys no version twice: {}",
        ahead.cfg.0
    );
    assert!(head.engine.revision() > 80);
    assert!(
        ahead
            .cfg
            .1
            .contains(&Change::set("/Frozen".parse().unwrap(), Value::Bool(true)))
    );
    let frozen = |n| head.engine.tree().get(many(n)).unwrap().frozen;
    assert_eq!(
        (frozen(1), frozen(2)),
        (false, true),
        "who knows nothing newer is as always"
    );
    let alarm = head.events.iter().find_map(|event| match event {
        Event::Join {
            text, alarm: true, ..
        } => Some(text.clone()),
        _ => None,
    });
    assert!(
        alarm.is_some_and(|text| text.contains("old backup") && text.contains("krakenctl thaw n2"))
    );
    // Later writes go on from there; a claim beyond all measure moves nothing.
    let revision = head.engine.revision();
    let freeze = WriteOp::Freeze {
        node: many(1),
        frozen: false,
    };
    assert_eq!(head.write(vec![freeze]).unwrap().revision, revision + 1);
    join_with(&mut head, many(1), 3, u64::MAX).unwrap();
    assert_eq!(head.engine.revision(), revision + 1);
    assert!(!head.engine.tree().get(many(1)).unwrap().frozen);
    assert_only_questions(&head.fired());
}

/// What a node is told without a write, or by a write about others, is no sign of an old backup.
#[test]
fn f11_a_node_that_was_told_more_than_was_written_is_not_ahead() {
    let mut head = restarted(&[was_in_sync(1, false)]);
    let told = |head: &mut Head, conn| {
        let known = head
            .engine
            .child_cfg(many(1))
            .map_or(0, |(version, ..)| version);
        join_with(head, many(1), conn, known).unwrap().cfg.0
    };
    let first = told(&mut head, 1);
    head.input(Input::Discover(Discovery {
        node: many(1),
        source: "test".into(),
        changes: vec![change("/PhysState=POWER_ON")],
    }));
    // Withheld, and let through: two versions at one revision.
    let limits = crate::engine::Limits {
        cluster: crate::engine::Limit {
            at_once: Some(1),
            ..Default::default()
        },
        ..Default::default()
    };
    head.engine.set_guards(crate::engine::Guards {
        limits,
        ..Default::default()
    });
    let reboot = WriteOp::Set {
        node: many(1),
        changes: vec![change("/PhysState=POWER_OFF")],
    };
    head.write(vec![reboot]).unwrap();
    let second = told(&mut head, 2);
    assert!(second > version_at(51), "{first} {second}");
    let schema = std::sync::Arc::new(Schema::clone(&head.engine.schema));
    let (text, edit) = (String::new(), SchemaEdit::default());
    head.write(vec![WriteOp::Schema { schema, text, edit }])
        .unwrap();
    assert!(told(&mut head, 3) >= version_at(52));
    // A head that starts again begins the count anew, in its next epoch.
    let mut next = restarted(&[was_in_sync(1, false)]);
    next.engine.restore_counters(52, 40, Frozen::default());
    join_with(&mut next, many(1), 4, second + 1).unwrap();
    for head in [&head, &next] {
        assert!(!head.engine.tree().get(many(1)).unwrap().frozen);
    }
}
