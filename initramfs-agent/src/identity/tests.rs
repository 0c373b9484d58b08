use std::os::unix::fs::PermissionsExt;

use super::*;

const GRANT: &str = "kraken-grant-v1
grant 0191d2a0-0000-7000-8000-00000000000a
node 0191d2a0-0000-7000-8000-000000000001
boot 0191d2a0-0000-7000-8000-0000000000b0
secret 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
";

struct Dirs {
    _root: tempfile::TempDir,
    etc: PathBuf,
    run: PathBuf,
}

fn dirs() -> Dirs {
    let root = tempfile::tempdir().unwrap();
    let (etc, run) = (root.path().join("etc"), root.path().join("run"));
    fs::create_dir(&etc).unwrap();
    fs::create_dir(&run).unwrap();
    Dirs {
        _root: root,
        etc,
        run,
    }
}

#[test]
fn a_grant_is_taken_out_of_the_initramfs_and_dies_with_the_first_certificate() {
    let dirs = dirs();
    fs::write(dirs.etc.join("grant"), GRANT).unwrap();
    let first = Identity::establish(&dirs.etc, &dirs.run).unwrap();
    assert!(matches!(first.proof, Proof::Grant(_)));
    assert!(!dirs.etc.join("grant").exists());
    for secret in ["grant", "node.key"] {
        let mode = fs::metadata(dirs.run.join(secret))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }

    // An agent that died before its join still has the grant and the same key.
    let mut second = Identity::establish(&dirs.etc, &dirs.run).unwrap();
    assert!(matches!(second.proof, Proof::Grant(_)));
    assert_eq!(second.key.public(), first.key.public());
    second.keep_certificate(b"certificate".to_vec()).unwrap();
    assert!(!dirs.run.join("grant").exists());

    let third = Identity::establish(&dirs.etc, &dirs.run).unwrap();
    assert!(matches!(&third.proof, Proof::Certificate(der) if der.as_ref() == b"certificate"));
    assert_eq!((third.node, third.boot), (first.node, first.boot));
}

#[test]
fn nobody_without_proof() {
    let dirs = dirs();
    let error = Identity::establish(&dirs.etc, &dirs.run)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("not booted by a head that armed it"),
        "{error}"
    );
}

#[test]
fn a_broken_grant_is_named_and_removed() {
    let dirs = dirs();
    fs::write(dirs.etc.join("grant"), vec![b'x'; 100_000]).unwrap();
    let error = Identity::establish(&dirs.etc, &dirs.run).err().unwrap();
    assert!(format!("{error:#}").contains("makes no sense"), "{error:#}");
    assert!(!dirs.etc.join("grant").exists() && !dirs.run.join("grant").exists());
}

#[test]
fn the_public_key_is_one_that_tls_understands() {
    let key = NodeKey::generate().unwrap();
    assert_eq!(key.public().len(), 91);
    let signing = rustls::crypto::ring::sign::any_supported_type(&key.private()).unwrap();
    assert_eq!(signing.public_key().unwrap().as_ref(), key.public());
}

#[test]
fn the_clock_is_never_before_the_build() {
    let dirs = dirs();
    let path = dirs.etc.join("build");
    assert_eq!(read_build_time(&path), UNIX_EPOCH);
    fs::write(&path, r#"{"time": 4000000000, "agent": "0.1.0"}"#).unwrap();
    let cluster = Cluster {
        ca: Vec::new(),
        key: [0; 32],
        built: read_build_time(&path),
    };
    assert_eq!(
        cluster.now(),
        UNIX_EPOCH + Duration::from_secs(4_000_000_000)
    );
}

#[test]
fn a_cluster_without_trust_anchors_is_none() {
    let dirs = dirs();
    assert!(format!("{:#}", Cluster::read(&dirs.etc).unwrap_err()).contains("ca.pem"));
    fs::write(dirs.etc.join("ca.pem"), "nothing").unwrap();
    assert!(
        format!("{:#}", Cluster::read(&dirs.etc).unwrap_err()).contains("holds no certificate")
    );
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(dirs.etc.join("ca.pem"), pem).unwrap();
    fs::write(dirs.etc.join("cluster.pub"), "abc").unwrap();
    assert!(format!("{:#}", Cluster::read(&dirs.etc).unwrap_err()).contains("64 hex digits"));
    fs::write(
        dirs.etc.join("cluster.pub"),
        format!("{}\n", "ab".repeat(32)),
    )
    .unwrap();
    assert_eq!(Cluster::read(&dirs.etc).unwrap().key, [0xab; 32]);
}
