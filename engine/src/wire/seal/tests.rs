use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::state::Values;
use crate::sync::SyncConfig;
use crate::sync::message::Hello;
use crate::sync::neighbor::{Neighbor, Stream};
use crate::time::Instant;

const SESSION: SessionId = SessionId(0x1122_3344_5566_7788);

fn keys(n: u8) -> SessionKeys {
    SessionKeys {
        up: Secret([n; 32]),
        down: Secret([n + 100; 32]),
    }
}

fn parties() -> Parties {
    Parties {
        parent: NodeId::from_bytes([1; 16]),
        child: NodeId::from_bytes([2; 16]),
        epoch: 3,
    }
}

fn parent() -> (Sealer, Opener) {
    session_ends(End::Parent, SESSION, &keys(1), parties())
}

fn child() -> (Sealer, Opener) {
    session_ends(End::Child, SESSION, &keys(1), parties())
}

fn hello() -> Frame {
    Frame::Hello(Hello {
        version: 1,
        digest: 2,
        have: 3,
        probe: false,
    })
}

fn sessions(end: End) -> Sessions {
    let mut sessions = Sessions::default();
    sessions.insert(end, SESSION, &keys(1), parties());
    sessions
}

fn dropped(sessions: &Sessions, reason: DropReason) -> u64 {
    sessions
        .drops()
        .find(|(other, _)| *other == reason)
        .unwrap()
        .1
}

/// Computed with Python's `cryptography` from docs/sync-protocol.md: the wire format must not drift.
#[test]
fn a_frame_has_the_documented_bytes() {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (mut sealer, _) = child();
    sealer.seal(b"first").unwrap();
    let sealed = sealer.seal(b"kraken").unwrap();
    assert_eq!(
        hex(&sealed),
        "010100008877665544332211010000000000000026484a78eda6ce6e0dbac5241fc13681429d5e01e67b"
    );
}

#[test]
fn frames_pass_both_ways() {
    let (mut up, mut down) = (sessions(End::Child), sessions(End::Parent));
    for _ in 0..3 {
        let datagram = up.seal(SESSION, &hello()).unwrap();
        assert_eq!(down.open(&datagram), Ok((SESSION, hello())));
        let datagram = down.seal(SESSION, &hello()).unwrap();
        assert_eq!(up.open(&datagram), Ok((SESSION, hello())));
    }
    assert!(down.drops().all(|(_, count)| count == 0));
}

/// F17: each forgery is dropped for its reason, counted, and changes nothing.
#[test]
fn forgeries_are_dropped_and_change_nothing() {
    let mut receiver = sessions(End::Parent);
    let mut sender = sessions(End::Child);
    let first = sender.seal(SESSION, &hello()).unwrap();
    receiver.open(&first).unwrap();
    let fresh = sender.seal(SESSION, &hello()).unwrap();

    let with = |at: usize, xor: u8| {
        let mut bytes = fresh.clone();
        bytes[at] ^= xor;
        bytes
    };
    let reflected = sessions(End::Parent).seal(SESSION, &hello()).unwrap();
    let mut other_session = Sessions::default();
    other_session.insert(End::Child, SESSION, &keys(9), parties());
    let other_epoch = Parties {
        epoch: 4,
        ..parties()
    };
    let other_child = Parties {
        child: NodeId::from_bytes([7; 16]),
        ..parties()
    };
    let sealed_as = |parties: Parties| {
        let mut sessions = Sessions::default();
        sessions.insert(End::Child, SESSION, &keys(1), parties);
        sessions.seal(SESSION, &hello()).unwrap()
    };
    let mut jumped = fresh.clone();
    jumped[12..20].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let table = [
        ("nothing", vec![], DropReason::Short),
        ("truncated header", fresh[..19].to_vec(), DropReason::Short),
        (
            "truncated tag",
            fresh[..OVERHEAD - 1].to_vec(),
            DropReason::Short,
        ),
        (
            "truncated body",
            fresh[..fresh.len() - 1].to_vec(),
            DropReason::Forged,
        ),
        ("oversized", vec![1; MAX_DATAGRAM + 1], DropReason::Long),
        ("version", with(0, 2), DropReason::Format),
        ("type", with(1, 2), DropReason::Format),
        ("flags", with(2, 1), DropReason::Format),
        ("session", with(4, 1), DropReason::Session),
        ("counter", with(12, 1), DropReason::Forged),
        ("counter far ahead", jumped, DropReason::Forged),
        (
            "counter beyond the last",
            with(19, 0xff),
            DropReason::Format,
        ),
        ("body", with(HEADER_BYTES, 1), DropReason::Forged),
        ("tag", with(fresh.len() - 1, 0x80), DropReason::Forged),
        ("replayed", first.clone(), DropReason::Replayed),
        ("reflected", reflected, DropReason::Forged),
        (
            "cross-session",
            other_session.seal(SESSION, &hello()).unwrap(),
            DropReason::Forged,
        ),
        ("another epoch", sealed_as(other_epoch), DropReason::Forged),
        ("another child", sealed_as(other_child), DropReason::Forged),
    ];
    for (name, datagram, reason) in table {
        let before = dropped(&receiver, reason);
        assert_eq!(receiver.open(&datagram), Err(reason.into()), "{name}");
        assert_eq!(dropped(&receiver, reason), before + 1, "{name}");
    }
    assert_eq!(
        receiver.open(&fresh),
        Ok((SESSION, hello())),
        "the genuine frame still passes"
    );
}

/// F18, K7: authentic garbage has a culprit, a stranger's garbage has none.
#[test]
fn an_authentic_peer_that_sends_garbage_is_named() {
    let (mut sealer, _) = child();
    let mut receiver = sessions(End::Parent);
    for payload in [&b"\xff\xff\xff"[..], b"", b"\x12\x80\x80\x80\x80\x04"] {
        let dropped = receiver.open(&sealer.seal(payload).unwrap()).unwrap_err();
        assert_eq!(dropped.reason, DropReason::Malformed);
        assert_eq!(dropped.culprit, Some(SESSION));
    }
}

#[test]
fn a_session_that_is_gone_is_unknown() {
    let mut receiver = sessions(End::Parent);
    let datagram = sessions(End::Child).seal(SESSION, &hello()).unwrap();
    assert!(receiver.remove(SESSION) && !receiver.remove(SESSION) && receiver.is_empty());
    assert_eq!(receiver.open(&datagram), Err(DropReason::Session.into()));
    assert_eq!(receiver.seal(SESSION, &hello()), Err(SealError::Session));
}

#[test]
fn a_datagram_holds_exactly_its_limit() {
    let (mut sealer, _) = child();
    let (_, mut opener) = parent();
    let sealed = sealer.seal(&[7; MAX_PAYLOAD]).unwrap();
    assert_eq!(sealed.len(), MAX_DATAGRAM);
    assert_eq!(opener.open(&sealed).unwrap(), [7; MAX_PAYLOAD]);
    assert_eq!(
        sealer.seal(&[7; MAX_PAYLOAD + 1]),
        Err(SealError::TooLong(MAX_PAYLOAD + 1))
    );
    assert_eq!(sealer.counter, 1, "a refused frame uses no counter");
    sealer.counter = MAX_FRAMES - 1;
    opener.open(&sealer.seal(b"last").unwrap()).unwrap();
    assert_eq!(sealer.seal(b"one more"), Err(SealError::Exhausted));
}

#[test]
fn keys_cannot_be_printed() {
    let shown = format!("{:?}", sessions(End::Child));
    assert_eq!(shown.matches("1122334455667788").count(), 1, "{shown}");
    assert!(!shown.contains("1, 1"), "{shown}");
}

proptest! {
    #[test]
    fn every_payload_comes_back(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let ((mut sealer, _), (_, mut opener)) = (child(), parent());
        for payload in payloads {
            let sealed = sealer.seal(&payload).unwrap();
            prop_assert_eq!(opener.open(&sealed).unwrap(), payload);
        }
    }

    #[test]
    fn no_flipped_bit_passes(payload in proptest::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let ((mut sealer, _), (_, mut opener)) = (child(), parent());
        let sealed = sealer.seal(&payload).unwrap();
        let mut flipped = sealed.clone();
        let at = at.index(flipped.len());
        flipped[at] ^= 1 << bit;
        prop_assert!(opener.open(&flipped).is_err());
        prop_assert_eq!(opener.open(&sealed).unwrap(), payload);
    }

    #[test]
    fn no_piece_passes(payload in proptest::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>()) {
        let ((mut sealer, _), (_, mut opener)) = (child(), parent());
        let sealed = sealer.seal(&payload).unwrap();
        prop_assert!(opener.open(&sealed[..at.index(sealed.len())]).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        prop_assert!(sessions(End::Parent).open(&bytes).is_err());
    }

    /// The window against the plain model: a set of all counters that came.
    #[test]
    fn the_window_agrees_with_a_set(jumps in proptest::collection::vec((any::<bool>(), 0..1500u64), 1..400)) {
        let (mut window, mut seen, mut newest) = (ReplayWindow::default(), BTreeSet::new(), 0_u64);
        for (back, distance) in jumps {
            let counter = if back { newest.saturating_sub(distance) } else { newest + distance % 80 * (distance % 17) };
            let expect = !seen.contains(&counter) && counter + WINDOW_BITS > newest;
            prop_assert_eq!(window.accept(counter), expect, "counter {} after {}", counter, newest);
            if expect {
                seen.insert(counter);
                newest = newest.max(counter);
            }
        }
    }
}

#[test]
fn the_window_has_edges() {
    let mut window = ReplayWindow::default();
    assert!(window.accept(0) && !window.accept(0));
    assert!(window.accept(WINDOW_BITS));
    assert!(!window.accept(0), "just outside");
    assert!(window.accept(1), "just inside");
    assert!(window.accept(u64::MAX - 1));
    assert!(!window.accept(1));
    assert!(
        !window.accept(u64::MAX) && !window.accept(u64::MAX),
        "the last number has no successor"
    );
}

/// The corpus of the fuzz target `sync_frame`: as datagrams of a stranger, and as what a peer with the keys may send.
#[test]
fn the_corpus_is_survived() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/sync_frame");
    let (mut seen, mut read) = (0, 0);
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(
            sessions(End::Parent).open(&bytes).is_err(),
            "{}",
            path.display()
        );
        let frame = decode_frame(&bytes);
        let (mut sealer, _) = child();
        let opened = sealer
            .seal(&bytes)
            .map(|datagram| sessions(End::Parent).open(&datagram));
        if let Ok(opened) = opened {
            assert_eq!(opened.is_ok(), frame.is_ok(), "{}", path.display());
        }
        seen += 1;
        let Ok(frame) = frame else { continue };
        read += 1;
        assert_eq!(
            decode_frame(&encode_frame(&frame)).as_ref(),
            Ok(&frame),
            "{}",
            path.display()
        );
        let empty = || Stream::new(0, Values::default());
        let mut neighbor = Neighbor::new(
            SESSION,
            SyncConfig::default(),
            Instant::ZERO,
            empty(),
            empty(),
        );
        neighbor.handle_frame(frame, Instant::ZERO);
        assert!(neighbor.poll_output().is_some());
    }
    assert!(
        seen >= 20 && read >= 8,
        "{seen} files, {read} of them frames, in {}",
        corpus.display()
    );
}
