//! From power-off to a session and back again: the head's whole chain, with a file for a power plug and a test for an agent.

use engine::state::{Change, NodeId, Value, Values};
use engine::sync::join::RefuseReason;
use engine::sync::message::{Delta, Frame, Snapshot};
use engine::sync::signature::CfgVerifier;
use proto::v1;

use crate::child::{By, Child, Credentials};
use crate::plant::{Plant, hello, metric};
use crate::rig::{Rig, WAIT, change, delete, eventually, list, set, wait_dsc};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_switched_on_joins_and_is_adopted_after_a_crash() {
    let plant = Plant::new();
    let (head, mut client) = plant.rig.start().await;
    let n1 = plant.enrol(&mut client).await;
    wait_dsc(&client, "n1", "/pxe/state", Some("WAIT")).await;
    assert_eq!(plant.switched(), "on ");

    // The grant moves the state; the first machine to prove it is the node.
    let grant = plant.boot().await;
    assert_eq!(grant.node, n1);
    wait_dsc(&client, "n1", "/RunState", Some("INIT")).await;
    let mut credentials = Credentials::new();
    let mut child = Child::join(&plant.rig.ca, plant.sync, &credentials, By::Grant(&grant))
        .await
        .unwrap();
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    credentials.certificate = Some(child.accept.certificate.clone());
    let public = std::fs::read_to_string(plant.rig.path("keys/cluster.pub")).unwrap();
    let mut public_key = [0; 32];
    for (i, byte) in public_key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&public[2 * i..2 * i + 2], 16).unwrap();
    }
    let epoch = child.accept.epoch;
    let verifier = CfgVerifier {
        public_key,
        node: n1,
        epoch,
    };
    let accepted = &child.accept.cfg;
    let mut cfg = Values::default();
    cfg.apply(accepted.values.iter().cloned());
    assert_eq!(cfg.text("/RunState"), Some("SYNC"));
    assert!(
        verifier.verify(accepted.version, &cfg.digest(), &accepted.signature),
        "the cluster signs what a node shall be"
    );

    // Anybody else with the same grant is refused, and somebody is told.
    let thief = Child::join(
        &plant.rig.ca,
        plant.sync,
        &Credentials::new(),
        By::Grant(&grant),
    )
    .await
    .err()
    .unwrap();
    assert_eq!(thief.0, RefuseReason::GrantUsed, "{}", thief.1);
    head.logged("join alarm").await;
    let stranger = Child::join(
        &plant.rig.ca,
        plant.sync,
        &Credentials::new(),
        By::Certificate(n1),
    )
    .await
    .err()
    .unwrap();
    assert_eq!(stranger.0, RefuseReason::Certificate);

    // Before the head knows an address, frames come over the stream; a genuine datagram tells it.
    let datagram = child.send(&hello(0, child.accept.cfg.version)).await;
    assert!(matches!(child.datagram().await, Frame::Hello(_)));
    let mut dsc = Values::default();
    dsc.set("/host/cpus".parse().unwrap(), Some(Value::Int(4)));
    let report = Snapshot {
        version: 1,
        values: dsc.to_changes(),
        digest: dsc.digest().short(),
        signature: Vec::new(),
        have: child.accept.cfg.version,
    };
    child.send(&Frame::Snapshot(report)).await;
    wait_dsc(&client, "n1", "/host/cpus", Some("Some(IntValue(4))")).await;
    change(&mut client, "n1", vec![set("/Platform", "vm")])
        .await
        .unwrap();
    let delta: Delta = loop {
        if let Frame::Delta(delta) = child.datagram().await {
            break delta;
        }
    };
    cfg.apply(delta.changes);
    assert_eq!(cfg.text("/Platform"), Some("vm"));
    assert!(verifier.verify(delta.version, &cfg.digest(), &delta.signature));

    // What is larger than a datagram takes the stream, both ways.
    child.send(&hello(1, delta.version)).await;
    change(
        &mut client,
        "n1",
        vec![set("/pxe/append", &"a=b ".repeat(500))],
    )
    .await
    .unwrap();
    let large = loop {
        // Hellos from before the head knew an address came this way too.
        if let Frame::Delta(large) = child.stream_frame().await.unwrap() {
            break large;
        }
    };
    assert_eq!(large.base, delta.version);
    let text = "e".repeat(5_000);
    let error = Change::set(
        "/image/last_error".parse().unwrap(),
        Value::from(text.as_str()),
    );
    dsc.apply([error.clone()]);
    let report = Delta {
        base: 1,
        version: 2,
        changes: vec![error],
        digest: dsc.digest().short(),
        signature: Vec::new(),
        have: delta.version + 1,
    };
    child.send_stream(&Frame::Delta(report)).await;
    wait_dsc(&client, "n1", "/image/last_error", Some(&text)).await;

    // Replayed, flipped, cut and strange datagrams are dropped and counted, and move nothing.
    let before = list(&mut client, "n1").await.unwrap();
    child.udp.send(&datagram).await.unwrap();
    let mut flipped = child.sealed.seal(child.session, &hello(2, 0)).unwrap();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    child.udp.send(&flipped).await.unwrap();
    child.udp.send(&flipped[..30]).await.unwrap();
    child.udp.send(&[0xff; 100]).await.unwrap();
    for reason in ["replayed", "forged", "short", "format"] {
        let name = format!("kraken_sync_dropped_total{{reason=\"{reason}\"}}");
        eventually(reason, || async {
            (metric(&plant.rig, &name).await == "1").then_some(())
        })
        .await;
    }
    let after = list(&mut client, "n1").await.unwrap();
    assert_eq!(
        (&after[0].cfg, &after[0].dsc),
        (&before[0].cfg, &before[0].dsc)
    );

    // kill -9: the agent comes back with its certificate, in any state, and nothing is switched.
    head.kill();
    let (head, mut client) = plant.rig.start().await;
    let again = Child::join(&plant.rig.ca, plant.sync, &credentials, By::Certificate(n1))
        .await
        .unwrap();
    assert!(again.accept.epoch > epoch);
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    eventually("a converged node", || {
        let mut client = client.clone();
        async move {
            let reports = client
                .explain(v1::ExplainRequest { nodes: "n1".into() })
                .await
                .ok()?
                .into_inner()
                .reports;
            (reports[0].outcome == i32::from(v1::Outcome::Converged)).then_some(())
        }
    })
    .await;
    assert_eq!(
        plant.switched(),
        "on ",
        "a crash of the head switches nothing"
    );

    // A node that is deleted loses its session.
    let mut again = again;
    delete(&mut client, "n1").await.unwrap();
    let ended =
        tokio::time::timeout(WAIT, async { while again.stream_frame().await.is_ok() {} }).await;
    assert!(ended.is_ok());
    let gone = Child::join(&plant.rig.ca, plant.sync, &credentials, By::Certificate(n1))
        .await
        .err()
        .unwrap();
    assert_eq!(gone.0, RefuseReason::UnknownNode);
    drop(head);
}

#[tokio::test]
async fn strangers_on_the_sync_port_cost_little_and_harm_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let plant = Plant::new();
    let (_head, mut client) = plant.rig.start().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 64],
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        let mut stream = tokio::net::TcpStream::connect(plant.sync).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        tokio::time::timeout(WAIT, stream.read_to_end(&mut answer))
            .await
            .expect("the connection ends")
            .ok();
    }
    // A head of another cluster.
    let other = Rig::new("");
    let credentials = Credentials::new();
    let refused = tokio::spawn(async move {
        let node = NodeId::from_bytes([1; 16]);
        Child::join(&other.ca, plant.sync, &credentials, By::Certificate(node))
            .await
            .is_ok()
    })
    .await;
    assert!(
        refused.is_err(),
        "a child does not talk to a head of another cluster"
    );
    assert_eq!(list(&mut client, "").await.unwrap().len(), 1);
}
