use proptest::prelude::*;

use super::*;
use crate::state::NodeId;
use crate::sync::signature::CfgSigner;

const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(ms))
}

fn change(url: &str, value: &str) -> Change {
    let url = url.parse().unwrap();
    if value.is_empty() {
        Change::unset(url)
    } else {
        Change::set(url, Value::text(value))
    }
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs
        .iter()
        .map(|(url, value)| (url.parse().unwrap(), Value::text(*value)))
        .collect()
}

fn frames(neighbor: &mut Neighbor) -> Vec<Frame> {
    let outputs = std::iter::from_fn(|| neighbor.poll_output());
    outputs
        .filter_map(|output| match output {
            NeighborOutput::Send(frame) => Some(frame),
            _ => None,
        })
        .collect()
}

/// Parent and child over a link that carries frames after `delay`, or not.
struct Pair {
    parent: Neighbor,
    child: Neighbor,
    now: Instant,
    wire: Vec<(Instant, bool, Frame)>,
    events: Vec<(&'static str, NeighborOutput)>,
    sent: Vec<Frame>,
    cut: bool,
}

impl Pair {
    fn new(cfg: &[(&str, &str)], dsc: &[(&str, &str)]) -> Self {
        let session = SessionId(1);
        let config = SyncConfig::default();
        let cfg = Stream::new(7, values(cfg));
        Self {
            parent: Neighbor::new(
                session,
                config,
                at(0),
                cfg.clone(),
                Stream::new(0, Values::default()),
            ),
            child: Neighbor::new(session, config, at(0), Stream::new(1, values(dsc)), cfg),
            now: at(0),
            wire: Vec::new(),
            events: Vec::new(),
            sent: Vec::new(),
            cut: false,
        }
    }

    fn flush(&mut self) {
        for to_child in [true, false] {
            let sender = if to_child {
                &mut self.parent
            } else {
                &mut self.child
            };
            while let Some(output) = sender.poll_output() {
                match output {
                    NeighborOutput::Send(frame) => {
                        self.sent.push(frame.clone());
                        if !self.cut {
                            self.wire.push((self.now + MS, to_child, frame));
                        }
                    }
                    other => self
                        .events
                        .push((if to_child { "parent" } else { "child" }, other)),
                }
            }
        }
    }

    fn run(&mut self, until: Instant) {
        loop {
            self.flush();
            let frame = self.wire.iter().map(|(at, ..)| *at).min();
            let timers = [self.parent.poll_timeout(), self.child.poll_timeout(), frame];
            let Some(next) = timers
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= until)
            else {
                self.now = until;
                return;
            };
            assert!(next >= self.now, "time runs forward");
            self.now = next;
            self.parent.handle_timeout(next);
            self.child.handle_timeout(next);
            let (due, later) = std::mem::take(&mut self.wire)
                .into_iter()
                .partition(|(at, ..)| *at <= next);
            self.wire = later;
            let due: Vec<(Instant, bool, Frame)> = due;
            for (_, to_child, frame) in due {
                let receiver = if to_child {
                    &mut self.child
                } else {
                    &mut self.parent
                };
                receiver.handle_frame(frame, next);
            }
        }
    }

    fn received(&self, who: &str) -> usize {
        let received = |(side, event): &&(&str, NeighborOutput)| {
            *side == who && matches!(event, NeighborOutput::Received { .. })
        };
        self.events.iter().filter(received).count()
    }

    fn saw(&self, who: &'static str, what: &NeighborOutput) -> bool {
        self.events
            .iter()
            .any(|(side, event)| *side == who && event == what)
    }
}

#[test]
fn streams_meet_after_the_first_hellos() {
    let mut pair = Pair::new(&[("/a", "1")], &[("/PhysState", "POWER_ON")]);
    pair.run(at(10));
    assert_eq!(pair.parent.remote(), &values(&[("/PhysState", "POWER_ON")]));
    assert!(pair.parent.is_acknowledged() && pair.child.is_acknowledged());
    assert_eq!((pair.received("parent"), pair.received("child")), (1, 0));
}

#[test]
fn a_change_leaves_at_once_and_is_acknowledged_at_once() {
    let mut pair = Pair::new(&[("/a", "1"), ("/b", "2")], &[]);
    pair.run(at(100));
    pair.sent.clear();
    pair.parent.update(8, &[change("/a", "9")], vec![], at(100));
    pair.run(at(110));
    assert_eq!(pair.child.remote(), &values(&[("/a", "9"), ("/b", "2")]));
    assert_eq!(pair.child.remote_version(), 8);
    assert!(pair.parent.is_acknowledged());
    let kinds: Vec<bool> = pair
        .sent
        .iter()
        .map(|frame| matches!(frame, Frame::Delta(_)))
        .collect();
    assert_eq!(
        kinds,
        [true, false],
        "one delta, one hello: {:?}",
        pair.sent
    );
}

#[test]
fn a_lost_change_is_sent_again_with_doubled_patience() {
    let mut pair = Pair::new(&[("/a", "1")], &[]);
    pair.run(at(100));
    pair.cut = true;
    pair.sent.clear();
    pair.parent.update(8, &[change("/a", "2")], vec![], at(100));
    let mut times = Vec::new();
    for ms in (100..5_000).step_by(10) {
        let before = pair.sent.len();
        pair.run(at(ms));
        let deltas = pair.sent[before..]
            .iter()
            .filter(|frame| matches!(frame, Frame::Delta(_)))
            .count();
        times.extend(std::iter::repeat_n(ms, deltas));
    }
    assert_eq!(
        times,
        [100, 400, 1000, 2200, 4200],
        "300 ms, doubling up to a hello"
    );
    pair.cut = false;
    pair.parent
        .update(9, &[change("/b", "3")], vec![], at(5_000));
    pair.run(at(7_500));
    assert_eq!(
        pair.child.remote(),
        &values(&[("/a", "2"), ("/b", "3")]),
        "the delta holds all that is not acknowledged"
    );
}

#[test]
fn a_flood_of_changes_waits_for_acknowledgements() {
    let mut pair = Pair::new(&[("/a", "1")], &[]);
    pair.run(at(100));
    pair.sent.clear();
    for n in 0..1000 {
        pair.parent
            .update(8 + n, &[change(&format!("/x{n}"), "v")], vec![], at(100));
    }
    pair.flush();
    assert_eq!(pair.sent.len(), MAX_IN_FLIGHT as usize);
    pair.run(at(110));
    assert_eq!(pair.child.remote_version(), 1007);
    assert_eq!(pair.child.remote().len(), 1001);
}

#[test]
fn only_newer_versions_are_applied() {
    let mut child = Neighbor::new(
        SessionId(1),
        SyncConfig::default(),
        at(0),
        Stream::new(0, Values::default()),
        Stream::new(5, values(&[("/a", "5")])),
    );
    frames(&mut child);
    let delta = |base, version, value: &str| {
        Frame::Delta(Delta {
            base,
            version,
            changes: vec![change("/a", value)],
            digest: values(&[("/a", value)]).digest().short(),
            signature: vec![],
            have: 0,
        })
    };
    let snapshot = |version, value: &str| {
        Frame::Snapshot(Snapshot {
            version,
            values: vec![change("/a", value)],
            digest: values(&[("/a", value)]).digest().short(),
            signature: vec![],
            have: 0,
        })
    };
    // (frame, version after it, what the child asks for or says)
    let table = [
        ("stale delta", delta(3, 4, "4"), 5, "hello"),
        ("same delta", delta(4, 5, "4"), 5, "hello"),
        ("stale snapshot", snapshot(4, "4"), 5, "hello"),
        ("gap", delta(6, 7, "7"), 5, "request"),
        ("next", delta(5, 6, "6"), 6, "hello"),
        ("overlap", delta(2, 8, "8"), 8, "hello"),
        ("old again", delta(5, 6, "6"), 8, "hello"),
        ("snapshot", snapshot(20, "20"), 20, "hello"),
    ];
    for (name, frame, version, says) in table {
        child.handle_frame(frame, at(1));
        assert_eq!(child.remote_version(), version, "{name}");
        let sent = frames(&mut child);
        let said = match &sent[..] {
            [Frame::Hello(hello)] if hello.have == version => "hello",
            [Frame::SnapshotRequest { have }] if *have == version => "request",
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(said, says, "{name}");
    }
    assert_eq!(child.remote(), &values(&[("/a", "20")]));
}

#[test]
fn a_difference_at_one_version_is_repaired() {
    let mut pair = Pair::new(&[("/a", "1")], &[]);
    pair.run(at(100));
    // As if a bit had flipped in memory.
    pair.child.remote = Stream::new(7, values(&[("/a", "x")]));
    pair.run(at(2_100));
    assert_eq!(pair.child.remote(), &values(&[("/a", "1")]));
}

#[test]
fn snapshot_requests_cannot_be_used_as_an_amplifier() {
    let mut pair = Pair::new(&[("/a", "1")], &[]);
    pair.run(at(1_000));
    frames(&mut pair.parent);
    for ms in 1_000..2_000 {
        pair.parent
            .handle_frame(Frame::SnapshotRequest { have: 7 }, at(ms));
        pair.parent.handle_timeout(at(ms));
    }
    let snapshots = frames(&mut pair.parent)
        .into_iter()
        .filter(|frame| matches!(frame, Frame::Snapshot(_)));
    assert_eq!(snapshots.count(), 4, "one each 300 ms");
}

#[test]
fn silence_is_suspect_then_probed_then_dead() {
    let mut pair = Pair::new(&[], &[]);
    pair.run(at(100));
    pair.cut = true;
    pair.run(at(2_000));
    let heard = pair.parent.last_heard();
    pair.run(heard + Duration::from_millis(5_999));
    assert!(!pair.parent.is_suspect());
    pair.sent.clear();
    pair.run(heard + Duration::from_millis(9_999));
    assert!(pair.saw("parent", &NeighborOutput::Suspect) && !pair.parent.is_dead());
    let probes = pair
        .sent
        .iter()
        .filter(|frame| matches!(frame, Frame::Hello(hello) if hello.probe));
    assert!(probes.count() >= MAX_PROBES as usize, "both sides probe");
    pair.run(heard + Duration::from_secs(10));
    assert!(pair.parent.is_dead() && pair.saw("parent", &NeighborOutput::Dead));
    assert_eq!(pair.parent.poll_timeout(), None);
    pair.parent
        .handle_frame(Frame::SnapshotRequest { have: 0 }, at(60_000));
    pair.parent.handle_timeout(at(60_000));
    assert_eq!(pair.parent.poll_output(), None, "nothing comes after death");
}

#[test]
fn one_frame_makes_a_suspect_alive() {
    let mut pair = Pair::new(&[], &[]);
    pair.run(at(100));
    pair.cut = true;
    pair.run(at(9_000));
    assert!(pair.parent.is_suspect() && pair.child.is_suspect());
    pair.cut = false;
    pair.run(at(9_300));
    assert!(
        !pair.parent.is_suspect() && !pair.child.is_suspect(),
        "a probe is answered at once"
    );
    assert!(pair.saw("parent", &NeighborOutput::Alive));
}

#[test]
fn a_child_obeys_only_what_the_cluster_signed() {
    let signer = CfgSigner::from_seed(&[1; 32]).unwrap();
    let node = NodeId::from_bytes([3; 16]);
    let verifier = CfgVerifier {
        public_key: signer.public_key(),
        node,
        epoch: 1,
    };
    let next = Stream::new(8, values(&[("/a", "2")]));
    let signature = signer.sign(node, 1, 8, next.digest());
    let other_node = signer.sign(NodeId::from_bytes([4; 16]), 1, 8, next.digest());
    let stranger = CfgSigner::from_seed(&[2; 32])
        .unwrap()
        .sign(node, 1, 8, next.digest());
    for (name, signature, applied) in [
        ("none", vec![], false),
        ("another node's", other_node, false),
        ("a stranger's", stranger, false),
        ("genuine", signature, true),
    ] {
        let mut child = Neighbor::new(
            SessionId(1),
            SyncConfig::default(),
            at(0),
            Stream::new(0, Values::default()),
            Stream::new(7, values(&[("/a", "1")])),
        )
        .verify_with(verifier.clone());
        frames(&mut child);
        let delta = Delta {
            base: 7,
            version: 8,
            changes: vec![change("/a", "2")],
            digest: next.digest().short(),
            signature,
            have: 0,
        };
        child.handle_frame(Frame::Delta(delta), at(1));
        assert_eq!(child.remote_version() == 8, applied, "{name}");
        let refused = child.poll_output() == Some(NeighborOutput::Refused(RefusedFrame::Signature));
        assert_eq!(refused, !applied, "{name}");
    }
}

#[test]
fn a_neighbor_cannot_fill_our_memory_or_invent_versions() {
    let mut parent = Neighbor::new(
        SessionId(1),
        SyncConfig::default(),
        at(0),
        Stream::new(0, Values::default()),
        Stream::new(0, Values::default()),
    );
    frames(&mut parent);
    let snapshot = |values: &Values| {
        Frame::Snapshot(Snapshot {
            version: 1,
            values: values.to_changes(),
            digest: values.digest().short(),
            signature: vec![],
            have: 0,
        })
    };
    let many: Values = (0..=MAX_VALUES)
        .map(|n| (format!("/x{n}").parse().unwrap(), Value::Int(1)))
        .collect();
    let sized = |bytes: usize| -> Values {
        (0..16)
            .map(|n| {
                (
                    format!("/x{n:02}").parse().unwrap(),
                    Value::text("y".repeat(bytes / 16 - 4)),
                )
            })
            .collect()
    };
    for values in [many, sized(MAX_STATE_BYTES + 16)] {
        parent.handle_frame(snapshot(&values), at(1));
        assert_eq!(
            parent.poll_output(),
            Some(NeighborOutput::Refused(RefusedFrame::TooLarge))
        );
        assert_eq!(parent.remote_version(), 0);
    }
    parent.handle_frame(snapshot(&sized(MAX_STATE_BYTES)), at(1));
    assert_eq!(parent.remote_version(), 1, "exactly the limit fits");
    frames(&mut parent);
    parent.handle_frame(Frame::SnapshotRequest { have: 99 }, at(1));
    assert_eq!(
        parent.poll_output(),
        Some(NeighborOutput::Refused(RefusedFrame::Acknowledgement))
    );
    let mut lying = Stream::new(2, Values::default());
    lying.digest = Digest([1; 32]);
    let frame = Frame::Snapshot(Snapshot {
        version: 2,
        values: vec![],
        digest: lying.digest.short(),
        signature: vec![],
        have: 0,
    });
    frames(&mut parent);
    parent.handle_frame(frame, at(1));
    assert_eq!(
        parent.poll_output(),
        Some(NeighborOutput::Refused(RefusedFrame::Digest))
    );
}

#[test]
#[should_panic(expected = "versions of a stream rise")]
fn our_own_versions_never_go_down() {
    let mut pair = Pair::new(&[], &[]);
    pair.parent.update(7, &[], vec![], at(1));
}

#[derive(Clone, Debug)]
enum Step {
    Change { parent: bool, url: u8, value: u8 },
    Wait(u16),
    Lose(u8),
    Duplicate(u8),
    Delay(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 0..6u8, 0..4u8).prop_map(|(parent, url, value)| Step::Change { parent, url, value }),
        3 => (0..900u16).prop_map(Step::Wait),
        2 => any::<u8>().prop_map(Step::Lose),
        1 => any::<u8>().prop_map(Step::Duplicate),
        1 => any::<u8>().prop_map(Step::Delay),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is lost, doubled or late: versions never go back, what is applied was once sent, and both agree in the end.
    #[test]
    fn streams_agree_in_the_end(steps in proptest::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new(&[("/a", "1")], &[]);
        let mut history: BTreeMap<(bool, u64), Values> = BTreeMap::new();
        let (mut version, mut seen) = ([7, 1], [0, 7]);
        history.insert((true, 7), pair.parent.local().values().clone());
        history.insert((false, 0), Values::default());
        history.insert((false, 1), Values::default());
        for step in steps {
            let frame_at = |n: u8, wire: &[(Instant, bool, Frame)]| (!wire.is_empty()).then(|| usize::from(n) % wire.len());
            match step {
                Step::Change { parent, url, value } => {
                    let value = if value == 0 { String::new() } else { value.to_string() };
                    let (side, at) = if parent { (&mut pair.parent, 0) } else { (&mut pair.child, 1) };
                    version[at] += 1;
                    side.update(version[at], &[change(&format!("/u{url}"), &value)], vec![], pair.now);
                    history.insert((parent, version[at]), side.local().values().clone());
                    pair.flush();
                }
                Step::Wait(ms) => pair.run(pair.now + Duration::from_millis(ms.into())),
                Step::Lose(n) => if let Some(at) = frame_at(n, &pair.wire) { pair.wire.remove(at); },
                Step::Duplicate(n) => if let Some(at) = frame_at(n, &pair.wire) {
                    let again = pair.wire[at].clone();
                    pair.wire.push((again.0 + MS * 700, again.1, again.2));
                },
                Step::Delay(n) => if let Some(at) = frame_at(n, &pair.wire) { pair.wire[at].0 = pair.wire[at].0 + MS * 1500; },
            }
            let now = [pair.parent.remote_version(), pair.child.remote_version()];
            prop_assert!(now[0] >= seen[0] && now[1] >= seen[1], "a version went back: {:?} after {:?}", now, seen);
            seen = now;
            prop_assert_eq!(pair.parent.remote(), &history[&(false, seen[0])]);
            prop_assert_eq!(pair.child.remote(), &history[&(true, seen[1])]);
        }
        pair.run(pair.now + Duration::from_secs(5));
        prop_assert_eq!(pair.parent.remote(), pair.child.local().values());
        prop_assert_eq!(pair.child.remote(), pair.parent.local().values());
        prop_assert!(pair.parent.is_acknowledged() && pair.child.is_acknowledged());
        prop_assert!(!pair.saw("parent", &NeighborOutput::Dead));
    }
}
