//! kill -9 at random instants during writes: every acknowledged write is there, and nothing is there by half (promises P1 to P3, fault F01).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::v1;

use crate::rig::{Client, Rig, add, change, list, node, set, text};

const CYCLES: u64 = 50;
const WRITERS: usize = 4;

/// What one writer knows about its two nodes: they are always written together.
#[derive(Default)]
struct Ledger {
    acked: AtomicU64,
    tried: AtomicU64,
    revision: AtomicU64,
}

async fn write(mut client: Client, writer: usize, ledger: Arc<Ledger>) {
    loop {
        let number = ledger.tried.fetch_add(1, Ordering::SeqCst) + 1;
        let nodes = format!("a{writer},b{writer}");
        let changes = vec![
            set("/Platform", &number.to_string()),
            set("/pxe/append", &format!("n={number}")),
        ];
        match change(&mut client, &nodes, changes).await {
            Ok(done) => {
                let before = ledger.revision.swap(done.revision, Ordering::SeqCst);
                assert!(done.revision > before, "revisions rise");
                ledger.acked.store(number, Ordering::SeqCst);
            }
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_fifty_kills() {
    let rig = Rig::new("");
    let ledgers: Vec<Arc<Ledger>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let mut chance = 0x9e37_79b9_u64;
    let mut revision = 0;
    for cycle in 0..CYCLES {
        let (head, mut client) = rig.start().await;
        if cycle == 0 {
            let nodes = (0..WRITERS)
                .flat_map(|i| [node(&format!("a{i}"), &[]), node(&format!("b{i}"), &[])]);
            add(&mut client, nodes.collect()).await.unwrap();
        }
        revision = check(&mut client, &ledgers, revision).await;
        let writers: Vec<_> = ledgers
            .iter()
            .enumerate()
            .map(|(i, ledger)| tokio::spawn(write(client.clone(), i, Arc::clone(ledger))))
            .collect();
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        tokio::time::sleep(Duration::from_millis(20 + (chance >> 33) % 150)).await;
        head.kill();
        for writer in writers {
            writer.await.expect("a writer's own checks hold");
        }
    }
    let (_head, mut client) = rig.start().await;
    check(&mut client, &ledgers, revision).await;
    let writes: u64 = ledgers
        .iter()
        .map(|ledger| ledger.acked.load(Ordering::SeqCst))
        .sum();
    println!("{writes} acknowledged writes of {WRITERS} writers over {CYCLES} kills, all there");
    assert!(
        writes > CYCLES * WRITERS as u64,
        "the test wrote too little to mean anything: {writes}"
    );
}

async fn check(client: &mut Client, ledgers: &[Arc<Ledger>], revision: u64) -> u64 {
    let version = client
        .get_version(v1::GetVersionRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(
        version.revision >= revision,
        "revision {} after {revision}",
        version.revision
    );
    for (i, ledger) in ledgers.iter().enumerate() {
        let (acked, tried) = (
            ledger.acked.load(Ordering::SeqCst),
            ledger.tried.load(Ordering::SeqCst),
        );
        let nodes = list(client, &format!("a{i},b{i}")).await.unwrap();
        let numbers: Vec<u64> = nodes
            .iter()
            .map(|node| {
                text(node.cfg.as_ref(), "/Platform").map_or(0, |number| number.parse().unwrap())
            })
            .collect();
        assert_eq!(numbers[0], numbers[1], "writer {i}: half a write");
        let append = text(nodes[0].cfg.as_ref(), "/pxe/append").unwrap_or_default();
        assert!(
            numbers[0] == 0 || append == format!("n={}", numbers[0]),
            "writer {i}: half a write"
        );
        assert!(
            (acked..=tried).contains(&numbers[0]),
            "writer {i}: acknowledged {acked}, tried {tried}, found {}",
            numbers[0]
        );
        assert!(version.revision >= ledger.revision.load(Ordering::SeqCst));
        // What was tried and is there counts: the answer was lost, not the write.
        ledger.acked.store(numbers[0], Ordering::SeqCst);
        ledger.revision.store(version.revision, Ordering::SeqCst);
    }
    version.revision
}
