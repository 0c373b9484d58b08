//! What a head still knows after a restart: what was tried and how it went, and that a breaker is open; and that it switches nothing by it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proto::v1;

use crate::rig::{Client, Rig, add, eventually, node, set, wait_dsc};

/// The power of a machine that is off, and whose relay is broken. `switched` says how often it was asked.
const RELAY: &str = r#"
module = "relay"
[[poll]]
name = "status"
every = "1s"
requires = { "/power/driver" = "IPMITOOL" }
command = ["echo", "off"]
map = [{ line = "off", discover = { "/PhysState" = "POWER_OFF" } }]
[[mutation]]
name = "OFFtoON"
context = "CHILD"
mutates = { "/PhysState" = { from = "POWER_OFF", to = "POWER_ON" } }
requires = { "/power/driver" = "IPMITOOL" }
timeout = "60s"
shell = true
command = "echo asked >> switched; echo no relay >&2; exit 1"
"#;

/// A head with this file; one failure opens the breaker.
pub(crate) fn rig() -> Rig {
    let rig = Rig::new("[governor]\nbreaker_failures = 1\nbreaker_of = 1\n");
    let folder = rig.path("state/mutations");
    fs::create_dir_all(&folder).expect("folder");
    let state = fs::Permissions::from_mode(0o700);
    fs::set_permissions(rig.path("state"), state).expect("mode");
    fs::write(folder.join("relay.toml"), RELAY).expect("file");
    rig
}

/// Adds the machine, and wants it to be on.
pub(crate) async fn switch_on(client: &mut Client) {
    let machine = node("p0", &[("/power/driver", "IPMITOOL")]);
    add(client, vec![machine]).await.unwrap();
    wait_dsc(client, "p0", "/PhysState", Some("POWER_OFF")).await;
    let wanted = vec![set("/PhysState", "POWER_ON")];
    crate::rig::change(client, "p0", wanted).await.unwrap();
}

async fn explain(client: &mut Client) -> v1::Report {
    let request = v1::ExplainRequest { nodes: "p0".into() };
    let mut reports = client.explain(request).await.unwrap().into_inner().reports;
    reports.remove(0)
}

/// Waits until the breaker holds the node, and says what was tried.
pub(crate) async fn held(client: &Client) -> v1::Report {
    eventually("the hold of the breaker", || {
        let mut client = client.clone();
        async move {
            let report = explain(&mut client).await;
            let is_held = report.holds.iter().any(|hold| hold.kind == "breaker");
            is_held.then_some(report)
        }
    })
    .await
}

pub(crate) fn switched(rig: &Rig) -> usize {
    let told = fs::read_to_string(rig.path("state/switched")).unwrap_or_default();
    told.lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_and_an_open_breaker_survive_restarts_and_nothing_is_switched() {
    let rig = rig();
    let (head, mut client) = rig.start().await;
    switch_on(&mut client).await;
    let tried = held(&client).await;
    let failed = |report: &v1::Report| -> Vec<(u32, u64, String)> {
        let failed = report.history.iter().filter(|a| a.result == "failed");
        failed
            .map(|a| (a.attempt, a.took_ms, a.text.clone()))
            .collect()
    };
    let before = failed(&tried);
    assert_eq!((before.len(), switched(&rig)), (1, 1), "{tried:?}");
    assert!(before[0].2.contains("no relay"), "{before:?}");
    let (status, _) = head.terminate();
    assert!(status.success(), "{status}");

    // Stopped in order, nothing is lost; killed after that, it is still there.
    for _ in 0..2 {
        let (head, client) = rig.start().await;
        wait_dsc(&client, "p0", "/PhysState", Some("POWER_OFF")).await;
        let report = held(&client).await;
        assert_eq!(failed(&report), before);
        assert!(head.log().contains("before this head started"));
        head.kill();
    }
    assert_eq!(switched(&rig), 1, "no restart switches anything");
}
