use ring::signature::KeyPair;

use super::*;

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn payload() -> Payload {
    Payload {
        format: FORMAT.to_owned(),
        name: "demo".to_owned(),
        arch: "x86_64".to_owned(),
        security_version: 1,
        init: vec!["/sbin/init".to_owned()],
        layers: vec![Layer {
            kind: LayerKind::Squashfs,
            sha256: "ab".repeat(32),
            size: 4096,
        }],
    }
}

fn check_payload(change: impl FnOnce(&mut Payload), expect: &str) {
    let mut payload = payload();
    change(&mut payload);
    assert_eq!(payload.sign(&key()).unwrap_err().to_string(), expect);
}

/// The bytes that nodes rely on, spelled out: a change here is a change of the format.
#[test]
fn text_is_the_published_one() {
    let text = payload().sign(&key()).unwrap();
    let envelope: Envelope = serde_json::from_str(&text).unwrap();
    let digest = "ab".repeat(32);
    assert_eq!(
        envelope.payload,
        format!(
            r#"{{"format":"kraken-image-v1","name":"demo","arch":"x86_64","security_version":1,"init":["/sbin/init"],"layers":[{{"kind":"squashfs","sha256":"{digest}","size":4096}}]}}"#
        )
    );
    let message = [
        b"kraken-manifest-v1\0".as_slice(),
        envelope.payload.as_bytes(),
    ]
    .concat();
    assert_eq!(
        envelope.signature,
        digest::encode(key().sign(&message).as_ref())
    );
    assert!(
        text.starts_with("{\"payload\":\"") && text.ends_with("\"}\n"),
        "{text}"
    );
    let manifest = read(text.as_bytes(), Some(key().public_key().as_ref())).unwrap();
    assert_eq!(
        manifest,
        Manifest {
            payload: payload(),
            digest: digest::sha256_hex(envelope.payload.as_bytes())
        }
    );
}

/// Every byte that is changed is noticed, whichever check notices it.
#[test]
fn one_changed_byte_is_refused() {
    let text = payload().sign(&key()).unwrap();
    let public = key().public_key().as_ref().to_vec();
    for at in 0..text.trim_end().len() {
        let mut damaged = text.clone().into_bytes();
        damaged[at] ^= 1;
        let same_meaning = serde_json::from_slice::<Envelope>(&damaged)
            .is_ok_and(|envelope| serde_json::to_string(&envelope).unwrap() == text.trim_end());
        assert!(
            same_meaning || read(&damaged, Some(&public)).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn another_key_is_refused_before_the_payload_is_read() {
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let text = payload().sign(&other).unwrap();
    let public = key().public_key().as_ref().to_vec();
    assert!(matches!(
        read(text.as_bytes(), Some(&public)),
        Err(ManifestError::Signature)
    ));
    let nonsense = serde_json::to_string(&Envelope {
        payload: "}{".to_owned(),
        signature: "00".repeat(64),
    })
    .unwrap();
    assert!(matches!(
        read(nonsense.as_bytes(), Some(&public)),
        Err(ManifestError::Signature)
    ));
    assert!(matches!(
        read(nonsense.as_bytes(), None),
        Err(ManifestError::Payload(_))
    ));
}

#[test]
fn payloads_are_checked_when_written_and_when_read() {
    check_payload(
        |p| p.format = "v9".into(),
        "the manifest's format is \"v9\", this program knows \"kraken-image-v1\"",
    );
    check_payload(
        |p| p.init.clear(),
        "the image's init must be an absolute path, not \"\"",
    );
    check_payload(
        |p| p.init[0] = "init".into(),
        "the image's init must be an absolute path, not \"init\"",
    );
    check_payload(|p| p.layers.clear(), "an image has 1 to 128 layers, not 0");
    check_payload(
        |p| p.layers = vec![p.layers[0].clone(); LAYERS_MAX + 1],
        "an image has 1 to 128 layers, not 129",
    );
    check_payload(
        |p| p.layers[0].sha256 = "AB".repeat(32),
        "layer 0 has a sha256 that is not 64 lower-case hex digits",
    );
    for bad in [
        "",
        "../x",
        "Demo",
        "a/b",
        ".hidden",
        &"x".repeat(NAME_MAX_BYTES + 1),
    ] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
    assert!(check_name(&"x".repeat(NAME_MAX_BYTES)).is_ok());
    assert!(check_name("rocky-9.4_x86").is_ok());
}

#[test]
fn malformed_files_are_errors() {
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"payload":"","signature":"","more":1}"#,
        "\u{0}",
    ] {
        assert!(
            matches!(read(bad.as_bytes(), None), Err(ManifestError::Envelope(_))),
            "{bad}"
        );
    }
    let short = r#"{"payload":"{}","signature":"abcd"}"#;
    assert!(matches!(
        read(short.as_bytes(), None),
        Err(ManifestError::SignatureText)
    ));
    assert!(matches!(
        read(&vec![b' '; MANIFEST_MAX_BYTES + 1], None),
        Err(ManifestError::TooLarge)
    ));
}
