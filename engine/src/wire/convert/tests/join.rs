//! Messages of the join.

use super::*;

fn sample_hello() -> HelloMessage {
    HelloMessage {
        node: NodeId::from_bytes([1; 16]),
        grant: Some(GrantId(uuid::Uuid::from_bytes([2; 16]))),
        boot: uuid::Uuid::from_bytes([3; 16]),
        versions: vec![1],
        agent_version: "0.1.0".into(),
        public_key: vec![4; 91],
        nonce: [5; 32],
        cfg_version: 6,
    }
}

#[test]
fn joins_come_back() {
    let hello = sample_hello();
    assert_eq!(
        join_hello_from_proto(join_hello_to_proto(&hello)).unwrap(),
        hello
    );
    let rejoin = HelloMessage {
        grant: None,
        ..hello
    };
    assert_eq!(
        join_hello_from_proto(join_hello_to_proto(&rejoin)).unwrap(),
        rejoin
    );
    let challenge = ChallengeMessage {
        nonce: [1; 32],
        head_time_ms: 2,
        version: 3,
    };
    assert_eq!(
        challenge_from_proto(challenge_to_proto(&challenge)).unwrap(),
        challenge
    );
    for mac in [vec![], vec![7; 32]] {
        let proof = ProofMessage { mac };
        assert_eq!(proof_from_proto(proof_to_proto(&proof)).unwrap(), proof);
    }
    for reason in [
        RefuseReason::UnknownNode,
        RefuseReason::GrantExpired,
        RefuseReason::GrantUsed,
        RefuseReason::BadProof,
        RefuseReason::Version,
        RefuseReason::Certificate,
        RefuseReason::Busy,
    ] {
        let refused = refused_to_proto(reason, "why", 5);
        assert_eq!(
            refused_from_proto(refused).unwrap(),
            (reason, "why".into(), 5)
        );
    }
}

#[test]
fn joins_are_checked() {
    let edit = |edit: fn(&mut v1::JoinHello)| {
        let mut hello = join_hello_to_proto(&sample_hello());
        edit(&mut hello);
        join_hello_from_proto(hello)
    };
    check(
        edit(|hello| hello.node_id = vec![0; 16]),
        "node_id is the nil UUID",
    );
    check(
        edit(|hello| hello.node_id.push(0)),
        "node_id has 17 bytes, not 16",
    );
    check(
        edit(|hello| hello.grant_id = vec![1]),
        "grant_id has 1 bytes, not 16",
    );
    check(edit(|hello| hello.boot_id.clear()), "boot_id has 0 bytes");
    check(
        edit(|hello| hello.nonce.truncate(31)),
        "nonce has 31 bytes, not 32",
    );
    check(
        edit(|hello| hello.versions = vec![1; 17]),
        "versions has 17 items",
    );
    check(
        edit(|hello| hello.public_key = vec![1; 1025]),
        "public_key has 1025 bytes",
    );
    check(
        edit(|hello| hello.agent_version = "x".repeat(65)),
        "agent_version has 65 bytes",
    );
    check(
        proof_from_proto(v1::JoinProof { mac: vec![0; 31] }),
        "mac has 31 bytes, not 32",
    );
    let unknown = v1::JoinRefused {
        reason: 99,
        ..v1::JoinRefused::default()
    };
    check(
        refused_from_proto(unknown),
        "reason is 99, which this version does not know",
    );
}

fn sample_accepted() -> Accepted {
    let changes = vec![
        Change::set(url("/RunState"), "SYNC".into()),
        Change::set(url("/ipv4/boot/mtu"), 1500.into()),
    ];
    Accepted {
        node: NodeId::from_bytes([1; 16]),
        name: "n1".parse().unwrap(),
        session: SessionId(7),
        keys: SessionKeys {
            up: Secret([1; 32]),
            down: Secret([2; 32]),
        },
        mac: vec![3; 32],
        public_key: vec![4; 91],
        parent: NodeId::from_bytes([9; 16]),
        epoch: 5,
        cfg: (11, changes.clone()),
        cfg_signature: vec![6; 64],
        dsc: vec![Change::set(url("/PhysState"), "POWER_ON".into())],
        mutations: sample_set(),
    }
}

fn issued() -> Issued {
    Issued {
        certificate: vec![1, 2, 3],
        parent_address: String::new(),
        sync: SyncConfig::default(),
    }
}

#[test]
fn an_accept_says_what_the_engine_needs() {
    let accepted = sample_accepted();
    let accept = accept_from_proto(accept_to_proto(&accepted, issued())).unwrap();
    assert_eq!(
        (&accept.mac, &accept.certificate[..]),
        (&accepted.mac, &[1, 2, 3][..])
    );
    let values: Values = accepted
        .cfg
        .1
        .iter()
        .map(|change| (change.url.clone(), change.value.clone().unwrap()))
        .collect();
    assert_eq!(accept.cfg.digest, values.digest().short());
    let attach = accept.into_attach(ConnId(4));
    assert_eq!(
        (attach.session, attach.conn, attach.parent),
        (accepted.session, ConnId(4), accepted.parent)
    );
    assert_eq!(
        (attach.epoch, attach.name, attach.cfg),
        (5, accepted.name, accepted.cfg)
    );
    assert_eq!(
        (attach.cfg_signature, attach.dsc),
        (accepted.cfg_signature, accepted.dsc)
    );
    assert_eq!(
        (attach.mutations, attach.sync),
        (accepted.mutations, SyncConfig::default())
    );
}

#[test]
fn accepts_are_checked() {
    let edit = |edit: fn(&mut v1::JoinAccept)| {
        let mut accept = accept_to_proto(&sample_accepted(), issued());
        edit(&mut accept);
        accept_from_proto(accept)
    };
    check(edit(|accept| accept.cfg = None), "cfg.snapshot is missing");
    check(
        edit(|accept| accept.hello_ms = 0),
        "hello_ms is 0, not within 10 and 3600000",
    );
    check(
        edit(|accept| accept.dead_ms = 100),
        "dead_ms is 100, not within 2000",
    );
    check(
        edit(|accept| accept.certificate = vec![0; 16_385]),
        "certificate has 16385 bytes",
    );
    check(
        edit(|accept| accept.parent_id = vec![]),
        "parent_id has 0 bytes",
    );
    check(
        edit(|accept| accept.node_name = "a b".into()),
        "node_name \"a b\" is not a node name",
    );
    check(
        edit(|accept| {
            accept.dsc = Some(v1::Values {
                values: vec![text_change("", "x")],
            })
        }),
        "dsc.values[0].url \"\" is not a state url",
    );
}
