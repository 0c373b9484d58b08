//! Claim: a node whose image always fails ends parked with a reason that its head tells, and is released by one command once the image is mended.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use vm_tests::artifacts::Artifacts;

use crate::lab::{self, BOOT_TIME, SOON};

#[test]
fn image_that_fails_is_parked() {
    lab::claim("image_that_fails_is_parked", |cluster, artifacts| {
        let set = |values: &[&str]| {
            let mut args = vec!["node", "set", "n2"];
            args.extend(values);
            cluster.ctl(&args).expect("an order");
        };
        let state =
            |expect: &'static str| move || Ok(cluster.known("n2", "/image/state")? == expect);
        let explain = || -> anyhow::Result<serde_json::Value> {
            let text = cluster.ctl(&["node", "explain", "n2", "-o", "json"])?;
            let reports: serde_json::Value = serde_json::from_str(&text)?;
            Ok(reports[0].clone())
        };
        let folder = tempfile::tempdir().expect("a folder");
        let add = |name: &str, init: &str| {
            let image = folder.path().join(name);
            build(artifacts, &folder.path().join("root"), &image, init);
            cluster
                .ctl(&["image", "add", &image.display().to_string()])
                .expect("added");
        };
        add("broken", "exit 3");
        set(&["/image/state=IDLE"]);
        cluster
            .wait(SOON, "the good image is stopped", state("IDLE"))
            .expect("idle");
        set(&["/image/name=moody", "/image/state=ACTIVE"]);
        let parked = || Ok(explain()?["outcome"] == "parked");
        cluster
            .wait(BOOT_TIME, "the node gives up", parked)
            .expect("parked");
        let report = explain().expect("a report");
        let reason = report["reason"].as_str().expect("a reason");
        assert!(
            reason.contains("the node itself gave up: image/"),
            "{reason}"
        );
        let history = report["history"].as_array().expect("a history");
        let tried = history
            .iter()
            .filter(|attempt| attempt["mutation"] == "image/ERRORtoACTIVE");
        assert!(tried.count() >= 3, "{history:?}");
        assert_eq!(
            cluster.known("n2", "/RunState").expect("a state"),
            "SYNC",
            "the node itself is well"
        );

        add("mended", "exec /bin/busybox sleep 1000");
        cluster.ctl(&["node", "release", "n2"]).expect("released");
        cluster
            .wait(BOOT_TIME, "the mended image runs", state("ACTIVE"))
            .expect("active");
        assert_eq!(explain().expect("a report")["outcome"], "converged");

        set(&["/image/state=IDLE"]);
        cluster
            .wait(SOON, "the mended image is stopped", state("IDLE"))
            .expect("idle");
        set(&["/image/name=demo", "/image/state=ACTIVE"]);
        lab::wait_up(cluster, &["n2"]);
    });
}

/// Makes a signed image named `moody` whose init does this.
fn build(artifacts: &Artifacts, root: &Path, out: &Path, does: &str) {
    for part in ["sbin", "bin"] {
        fs::create_dir_all(root.join(part)).expect("a root");
    }
    let busybox = vm_tests::doctor::static_busybox().expect("busybox");
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox");
    let init = root.join("sbin/init");
    fs::write(&init, format!("#!/bin/busybox sh\n{does}\n")).expect("an init");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("a mode");
    let output = Command::new(&artifacts.image_tool)
        .args(["image", "--name", "moody", "--all-root", "--from"])
        .arg(root)
        .arg("--keys")
        .arg(&artifacts.keys)
        .arg("--out")
        .arg(out)
        .output()
        .expect("kraken-image");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
