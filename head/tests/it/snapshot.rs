//! No list, no snapshot of a watch and no explanation shows half of a write: a writer gives 500 nodes other values at a time while others read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::v1;
use proto::v1::watch_event::Kind;

use crate::rig::{Client, Rig, add, change, node, set, text};

/// More than are converted in one go, whatever that is.
const NODES: usize = 500;
/// Writes; each is one revision.
const FLIPS: u64 = 60;
/// Readers of each kind.
const READERS: usize = 2;

/// The value that all nodes have at a revision.
fn value_at(revision: u64) -> &'static str {
    if revision.is_multiple_of(2) {
        "even"
    } else {
        "odd"
    }
}

/// The state that all their images are to have at a revision.
fn image_at(revision: u64) -> &'static str {
    if revision.is_multiple_of(2) {
        "IDLE"
    } else {
        "ACTIVE"
    }
}

/// All these nodes are as one revision left them; returns the value.
fn one_value(nodes: &[v1::Node]) -> String {
    assert_eq!(nodes.len(), NODES);
    let value = |node: &v1::Node| text(node.cfg.as_ref(), "/Platform").expect("it is set");
    let first = value(&nodes[0]);
    for node in nodes {
        assert_eq!(value(node), first, "half of a write: {}", node.name);
        assert_eq!(node.cfg_revision, nodes[0].cfg_revision, "{}", node.name);
    }
    first
}

/// Lists until told to stop; how many different values it has seen.
async fn lists(mut client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let request = v1::ListNodesRequest {
            nodes: "@flip".into(),
        };
        let answer = client.list_nodes(request).await.unwrap().into_inner();
        let revision = answer.nodes[0].cfg_revision;
        assert_eq!(
            (one_value(&answer.nodes).as_str(), revision),
            (value_at(answer.revision), answer.revision),
            "the list is of the revision that it names"
        );
        seen.insert(revision);
    }
    seen.len() as u64
}

/// Starts watches until told to stop; how many.
async fn watches(mut client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let request = v1::WatchRequest {
            nodes: "@flip".into(),
            after: 0,
        };
        let mut stream = client.watch(request).await.unwrap().into_inner();
        let mut nodes = Vec::new();
        let revision = loop {
            match stream.message().await.unwrap().expect("no end").kind {
                Some(Kind::Node(node)) => nodes.push(node),
                // A disk that is slow just now: alarms that stand are told at the start.
                Some(Kind::Alarm(_)) => {}
                Some(Kind::SnapshotEnd(end)) => break end.revision,
                other => panic!("in a snapshot: {other:?}"),
            }
        };
        assert_eq!(one_value(&nodes), value_at(revision));
        count += 1;
    }
    count
}

/// Explains until told to stop; how many different values were wanted.
async fn explains(mut client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let request = v1::ExplainRequest {
            nodes: "@flip".into(),
        };
        let answer = client.explain(request).await.unwrap().into_inner();
        assert_eq!(answer.reports.len(), NODES);
        for report in &answer.reports {
            let wanted = v1::Values {
                values: report.desired.clone(),
            };
            assert_eq!(
                text(Some(&wanted), "/image/state").as_deref(),
                Some(image_at(answer.revision)),
                "half of a write: {}",
                report.node_name
            );
        }
        seen.insert(answer.revision);
    }
    seen.len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn f57_no_list_shows_half_of_a_write() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    let version = client.get_version(v1::GetVersionRequest {}).await.unwrap();
    // What they would do is told, and nothing of it done.
    let frozen = client.freeze(v1::FreezeRequest {
        freeze: true,
        ..v1::FreezeRequest::default()
    });
    let frozen = frozen.await.unwrap().into_inner().revision;
    assert!(frozen > version.into_inner().revision);
    let first = frozen + 1;
    let all = (0..NODES).map(|n| v1::Node {
        groups: vec!["flip".into()],
        ..node(
            &format!("n{n}"),
            &[
                ("/Platform", value_at(first)),
                ("/image/state", image_at(first)),
            ],
        )
    });
    let added = add(&mut client, all.collect()).await.unwrap();
    assert_eq!(added.revision, first);

    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(tokio::spawn(lists(client.clone(), Arc::clone(&stop))));
        readers.push(tokio::spawn(watches(client.clone(), Arc::clone(&stop))));
        readers.push(tokio::spawn(explains(client.clone(), Arc::clone(&stop))));
    }
    for revision in (first + 1)..=(first + FLIPS) {
        let changes = vec![
            set("/Platform", value_at(revision)),
            set("/image/state", image_at(revision)),
        ];
        let written = change(&mut client, "@flip", changes).await.unwrap();
        assert_eq!(written.revision, revision);
    }
    stop.store(true, Ordering::Relaxed);
    let mut counts = Vec::new();
    for reader in readers {
        counts.push(reader.await.unwrap());
    }
    assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
}
