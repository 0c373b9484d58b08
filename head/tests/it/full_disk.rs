//! A full disk: writes are refused with a sentence, everything else goes on, and it is over by itself when there is room (fault F05, promise P7).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use proto::v1;
use tonic::Code;

use crate::rig::{Rig, add, change, eventually, list, node, set, text};

/// The state directory on a small file system of its own, in a namespace that only this head is in.
fn small_disk(rig: &Rig) -> Option<Command> {
    let state = rig.path("state");
    fs::create_dir_all(&state).expect("folder");
    let allowed = Command::new("unshare")
        .args(["-rm", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("SKIPPED: this user may not make mount namespaces, so no disk can be filled");
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o size=2m,mode=700 kraken-test {} && exec {} --config {}",
        state.display(),
        env!("CARGO_BIN_EXE_kraken-head"),
        rig.path("head.toml").display()
    );
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", &script])
        .stdin(std::process::Stdio::null());
    Some(command)
}

#[tokio::test]
async fn f05_writes_are_refused_reads_go_on_and_it_recovers() {
    let rig = Rig::new("");
    let Some(command) = small_disk(&rig) else {
        return;
    };
    let (head, mut client) = rig.start_with(command).await;
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    // The head's own view of its folder; `unshare` executes it in its place, so the pid is the head's.
    let inside = PathBuf::from(format!(
        "/proc/{}/root{}",
        head.pid(),
        rig.path("state").display()
    ));
    let ballast = inside.join("ballast");

    let mut acked = 0;
    let mut number = 0;
    for _ in 0..3 {
        fs::write(&ballast, vec![0; 4 << 20]).expect_err("the disk is full now");
        let refused = loop {
            number += 1;
            let value = format!("{number} {}", "x".repeat(20_000));
            match change(&mut client, "n1", vec![set("/Platform", &value)]).await {
                Ok(_) => acked = number,
                Err(status) => break status,
            }
            assert!(number < 1_000, "a disk of 2 MiB takes no 20 MB");
        };
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
        fs::remove_file(&ballast).unwrap();
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
