//! Faults of the catalogue that meet the engine itself, one test a row (docs/faults.md): restarts, bad writes, deletions, lies of nodes.

mod backup;
mod parents;

use super::*;
use crate::event::{ConnId, RequestId, SchemaEdit};
use crate::scenario::at_once;
use crate::state::Values;
use crate::sync::join::{
    Accepted, Channel, GrantId, HelloMessage, JoinOutcome, NewGrant, ProofMessage, Secret,
};
use crate::sync::message::{Delta, Frame, Hello};
use crate::sync::{SessionId, SyncConfig};

/// A node that an earlier run of the head saw in SYNC.
fn was_in_sync(number: u16, busy: bool) -> Node {
    let name = format!("n{number}").parse().unwrap();
    let mut node = Node::new(many(number), name, Some(HEAD));
    node.cfg.apply([change("/RunState=SYNC")]);
    node.last_known
        .dsc
        .apply([change("/RunState=SYNC"), change("/PhysState=POWER_ON")]);
    if busy {
        node.last_known.dsc.apply([change("/Busy=BUSY")]);
    }
    node
}

fn many(number: u16) -> NodeId {
    let mut bytes = [7; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

/// A head that starts at time zero with these nodes.
fn restarted(kept: &[Node]) -> Head {
    let mut head = Head::new();
    let mut engine = Engine::new(
        head.engine.config.clone(),
        (*head.engine.schema).clone(),
        head.now,
    );
    engine.restore_node(Node::new(HEAD, "head".parse().unwrap(), None));
    for node in kept {
        engine.restore_node(node.clone());
    }
    engine.restore_counters(50, 40, Frozen::default());
    head.engine = engine;
    head.input(Input::Declare(set_b()));
    head
}

/// The node's agent joins by its certificate. The session, or the refusal in words.
fn join(head: &mut Head, node: NodeId, conn: u64) -> Result<SessionId, String> {
    join_with(head, node, conn, 0).map(|accepted| accepted.session)
}

/// As [`join`], by an agent that obeys this version of its Cfg.
fn join_with(
    head: &mut Head,
    node: NodeId,
    conn: u64,
    cfg_version: u64,
) -> Result<Accepted, String> {
    let conn = ConnId(conn);
    let hello = HelloMessage {
        node,
        grant: None,
        boot: uuid::Uuid::from_bytes([1; 16]),
        versions: vec![1],
        agent_version: "test".into(),
        public_key: vec![1; 44],
        nonce: [3; 32],
        cfg_version,
    };
    let channel = Channel {
        exporter: [5; 32],
        certified: Some(node),
    };
    let mut chance = [9; 40];
    chance[32..].copy_from_slice(&conn.0.to_le_bytes());
    let (now, now_ms) = (head.now, 1_000);
    head.engine.handle_input(
        Input::JoinHello {
            conn,
            hello,
            channel,
            chance,
            now_ms,
        },
        now,
    );
    let proof = ProofMessage { mac: Vec::new() };
    let mut answer = Err("no answer".to_owned());
    let mut said = false;
    loop {
        while let Some(output) = at_once::poll(&mut head.engine, now) {
            match output {
                Output::Join {
                    outcome: JoinOutcome::Accept(accepted),
                    ..
                } => answer = Ok(*accepted),
                Output::Join {
                    outcome: JoinOutcome::Refuse { text, .. },
                    ..
                } => answer = Err(text),
                Output::Fire(fire) => head.fired.push(fire),
                Output::Event(event) => head.events.push(event),
                _ => {}
            }
        }
        if said {
            return answer;
        }
        said = true;
        let proof = proof.clone();
        head.engine.handle_input(
            Input::JoinProof {
                conn,
                proof,
                now_ms,
            },
            now,
        );
    }
}

/// The first report of a session.
fn report(values: &[&str]) -> Frame {
    let mut all = Values::default();
    all.apply(values.iter().map(|text| change(text)));
    Frame::Delta(Delta {
        base: 0,
        version: 1,
        changes: values.iter().map(|text| change(text)).collect(),
        digest: all.digest().short(),
        signature: Vec::new(),
        have: 0,
    })
}

fn hello() -> Frame {
    Frame::Hello(Hello {
        version: 0,
        digest: Values::default().digest().short(),
        have: 50,
        probe: false,
    })
}

/// To ask after the power changes nothing.
fn assert_only_questions(fired: &[String]) {
    let action = fired.iter().find(|name| *name != "power/UKtoOFF");
    assert_eq!(action, None, "a restart acts on nobody");
}

#[test]
fn f08_a_restarted_head_takes_a_thousand_nodes_back_and_fires_nothing() {
    let kept: Vec<Node> = (0..1_000).map(|n| was_in_sync(n, n % 3 == 0)).collect();
    let mut head = restarted(&kept);
    // Looks at the power come first: it is on, which alone would ask for a boot.
    for node in &kept {
        let found = Discovery {
            node: node.id,
            source: "power".into(),
            changes: vec![change("/PhysState=POWER_ON")],
        };
        head.input(Input::Discover(found));
    }
    for (number, node) in kept.iter().enumerate() {
        if number % 125 == 124 {
            head.sleep(1);
        }
        join(&mut head, node.id, number as u64 + 1).unwrap();
    }
    let back = kept.iter().filter(|node| {
        let node = head.engine.tree().get(node.id).unwrap();
        node.dsc.text(core::RUN_STATE) == Some(core::SYNC)
    });
    assert_eq!(back.count(), 1_000);
    assert_only_questions(&head.fired());
}

#[test]
fn f09_a_head_that_was_down_for_a_day_finds_its_nodes_at_work() {
    // The head: what it last knew is a day old, and the job may have ended since.
    let mut head = restarted(&[was_in_sync(1, true)]);
    let session = join(&mut head, many(1), 1).unwrap();
    head.input(Input::Frame {
        session,
        frame: report(&["/Busy=BUSY"]),
    });
    let node = head.engine.tree().get(many(1)).unwrap();
    assert_eq!(node.dsc.text(core::BUSY), Some(core::BUSY_BUSY));
    assert_only_questions(&head.fired());

    // The node: tries its parent again and again, for a day and more, with pauses that stay short.
    let config = EngineConfig {
        me: many(1),
        role: Role::Agent,
        ..head.engine.config.clone()
    };
    let mut agent = Engine::new(config, (*head.engine.schema).clone(), Instant::ZERO);
    let (mut attempts, mut longest) = (0, Duration::ZERO);
    let mut now = Instant::ZERO;
    let day = Instant::from_origin(Duration::from_secs(25 * 3600));
    while now < day {
        let at = agent.poll_timeout().expect("it never gives up");
        longest = longest.max(at.since(now));
        now = at;
        agent.handle_timeout(now);
        while let Some(output) = agent.poll_output() {
            if matches!(output, Output::Attach { .. }) {
                attempts += 1;
                agent.handle_input(
                    Input::Closed {
                        conn: ConnId(attempts),
                    },
                    now,
                );
            }
        }
    }
    assert!(attempts > 10_000, "{attempts}");
    assert!(
        longest <= Duration::from_secs(5),
        "a head that comes back is found soon: {longest:?}"
    );
}

#[test]
fn f10_an_intent_that_was_logged_and_lost_in_a_crash_is_not_taken_for_a_firing() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
    // The head dies between firing and result. The next one knows the number of the attempt, and nothing of what came of it.
    let mut kept = Node::new(id(1), "n1".parse().unwrap(), Some(HEAD));
    kept.cfg.apply([change("/PhysState=POWER_ON")]);
    let mut next = restarted(&[kept]);
    // An answer to the attempt of the dead head is nobody's.
    next.input(Input::MutationFailed {
        node: id(1),
        mutation: MutationId::new("power", "UKtoOFF"),
        attempt: 1,
        text: "late".into(),
    });
    let asked: Vec<u64> = next.fired.iter().map(|fire| fire.attempt).collect();
    assert_eq!(
        asked,
        [41],
        "it asks once, under a number that was never used"
    );
    // What the dead head had begun is found, and nothing is fired a second time.
    next.discover(1, &["/PhysState=POWER_ON"]);
    next.fired.clear();
    next.sleep(3600);
    assert_eq!(next.fired(), [""; 0]);
}

#[test]
fn f06_a_commit_that_hangs_holds_up_nobody_else() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.add(2, &[]);
    head.fired.clear();
    let session = join(&mut head, id(1), 1).unwrap();
    let ops = vec![WriteOp::Set {
        node: id(2),
        changes: vec![change("/PhysState=POWER_ON")],
    }];
    head.engine
        .handle_input(Input::Write(write(99, ops)), head.now);
    // Half a minute passes without a word from the store.
    let (mut pending, mut hellos) = (None, 0);
    let end = head.now + Duration::from_secs(30);
    while head.now < end {
        head.now = head.now + Duration::from_secs(1);
        head.engine.handle_timeout(head.now);
        head.engine.handle_input(
            Input::Frame {
                session,
                frame: hello(),
            },
            head.now,
        );
        let found = Discovery {
            node: id(1),
            source: "test".into(),
            changes: vec![change("/Busy=BUSY")],
        };
        head.engine.handle_input(Input::Discover(found), head.now);
        while let Some(output) = head.engine.poll_output() {
            match output {
                Output::Commit { commit, .. } => {
                    assert!(pending.replace(commit).is_none(), "one commit at a time");
                }
                Output::Send { .. } => hellos += 1,
                Output::Written { .. } => panic!("nothing is acknowledged that is not durable"),
                Output::EndSession { why, .. } => panic!("the child is well: {why}"),
                _ => {}
            }
        }
    }
    assert!(hellos >= 10, "the child is greeted all the time: {hellos}");
    assert_eq!(head.dsc(1, core::RUN_STATE), Some(core::SYNC));
    assert_eq!(head.dsc(1, core::BUSY), Some(core::BUSY_BUSY));
    let committed = Input::Committed {
        commit: pending.expect("the write is on its way"),
        result: Ok(()),
    };
    head.input(committed);
    assert!(head.written.pop().unwrap().is_ok());
}

#[test]
fn f22_a_second_holder_of_a_name_an_id_a_mac_or_an_address_is_refused_whole() {
    let mut head = Head::new();
    head.add(
        1,
        &[
            "/ipv4/boot/mac=52:54:00:00:00:01",
            "/ipv4/boot/address=192.0.2.1",
        ],
    );
    let revision = head.engine.revision();
    let node = |n: u8, name: &str, mac: &str| {
        let mut node = Node::new(id(n), name.parse().unwrap(), None);
        node.cfg
            .apply([change(&format!("/ipv4/boot/mac=52:54:00:00:00:{mac}"))]);
        WriteOp::Add(Box::new(node))
    };
    let with_address = |n: u8| {
        let mut node = Node::new(id(n), format!("n{n}").parse().unwrap(), None);
        node.cfg.apply([change("/ipv4/boot/address=192.0.2.1")]);
        WriteOp::Add(Box::new(node))
    };
    for (second, both) in [
        (node(2, "n1", "02"), ["n1", "exists already"]),
        (node(1, "n2", "02"), ["belongs to node n1", "id"]),
        (node(2, "n2", "01"), ["of node n2", "belongs to node n1"]),
        (
            with_address(2),
            ["192.0.2.1 of node n2", "belongs to node n1"],
        ),
    ] {
        // Each comes with a good one, of which nothing stays either.
        let result = head.write(vec![node(3, "n3", "03"), second]);
        let Err(WriteError::Taken(text)) = result else {
            panic!("{result:?}")
        };
        assert!(both.iter().all(|part| text.contains(part)), "{text}");
        assert_eq!(
            (head.engine.revision(), head.engine.tree().len()),
            (revision, 2)
        );
    }
    // Within one write, too.
    let twice = head.write(vec![node(2, "n2", "02"), node(3, "n3", "02")]);
    assert!(
        matches!(twice, Err(WriteError::Taken(text)) if text.contains("n2") && text.contains("n3"))
    );
    head.write(vec![node(2, "n2", "02"), node(3, "n3", "03")])
        .unwrap();
}

#[test]
fn f22_what_is_given_up_in_a_write_may_be_taken_in_it() {
    let mut head = Head::new();
    head.add(8, &["/ipv4/boot/mac=52:54:00:00:00:01"]);
    head.add(9, &["/ipv4/boot/mac=52:54:00:00:00:02"]);
    let set = |n: u8, mac: &str| WriteOp::Set {
        node: id(n),
        changes: vec![change(&format!("/ipv4/boot/mac={mac}"))],
    };
    // Two boards change places.
    head.write(vec![
        set(8, ""),
        set(9, "52:54:00:00:00:01"),
        set(8, "52:54:00:00:00:02"),
    ])
    .unwrap();
    assert!(head.write(vec![set(8, "52:54:00:00:00:01")]).is_err());
    // A board is replaced: same name and MAC, another identity, which sorts before the old one.
    let mut new = Node::new(id(1), "n8".parse().unwrap(), None);
    new.cfg.apply([change("/ipv4/boot/mac=52:54:00:00:00:02")]);
    head.write(vec![WriteOp::Delete(id(8)), WriteOp::Add(Box::new(new))])
        .unwrap();
    let named = head.engine.tree().by_name(&"n8".parse().unwrap()).unwrap();
    assert_eq!(named.id, id(1));
    assert!(head.engine.tree().get(id(8)).is_none());
    // The same identity with another name.
    let renamed = Node::new(id(1), "m1".parse().unwrap(), None);
    head.write(vec![
        WriteOp::Delete(id(1)),
        WriteOp::Add(Box::new(renamed)),
    ])
    .unwrap();
    assert!(head.engine.tree().by_name(&"n8".parse().unwrap()).is_none());
    assert_eq!(head.engine.tree().get(id(1)).unwrap().name.as_str(), "m1");
    head.write(vec![set(9, "52:54:00:00:00:02")]).unwrap();
}

/// Somebody asks for a grant's file.
fn fetch(head: &mut Head, grant: GrantId) -> Result<String, String> {
    let ask = Input::FetchGrant {
        request: RequestId(1),
        grant,
        secret: [4; 32],
        now_ms: 1_000,
    };
    head.engine.handle_input(ask, head.now);
    let mut answers =
        std::iter::from_fn(|| at_once::poll(&mut head.engine, head.now)).filter_map(|output| {
            match output {
                Output::Grant { result, .. } => Some(result),
                _ => None,
            }
        });
    answers.next().unwrap()
}

#[test]
fn an_agent_that_was_released_and_does_not_join_again_is_missed() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    join(&mut head, id(1), 1).unwrap();
    head.input(Input::Release(vec![id(1)]));
    assert_eq!(head.ended(), ["an operator released the node"]);
    assert_eq!(head.dsc(1, core::RUN_STATE), Some(core::SYNC));
    head.sleep(60);
    assert_eq!(head.dsc(1, core::RUN_STATE), Some(core::ERROR));
}

#[test]
fn f24_nodes_can_be_deleted_in_every_state_and_leave_nothing() {
    let mut head = Head::new();
    // Idle, mid-mutation, and with a session.
    head.add(1, &[]);
    head.add(2, &["/PhysState=POWER_ON"]);
    head.add(3, &["/RunState=SYNC"]);
    join(&mut head, id(3), 1).unwrap();
    // And with a boot grant that nobody has fetched yet.
    let grant = NewGrant {
        node: id(1),
        id: GrantId(uuid::Uuid::from_bytes([1; 16])),
        boot: uuid::Uuid::from_bytes([2; 16]),
        secret: Secret([3; 32]),
        expires_ms: 1_000_000,
    };
    let grant_id = grant.id;
    head.input(Input::Arm(grant));
    assert!(fetch(&mut head, grant_id).is_ok());
    assert!(matches!(
        head.write(vec![WriteOp::Delete(id(9))]),
        Err(WriteError::NoSuchNode(_))
    ));
    head.write((1..=3).map(|n| WriteOp::Delete(id(n))).collect())
        .unwrap();
    assert_eq!(
        head.interrupted.len(),
        1,
        "n2's firing; n3's had ended: {:?}",
        head.interrupted
    );
    assert_eq!(head.engine.tree().len(), 1);
    assert!(!head.engine.has_session(id(3)));
    assert!(join(&mut head, id(3), 2).is_err(), "it is nobody any more");
    assert!(fetch(&mut head, grant_id).is_err(), "nor can it become so");
    head.fired.clear();
    head.sleep(3600);
    assert_eq!(head.fired(), [""; 0], "no timer is left");
    head.discover(2, &["/PhysState=POWER_ON"]);
    assert_eq!(head.engine.tree().len(), 1, "a late report makes no node");
    // Everybody at once, and everybody back.
    for _ in 0..2 {
        let add = |n: u8| {
            let name = format!("n{n}").parse().unwrap();
            WriteOp::Add(Box::new(Node::new(id(n), name, None)))
        };
        head.write((1..=100).map(add).collect()).unwrap();
        head.write((1..=100).map(|n| WriteOp::Delete(id(n))).collect())
            .unwrap();
        assert_eq!(head.engine.tree().len(), 1);
    }
}

#[test]
fn f33_a_bmc_that_is_slower_than_any_timeout_is_told_a_bounded_number_of_times_and_believed() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert_eq!(head.fired(), ["power/UKtoOFF", "power/OFFtoON"]);
    // Two minutes for what has ten seconds: it counts as hanging, and what helps against that is tried, and takes as long.
    head.sleep(120);
    let tried = head.fired();
    assert!(
        tried.iter().all(|name| name == "power/HANGtoOFF"),
        "{tried:?}"
    );
    assert!((1..=3).contains(&tried.len()), "{tried:?}");
    let dsc = |head: &Head| head.dsc(1, core::PHYS_STATE).map(str::to_owned);
    assert_eq!(
        dsc(&head).as_deref(),
        Some("PHYS_HANG"),
        "nobody has found it off"
    );
    // What it does at last is what is so.
    head.discover(1, &["/PhysState=POWER_ON"]);
    head.sleep(3600);
    assert_eq!(dsc(&head).as_deref(), Some("POWER_ON"));
    assert_eq!(head.fired(), [""; 0]);
}

#[test]
fn f35_a_thaw_goes_on_from_what_is_then() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
    head.write(vec![WriteOp::FreezeCluster(true)]).unwrap();
    // What was under way ends, and nothing follows it.
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert_eq!(head.fired(), [""; 0]);
    assert!(head.interrupted.is_empty(), "a freeze interrupts nothing");
    // Meanwhile everything becomes different: somebody has switched the machine on by hand, and it is wanted off.
    head.discover(1, &["/PhysState=POWER_ON"]);
    head.set(1, "/PhysState=POWER_OFF").unwrap();
    head.sleep(3600);
    assert_eq!(head.fired(), [""; 0]);
    head.write(vec![WriteOp::FreezeCluster(false)]).unwrap();
    assert_eq!(head.fired(), ["power/ONtoOFF"], "planned anew from what is");
}

#[test]
fn s09_a_session_moves_nothing_but_what_its_own_node_may_report() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.add(2, &[]);
    let session = join(&mut head, id(1), 1).unwrap();
    head.events.clear();
    let before = head.engine.tree().get(id(1)).unwrap().clone();
    // Power is its parent's word, a MAC is Cfg, and the third is no url of any schema.
    let frame = report(&[
        "/PhysState=POWER_OFF",
        "/ipv4/boot/mac=52:54:00:00:00:09",
        "/no/such=1",
    ]);
    head.input(Input::Frame { session, frame });
    let after = head.engine.tree().get(id(1)).unwrap();
    assert_eq!((&after.dsc, &after.cfg), (&before.dsc, &before.cfg));
    assert!(head.engine.tree().get(id(2)).unwrap().dsc.is_empty());
    let refused = head.events.iter();
    let refused = refused
        .filter(|event| matches!(event, Event::Refused { node: Some(node), .. } if *node == id(1)));
    assert!(refused.count() >= 2, "{:?}", head.events);
    // Frames of a session that nobody has are nobody's.
    let frame = report(&["/Busy=BUSY"]);
    head.input(Input::Frame {
        session: SessionId(12345),
        frame,
    });
    assert_eq!(head.dsc(1, core::BUSY), None);
    assert_eq!(SyncConfig::default(), head.engine.config.sync);
}
