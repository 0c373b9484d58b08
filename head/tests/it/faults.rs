//! Signals and a machine that is not as configured, one test a row of the fault catalogue (engine/docs/faults.md).

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::rig::{Rig, add, change, eventually, list, node, set, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_sigterm_during_writes_ends_cleanly_and_loses_nothing() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    let (acked, tried) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (mut client, acked, tried) = (client.clone(), Arc::clone(&acked), Arc::clone(&tried));
        tokio::spawn(async move {
            loop {
                let number = tried.fetch_add(1, Ordering::SeqCst) + 1;
                let changes = vec![set("/Platform", &number.to_string())];
                if change(&mut client, "n1", changes).await.is_err() {
                    return;
                }
                acked.store(number, Ordering::SeqCst);
            }
        })
    };
    eventually("writes to be under way", || {
        let acked = acked.load(Ordering::SeqCst);
        async move { (acked >= 20).then_some(()) }
    })
    .await;
    let (status, took) = tokio::task::spawn_blocking(move || head.terminate())
        .await
        .unwrap();
    assert!(
        status.success() && took < Duration::from_secs(5),
        "{status} after {took:?}"
    );
    writer.await.unwrap();
    let (_head, mut client) = rig.start().await;
    let found = list(&mut client, "n1").await.unwrap();
    let found: u64 = text(found[0].cfg.as_ref(), "/Platform")
        .unwrap()
        .parse()
        .unwrap();
    let (acked, tried) = (acked.load(Ordering::SeqCst), tried.load(Ordering::SeqCst));
    assert!(
        (acked..=tried).contains(&found),
        "acknowledged {acked}, tried {tried}, found {found}"
    );
}

#[test]
fn f59_a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let rig = Rig::new("");
    let refused = |config: &str, part: &str| {
        rig.configure(config);
        let (status, said) = rig.run();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(part) && said.contains("in use"), "{said}");
    };
    refused(
        &format!("[sync]\naddress = \"127.0.0.1\"\nport = {port}\n"),
        &format!("cannot listen on sync port {port}"),
    );
    refused(
        &format!("[api]\nlisten = \"127.0.0.1:{port}\"\n"),
        &format!("api.listen: cannot listen on 127.0.0.1:{port}"),
    );
}

#[tokio::test]
async fn f59_an_interface_that_is_missing_at_the_start_is_waited_for() {
    let rig = Rig::new("");
    let file = |name: &str| {
        std::fs::write(rig.path(name), name).unwrap();
        rig.path(name)
    };
    rig.configure(&format!(
        "[boot]\ninterfaces = [\"later0\"]\nkernel = {:?}\ninitramfs = {:?}\n",
        file("vmlinuz"),
        file("initramfs")
    ));
    let allowed = Command::new("unshare").args(["-rn", "ip", "link"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: this user may not make network namespaces, so no interface can come late"
        );
        return;
    }
    let script = format!(
        "ip link set lo up && exec {} --config {}",
        env!("CARGO_BIN_EXE_kraken-head"),
        rig.path("head.toml").display()
    );
    let mut command = Command::new("unshare");
    command
        .args(["-rn", "sh", "-c", &script])
        .stdin(std::process::Stdio::null());
    let (head, mut client) = rig.start_with(command).await;
    head.logged("waiting for it").await;
    assert_eq!(
        list(&mut client, "").await.unwrap().len(),
        1,
        "everything else works"
    );
    for step in [
        "link add later0 type veth peer name far0",
        "link set far0 up",
        "address add 192.0.2.1/24 dev later0",
        "link set later0 up",
    ] {
        let status = Command::new("nsenter")
            .args([
                "-t",
                &head.pid().to_string(),
                "-U",
                "-n",
                "--preserve-credentials",
                "ip",
            ])
            .args(step.split(' '))
            .status()
            .unwrap();
        assert!(status.success(), "ip {step}");
    }
    head.logged("boot interface ready").await;
    assert!(head.terminate().0.success());
}
