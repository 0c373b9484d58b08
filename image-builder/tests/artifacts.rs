//! Claims about `kraken-image` as a whole: what it makes repeats, and bad input ends in a sentence that says what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kraken-image");

/// A folder with keys, a small made-up kernel and a static program in place of the agent.
struct Workshop {
    folder: TempDir,
}

impl Workshop {
    fn new() -> Self {
        let workshop = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        workshop.run("keys keys").unwrap();
        let modules = workshop.path("kernel/lib/modules/6.1.0-test");
        fs::create_dir_all(modules.join("kernel/net")).unwrap();
        workshop.write("kernel/version", b"6.1.0-test\n");
        workshop.write("kernel/vmlinuz", b"kernel");
        for (name, text) in [
            (
                "modules.dep",
                "kernel/net/virtio_net.ko: kernel/net/failover.ko\nkernel/net/failover.ko:\nkernel/net/packed.ko.gz:\n",
            ),
            (
                "modules.alias",
                "alias virtio:d00000001v* virtio_net\nalias other other\n",
            ),
            ("modules.softdep", "softdep virtio_net post: packed\n"),
            ("kernel/net/virtio_net.ko", "net"),
            ("kernel/net/failover.ko", "failover"),
        ] {
            fs::write(modules.join(name), text).unwrap();
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, b"packed module").unwrap();
        fs::write(
            modules.join("kernel/net/packed.ko.gz"),
            gzip.finish().unwrap(),
        )
        .unwrap();
        workshop.write("agent", &static_program());
        workshop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Runs with the words of `line` in this folder; standard output, or standard error of a failure.
    fn run(&self, line: &str) -> Result<String, String> {
        self.run_with(line, &[])
    }

    fn run_with(&self, line: &str, env: &[(&str, &str)]) -> Result<String, String> {
        let mut command = Command::new(PROGRAM);
        command
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env_remove("SOURCE_DATE_EPOCH");
        let output = command.envs(env.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// Runs and expects a failure whose message contains each of `parts`.
    fn fails(&self, line: &str, parts: &[&str]) {
        let error = self.run(line).expect_err(line);
        for part in parts {
            assert!(error.contains(part), "{line}: no {part:?} in:\n{error}");
        }
    }

    /// A root folder whose `/sbin/init` is a link to a program.
    fn make_root(&self) {
        self.write("root/usr/bin/busybox", &static_program());
        fs::set_permissions(
            self.path("root/usr/bin/busybox"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        fs::create_dir_all(self.path("root/sbin")).unwrap();
        std::os::unix::fs::symlink("../usr/bin/busybox", self.path("root/sbin/init")).unwrap();
    }
}

/// The smallest ELF file that needs no interpreter: a header without segments.
fn static_program() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    file[16] = 2;
    file[18] = 62;
    file
}

fn has_squashfs_tools() -> bool {
    let found = Command::new("mksquashfs").arg("-version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: no mksquashfs on this machine; try: apt-get install squashfs-tools");
    }
    found
}

fn digest(shown: &str) -> String {
    let line = shown
        .lines()
        .find(|line| line.trim_start().starts_with("digest"))
        .unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}

const INITRAMFS: &str = "initramfs --agent agent --kernel kernel --keys keys";

#[test]
fn initramfs_repeats_and_holds_what_it_should() {
    let workshop = Workshop::new();
    let first = workshop.run(&format!("{INITRAMFS} --out one")).unwrap();
    // Times and order of the input files do not matter, its contents do.
    for name in ["agent", "kernel/lib/modules/6.1.0-test/modules.dep"] {
        let bytes = fs::read(workshop.path(name)).unwrap();
        fs::remove_file(workshop.path(name)).unwrap();
        workshop.write(name, &bytes);
    }
    let second = workshop.run(&format!("{INITRAMFS} --out two")).unwrap();
    assert_eq!(first.replace("one", "two"), second);
    assert_eq!(
        fs::read(workshop.path("one")).unwrap(),
        fs::read(workshop.path("two")).unwrap()
    );
    assert!(
        first.contains("in 3 files, kernel 6.1.0-test") && first.contains("squashfs"),
        "{first}"
    );

    let shown = workshop.run("show one").unwrap();
    for part in [
        "-rwxr-xr-x         64 init\n",
        "crw-------       5, 1 dev/console\n",
        "-rw-r--r--         65 etc/kraken/cluster.pub\n",
        "-rw-r--r--         13 lib/modules/6.1.0-test/kernel/net/packed.ko\n",
        "-rw-r--r--         36 lib/modules/6.1.0-test/modules.alias\n",
        "drwxrwxrwt          0 tmp\n",
    ] {
        assert!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
    assert!(!shown.contains(".key"), "a secret was packed:\n{shown}");
    let sha256 = first
        .split_whitespace()
        .skip_while(|word| *word != "sha256")
        .nth(1)
        .unwrap();
    assert!(shown.contains(sha256), "{shown}");
}

#[test]
fn initramfs_depends_on_its_time_and_compression_only_as_told() {
    let workshop = Workshop::new();
    let json = |line: &str, env: &[(&str, &str)]| {
        let text = workshop
            .run_with(&format!("--json {INITRAMFS} {line}"), env)
            .unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let epoch = [("SOURCE_DATE_EPOCH", "1700000000")];
    let zstd = json("--out zstd", &epoch);
    let gzip = json("--compress gzip --out gzip", &epoch);
    assert_eq!(zstd["unpacked_bytes"], gzip["unpacked_bytes"]);
    assert_ne!(zstd["sha256"], gzip["sha256"]);
    assert_eq!(zstd["modules"], 3);
    assert_eq!(
        json("--no-default-modules --out none", &epoch)["modules"],
        0
    );
    assert_ne!(
        json("--out later", &[("SOURCE_DATE_EPOCH", "1700000001")])["sha256"],
        zstd["sha256"]
    );
    let error = workshop
        .run_with(
            &format!("{INITRAMFS} --out bad"),
            &[("SOURCE_DATE_EPOCH", "today")],
        )
        .unwrap_err();
    assert!(
        error.contains("SOURCE_DATE_EPOCH must be seconds since 1970"),
        "{error}"
    );
    // Kernel and zstd tool agree that both are what they claim.
    assert!(
        fs::read(workshop.path("gzip"))
            .unwrap()
            .starts_with(&[0x1f, 0x8b])
    );
    assert!(
        fs::read(workshop.path("zstd"))
            .unwrap()
            .starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
    );
    for name in ["gzip", "zstd"] {
        workshop.run(&format!("show {name}")).unwrap();
    }
}

#[test]
fn bad_input_to_initramfs_is_explained() {
    let workshop = Workshop::new();
    let out = "--out never";
    workshop.fails(
        &format!("initramfs --agent agent --kernel nowhere --keys keys {out}"),
        &["no kernel in nowhere", "kraken-image kernel"],
    );
    workshop.fails(
        &format!("initramfs --agent agent --kernel kernel --keys nowhere {out}"),
        &["nowhere/ca.pem", "kraken-image keys"],
    );
    workshop.fails(
        &format!("initramfs --agent none --kernel kernel --keys keys {out}"),
        &["can't read none"],
    );
    workshop.fails(
        &format!("{INITRAMFS} --module virtio_nett {out}"),
        &["no module virtio_nett; similar names: virtio_net"],
    );
    workshop.write("script", b"#!/bin/sh\n");
    workshop.fails(
        &format!("initramfs --agent script --kernel kernel --keys keys {out}"),
        &["not an ELF program", "kraken-image agent"],
    );
    // This test's own subject is dynamically linked.
    workshop.fails(
        &format!("initramfs --agent {PROGRAM} --kernel kernel --keys keys {out}"),
        &["dynamically linked", "/ld-linux"],
    );
    workshop.write(
        "kernel/config",
        b"# CONFIG_RD_ZSTD is not set\nCONFIG_RD_GZIP=y\n",
    );
    workshop.fails(
        &format!("{INITRAMFS} {out}"),
        &["CONFIG_RD_ZSTD", "--compress"],
    );
    workshop
        .run(&format!("{INITRAMFS} --compress gzip --out good"))
        .unwrap();
    workshop.write("kernel/config", b"CONFIG_RD_ZSTD=y\n");
    let dep = "kernel/lib/modules/6.1.0-test/modules.dep";
    workshop.write(dep, b"garbage\n");
    workshop.fails(
        &format!("{INITRAMFS} {out}"),
        &["module index", "damaged", "line 1"],
    );
    fs::remove_file(workshop.path(dep)).unwrap();
    workshop.fails(
        &format!("{INITRAMFS} {out}"),
        &["no module index", "kraken-image kernel"],
    );
    workshop.write("kernel/version", b"../../x\n");
    workshop.fails(
        &format!("{INITRAMFS} {out}"),
        &["does not hold a kernel version"],
    );
    assert!(!workshop.path("never").exists());
}

#[test]
fn keys_are_never_overwritten_and_secret() {
    let workshop = Workshop::new();
    let before = fs::read(workshop.path("keys/ca.key")).unwrap();
    workshop.fails("keys keys", &["never overwritten"]);
    assert_eq!(fs::read(workshop.path("keys/ca.key")).unwrap(), before);
    for (name, mode) in [
        ("ca.key", 0o600),
        ("cluster.key", 0o600),
        ("ca.pem", 0o644),
        ("cluster.pub", 0o644),
    ] {
        let found = fs::metadata(workshop.path("keys").join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }
    // One left-over file is enough to stop, before anything is written.
    workshop.write("half/cluster.pub", b"");
    workshop.fails("keys half", &["half/cluster.pub"]);
    assert_eq!(fs::read_dir(workshop.path("half")).unwrap().count(), 1);
}

#[test]
fn kernel_comes_from_an_unpacked_root() {
    let workshop = Workshop::new();
    for version in ["6.1.0-a", "6.1.0-b"] {
        workshop.write(&format!("tree/boot/vmlinuz-{version}"), b"kernel");
        workshop.write(
            &format!("tree/lib/modules/{version}/kernel/readme"),
            b"no modules",
        );
    }
    workshop.fails(
        "kernel --path tree --out k",
        &["several kernels", "--version", "6.1.0-a, 6.1.0-b"],
    );
    workshop.fails(
        "kernel --path tree --version 5.4 --out k",
        &["no kernel 5.4", "6.1.0-a, 6.1.0-b"],
    );
    workshop.fails(
        "kernel --path keys --out k",
        &["has no kernel", "boot/vmlinuz-VERSION"],
    );
    workshop.fails(
        "kernel --path tree --version 6.1.0-a --out keys",
        &["is not empty and holds no kernel"],
    );
    assert!(workshop.path("keys/ca.key").is_file());
    workshop.write("bad.deb", b"!<arch>\n");
    workshop.fails("kernel --path bad.deb --out k", &["can't unpack bad.deb"]);
    if Command::new("/sbin/depmod")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: no depmod on this machine; try: apt-get install kmod");
        return;
    }
    workshop
        .run("kernel --path tree --version 6.1.0-a --out k")
        .unwrap();
    workshop
        .run("kernel --path tree --version 6.1.0-b --out k")
        .unwrap();
    assert_eq!(
        fs::read_to_string(workshop.path("k/version")).unwrap(),
        "6.1.0-b\n"
    );
    assert!(workshop.path("k/lib/modules/6.1.0-b/modules.dep").is_file());
    assert!(!workshop.path("k/lib/modules/6.1.0-a").exists());
    let left: Vec<_> = fs::read_dir(workshop.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().starts_with('.')),
        "left behind: {left:?}"
    );
}

#[test]
fn image_repeats_and_is_checked() {
    if !has_squashfs_tools() {
        return;
    }
    let workshop = Workshop::new();
    workshop.make_root();
    let make = |out: &str| {
        workshop
            .run(&format!(
                "image --name demo --from root --all-root --keys keys --out {out}"
            ))
            .unwrap()
    };
    let first = make("one");
    fs::File::open(workshop.path("root/usr"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(digest(&make("two")), digest(&first));
    assert!(first.contains("signature         good"), "{first}");
    assert!(workshop.run("show one").unwrap().contains("not checked"));
    workshop.run("show one/manifest.json --keys keys").unwrap();
    let public = fs::read_to_string(workshop.path("keys/cluster.pub")).unwrap();
    workshop.run(&format!("show one --pub {public}")).unwrap();
    workshop.run("keys other").unwrap();
    workshop.fails(
        "show one --keys other",
        &["not to be trusted", "not by this cluster's key"],
    );

    let layer = layer_of(&workshop.path("one"));
    let mut bytes = fs::read(&layer).unwrap();
    bytes[1000] ^= 1;
    fs::write(&layer, &bytes).unwrap();
    workshop.fails("show one --keys keys", &["was changed"]);
    fs::remove_file(&layer).unwrap();
    workshop.fails("show one --keys keys", &["can't read the layer"]);
    let manifest = fs::read_to_string(workshop.path("two/manifest.json")).unwrap();
    workshop.write(
        "two/manifest.json",
        manifest.replace("demo", "dome").as_bytes(),
    );
    workshop.fails("show two --keys keys", &["not by this cluster's key"]);
    workshop.write("two/manifest.json", b"{");
    workshop.fails("show two --keys keys", &["not a signed envelope"]);
}

#[test]
fn image_from_tar_is_the_same_however_it_is_packed() {
    if !has_squashfs_tools() {
        return;
    }
    let workshop = Workshop::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, uid: u64, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_mtime(1_600_000_000);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, data).unwrap();
    };
    // No entry for the folders: they must not get the time of the run.
    add("sbin/init", 0o755, 0, &static_program());
    add("home/user/file", 0o640, 1234, b"text");
    let tar = builder.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    workshop.write("plain.tar", &tar);
    workshop.write("root.tar.gz", &gzip.finish().unwrap());
    workshop.write("root.tar.zst", &zstd::encode_all(&tar[..], 1).unwrap());
    let make = |from: &str| {
        digest(
            &workshop
                .run(&format!(
                    "image --name demo --from {from} --keys keys --out {from}.out"
                ))
                .unwrap(),
        )
    };
    let plain = make("plain.tar");
    assert_eq!(make("root.tar.gz"), plain);
    // squashfs times are in seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(make("root.tar.zst"), plain);

    let output = Command::new("unsquashfs")
        .env("TZ", "UTC")
        .arg("-lln")
        .arg(layer_of(&workshop.path("plain.tar.out")))
        .output()
        .unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let words: Vec<_> = listing
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert!(words.iter().any(|line| line == "-rw-r----- 1234/0 4 2020-09-13 12:26 squashfs-root/home/user/file"), "{listing}");
    assert!(
        words.iter().any(|line| line.starts_with("drwxr-xr-x 0/0")
            && line.ends_with("2020-09-13 12:26 squashfs-root")),
        "{listing}"
    );

    workshop.write(
        "short.tar.gz",
        &fs::read(workshop.path("root.tar.gz")).unwrap()[..100],
    );
    workshop.fails(
        "image --name demo --from short.tar.gz --keys keys --out bad",
        &["can't pack short.tar.gz", "damaged"],
    );
    workshop.write("cut.tar", &tar[..700]);
    workshop.fails(
        "image --name demo --from cut.tar --keys keys --out bad",
        &["damaged"],
    );
    workshop.write("text", b"hello");
    workshop.fails(
        "image --name demo --from text --keys keys --out bad",
        &["neither a folder nor a tar archive"],
    );
    assert_eq!(
        fs::read_dir(workshop.path("bad")).unwrap().count(),
        0,
        "a failure leaves nothing behind"
    );
}

#[test]
fn bad_input_to_image_is_explained() {
    if !has_squashfs_tools() {
        return;
    }
    let workshop = Workshop::new();
    workshop.make_root();
    let image = "image --from root --out bad";
    workshop.fails(
        &format!("{image} --name ../x --keys keys"),
        &["bad image name"],
    );
    workshop.fails(
        &format!("{image} --name demo --keys nowhere"),
        &["nowhere/cluster.key", "kraken-image keys"],
    );
    workshop.fails(
        &format!("{image} --name demo --keys keys --init /bin/none"),
        &["no program \"/bin/none\"", "--init"],
    );
    workshop.fails(
        &format!("{image} --name demo --keys keys --init init"),
        &["init"],
    );
    workshop.fails(
        "image --name demo --from nowhere --keys keys --out bad",
        &["can't read nowhere"],
    );
    workshop.fails(
        "image --name demo --from root --keys keys --out root/image",
        &["is inside root"],
    );
    assert!(!workshop.path("bad/manifest.json").exists());
}

#[test]
fn show_tells_files_apart() {
    let workshop = Workshop::new();
    assert!(
        workshop
            .run("show agent")
            .unwrap()
            .contains("x86_64 program, statically linked")
    );
    assert!(
        workshop
            .run("show kernel")
            .unwrap()
            .contains("kernel 6.1.0-test")
    );
    workshop.fails(&format!("show {PROGRAM}"), &["dynamically linked"]);
    workshop.fails("show keys", &["neither an image", "nor a kernel"]);
    workshop.fails("show keys/ca.pem", &["not an initramfs"]);
    workshop.write("empty", b"");
    workshop.fails("show empty", &["not an initramfs: it is empty"]);
    workshop.write("cut.zst", b"\x28\xb5\x2f\xfd\x04");
    workshop.fails("show cut.zst", &["can't be unpacked"]);
    workshop.fails("show nowhere", &["can't read nowhere"]);
}

/// The path of the only layer in an image's folder.
fn layer_of(folder: &Path) -> PathBuf {
    let is_layer = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(is_layer)
        .unwrap()
}
