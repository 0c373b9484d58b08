use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn public() -> [u8; 32] {
    key().public_key().as_ref().try_into().unwrap()
}

fn payload(change: impl Fn(&mut serde_json::Value)) -> String {
    let mut payload = serde_json::json!({
        "format": "kraken-image-v1",
        "name": "demo",
        "arch": std::env::consts::ARCH,
        "security_version": 3,
        "init": ["/sbin/init", "-x"],
        "layers": [{"kind": "squashfs", "sha256": "ab".repeat(32), "size": 4096}],
    });
    change(&mut payload);
    payload.to_string()
}

fn signed(payload: &str) -> Vec<u8> {
    let signature = hex(key()
        .sign(&[SIGNED_PREFIX, payload.as_bytes()].concat())
        .as_ref());
    serde_json::json!({ "payload": payload, "signature": signature })
        .to_string()
        .into_bytes()
}

fn read(change: impl Fn(&mut serde_json::Value)) -> Result<Manifest, ManifestError> {
    Manifest::read(&signed(&payload(change)), &public(), "demo")
}

#[test]
fn a_signed_manifest_is_read() {
    let manifest = read(|_| {}).unwrap();
    assert_eq!(manifest.init, ["/sbin/init", "-x"]);
    assert_eq!((manifest.security_version, manifest.size()), (3, 4096));
    assert_eq!(
        manifest.digest,
        hex(digest(&SHA256, payload(|_| {}).as_bytes()).as_ref())
    );
}

#[test]
fn one_flipped_byte_anywhere_is_refused() {
    let good = signed(&payload(|_| {}));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        if let Ok(manifest) = Manifest::read(&bad, &public(), "demo") {
            // The case of a hex digit of the signature means nothing.
            assert_eq!(
                manifest,
                Manifest::read(&good, &public(), "demo").unwrap(),
                "byte {at}"
            );
            assert!(good[at].is_ascii_hexdigit(), "byte {at}");
        }
    }
    for length in 0..good.len() {
        assert!(Manifest::read(&good[..length], &public(), "demo").is_err());
    }
}

#[test]
fn the_key_of_another_cluster_is_refused() {
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let other: [u8; 32] = other.public_key().as_ref().try_into().unwrap();
    let result = Manifest::read(&signed(&payload(|_| {})), &other, "demo");
    assert!(matches!(result, Err(ManifestError::Signature)));
}

#[test]
fn signed_but_unfit() {
    let why = |result: Result<Manifest, ManifestError>| result.unwrap_err().to_string();
    assert!(why(read(|p| p["name"] = "other".into())).contains("it is the image \"other\""));
    assert!(why(read(|p| p["arch"] = "vax".into())).contains("it is for vax"));
    assert!(why(read(|p| p["format"] = "kraken-image-v2".into())).contains("kraken-image-v2"));
    assert!(why(read(|p| p["init"] = serde_json::json!([]))).contains("no program"));
    assert!(why(read(|p| p["init"] = serde_json::json!(["sh"]))).contains("no program"));
    assert!(why(read(|p| p["layers"] = serde_json::json!([]))).contains("0 layers"));
    assert!(
        why(read(
            |p| p["layers"][0]["sha256"] = "../../etc/passwd".into()
        ))
        .contains("sha256")
    );
    assert!(why(read(|p| p["layers"][0]["kind"] = "ext4".into())).contains("not understood"));
    assert!(why(read(|p| p["extra"] = 1.into())).contains("not understood"));
    assert!(matches!(
        Manifest::read(&vec![b' '; MAX_BYTES + 1], &public(), "demo"),
        Err(ManifestError::TooLarge)
    ));
}

#[test]
fn names_are_parts_of_a_url() {
    for good in ["demo", "a", "0-x_1.2"] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "A", "a b", "-a", &"a".repeat(65)] {
        assert!(!is_name(bad), "{bad}");
    }
}
