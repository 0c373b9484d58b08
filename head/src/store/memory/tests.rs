//! What is told to the store comes back at the next start, older by the time between; what is replaced, gone or nonsense does not.

use std::path::Path;
use std::sync::Arc;

use engine::event::WriteOp;
use rusqlite::Connection;

use super::*;
use crate::store::sqlite::file;
use crate::store::tests::{add, id, write};
use crate::store::{Sqlite, Store};

const TOLD: u64 = 1_000_000;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn on() -> MutationId {
    MutationId::new("power", "OFFtoON")
}

fn attempt(node: u8, number: u64, ending: Ending) -> Memo {
    Memo::Attempt {
        node: id(node),
        attempt: PastAttempt {
            mutation: on(),
            attempt: number,
            ending,
            age: seconds(2),
            took: Duration::from_millis(750),
        },
    }
}

fn parked(node: u8, reason: Option<&str>) -> Memo {
    Memo::Parked {
        node: id(node),
        parked: reason.map(|reason| (on(), reason.into())),
    }
}

fn breaker(open: Option<u64>, outcomes: &[(u8, bool, u64)]) -> Memo {
    let outcomes = outcomes.iter();
    Memo::Breaker {
        mutation: on(),
        breaker: PastBreaker {
            open: open.map(seconds),
            outcomes: outcomes
                .map(|(node, good, age)| (id(*node), *good, seconds(*age)))
                .collect(),
        },
    }
}

fn limit(holders: &[u8], passed: &[u64]) -> Memo {
    Memo::Limit {
        name: "@rack1".into(),
        holders: holders.iter().map(|node| id(*node)).collect(),
        passed: passed.iter().map(|age| seconds(*age)).collect(),
    }
}

fn times(millis: &[u32], counts: Option<u32>) -> Memo {
    Memo::Times {
        mutation: on(),
        times: Times::new(millis.iter().copied()),
        seconds: counts,
        age: seconds(7),
    }
}

/// A store with two nodes that was told these memos.
fn told(dir: &Path, memos: &[Memo]) {
    let (mut store, loaded) = Sqlite::open(dir, Arc::default()).unwrap();
    if loaded.revision == 0 {
        store.commit(&[add(1, 1), add(2, 2)], false).unwrap();
    }
    let memos: Vec<_> = memos.iter().map(|memo| (TOLD, memo.clone())).collect();
    store.remember(&memos).unwrap();
}

/// What a start finds, ten seconds after everything was told.
fn found(dir: &Path) -> Vec<Memo> {
    let (_, loaded) = Sqlite::open_at(dir, Arc::default(), TOLD + 10_000).unwrap();
    loaded.memos
}

#[test]
fn everything_comes_back_older() {
    let dir = tempfile::tempdir().unwrap();
    let failed = Ending::Failed("no answer\nfrom the \"BMC\"".into());
    let memos = [
        attempt(1, 0, Ending::Done),
        attempt(1, 7, failed),
        attempt(2, 8, Ending::Interrupted),
        parked(1, Some("failed 3 times\nlast: no answer")),
        times(&[3_000, 4_500], Some(4)),
        breaker(Some(600), &[(1, false, 5), (2, true, 1)]),
        limit(&[1, 2], &[30, 0]),
    ];
    told(dir.path(), &memos);
    let aged = memos.map(|memo| memo.aged(seconds(10)));
    assert_eq!(found(dir.path()), aged);
    // A clock that went back makes nothing happen in the future.
    let (_, early) = Sqlite::open_at(dir.path(), Arc::default(), 0).unwrap();
    let ages = early.memos.iter().filter_map(|memo| match memo {
        Memo::Attempt { attempt, .. } => Some(attempt.age),
        _ => None,
    });
    assert_eq!(ages.collect::<Vec<_>>(), [Duration::ZERO; 3]);
}

#[test]
fn what_is_told_anew_replaces_and_what_is_empty_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    told(
        dir.path(),
        &[
            parked(1, Some("no answer")),
            breaker(Some(600), &[(1, false, 5)]),
            limit(&[1], &[3]),
            times(&[1], None),
        ],
    );
    let none = [parked(1, None), breaker(None, &[]), limit(&[], &[])];
    told(dir.path(), &none);
    told(dir.path(), &[times(&[1, 2], Some(1))]);
    assert_eq!(
        found(dir.path()),
        [times(&[1, 2], Some(1)).aged(seconds(10))]
    );
}

#[test]
fn a_node_keeps_its_latest_attempts_and_takes_them_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let many = (1..=50).map(|number| attempt(1, number, Ending::Done));
    let mut memos: Vec<Memo> = many.collect();
    memos.extend([attempt(2, 60, Ending::Done), parked(2, Some("no answer"))]);
    // Nobody knows this one.
    memos.extend([attempt(9, 70, Ending::Done), parked(9, Some("no answer"))]);
    told(dir.path(), &memos);
    let numbers = |dir: &Path| -> Vec<u64> {
        let memos = found(dir).into_iter();
        let numbers = memos.filter_map(|memo| match memo {
            Memo::Attempt { attempt, .. } => Some(attempt.attempt),
            _ => None,
        });
        numbers.collect()
    };
    let latest = (51 - MAX_HISTORY as u64..=50).chain([60]);
    assert_eq!(numbers(dir.path()), latest.collect::<Vec<_>>());

    let (mut store, _) = Sqlite::open(dir.path(), Arc::default()).unwrap();
    let gone = write(3, vec![WriteOp::Delete(id(1)), WriteOp::Delete(id(2))]);
    store.commit(&[gone], false).unwrap();
    drop(store);
    assert_eq!(found(dir.path()), []);
}

#[test]
fn rows_that_make_no_sense_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    told(dir.path(), &[times(&[5], None)]);
    let db = Connection::open(file(dir.path())).unwrap();
    db.execute_batch(
        "INSERT INTO times VALUES ('nonsense', '1 2', 3, 4); INSERT INTO breakers VALUES ('a/b', NULL, 'done x y\nfailed\n');
         INSERT INTO slots VALUES ('cluster', 'who', 'when -5 99999999999999999999');
         INSERT INTO attempts SELECT id, 1, 1, 1, 'nonsense', 1, 'eaten', '' FROM nodes;",
    )
    .unwrap();
    drop(db);
    let breaker = Memo::Breaker {
        mutation: MutationId::new("a", "b"),
        breaker: PastBreaker::default(),
    };
    let limit = Memo::Limit {
        name: "cluster".into(),
        holders: Vec::new(),
        passed: Vec::new(),
    };
    let times = times(&[5], None).aged(seconds(10));
    assert_eq!(found(dir.path()), [times, breaker, limit]);
}

#[test]
fn times_of_format_4_count_as_measured_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    told(dir.path(), &[times(&[5, 6], Some(1))]);
    let db = Connection::open(file(dir.path())).unwrap();
    let older =
        "ALTER TABLE times DROP COLUMN at_ms; UPDATE meta SET value = 4 WHERE key = 'format';";
    db.execute_batch(older).unwrap();
    drop(db);
    let mut expect = times(&[5, 6], Some(1));
    if let Memo::Times { age, .. } = &mut expect {
        *age = Duration::ZERO;
    }
    assert_eq!(found(dir.path()), [expect]);
}
