//! Keys and trials over a head's writes: once, whole, and only what is on trial is settled.

use super::*;
use crate::engine::tests::{Head, change, id};
use crate::event::{Input, RequestId, Write, WriteDone, WriteOp};

fn key(text: &str, request: u8) -> Option<WriteKey> {
    Some(WriteKey {
        text: text.into(),
        request: [request; 32],
    })
}

fn write(request: u64, key: Option<WriteKey>, value: &str, more: Option<WriteOp>) -> Write {
    let set = WriteOp::Set {
        node: id(1),
        changes: vec![change(&format!("/RunState={value}"))],
    };
    Write {
        request: RequestId(request),
        author: "test".into(),
        reason: String::new(),
        if_revision: 0,
        key,
        now_ms: 0,
        ops: std::iter::once(set).chain(more).collect(),
    }
}

fn ask(head: &mut Head, write: Write) -> Result<WriteDone, WriteError> {
    head.input(Input::Write(write));
    head.written.pop().unwrap()
}

#[test]
fn a_key_makes_one_write_of_many() {
    let mut head = Head::new();
    head.add(1, &[]);
    let first = ask(&mut head, write(7, key("a", 1), "INIT", None)).unwrap();
    let again = ask(&mut head, write(8, key("a", 1), "INIT", None));
    assert_eq!(
        again,
        Err(WriteError::Repeated {
            revision: first.revision
        })
    );
    let reused = ask(&mut head, write(9, key("a", 2), "SYNC", None)).unwrap_err();
    assert!(
        reused
            .to_string()
            .contains("was used for another write, revision 2"),
        "{reused}"
    );
    // A stale revision is no matter: the first answer stands.
    let stale = Write {
        if_revision: 1,
        ..write(10, key("a", 1), "INIT", None)
    };
    assert_eq!(
        ask(&mut head, stale),
        Err(WriteError::Repeated { revision: 2 })
    );
    assert_eq!(head.engine.revision(), 2);
    assert_eq!(
        ask(&mut head, write(11, key("b", 1), "INIT", None))
            .unwrap()
            .revision,
        3
    );
    // The oldest key is forgotten when there are too many; nothing else is.
    for n in 0..MAX_KEYS as u64 {
        head.engine
            .restore_key(key(&format!("k{n}"), 1).unwrap(), n);
    }
    assert_eq!(head.engine.ledger.keys.len(), MAX_KEYS);
    assert!(ask(&mut head, write(12, key("a", 1), "INIT", None)).is_ok());
}

#[test]
fn a_trial_lasts_until_it_is_settled_and_no_longer() {
    let mut head = Head::new();
    head.add(1, &[]);
    let on_trial = write(1, None, "INIT", Some(WriteOp::Try { until_ms: 99 }));
    let tried = ask(&mut head, on_trial).unwrap().revision;
    let trial = Trial {
        until_ms: 99,
        nodes: BTreeSet::from([id(1)]),
    };
    assert_eq!(head.engine.trials(), &BTreeMap::from([(tried, trial)]));
    let wrong = head.write(vec![WriteOp::Settle(tried + 5)]);
    assert_eq!(wrong, Err(WriteError::NotOnTrial(tried + 5)));
    let twice = head.write(vec![WriteOp::Settle(tried), WriteOp::Settle(tried)]);
    assert_eq!(twice, Err(WriteError::NotOnTrial(tried)));
    assert_eq!(head.engine.trials().len(), 1);
    head.write(vec![WriteOp::Settle(tried)]).unwrap();
    assert!(head.engine.trials().is_empty());
    for n in 0..MAX_TRIALS as u64 {
        head.engine.restore_trial(
            1000 + n,
            Trial {
                until_ms: 0,
                nodes: BTreeSet::new(),
            },
        );
    }
    let full = head.write(vec![WriteOp::Try { until_ms: 1 }]).unwrap_err();
    assert!(full.to_string().contains("on trial already"), "{full}");
}
