use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use engine::event::{CommitError, Kept, Record, WriteKey, WriteOp};
use engine::extension::{Field, Kind, REDACTED, Schema};
use engine::mutation::MutationId;
use engine::state::{Change, Freezer, Frozen, LastKnown, Node, NodeId, Value, Values};
use engine::sync::join::{Grant, GrantId, Secret};
use uuid::Uuid;

use super::sqlite::{FORMAT, file};
use super::*;

fn schema() -> Arc<Schema> {
    let field = |secret| Field {
        secret,
        ..Field::new(Kind::Text)
    };
    let mut schema = Schema::default();
    assert!(
        schema.add("/power/password".into(), field(true))
            && schema.add("/RunState".into(), field(false))
    );
    Arc::new(schema)
}

fn open(dir: &Path) -> (Sqlite, Loaded) {
    Sqlite::open(dir, schema()).unwrap()
}

pub(super) fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn change(url: &str, value: &str) -> Change {
    Change::set(url.parse().unwrap(), Value::from(value))
}

fn node(n: u8) -> Node {
    let mut node = Node::new(id(n), format!("n{n}").parse().unwrap(), Some(id(255)));
    node.groups.insert("rack1".into());
    node.labels.insert("owner".into(), "ops".into());
    node.cfg.apply([change("/RunState", "SYNC")]);
    node
}

pub(super) fn write(revision: u64, ops: Vec<WriteOp>) -> Record {
    Record::Write {
        revision,
        author: "uid 0".into(),
        reason: "test".into(),
        at_ms: 1_000 + revision,
        ops,
        kept: Kept::default(),
    }
}

fn freezer(reason: &str) -> Freezer {
    Freezer {
        by: "uid 0".into(),
        reason: reason.into(),
    }
}

fn freeze_group(group: &str, reason: Option<&str>) -> WriteOp {
    WriteOp::FreezeGroup {
        group: group.into(),
        by: reason.map(freezer),
    }
}

pub(super) fn add(revision: u64, n: u8) -> Record {
    write(revision, vec![WriteOp::Add(Box::new(node(n)))])
}

mod faults;

#[test]
fn everything_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let grant = |n: u8, consumed_by| Grant {
        id: GrantId(Uuid::from_bytes([n; 16])),
        node: id(1),
        boot: Uuid::from_bytes([n; 16]),
        secret: Some(Secret([n; 32])),
        expires_ms: 5,
        deliveries: 2,
        consumed_by,
    };
    let (mut store, first) = open(dir.path());
    assert!(first.nodes.is_empty());
    store
        .commit(&[add(1, 1), add(2, 2), add(3, 3)], false)
        .unwrap();
    let changes = vec![
        change("/power/password", "hunter2"),
        Change::unset("/RunState".parse().unwrap()),
    ];
    store
        .commit(
            &[
                write(
                    4,
                    vec![
                        WriteOp::Set {
                            node: id(1),
                            changes,
                        },
                        WriteOp::Groups {
                            node: id(1),
                            add: vec!["gpu".into()],
                            remove: vec!["rack1".into()],
                        },
                        WriteOp::Freeze {
                            node: id(2),
                            frozen: true,
                        },
                        WriteOp::Delete(id(3)),
                        WriteOp::FreezeCluster(true),
                        freeze_group("rack3", Some("heat")),
                        freeze_group("rack4", Some("noise")),
                        freeze_group("rack4", None),
                    ],
                ),
                Record::Intent {
                    node: id(1),
                    mutation: MutationId::new("power", "OFFtoON"),
                    attempt: 41,
                },
                Record::Grant(grant(7, Some(([9; 32], 77)))),
                Record::Grant(grant(8, None)),
                Record::GrantGone(GrantId(Uuid::from_bytes([8; 16]))),
            ],
            false,
        )
        .unwrap();
    let mut known = Values::default();
    known.apply([change("/RunState", "SYNC")]);
    store
        .note_last_known(&[(id(1), known.clone()), (id(9), known.clone())], 123)
        .unwrap();
    drop(store);

    let (_store, loaded) = open(dir.path());
    assert_eq!(
        (loaded.revision, loaded.last_attempt, loaded.frozen),
        (
            4,
            41,
            Frozen {
                cluster: true,
                groups: [("rack3".to_owned(), freezer("heat"))].into(),
            }
        )
    );
    assert!(loaded.epoch > first.epoch);
    assert_eq!(
        (first.starts, loaded.starts, loaded.head),
        (1, 2, first.head)
    );
    assert_eq!(loaded.grants, [grant(7, Some(([9; 32], 77)))]);
    let [n1, n2] = &loaded.nodes[..] else {
        panic!("{:?}", loaded.nodes)
    };
    let mut expect = node(1);
    expect.groups = ["gpu".to_owned()].into();
    expect.cfg = Values::default();
    expect.cfg.apply([change("/power/password", "hunter2")]);
    expect.cfg_revision = 4;
    expect.last_known = LastKnown {
        dsc: known,
        at_ms: 123,
    };
    assert_eq!(*n1, expect);
    assert_eq!(
        (n2.frozen, n2.cfg_revision, n2.name.as_str()),
        (true, 4, "n2")
    );
}

#[test]
fn people_read_values_but_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let secret = WriteOp::Set {
        node: id(1),
        changes: vec![change("/power/password", "hunter2")],
    };
    store
        .commit(&[add(1, 1), write(2, vec![secret])], false)
        .unwrap();
    let cfg = store.query_texts("SELECT url || '=' || text FROM cfg ORDER BY url");
    assert_eq!(
        cfg,
        [
            "/RunState=SYNC".to_owned(),
            format!("/power/password={REDACTED}")
        ]
    );
    let history = store.query_texts("SELECT author || ': ' || text FROM history ORDER BY revision");
    assert!(
        history[0].starts_with("uid 0: add 01010101-"),
        "{history:?}"
    );
    assert_eq!(
        history[1],
        format!("uid 0: set {} /power/password={REDACTED}", id(1))
    );
    let mode = std::fs::metadata(file(dir.path()))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_commit_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&[add(1, 1)], false).unwrap();
    let orphan = WriteOp::Set {
        node: id(9),
        changes: vec![change("/RunState", "SYNC")],
    };
    assert!(
        store
            .commit(&[add(2, 2), write(3, vec![orphan])], false)
            .is_err()
    );
    drop(store);
    let (_store, loaded) = open(dir.path());
    assert_eq!((loaded.nodes.len(), loaded.revision), (1, 1));
}

#[test]
fn f05_a_full_disk_refuses_writes_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&[add(1, 1)], false).unwrap();
    store.limit_pages(Some(0));
    let large = |n| {
        write(
            n,
            vec![WriteOp::Set {
                node: id(1),
                changes: vec![change("/RunState", &"x".repeat(60_000))],
            }],
        )
    };
    assert_eq!(store.commit(&[large(2)], false), Err(CommitError::DiskFull));
    assert_eq!(store.failed(), None);
    store.limit_pages(None);
    store.commit(&[large(2)], false).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).1.revision, 2);
}

#[test]
fn f04_any_other_failure_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.break_tables();
    let Err(CommitError::Failed(why)) = store.commit(&[add(1, 1)], false) else {
        panic!("no such table")
    };
    assert!(why.contains("history"), "{why}");
    assert!(store.failed().is_some());
    let again = store.commit(
        &[Record::GrantGone(GrantId(Uuid::from_bytes([1; 16])))],
        false,
    );
    assert_eq!(again, Err(CommitError::Failed(why)));
}

#[test]
fn f07_a_second_head_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let error = Sqlite::open(dir.path(), schema())
        .err()
        .unwrap()
        .to_string();
    let pid = std::process::id();
    assert!(
        error.starts_with("another kraken-head uses the state directory"),
        "{error}"
    );
    assert!(error.contains(&format!("(pid {pid})")), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
fn f03_damage_is_found_and_nothing_is_guessed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    for n in 1..100 {
        store.commit(&[add(u64::from(n), n)], false).unwrap();
    }
    drop(store);
    let path = file(dir.path());
    let good = std::fs::read(&path).unwrap();
    // The first page's header, then the inside of a table.
    for at in [20, 4096 * 2 + 3] {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        bad[at + 1] ^= 0xff;
        std::fs::write(&path, &bad).unwrap();
        let error = Sqlite::open(dir.path(), schema())
            .err()
            .map(|error| error.to_string());
        assert!(
            error
                .as_ref()
                .is_some_and(|error| error.contains("is damaged")
                    && error.contains("nothing was changed. Restore the newest good backup")),
            "byte {at}: {error:?}"
        );
    }
    std::fs::write(&path, b"not a database at all, but long enough to look at").unwrap();
    assert!(
        Sqlite::open(dir.path(), schema())
            .err()
            .unwrap()
            .to_string()
            .contains("is damaged")
    );
    std::fs::write(&path, good).unwrap();
    assert_eq!(open(dir.path()).1.nodes.len(), 99);
}

#[test]
fn a_later_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let db = rusqlite::Connection::open(file(dir.path())).unwrap();
    db.execute("UPDATE meta SET value = 99 WHERE key = 'format'", [])
        .unwrap();
    drop(db);
    let error = Sqlite::open(dir.path(), schema())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("has format 99"), "{error}");
}

#[test]
fn f07_unusable_folders_are_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Sqlite::open(&file.join("state"), schema())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("cannot use the state directory"),
        "{error}"
    );
    if nix::unistd::geteuid().is_root() {
        let other = dir.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::chown(&other, Some(12_345), None).unwrap();
        let error = Sqlite::open(&other, schema()).err().unwrap().to_string();
        assert!(
            error.contains("belongs to uid 12345, but kraken-head runs as uid 0"),
            "{error}"
        );
    } else {
        let sealed = dir.path().join("sealed");
        std::fs::create_dir(&sealed).unwrap();
        std::fs::set_permissions(&sealed, std::fs::Permissions::from_mode(0o500)).unwrap();
        let error = Sqlite::open(&sealed, schema()).err().unwrap().to_string();
        assert!(error.contains("cannot be written"), "{error}");
    }
}

/// What format 1 had in the place of the present tables.
fn to_format_1(dir: &Path) {
    let db = rusqlite::Connection::open(file(dir)).unwrap();
    let older = "ALTER TABLE history DROP COLUMN inverse; ALTER TABLE history DROP COLUMN names; ALTER TABLE history DROP COLUMN key;
        ALTER TABLE history DROP COLUMN request; DROP TABLE trials; DROP TABLE frozen_groups; DROP TABLE attempts; DROP TABLE parked;
        DROP TABLE times; DROP TABLE breakers; DROP TABLE slots; UPDATE meta SET value = 1 WHERE key = 'format';";
    db.execute_batch(older).unwrap();
}

fn all(dir: &Path) -> Vec<Entry> {
    let span = Span {
        after: 0,
        up_to: u64::MAX,
        since_ms: 0,
        limit: usize::MAX,
    };
    History::of(dir).entries(span).unwrap()
}

fn some_writes() -> Vec<Record> {
    let set = |value: &str| WriteOp::Set {
        node: id(1),
        changes: vec![change("/RunState", value), change("/power/password", value)],
    };
    vec![
        add(1, 1),
        write(2, vec![set("INIT"), WriteOp::FreezeCluster(true)]),
        write(3, vec![set("SYNC")]),
        write(4, vec![WriteOp::Delete(id(1))]),
    ]
}

/// F53: what an older release wrote is read, with the old values that it did not keep.
#[test]
fn f53_format_1_is_brought_up_to_date_in_the_transaction_of_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_writes(), false).unwrap();
    drop(store);
    to_format_1(dir.path());
    let (mut store, loaded) = open(dir.path());
    assert_eq!((loaded.revision, loaded.nodes.len()), (4, 0));
    assert_eq!(
        store.query_texts("SELECT CAST(value AS TEXT) FROM meta WHERE key = 'format'"),
        [FORMAT.to_string()]
    );
    let entries = all(dir.path());
    let old = vec![
        Change::set("/RunState".parse().unwrap(), Value::from("INIT")),
        change("/power/password", "INIT"),
    ];
    assert_eq!(
        entries[1].inverse.as_deref(),
        Some(
            &[WriteOp::Set {
                node: id(1),
                changes: old
            }][..]
        )
    );
    let Some([WriteOp::Add(back)]) = entries[0].inverse.as_deref() else {
        panic!("a deleted node comes back: {:?}", entries[0])
    };
    assert_eq!(
        (
            back.cfg.text("/RunState"),
            back.groups.len(),
            back.labels.len()
        ),
        (Some("SYNC"), 1, 1)
    );
    assert_eq!(
        entries[0]
            .names
            .values()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["n1"]
    );
    let Some([WriteOp::FreezeCluster(false), WriteOp::Set { changes, .. }]) =
        entries[2].inverse.as_deref()
    else {
        panic!("{:?}", entries[2])
    };
    assert_eq!(changes[1].value, None);
    store.commit(&[add(5, 2)], false).unwrap();
    drop(store);

    // With a gap, what came after it stays without; nothing is guessed.
    let db = rusqlite::Connection::open(file(dir.path())).unwrap();
    db.execute("DELETE FROM history WHERE revision = 2", [])
        .unwrap();
    drop(db);
    to_format_1(dir.path());
    open(dir.path());
    let kept: Vec<bool> = all(dir.path())
        .iter()
        .map(|entry| entry.inverse.is_some())
        .collect();
    assert_eq!(kept, [false, false, false, true]);
}

#[test]
fn keys_and_trials_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let key = |text: &str| WriteKey {
        text: text.into(),
        request: [7; 32],
    };
    let keyed = |revision, text| {
        let Record::Write {
            revision,
            author,
            reason,
            at_ms,
            ..
        } = write(revision, Vec::new())
        else {
            unreachable!()
        };
        let names = [(id(1), "n1".parse().unwrap())].into();
        let kept = Kept {
            key: Some(key(text)),
            names,
            inverse: Vec::new(),
        };
        let ops = vec![WriteOp::Try { until_ms: 5 }];
        Record::Write {
            revision,
            author,
            reason,
            at_ms,
            ops,
            kept,
        }
    };
    store
        .commit(
            &[
                keyed(1, "a"),
                keyed(2, "b"),
                write(3, vec![WriteOp::Settle(1)]),
            ],
            false,
        )
        .unwrap();
    drop(store);
    let (_, loaded) = open(dir.path());
    assert_eq!(loaded.keys, [(key("a"), 1), (key("b"), 2)]);
    assert_eq!(loaded.trials.len(), 1);
    assert_eq!((loaded.trials[0].0, loaded.trials[0].1.until_ms), (2, 5));
    assert!(loaded.trials[0].1.nodes.contains(&id(1)));
}

#[test]
fn old_history_is_forgotten_but_not_what_is_on_trial() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let trial = write(2, vec![WriteOp::Try { until_ms: 5 }]);
    let records: Vec<Record> = (1..=20)
        .map(|n| {
            if n == 2 {
                trial.clone()
            } else {
                write(n, Vec::new())
            }
        })
        .collect();
    store.commit(&records, false).unwrap();
    let keep = Retention::default();
    let left = |store: &mut Sqlite, keep: Retention, now_ms| {
        store.prune(&keep, now_ms).unwrap();
        store
            .query_texts("SELECT CAST(revision AS TEXT) FROM history ORDER BY revision")
            .join(",")
    };
    assert_eq!(left(&mut store, keep, 10_000).split(',').count(), 20);
    assert_eq!(History::of(dir.path()).oldest().unwrap(), Some(1));
    assert_eq!(
        left(
            &mut store,
            Retention {
                revisions: 15,
                ..keep
            },
            10_000
        ),
        "2,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20"
    );
    assert_eq!(History::of(dir.path()).oldest().unwrap(), Some(6));
    // Written at 1,000 ms and their revision.
    let age = std::time::Duration::from_millis(10);
    assert_eq!(
        left(&mut store, Retention { age, ..keep }, 1_026),
        "2,16,17,18,19,20"
    );
    assert_eq!(
        left(&mut store, Retention { bytes: 1, ..keep }, 1_026),
        "2,20"
    );
    assert_eq!(
        left(
            &mut store,
            Retention {
                revisions: 0,
                ..keep
            },
            1_026
        ),
        "2,20"
    );
}
