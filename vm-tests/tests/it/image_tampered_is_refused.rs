//! Claim: an image of which one byte was flipped on the head's disk never runs; the node says why, and goes back to a good image.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use vm_tests::artifacts::Artifacts;

use crate::lab::{self, BOOT_TIME, SOON};

/// What the image's init would print.
const RAN: &str = "the tampered image runs";

#[test]
fn image_tampered_is_refused() {
    lab::claim("image_tampered_is_refused", |cluster, artifacts| {
        let set = |values: &[&str]| {
            let mut args = vec!["node", "set", "n2"];
            args.extend(values);
            cluster.ctl(&args).expect("an order");
        };
        let state =
            |expect: &'static str| move || Ok(cluster.known("n2", "/image/state")? == expect);
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("image");
        let blob = build(artifacts, folder.path(), &image);
        cluster
            .ctl(&["image", "add", &image.display().to_string()])
            .expect("added while it is whole");
        flip_a_byte(&cluster.files.head_state().join("images/blobs").join(blob));

        set(&["/image/state=IDLE"]);
        cluster
            .wait(SOON, "the good image is stopped", state("IDLE"))
            .expect("idle");
        set(&["/image/name=tampered", "/image/state=ACTIVE"]);
        cluster
            .wait(BOOT_TIME, "the image is refused", state("ERROR"))
            .expect("an error");
        let why = cluster
            .known("n2", "/image/last_error")
            .expect("a reason")
            .to_lowercase();
        assert!(
            ["sha256", "digest"].iter().any(|word| why.contains(word)),
            "{why}"
        );
        assert_eq!(
            cluster.known("n2", "/RunState").expect("a state"),
            "SYNC",
            "the node itself is well"
        );
        std::thread::sleep(Duration::from_secs(2));
        assert!(!cluster.console("n2").contains(RAN), "no byte of it ran");
        assert!(
            cluster.page("n2").expect("a request").is_none(),
            "and nothing else does"
        );

        set(&["/image/name=demo", "/image/state=ACTIVE"]);
        lab::wait_up(cluster, &["n2"]);
        assert_eq!(cluster.known("n2", "/image/name").expect("a name"), "demo");
    });
}

/// Makes a signed image whose content no other image has. Returns its layer's digest.
fn build(artifacts: &Artifacts, folder: &Path, out: &Path) -> String {
    let root = folder.join("root");
    fs::create_dir_all(root.join("sbin")).expect("a root");
    let busybox = vm_tests::doctor::static_busybox().expect("busybox");
    fs::create_dir_all(root.join("bin")).expect("a root");
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox");
    let init = root.join("sbin/init");
    let text =
        format!("#!/bin/busybox sh\n/bin/busybox echo {RAN}\nexec /bin/busybox sleep 1000\n");
    fs::write(&init, text).expect("an init");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("a mode");
    let output = Command::new(&artifacts.image_tool)
        .args(["image", "--name", "tampered", "--all-root", "--from"])
        .arg(&root)
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
    let names = fs::read_dir(out).expect("a folder").flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.len() == 64)
        .expect("a layer")
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("the blob on the head");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(path, bytes).expect("tampering");
}
