use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

struct Shelf {
    dir: tempfile::TempDir,
    key: Ed25519KeyPair,
    table: Arc<BootTable>,
}

impl Shelf {
    fn new() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            key,
            table: Arc::default(),
        }
    }

    fn open(&self) -> ImageStore {
        let key = self.key.public_key().as_ref().try_into().unwrap();
        ImageStore::open(self.dir.path().join("images"), key, Arc::clone(&self.table)).unwrap()
    }

    /// What `kraken-image image` writes.
    fn build(&self, name: &str, security_version: u64, content: &[u8]) -> PathBuf {
        let sha256 = hex(ring::digest::digest(&SHA256, content).as_ref());
        let payload = serde_json::json!({
            "format": "kraken-image-v1", "name": name, "arch": "x86_64", "security_version": security_version,
            "init": ["/sbin/init"], "layers": [{ "kind": "squashfs", "sha256": sha256, "size": content.len() }],
        })
        .to_string();
        let mut signed = b"kraken-manifest-v1\0".to_vec();
        signed.extend_from_slice(payload.as_bytes());
        let signature = hex(self.key.sign(&signed).as_ref());
        let folder = self
            .dir
            .path()
            .join(format!("built-{name}-{security_version}"));
        fs::create_dir_all(&folder).unwrap();
        let manifest = serde_json::json!({ "payload": payload, "signature": signature });
        fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        fs::write(folder.join(sha256), content).unwrap();
        folder
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn layer_of(folder: &Path) -> PathBuf {
    let is_layer = |path: &PathBuf| path.file_name().is_some_and(|name| name != "manifest.json");
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(is_layer)
        .unwrap()
}

#[test]
fn an_added_image_is_served_and_there_after_a_restart() {
    let shelf = Shelf::new();
    let folder = shelf.build("demo", 1, b"squashfs");
    let image = shelf.open().add(&folder).unwrap().image;
    assert_eq!(
        (
            image.name.as_str(),
            image.size_bytes,
            image.security_version
        ),
        ("demo", 8, 1)
    );
    assert!(shelf.table.manifest(&"demo".parse().unwrap()).is_some());
    let blob: Sha256 = layer_of(&folder)
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        fs::read(shelf.table.blob(&blob).unwrap()).unwrap(),
        b"squashfs"
    );
    let again = shelf.open();
    assert_eq!(again.list(), [image]);
}

#[test]
fn what_was_tampered_with_is_refused() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let refused = |folder: &Path, part: &str| {
        let error = store.add(folder).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert!(store.list().is_empty());
        let told = store.check(folder).unwrap_err().to_string();
        assert_eq!(told, error, "a dry run is refused alike");
    };
    let folder = shelf.build("demo", 1, b"squashfs");
    fs::write(layer_of(&folder), b"squashfS").unwrap();
    refused(&folder, "its SHA-256 is");
    fs::write(layer_of(&folder), b"squash").unwrap();
    refused(&folder, "it has 6 bytes instead of 8");
    fs::write(layer_of(&folder), b"squashfs and more").unwrap();
    refused(&folder, "more than 8 bytes");
    let layer = layer_of(&folder);
    fs::remove_file(&layer).unwrap();
    refused(&folder, "cannot open");
    std::os::unix::fs::symlink("/etc/hostname", &layer).unwrap();
    refused(&folder, "cannot open");
    let manifest = folder.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("demo", "dema")).unwrap();
    refused(&folder, "not signed by this cluster's key");
    fs::write(&manifest, "{}").unwrap();
    refused(&folder, "no image manifest");
    refused(Path::new("/no/such/folder"), "cannot open");
    refused(&shelf.build("blobs", 1, b"x"), "no name for an image");
    refused(&shelf.build("../up", 1, b"x"), "no name for an image");
    let left: Vec<_> = fs::read_dir(shelf.dir.path().join("images/blobs"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn another_clusters_image_is_refused() {
    let (ours, theirs) = (
        Shelf::new(),
        Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap(),
    );
    let folder = Shelf {
        key: theirs,
        ..Shelf::new()
    }
    .build("demo", 1, b"squashfs");
    // The temporary folder of the other cluster is gone by now, but its refusal is about the key when it is not.
    let error = ours.open().add(&folder).unwrap_err().to_string();
    assert!(error.contains("cannot open"), "{error}");
    let other = Shelf {
        key: Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap(),
        ..Shelf::new()
    };
    let folder = other.build("demo", 1, b"squashfs");
    let error = ours.open().add(&folder).unwrap_err().to_string();
    assert!(
        error.contains("not signed by this cluster's key"),
        "{error}"
    );
}

#[test]
fn a_security_version_does_not_go_down() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let (old, new) = (
        shelf.build("demo", 1, b"old"),
        shelf.build("demo", 2, b"new"),
    );
    store.add(&old).unwrap();
    let image = store.add(&new).unwrap().image;
    for refused in [store.add(&old), store.check(&old)] {
        assert!(matches!(
            refused,
            Err(ImageError::Downgrade { has: 2, is: 1, .. })
        ));
    }
    assert_eq!(store.list(), [image]);
}

/// Every file and folder below, with its length.
fn all_below(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        all.push((path.clone(), fs::metadata(&path).unwrap().len()));
        if path.is_dir() {
            all.extend(all_below(&path));
        }
    }
    all.sort();
    all
}

#[test]
fn a_dry_run_tells_what_is_done_then_and_changes_nothing() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let images = shelf.dir.path().join("images");
    let (first, second) = (
        shelf.build("demo", 1, b"squashfs"),
        shelf.build("demo", 2, b"squashfs, rebuilt"),
    );
    let copy = shelf.build("other", 1, b"squashfs");
    for (folder, replaces, new_files, new_bytes) in [
        (&first, None, 1, 8),
        (&first, Some(1), 0, 0),
        (&copy, None, 0, 0),
        (&second, Some(1), 1, 17),
    ] {
        let before = (all_below(&images), store.list());
        let told = store.check(folder).unwrap();
        assert_eq!((all_below(&images), store.list()), before);
        let added = store.add(folder).unwrap();
        assert_eq!((told.new_files, told.new_bytes), (new_files, new_bytes));
        let version = told.replaces.as_ref().map(|old| old.security_version);
        assert_eq!(version, replaces, "{told:?}");
        let image = SystemImage {
            added_ms: 0,
            ..added.image.clone()
        };
        assert_eq!(told, Added { image, ..added });
    }
}

#[test]
fn damaged_images_are_left_out_at_the_start() {
    let shelf = Shelf::new();
    shelf
        .open()
        .add(&shelf.build("demo", 1, b"squashfs"))
        .unwrap();
    let blobs = shelf.dir.path().join("images/blobs");
    fs::write(layer_of(&blobs), b"short").unwrap();
    assert!(shelf.open().list().is_empty());
    assert!(shelf.table.manifest(&"demo".parse().unwrap()).is_none());
}
