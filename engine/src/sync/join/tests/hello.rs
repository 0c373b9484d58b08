//! Hellos: whom they let in without a grant, which lead nowhere, and how many may be under way.

use super::*;

#[test]
fn a_rejoin_needs_a_certificate_of_that_node() {
    let table = [
        (Some(node(1)), Ok(())),
        (Some(node(2)), Err(RefuseReason::Certificate)),
        (None, Err(RefuseReason::Certificate)),
    ];
    for (certified, expect) in table {
        let mut acceptor = Acceptor::default();
        let mut child = ChildJoin::with_certificate(node(1), boot(1), identity(5), [9; 32]);
        let channel = Channel {
            exporter: [9; 32],
            certified,
        };
        let outcome = acceptor.hello(
            ConnId(1),
            child.hello().clone(),
            channel,
            chance(1),
            NOW,
            true,
        );
        assert_eq!(
            outcome.as_ref().map(drop).map_err(|refusal| refusal.reason),
            expect,
            "{certified:?}"
        );
        let Ok(outcome) = outcome else { continue };
        let proof = child.handle_challenge(&challenge(outcome)).unwrap();
        let proven = acceptor.proof(ConnId(1), &proof, NOW).unwrap();
        assert_eq!(
            (proven.grant, proven.record, &proven.mac[..]),
            (None, None, &[][..])
        );
        assert_eq!(
            child.handle_accept(&[], proven.session).unwrap(),
            proven.keys
        );
    }
}

#[test]
fn hellos_that_cannot_lead_anywhere_are_refused() {
    let hello = ChildJoin::with_grant(&fetch(&mut armed(), 0), identity(5), [9; 32])
        .hello()
        .clone();
    let old = HelloMessage {
        versions: vec![],
        ..hello.clone()
    };
    let future = HelloMessage {
        versions: vec![99],
        ..hello.clone()
    };
    for (name, hello, known, reason) in [
        ("no version", old, true, RefuseReason::Version),
        ("F52: unknown future", future, true, RefuseReason::Version),
        ("unknown node", hello, false, RefuseReason::UnknownNode),
    ] {
        let refusal = armed()
            .hello(ConnId(1), hello, channel(9), chance(1), NOW, known)
            .unwrap_err();
        assert_eq!(refusal.reason, reason, "{name}");
        assert!(
            !refusal.text.is_empty() && refusal.retry_after_ms == 0,
            "{name}"
        );
    }
}

#[test]
fn handshakes_are_bounded_in_number_and_time() {
    let mut acceptor = armed();
    let file = fetch(&mut acceptor, 0);
    let mut hello = |conn: u64, now_ms: u64| {
        let child = ChildJoin::with_grant(&file, identity(5), [9; 32]);
        acceptor.hello(
            ConnId(conn),
            child.hello().clone(),
            channel(9),
            chance(1),
            now_ms,
            true,
        )
    };
    for conn in 0..MAX_HANDSHAKES as u64 {
        hello(conn, NOW).unwrap();
    }
    let busy = hello(5_000, NOW + HANDSHAKE_MS).unwrap_err();
    assert_eq!(busy.reason, RefuseReason::Busy);
    assert!(busy.retry_after_ms >= 1_000);
    hello(5_001, NOW + HANDSHAKE_MS + 1).unwrap();
    assert_eq!(acceptor.handshakes(), 1, "the old ones ran out");

    let proof = ProofMessage { mac: vec![0; 32] };
    let late = acceptor
        .proof(ConnId(5_001), &proof, NOW + 2 * HANDSHAKE_MS + 2)
        .unwrap_err();
    assert_eq!(late.reason, RefuseReason::BadProof);
    assert!(late.text.contains("longer than 10 s"), "{}", late.text);
    let nothing = acceptor.proof(ConnId(5_001), &proof, NOW).unwrap_err();
    assert!(nothing.text.contains("without a hello"));
}

#[test]
fn one_connection_has_one_handshake() {
    let mut acceptor = armed();
    let file = fetch(&mut acceptor, 0);
    let child = ChildJoin::with_grant(&file, identity(5), [9; 32]);
    let hello = |acceptor: &mut Acceptor| {
        acceptor.hello(
            ConnId(1),
            child.hello().clone(),
            channel(9),
            chance(1),
            NOW,
            true,
        )
    };
    hello(&mut acceptor).unwrap();
    assert_eq!(
        hello(&mut acceptor).unwrap_err().reason,
        RefuseReason::BadProof
    );
    assert_eq!(acceptor.handshakes(), 0);
    hello(&mut acceptor).unwrap();
    acceptor.closed(ConnId(1));
    assert_eq!(acceptor.handshakes(), 0);
}
