//! kill -9 at random instants during writes: every acknowledged write is there, nothing is there by half (promises P1 to P3, fault F01), and no
//! restart switches anything. `KRAKEN_CRASH_CYCLES` asks for another number of kills.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::rig::{Client, Rig, add, change, list, node, set, text, version, wait_dsc};

/// Kills, unless somebody wants more.
const CYCLES: u64 = 50;
/// Machines with power control: name, what the plug says, what is wanted. Nothing has to be switched for any of them.
const PLUGS: [(&str, &str, (&str, &str)); 4] = [
    ("p0", "on", ("/PhysState", "POWER_ON")),
    ("p1", "on", ("/PhysState", "POWER_ON")),
    ("p2", "off", ("/PhysState", "POWER_OFF")),
    ("p3", "on", ("/RunState", "SYNC")),
];
const WRITERS: usize = 4;
/// A head that was killed answers again within this.
const RESTART: Duration = Duration::from_secs(10);

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

/// A head whose power commands read files, and write down what they were told to switch.
fn rig() -> Rig {
    let rig = Rig::new("");
    for (name, plug, _) in PLUGS {
        fs::write(rig.path(name), plug).expect("file");
    }
    let folder = rig.path("");
    let switch = |to: &str| {
        format!(
            "[\"sh\", \"-c\", \"echo $0 {to} >> {}switched\", \"{{target}}\"]",
            folder.display()
        )
    };
    let status = format!("[\"cat\", \"{}{{target}}\"]", folder.display());
    rig.configure(&format!(
        "[power]\npoll = \"200ms\"\n[power.command]\non = {}\noff = {}\nstatus = {status}\n",
        switch("on"),
        switch("off"),
    ));
    rig
}

async fn add_all(client: &mut Client) {
    let written =
        (0..WRITERS).flat_map(|i| [node(&format!("a{i}"), &[]), node(&format!("b{i}"), &[])]);
    let plugs = PLUGS.map(|(name, _, wanted)| node(name, &[("/power/driver", "COMMAND"), wanted]));
    add(client, written.chain(plugs).collect()).await.unwrap();
    for (name, plug, _) in PLUGS {
        let found = if plug == "on" {
            "POWER_ON"
        } else {
            "POWER_OFF"
        };
        wait_dsc(client, name, "/PhysState", Some(found)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_every_acknowledged_write_survives_kills_and_nothing_is_switched() {
    let rig = rig();
    let asked = std::env::var("KRAKEN_CRASH_CYCLES").ok();
    let cycles = asked.map_or(CYCLES, |cycles| {
        cycles.parse().expect("KRAKEN_CRASH_CYCLES is a number")
    });
    let mut slowest = Duration::ZERO;
    let ledgers: Vec<Arc<Ledger>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let mut chance = 0x9e37_79b9_u64;
    let mut revision = 0;
    for cycle in 0..cycles {
        let begin = Instant::now();
        let (head, mut client) = rig.start().await;
        slowest = slowest.max(begin.elapsed());
        if cycle == 0 {
            add_all(&mut client).await;
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
    let switched = fs::read_to_string(rig.path("switched")).unwrap_or_default();
    println!(
        "{writes} acknowledged writes of {WRITERS} writers over {cycles} kills, all there; slowest start {slowest:.2?}; switched: {switched:?}"
    );
    assert!(
        writes > cycles * WRITERS as u64,
        "the test wrote too little to mean anything: {writes}"
    );
    assert_eq!(switched, "", "no restart switches anything");
    assert!(
        slowest < RESTART,
        "a head is back within {RESTART:?}: {slowest:?}"
    );
}

async fn check(client: &mut Client, ledgers: &[Arc<Ledger>], revision: u64) -> u64 {
    let version = version(client).await;
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
