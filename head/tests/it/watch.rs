//! Watching: a snapshot, then every change, without a gap; who cannot be served so is told to start again.

use proto::v1::watch_event::Kind;
use proto::v1::{self, WatchEvent};
use tonic::Streaming;

use crate::rig::{Client, Rig, WAIT, add, change, delete, node, set};

async fn watch(client: &mut Client, nodes: &str, after: u64) -> Streaming<WatchEvent> {
    client
        .watch(v1::WatchRequest {
            nodes: nodes.into(),
            after,
        })
        .await
        .unwrap()
        .into_inner()
}

async fn next(stream: &mut Streaming<WatchEvent>) -> WatchEvent {
    tokio::time::timeout(WAIT, stream.message())
        .await
        .expect("an event")
        .unwrap()
        .expect("an event")
}

/// Events until one of Cfg, as text; mutations and Dsc in between are left out.
async fn next_cfg(stream: &mut Streaming<WatchEvent>) -> (u64, String) {
    loop {
        let event = next(stream).await;
        match event.kind.unwrap() {
            Kind::Change(change) if !change.cfg.is_empty() => {
                let urls: Vec<&str> = change
                    .cfg
                    .iter()
                    .map(|change| change.url.as_str())
                    .collect();
                return (
                    event.sequence,
                    format!("{} {}", change.node_name, urls.join(" ")),
                );
            }
            Kind::Deleted(deleted) => {
                return (event.sequence, format!("deleted {}", deleted.node_name));
            }
            _ => {}
        }
    }
}

async fn snapshot(stream: &mut Streaming<WatchEvent>) -> (Vec<String>, u64) {
    let mut names = Vec::new();
    loop {
        let event = next(stream).await;
        match event.kind.unwrap() {
            Kind::Node(node) => names.push(node.name),
            Kind::SnapshotEnd(_) => return (names, event.sequence),
            other => panic!("{other:?} in a snapshot"),
        }
    }
}

#[tokio::test]
async fn a_watcher_sees_all_and_resumes_where_it_stopped() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[]), node("n2", &[])])
        .await
        .unwrap();
    let mut stream = watch(&mut client, "", 0).await;
    let (names, _) = snapshot(&mut stream).await;
    assert_eq!(names, ["head", "n1", "n2"]);
    change(&mut client, "n1", vec![set("/Platform", "a")])
        .await
        .unwrap();
    let (first, what) = next_cfg(&mut stream).await;
    assert_eq!(what, "n1 /Platform");
    drop(stream);
    // What happens while nobody watches.
    change(
        &mut client,
        "n2",
        vec![set("/Platform", "b"), set("/power/password", "hunter2")],
    )
    .await
    .unwrap();
    delete(&mut client, "n1").await.unwrap();
    let mut stream = watch(&mut client, "", first).await;
    let (second, what) = next_cfg(&mut stream).await;
    assert_eq!(what, "n2 /Platform /power/password");
    assert!(second > first);
    assert_eq!(next_cfg(&mut stream).await.1, "deleted n1");
    // Secrets do not leak into events.
    let mut stream = watch(&mut client, "", first).await;
    loop {
        let event = next(&mut stream).await;
        assert!(!format!("{event:?}").contains("hunter2"));
        if matches!(event.kind, Some(Kind::Deleted(_))) {
            break;
        }
    }
    // Numbers of an earlier run mean nothing to this one.
    head.kill();
    let (_head, mut client) = rig.start().await;
    for after in [first, u64::MAX] {
        let mut stream = watch(&mut client, "", after).await;
        assert!(matches!(
            next(&mut stream).await.kind,
            Some(Kind::Resync(_))
        ));
        assert!(
            stream.message().await.unwrap().is_none(),
            "the stream ends after a resync"
        );
    }
}

#[tokio::test]
async fn a_watcher_of_some_nodes_hears_of_those_only() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[]), node("n2", &[])])
        .await
        .unwrap();
    let mut stream = watch(&mut client, "n2", 0).await;
    assert_eq!(snapshot(&mut stream).await.0, ["n2"]);
    change(&mut client, "n1", vec![set("/Platform", "a")])
        .await
        .unwrap();
    change(&mut client, "n2", vec![set("/Platform", "b")])
        .await
        .unwrap();
    assert_eq!(next_cfg(&mut stream).await.1, "n2 /Platform");
    // A node that comes later and matches.
    let mut stream = watch(&mut client, "m*", 0).await;
    assert!(snapshot(&mut stream).await.0.is_empty());
    add(&mut client, vec![node("m1", &[])]).await.unwrap();
    let event = next(&mut stream).await;
    assert!(matches!(event.kind, Some(Kind::Node(node)) if node.name == "m1"));
    let refused = client
        .watch(v1::WatchRequest {
            nodes: "n[".into(),
            after: 0,
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

/// The next alarm, with its number.
async fn next_alarm(stream: &mut Streaming<WatchEvent>) -> (u64, v1::Alarm) {
    loop {
        let event = next(stream).await;
        if let Some(Kind::Alarm(alarm)) = event.kind {
            return (event.sequence, alarm);
        }
    }
}

#[tokio::test]
async fn a_parked_node_is_an_alarm_until_it_goes_on() {
    let rig = Rig::new("[engine]\nattempts = 1\n");
    std::fs::create_dir_all(rig.path("state/mutations")).unwrap();
    let fails = "module = \"x\"\n[[mutation]]\nname = \"find\"\ncontext = \"CHILD\"\ncommand = [\"false\"]\n\
        mutates = { \"/PhysState\" = { to = \"POWER_OFF\" } }\nrequires = { \"/Platform\" = \"x\" }\n";
    std::fs::write(rig.path("state/mutations/x.toml"), fails).unwrap();
    let (_head, mut client) = rig.start().await;
    let wanted = [("/PhysState", "POWER_OFF"), ("/Platform", "x")];
    add(&mut client, vec![node("n1", &wanted), node("n2", &[])])
        .await
        .unwrap();
    let mut stream = watch(&mut client, "", 0).await;
    let (raised, alarm) = next_alarm(&mut stream).await;
    assert_eq!(
        (alarm.kind.as_str(), alarm.node_name.as_str(), alarm.over),
        ("parked", "n1", false)
    );
    assert!(alarm.text.contains("x/find failed"), "{alarm:?}");
    // Who comes later hears of it with the snapshot, who watches others does not.
    let mut late = watch(&mut client, "n1", 0).await;
    let first = next(&mut late).await;
    assert!(matches!(first.kind, Some(Kind::Node(_))));
    assert_eq!(next_alarm(&mut late).await.1, alarm);
    let mut other = watch(&mut client, "n2", 0).await;
    assert_eq!(snapshot(&mut other).await.0, ["n2"]);

    let retry = v1::RetryRequest { nodes: "n1".into() };
    client.retry(retry).await.unwrap();
    let (ended, over) = next_alarm(&mut stream).await;
    assert_eq!((over.kind.as_str(), over.over), ("parked", true));
    // Resumed in between, the end comes again, and nothing before it.
    let mut stream = watch(&mut client, "", raised).await;
    assert_eq!(next_alarm(&mut stream).await, (ended, over));
}
