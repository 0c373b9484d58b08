//! A full disk: writes are refused with a sentence, everything else goes on, and it is over by itself when there is room (fault F05, promise P7).

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use engine::sync::join::RefuseReason;
use proto::v1;
use tonic::Code;

use crate::child::{By, Credentials};
use crate::plant::{Plant, metric, page};
use crate::rig::{Client, Rig, add, change, eventually, list, node, set, text, wait_dsc};

/// The state directory on a small file system of its own, in a namespace that only its heads are in.
struct SmallDisk {
    holder: Child,
    state: PathBuf,
}

impl SmallDisk {
    /// So many MiB; `None`: this user may not.
    fn new(rig: &Rig, size: u32) -> Option<Self> {
        let state = rig.path("state");
        fs::create_dir_all(&state).expect("folder");
        let script = format!(
            "mount -t tmpfs -o size={size}m,mode=700 kraken-test {} && echo mounted && exec sleep infinity",
            state.display()
        );
        let mut holder = Command::new("unshare")
            .args(["-rm", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut said = String::new();
        let out = holder.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut said).expect("a line");
        let disk = Self { holder, state };
        if said != "mounted\n" {
            eprintln!("SKIPPED: this user may not make mount namespaces, so no disk can be filled");
            return None;
        }
        Some(disk)
    }

    /// Starts a head on it.
    fn command(&self, rig: &Rig) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.holder.id().to_string(), "-U", "-m"])
            .args(["--preserve-credentials", env!("CARGO_BIN_EXE_kraken-head")])
            .arg("--config")
            .arg(rig.path("head.toml"))
            .stdin(Stdio::null());
        command
    }

    /// A file in the state directory.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let state = self.state.strip_prefix("/").expect("absolute");
        root.join(state).join(name)
    }

    /// Fills it up.
    fn fill(&self) {
        fs::write(self.path("ballast"), vec![0; 64 << 20]).expect_err("the disk is full now");
    }

    /// Makes room.
    fn clear(&self) {
        fs::remove_file(self.path("ballast")).expect("the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Writes numbers with much behind them until one is refused, which is the last.
async fn write_until_refused(client: &mut Client, number: &mut u32) -> tonic::Status {
    for _ in 0..1_000 {
        *number += 1;
        let value = format!("{number} {}", "x".repeat(20_000));
        let written = change(client, "n1", vec![set("/Platform", &value)]).await;
        if let Err(status) = written {
            return status;
        }
    }
    panic!("a disk of a few MiB takes no 20 MB");
}

#[tokio::test]
async fn f05_writes_are_refused_reads_go_on_and_it_recovers() {
    let rig = Rig::new("");
    // Too small for a reserve: the head goes without.
    let Some(disk) = SmallDisk::new(&rig, 2) else {
        return;
    };
    let (head, mut client) = rig.start_with(disk.command(&rig)).await;
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    let mut acked = 0;
    let mut number = 0;
    for _ in 0..3 {
        disk.fill();
        let first = number + 1;
        let refused = write_until_refused(&mut client, &mut number).await;
        if number > first {
            acked = number - 1;
        }
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(
            refused
                .message()
                .contains("the disk of the state directory is full"),
            "{refused}"
        );
        // Reads and the pages go on, and say what is wrong.
        let found = list(&mut client, "n1").await.unwrap();
        let platform = text(found[0].cfg.as_ref(), "/Platform").unwrap_or_default();
        assert!(
            acked == 0 || platform.starts_with(&format!("{acked} ")),
            "an unacknowledged value is not shown"
        );
        client
            .explain(v1::ExplainRequest { nodes: "@*".into() })
            .await
            .unwrap();
        disk.clear();
        eventually("a write after the ballast is gone", || {
            let mut client = client.clone();
            async move {
                change(&mut client, "n1", vec![set("/Platform", "there is room")])
                    .await
                    .ok()
            }
        })
        .await;
    }
    let log = head.log();
    assert!(
        log.contains("a commit failed") && !log.contains("the store failed"),
        "{log}"
    );
    assert!(head.terminate().0.success());
}

/// A machine boots, joins and is adopted by a head that starts anew, all on a full disk: that takes the reserve (P7).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_boots_and_starts_go_on_while_the_disk_is_full() {
    let plant = Plant::new();
    let Some(disk) = SmallDisk::new(&plant.rig, 24) else {
        return;
    };
    let (head, mut client) = plant.rig.start_with(disk.command(&plant.rig)).await;
    let n1 = plant.enrol(&mut client).await;
    wait_dsc(&client, "n1", "/pxe/state", Some("WAIT")).await;
    let reserve = || {
        fs::metadata(disk.path("reserve"))
            .expect("the reserve")
            .len()
    };
    let whole = reserve();
    assert!(whole >= 8 << 20);
    disk.fill();
    let refused = write_until_refused(&mut client, &mut 0).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(reserve(), whole, "operators do not get it");

    // The grant is delivered, proven and used up.
    let mut credentials = Credentials::new();
    let grant = plant.boot().await;
    let child = plant.join(&credentials, By::Grant(&grant)).await;
    let child = child.expect("a full disk keeps no node from joining");
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    let large = "x".repeat(20_000);
    let write = |client: &Client| {
        let (mut client, large) = (client.clone(), large.clone());
        async move { change(&mut client, "n1", vec![set("/Platform", &large)]).await }
    };
    let refused = write(&client).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let ready = page(&plant.rig, "/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("is full"),
        "{ready}"
    );
    head.logged("kind=\"store\" over=false").await;

    // kill -9: the next head starts, lets nobody in by the grant again, and takes the node back.
    credentials.certificate = Some(child.accept.certificate.clone());
    let epoch = child.accept.epoch;
    head.kill();
    let (head, client) = plant.rig.start_with(disk.command(&plant.rig)).await;
    let thief = plant.join(&Credentials::new(), By::Grant(&grant)).await;
    let why = thief.err().unwrap().0;
    // Void if the new head has armed the node anew before it is back.
    assert!([RefuseReason::GrantUsed, RefuseReason::GrantExpired].contains(&why));
    let child = plant.join(&credentials, By::Certificate(n1)).await.unwrap();
    assert!(child.accept.epoch > epoch);
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    let refused = write(&client).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(plant.switched(), "on ");
    eventually("the alarm of the second head", || async {
        (metric(&plant.rig, "kraken_store_refuses").await == "1").then_some(())
    })
    .await;

    // With room again, the reserve comes first, then whoever wants to write.
    disk.clear();
    eventually("a write when there is room", || async {
        write(&client).await.ok()
    })
    .await;
    assert_eq!(reserve(), whole);
    head.logged("kind=\"store\" over=true").await;
    drop(child);
    assert!(head.terminate().0.success());
}
