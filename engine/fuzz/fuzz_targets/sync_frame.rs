//! Any bytes as a datagram from a stranger, and as the payload of a peer that has the keys; what is read goes into a neighbor.
#![no_main]

use engine::state::{NodeId, Values};
use engine::sync::join::{Secret, SessionKeys};
use engine::sync::neighbor::{Neighbor, Stream};
use engine::sync::{SessionId, SyncConfig};
use engine::time::Instant;
use engine::wire::convert::{decode_frame, encode_frame};
use engine::wire::seal::{End, Parties, Sessions, session_ends};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let session = SessionId(1);
    let keys = SessionKeys {
        up: Secret([1; 32]),
        down: Secret([2; 32]),
    };
    let parties = Parties {
        parent: NodeId::from_bytes([1; 16]),
        child: NodeId::from_bytes([2; 16]),
        epoch: 1,
    };
    let mut parent = Sessions::default();
    parent.insert(End::Parent, session, &keys, parties);
    assert!(
        parent.open(bytes).is_err(),
        "nobody without the keys gets in"
    );
    let (mut sealer, _) = session_ends(End::Child, session, &keys, parties);
    if let Ok(datagram) = sealer.seal(bytes) {
        let opened = parent.open(&datagram).is_ok();
        assert_eq!(opened, decode_frame(bytes).is_ok());
    }
    let Ok(frame) = decode_frame(bytes) else {
        return;
    };
    assert_eq!(
        decode_frame(&encode_frame(&frame)).as_ref(),
        Ok(&frame),
        "what is read can be written"
    );
    let empty = || Stream::new(0, Values::default());
    let mut neighbor = Neighbor::new(
        session,
        SyncConfig::default(),
        Instant::ZERO,
        empty(),
        empty(),
    );
    neighbor.handle_frame(frame, Instant::ZERO);
    let digest = neighbor.remote().digest();
    while neighbor.poll_output().is_some() {}
    if let Some(at) = neighbor.poll_timeout() {
        neighbor.handle_timeout(at);
    }
    assert_eq!(
        neighbor.remote().digest(),
        digest,
        "time alone changes no values"
    );
});
