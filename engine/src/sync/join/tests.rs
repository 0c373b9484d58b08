//! Grants: delivered, used once, misused; and both sides of the proof.

mod hello;
mod written_form;

use proptest::prelude::*;

use super::proof::{Side, Transcript, check, join_key, key_fingerprint, prove, session_keys};
use super::*;
use crate::event::{ConnId, Record};
use crate::sync::SessionId;

const NOW: u64 = 1_700_000_000_000;
const EXPIRES: u64 = NOW + 600_000;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn grant_id(n: u8) -> GrantId {
    GrantId(Uuid::from_bytes([n; 16]))
}

fn boot(n: u8) -> Uuid {
    Uuid::from_bytes([0xb0 | n; 16])
}

fn new_grant(n: u8) -> NewGrant {
    NewGrant {
        node: node(n),
        id: grant_id(n),
        boot: boot(n),
        secret: Secret([n; 32]),
        expires_ms: EXPIRES,
    }
}

fn armed() -> Acceptor {
    let mut acceptor = Acceptor::default();
    acceptor.arm(new_grant(1));
    acceptor
}

fn fetch(acceptor: &mut Acceptor, secret: u8) -> GrantFile {
    let delivery = acceptor.fetch(grant_id(1), [secret; 32], NOW).unwrap();
    delivery.text.parse().unwrap()
}

fn identity(key: u8) -> Identity {
    Identity {
        agent_version: "0.1.0".into(),
        public_key: vec![key; 91],
        nonce: [key; 32],
        cfg_version: 0,
    }
}

fn chance(n: u8) -> [u8; 40] {
    [n; 40]
}

fn channel(exporter: u8) -> Channel {
    Channel {
        exporter: [exporter; 32],
        certified: None,
    }
}

fn challenge(outcome: JoinOutcome) -> ChallengeMessage {
    match outcome {
        JoinOutcome::Challenge {
            nonce,
            head_time_ms,
            version,
        } => ChallengeMessage {
            nonce,
            head_time_ms,
            version,
        },
        other => panic!("no challenge: {other:?}"),
    }
}

/// A whole handshake with `file` on connection `conn`, whose exporters are `ends` at the child's and the parent's end.
fn join_over(
    acceptor: &mut Acceptor,
    file: &GrantFile,
    key: u8,
    conn: u64,
    ends: (u8, u8),
    now_ms: u64,
) -> Result<(Proven, SessionKeys), Refusal> {
    let mut child = ChildJoin::with_grant(file, identity(key), [ends.0; 32]);
    let conn = ConnId(conn);
    let outcome = acceptor.hello(
        conn,
        child.hello().clone(),
        channel(ends.1),
        chance(conn.0 as u8),
        now_ms,
        true,
    )?;
    let proof = child.handle_challenge(&challenge(outcome)).unwrap();
    let proven = acceptor.proof(conn, &proof, now_ms)?;
    let keys = child.handle_accept(&proven.mac, proven.session).unwrap();
    Ok((proven, keys))
}

fn join(
    acceptor: &mut Acceptor,
    file: &GrantFile,
    key: u8,
    conn: u64,
    now_ms: u64,
) -> Result<Proven, Refusal> {
    let (proven, keys) = join_over(acceptor, file, key, conn, (9, 9), now_ms)?;
    assert_eq!(keys, proven.keys, "both ends have the same keys");
    assert_ne!(keys.up, keys.down);
    Ok(proven)
}

#[test]
fn a_grant_becomes_a_session_once() {
    let mut acceptor = armed();
    let file = fetch(&mut acceptor, 0xee);
    assert_eq!(
        file.secret,
        Secret([1; 32]),
        "the first delivery keeps the secret"
    );
    let proven = join(&mut acceptor, &file, 5, 1, NOW).unwrap();
    assert_eq!((proven.node, proven.grant), (node(1), Some(grant_id(1))));
    let Some(Record::Grant(grant)) = proven.record else {
        panic!("not recorded")
    };
    assert_eq!(grant.secret, None, "the stored secret is wiped");
    assert_eq!(grant.consumed_by, Some((key_fingerprint(&[5; 91]), NOW)));
    assert_eq!(acceptor.armed(node(1)), None);
    assert_eq!(acceptor.handshakes(), 0);
}

/// F49, the outcomes of reliability 2.2 one by one.
#[test]
fn each_misuse_of_a_grant_has_its_outcome() {
    struct Case {
        name: &'static str,
        prepare: fn(&mut Acceptor) -> GrantFile,
        key: u8,
        now_ms: u64,
        expect: Result<(), RefuseReason>,
        alarm: bool,
    }
    fn used(acceptor: &mut Acceptor) -> GrantFile {
        let file = fetch(acceptor, 0);
        join(acceptor, &file, 5, 1, NOW).unwrap();
        file
    }
    let case = |name, prepare, key, now_ms, expect, alarm| Case {
        name,
        prepare,
        key,
        now_ms,
        expect,
        alarm,
    };
    use RefuseReason::{BadProof, GrantExpired, GrantUsed};
    let table = [
        case("in time", |a| fetch(a, 0), 5, EXPIRES, Ok(()), false),
        case(
            "expired",
            |a| fetch(a, 0),
            5,
            EXPIRES + 1,
            Err(GrantExpired),
            false,
        ),
        case(
            "lost accept, same key",
            used,
            5,
            NOW + RETRY_MS,
            Ok(()),
            false,
        ),
        case(
            "same key too late",
            used,
            5,
            NOW + RETRY_MS + 1,
            Err(GrantUsed),
            false,
        ),
        case("another key", used, 6, NOW + 1, Err(GrantUsed), true),
        case(
            "another key, late",
            used,
            6,
            NOW + RETRY_MS + 1,
            Err(GrantUsed),
            true,
        ),
        case(
            "fetched twice, first secret",
            |a| {
                let first = fetch(a, 0);
                fetch(a, 0xaa);
                first
            },
            5,
            NOW,
            Err(BadProof),
            true,
        ),
        case(
            "fetched twice, second secret",
            |a| {
                fetch(a, 0);
                fetch(a, 0xaa)
            },
            5,
            NOW,
            Ok(()),
            false,
        ),
        case(
            "wrong node",
            |a| GrantFile {
                node: node(2),
                ..fetch(a, 0)
            },
            5,
            NOW,
            Err(GrantExpired),
            true,
        ),
        case(
            "wrong boot",
            |a| GrantFile {
                boot: boot(2),
                ..fetch(a, 0)
            },
            5,
            NOW,
            Err(GrantExpired),
            true,
        ),
        case(
            "wrong secret",
            |a| GrantFile {
                secret: Secret([0; 32]),
                ..fetch(a, 0)
            },
            5,
            NOW,
            Err(BadProof),
            true,
        ),
        case(
            "unknown grant",
            |a| GrantFile {
                grant: grant_id(9),
                ..fetch(a, 0)
            },
            5,
            NOW,
            Err(GrantExpired),
            false,
        ),
        case(
            "armed again",
            |a| {
                let file = fetch(a, 0);
                a.arm(NewGrant {
                    id: grant_id(8),
                    ..new_grant(1)
                });
                file
            },
            5,
            NOW,
            Err(GrantExpired),
            false,
        ),
        case(
            "disarmed",
            |a| {
                let file = fetch(a, 0);
                a.disarm(node(1));
                file
            },
            5,
            NOW,
            Err(GrantExpired),
            false,
        ),
    ];
    for case in table {
        let mut acceptor = armed();
        let file = (case.prepare)(&mut acceptor);
        let result = join(&mut acceptor, &file, case.key, 2, case.now_ms);
        let alarm = result
            .as_ref()
            .err()
            .is_some_and(|refusal| refusal.alarm.is_some());
        assert_eq!(
            result.map(drop).map_err(|refusal| refusal.reason),
            case.expect,
            "{}",
            case.name
        );
        assert_eq!(alarm, case.alarm, "{}", case.name);
    }
}

#[test]
fn two_parties_that_race_yield_one_key_and_an_alarm() {
    let mut acceptor = armed();
    let file = fetch(&mut acceptor, 0);
    let start = |acceptor: &mut Acceptor, key: u8, conn: u64| {
        let mut child = ChildJoin::with_grant(&file, identity(key), [key; 32]);
        let outcome = acceptor.hello(
            ConnId(conn),
            child.hello().clone(),
            channel(key),
            chance(key),
            NOW,
            true,
        );
        child
            .handle_challenge(&challenge(outcome.unwrap()))
            .unwrap()
    };
    let first = start(&mut acceptor, 5, 1);
    let second = start(&mut acceptor, 6, 2);
    assert!(acceptor.proof(ConnId(2), &second, NOW).is_ok());
    let refusal = acceptor.proof(ConnId(1), &first, NOW).unwrap_err();
    assert_eq!(refusal.reason, RefuseReason::GrantUsed);
    assert!(refusal.alarm.unwrap().contains("two keys claim node"));
}

#[test]
fn a_proof_is_good_for_one_connection() {
    let mut acceptor = armed();
    let file = fetch(&mut acceptor, 0);
    // A man in the middle has one TLS connection to each side, so the exporters differ.
    let refusal = join_over(&mut acceptor, &file, 5, 1, (1, 2), NOW).unwrap_err();
    assert_eq!(refusal.reason, RefuseReason::BadProof);
    assert!(
        acceptor.armed(node(1)).is_some(),
        "the grant stays good for its owner"
    );
    join(&mut acceptor, &file, 5, 2, NOW).unwrap();
}

#[test]
fn a_commit_that_failed_gives_the_grant_back() {
    let mut acceptor = armed();
    let file = fetch(&mut acceptor, 0);
    join(&mut acceptor, &file, 5, 1, NOW).unwrap();
    acceptor.unconsume(grant_id(1));
    assert!(acceptor.armed(node(1)).is_some());
    join(&mut acceptor, &file, 6, 2, NOW).unwrap();
}

#[test]
fn a_head_that_crashed_knows_its_grants_and_who_used_them() {
    let mut acceptor = armed();
    let file = fetch(&mut acceptor, 0);
    let mut restarted = Acceptor::default();
    restarted.load(acceptor.armed(node(1)).unwrap().clone());
    join(&mut restarted, &file, 5, 1, NOW).unwrap();

    let Some(Record::Grant(used)) = join(&mut acceptor, &file, 5, 1, NOW).unwrap().record else {
        panic!()
    };
    let mut restarted = Acceptor::default();
    restarted.load(used);
    // The secret is not stored, so the same key is refused too, but without an alarm: the node boots again.
    let same = join(&mut restarted, &file, 5, 1, NOW).unwrap_err();
    assert_eq!((same.reason, same.alarm), (RefuseReason::GrantUsed, None));
    assert!(
        join(&mut restarted, &file, 6, 2, NOW)
            .unwrap_err()
            .alarm
            .is_some()
    );
}

#[test]
fn grants_are_delivered_three_times() {
    let mut acceptor = armed();
    let first = acceptor.fetch(grant_id(1), [0xa1; 32], NOW).unwrap();
    assert_eq!((first.alarm.is_some(), first.node), (false, node(1)));
    for n in 2..=3 {
        let again = acceptor.fetch(grant_id(1), [0xa0 | n; 32], NOW).unwrap();
        assert!(again.alarm.is_some());
        let file: GrantFile = again.text.parse().unwrap();
        assert_eq!(file.secret, Secret([0xa0 | n; 32]));
        let Record::Grant(grant) = again.record else {
            panic!()
        };
        assert_eq!(
            (grant.deliveries, grant.secret),
            (u32::from(n), Some(file.secret))
        );
    }
    let refused = [
        (
            acceptor.fetch(grant_id(1), [0; 32], NOW),
            "arm the node again",
        ),
        (
            acceptor.fetch(grant_id(2), [0; 32], NOW),
            "there is no grant",
        ),
        (
            armed().fetch(grant_id(1), [0; 32], EXPIRES + 1),
            "has expired",
        ),
    ];
    for (result, expect) in refused {
        let text = result.unwrap_err();
        assert!(text.contains(expect), "{text}");
    }
    let mut acceptor = armed();
    let file = fetch(&mut acceptor, 0);
    join(&mut acceptor, &file, 5, 1, NOW).unwrap();
    assert!(
        acceptor
            .fetch(grant_id(1), [0; 32], NOW)
            .unwrap_err()
            .contains("is used")
    );
}

#[test]
fn arming_again_kills_the_older_grant() {
    let mut acceptor = armed();
    let records = acceptor.arm(NewGrant {
        id: grant_id(2),
        ..new_grant(1)
    });
    let [Record::GrantGone(gone), Record::Grant(grant)] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((*gone, grant.id), (grant_id(1), grant_id(2)));
    assert_eq!(acceptor.armed(node(1)).unwrap().id, grant_id(2));
}

#[test]
fn a_child_trusts_nothing_before_the_parents_proof() {
    let file = fetch(&mut armed(), 0);
    let challenge = ChallengeMessage {
        nonce: [3; 32],
        head_time_ms: NOW,
        version: 1,
    };
    let child = || ChildJoin::with_grant(&file, identity(5), [9; 32]);
    assert_eq!(
        child().handle_accept(&[0; 32], SessionId(1)).unwrap_err(),
        JoinError::Order("an accept")
    );

    let mut unasked = child();
    let other = ChallengeMessage {
        version: 2,
        ..challenge.clone()
    };
    assert_eq!(
        unasked.handle_challenge(&other).unwrap_err(),
        JoinError::Version(2)
    );

    let mut twice = child();
    let proof = twice.handle_challenge(&challenge).unwrap();
    assert_eq!(
        twice.handle_challenge(&challenge).unwrap_err(),
        JoinError::Order("a challenge")
    );
    // Reflection: our own proof is not the parent's.
    assert_eq!(
        twice.handle_accept(&proof.mac, SessionId(1)).unwrap_err(),
        JoinError::ParentProof
    );
    for mac in [&[][..], &[0; 32], &[0; 31]] {
        let mut child = child();
        child.handle_challenge(&challenge).unwrap();
        assert_eq!(
            child.handle_accept(mac, SessionId(1)).unwrap_err(),
            JoinError::ParentProof
        );
    }
}
