//! A disk that fails or hangs under the real head: nothing is acknowledged that is not durable, and whoever does not write does not notice
//! (faults F04 and F06, promise P6). `disk_faults.c` is the disk.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::v1;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::child::Child;
use crate::plant::{Plant, hello, metric, page};
use crate::rig::{Client, Rig, change, eventually, list, set, text, version, wait_dsc};

/// A machine whose head's disk fails on demand.
struct Faulty {
    plant: Plant,
    shim: PathBuf,
}

impl Faulty {
    fn new() -> Self {
        let plant = Plant::new();
        let shim = plant.rig.path("disk_faults.so");
        fs::create_dir(plant.rig.path("faults")).expect("folder");
        // The C compiler is there: the head's database was built with it.
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&shim)
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/it/disk_faults.c"
            ))
            .arg("-ldl")
            .status()
            .expect("cc");
        assert!(built.success(), "cc: {built}");
        Self { plant, shim }
    }

    fn rig(&self) -> &Rig {
        &self.plant.rig
    }

    fn command(&self) -> Command {
        let mut command = self.rig().command();
        command
            .env("LD_PRELOAD", &self.shim)
            .env("KRAKEN_TEST_FAULTS", self.rig().path("faults"));
        command
    }

    fn fault(&self, name: &str) -> PathBuf {
        self.rig().path("faults").join(name)
    }

    fn arm(&self, name: &str) {
        fs::write(self.fault(name), "").expect("fault");
    }
}

/// An agent that says hello until it is dropped, and counts the answers.
struct Greeter {
    answers: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Greeter {
    fn start(mut child: Child) -> Self {
        let answers = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            loop {
                child.send(&hello(0, child.accept.cfg.version)).await;
                child.datagram().await;
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { answers, task }
    }

    /// Waits for some more answers.
    async fn is_answered(&self) {
        let before = self.answers.load(Ordering::SeqCst);
        eventually("answers to hellos", || {
            let answers = self.answers.load(Ordering::SeqCst);
            async move { (answers >= before + 5).then_some(()) }
        })
        .await;
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn platform(client: &mut Client) -> String {
    let found = list(client, "n1").await.expect("reads go on");
    text(found[0].cfg.as_ref(), "/Platform").unwrap_or_default()
}

async fn set_platform(client: &mut Client, value: &str) -> Result<u64, tonic::Status> {
    let done = change(client, "n1", vec![set("/Platform", value)]).await?;
    Ok(done.revision)
}

async fn check_failure(fault: &str) {
    let faulty = Faulty::new();
    let (head, mut client) = faulty.rig().start_with(faulty.command()).await;
    faulty.plant.enrol(&mut client).await;
    wait_dsc(&client, "n1", "/pxe/state", Some("WAIT")).await;
    let greeter = Greeter::start(faulty.plant.boot_and_join().await);
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    let acked = set_platform(&mut client, "kept").await.unwrap();
    assert_eq!(faulty.plant.switched(), "on ");

    faulty.arm(fault);
    let refused = set_platform(&mut client, "lost").await.unwrap_err();
    assert!(!faulty.fault(fault).exists(), "the fault was met");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let says = "the store failed and takes no more writes";
    assert!(refused.message().contains(says), "{refused}");
    // The disk is well again, but nobody knows what it has dropped: no write until a restart.
    for _ in 0..3 {
        let refused = set_platform(&mut client, "lost").await.unwrap_err();
        assert!(refused.message().contains(says), "{refused}");
    }
    // Health is red, reads and sync go on, and what is refused is not shown.
    let ready = page(faulty.rig(), "/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains(says),
        "{ready}"
    );
    assert!(
        page(faulty.rig(), "/healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    head.logged("kind=\"store\" over=false").await;
    assert_eq!(metric(faulty.rig(), "kraken_store_refuses").await, "1");
    assert_eq!(platform(&mut client).await, "kept");
    let explained = client.explain(v1::ExplainRequest { nodes: "n1".into() });
    assert_eq!(explained.await.unwrap().into_inner().reports.len(), 1);
    greeter.is_answered().await;
    // Power goes away by itself: that is discovered, and not acted on, for no intent can be noted.
    fs::write(faulty.rig().path("plug"), "off\n").unwrap();
    wait_dsc(&client, "n1", "/PhysState", Some("POWER_OFF")).await;
    head.logged("nothing is fired while it cannot be logged")
        .await;
    assert_eq!(faulty.plant.switched(), "on ", "nothing is switched");
    fs::write(faulty.rig().path("plug"), "on\n").unwrap();
    drop(greeter);

    // A restart finds every acknowledged write; the refused one is there whole or not at all.
    assert!(head.terminate().0.success());
    let (_head, mut client) = faulty.rig().start_with(faulty.command()).await;
    let found = platform(&mut client).await;
    assert!(["kept", "lost"].contains(&found.as_str()), "{found:?}");
    let revision = version(&mut client).await.revision;
    assert_eq!(revision - acked, u64::from(found == "lost"));
    assert!(set_platform(&mut client, "again").await.unwrap() > revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_a_failed_flush_stops_writes_and_nothing_else() {
    check_failure("flush-eio").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_a_failed_write_stops_writes_and_nothing_else() {
    check_failure("write-eio").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_a_disk_that_hangs_delays_writers_only_and_raises_an_alarm() {
    let faulty = Faulty::new();
    let (head, mut client) = faulty.rig().start_with(faulty.command()).await;
    faulty.plant.enrol(&mut client).await;
    wait_dsc(&client, "n1", "/pxe/state", Some("WAIT")).await;
    let greeter = Greeter::start(faulty.plant.boot_and_join().await);
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    set_platform(&mut client, "before").await.unwrap();

    faulty.arm("hang");
    let writer = {
        let mut client = client.clone();
        tokio::spawn(async move { set_platform(&mut client, "after").await })
    };
    head.logged("kind=\"slow_store\" over=false").await;
    assert_eq!(metric(faulty.rig(), "kraken_store_slow").await, "1");
    greeter.is_answered().await;
    assert_eq!(platform(&mut client).await, "before");
    assert!(
        page(faulty.rig(), "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        !writer.is_finished(),
        "nothing is acknowledged that is not durable"
    );

    fs::remove_file(faulty.fault("hang")).unwrap();
    writer.await.unwrap().unwrap();
    assert_eq!(platform(&mut client).await, "after");
    // As many quick ones as it takes until nobody doubts the disk any more.
    eventually("the end of the alarm", || {
        let (mut client, rig) = (client.clone(), faulty.rig());
        async move {
            set_platform(&mut client, "quick").await.unwrap();
            (metric(rig, "kraken_store_slow").await == "0").then_some(())
        }
    })
    .await;
    head.logged("kind=\"slow_store\" over=true").await;
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    assert_eq!(faulty.plant.switched(), "on ", "nothing is switched");
}
