//! Claim: an image of which one byte was flipped on the head's disk never runs; the node says why, and goes back to a good image.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use crate::lab::{self, BOOT_TIME, SOON};

/// What the image's init would print.
const RAN: &str = "the tampered image runs";

#[test]
fn image_tampered_is_refused() {
    lab::claim("image_tampered_is_refused", |cluster, artifacts| {
        let set = |values: &[&str]| lab::set(cluster, "n2", values);
        let folder = tempfile::tempdir().expect("a folder");
        let does = format!("/bin/busybox echo {RAN}\nexec /bin/busybox sleep 1000");
        let image = lab::add_image(cluster, artifacts, folder.path(), "tampered", &does);
        let blob = layer_of(&image);
        flip_a_byte(&cluster.files.head_state().join("images/blobs").join(blob));

        set(&["/image/state=IDLE"]);
        lab::wait_image(cluster, "n2", "IDLE", SOON);
        set(&["/image/name=tampered", "/image/state=ACTIVE"]);
        lab::wait_image(cluster, "n2", "ERROR", BOOT_TIME);
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

/// The digest of an image's only layer.
fn layer_of(image: &Path) -> String {
    let names = fs::read_dir(image).expect("a folder").flatten();
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
