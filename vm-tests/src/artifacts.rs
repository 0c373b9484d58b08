//! Everything a cluster boots from, built once and shared by `up` and the tests.
//!
//! Each artifact has a folder under `target/lab` with a key made of its inputs; the same key means that nothing is built.
//! The work is done by `cargo build` and `kraken-image`, as an operator would do it; this module only decides what is stale.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::{accel, doctor, paths, ui::Stage};

pub mod demo;
pub mod libraries;
pub mod probe;
pub mod python;

/// Debian's kernel for virtual machines: small, and all its drivers are what QEMU has.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// Modules of that kernel which a machine of the lab needs before and for its image; the rest stays out of memory.
const MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_net",
    "virtio_rng",
    "button",
    "loop",
    "squashfs",
    "overlay",
];

/// Folders whose content decides what the agent is.
const AGENT_SOURCES: [&str; 5] = [
    "initramfs-agent",
    "engine",
    "proto",
    "Cargo.lock",
    "Cargo.toml",
];

/// What lies between those sources and goes into no release build.
const NOT_IN_THE_AGENT: [&str; 8] = [
    "target",
    "tests",
    "tests.rs",
    "examples",
    "benches",
    "fuzz",
    "scenarios",
    "docs",
];

/// Where the artifacts are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Artifacts {
    /// Built by cargo, dev profile.
    pub head: PathBuf,
    /// Built by cargo, dev profile.
    pub krakenctl: PathBuf,
    /// Built by cargo, dev profile.
    pub image_tool: PathBuf,
    /// Cluster key material.
    pub keys: PathBuf,
    /// `vmlinuz`, `version`, `lib/modules`.
    pub kernel: PathBuf,
    /// The static agent.
    pub agent: PathBuf,
    /// What the machines boot.
    pub initramfs: PathBuf,
    /// Folder of the signed demo image.
    pub demo: PathBuf,
    /// The busybox-only initramfs that the accelerator was probed with.
    pub probe: PathBuf,
    /// QEMU's accelerator.
    pub accel: String,
}

/// Builds what is stale; one process at a time.
pub fn build() -> Result<Artifacts> {
    let lab = paths::lab();
    fs::create_dir_all(&lab)?;
    let lock = File::create(lab.join("lock"))?;
    let _lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((file, _)) => {
            eprintln!("lab: another lab builds in this folder; waiting for it");
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?
        }
    };
    build_programs()?;
    let image_tool = paths::program("kraken-image");
    let tool = file_digest(&image_tool)?;

    let keys = once("keys", "keys", "made once, kept", |out, stage, log| {
        stage.run(Command::new(&image_tool).arg("keys").arg(out), log)
    })?;
    let kernel = once("kernel", "kernel", KERNEL_PACKAGE, |out, stage, log| {
        let mut command = Command::new(&image_tool);
        command.args(["kernel", "--package", KERNEL_PACKAGE, "--out"]);
        stage.run(command.arg(out), log)
    })?;
    let sources = digest_of_tree(&AGENT_SOURCES.map(|path| paths::workspace().join(path)))?;
    let agent = once("agent", "agent (static)", &sources, |out, stage, log| {
        fs::create_dir_all(out)?;
        let mut command = Command::new(&image_tool);
        command.current_dir(paths::workspace());
        stage.run(
            command
                .args(["agent", "--out"])
                .arg(out.join("kraken-agent")),
            log,
        )
    })?
    .join("kraken-agent");
    let public = fs::read_to_string(keys.join("cluster.pub"))?;
    let version = fs::read_to_string(kernel.join("version"))?;
    let key = [
        file_digest(&agent)?,
        version,
        public.clone(),
        tool.clone(),
        MODULES.join(" "),
    ]
    .join("\n");
    let initramfs = once("initramfs", "initramfs", &key, |out, stage, log| {
        fs::create_dir_all(out)?;
        let mut command = Command::new(&image_tool);
        command.arg("initramfs").arg("--agent").arg(&agent);
        command
            .arg("--kernel")
            .arg(&kernel)
            .arg("--keys")
            .arg(&keys);
        command.arg("--no-default-modules");
        for module in MODULES {
            command.args(["--module", module]);
        }
        stage.run(command.arg("--out").arg(out.join("initramfs")), log)
    })?
    .join("initramfs");

    let busybox = doctor::static_busybox().context("no static busybox (package busybox-static)")?;
    let busybox_digest = file_digest(&busybox)?;
    let key = [busybox_digest.clone(), demo::recipe(), public, tool].join("\n");
    let demo = once("demo", "demo image", &key, |out, stage, log| {
        let root = tempfile::tempdir_in(&lab)?;
        demo::make_root(root.path(), &busybox)?;
        let mut command = demo::pack(root.path(), &image_tool, &keys, out);
        stage.run(&mut command, log)
    })?;
    let key = [busybox_digest, probe::recipe()].join("\n");
    let probe = once("probe", "probe initramfs", &key, |out, _, _| {
        fs::create_dir_all(out)?;
        probe::make(&out.join("initramfs"), &busybox)
    })?
    .join("initramfs");

    let stage = Stage::start("accelerator");
    let (accel, why) = accel::choose(&kernel.join("vmlinuz"), &probe, &lab.join("accel"))?;
    stage.done(&format!("{accel}: {why}"));
    Ok(Artifacts {
        head: paths::program("kraken-head"),
        krakenctl: paths::program("krakenctl"),
        image_tool,
        keys,
        kernel,
        agent,
        initramfs,
        demo,
        probe,
        accel,
    })
}

fn build_programs() -> Result<()> {
    let stage = Stage::start("programs (cargo build)");
    let mut command = cargo();
    // The whole workspace, as the tests build it: naming packages would unify features differently and build twice.
    command.args(["build", "--workspace", "--bins"]);
    stage.run(&mut command, &paths::lab().join("log/cargo-build.log"))?;
    for name in ["kraken-head", "krakenctl", "kraken-image"] {
        let file = paths::program(name);
        if !file.exists() {
            bail!("cargo built no {}", file.display());
        }
    }
    stage.done("kraken-head krakenctl kraken-image");
    Ok(())
}

/// Cargo, as the user's shell would start it: without the variables that this program's own cargo left behind.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(paths::workspace());
    for (name, _) in std::env::vars() {
        let of_cargo = [
            "CARGO_PKG_",
            "CARGO_CRATE_",
            "CARGO_BIN_",
            "CARGO_MANIFEST_",
        ];
        if of_cargo.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `make` into a fresh folder unless `target/lab/<name>` was made from the same `inputs`; the folder appears whole or not at all.
fn once(
    name: &str,
    title: &str,
    inputs: &str,
    make: impl FnOnce(&Path, &Stage, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let lab = paths::lab();
    let (folder, stamp) = (lab.join(name), lab.join(format!("{name}.key")));
    let key = hex(digest::digest(&digest::SHA256, inputs.as_bytes()).as_ref());
    let stage = Stage::start(title);
    if folder.exists() && fs::read_to_string(&stamp).is_ok_and(|kept| kept == key) {
        stage.done("as before");
        return Ok(folder);
    }
    let fresh = lab.join(format!("{name}.new"));
    for old in [&fresh, &folder] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    make(&fresh, &stage, &lab.join("log").join(format!("{name}.log")))
        .with_context(|| format!("cannot make {title}"))?;
    fs::rename(&fresh, &folder)
        .with_context(|| format!("{title}: nothing came out at {}", fresh.display()))?;
    fs::write(&stamp, key)?;
    stage.done(&folder.display().to_string());
    Ok(folder)
}

fn file_digest(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(digest::digest(&digest::SHA256, &bytes).as_ref()))
}

fn digest_of_tree(roots: &[PathBuf]) -> Result<String> {
    let mut files = Vec::new();
    for root in roots {
        list_files(root, &mut files)?;
    }
    files.sort();
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        context.update(file.as_os_str().as_encoded_bytes());
        context.update(file_digest(&file)?.as_bytes());
    }
    Ok(hex(context.finish().as_ref()))
}

fn list_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if !NOT_IN_THE_AGENT.iter().any(|other| name == *other) {
            list_files(&entry.path(), files)?;
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_known_by_names_and_content() {
        let dir = tempfile::tempdir().expect("a folder");
        let digest = || digest_of_tree(&[dir.path().to_owned()]).expect("a digest");
        fs::write(dir.path().join("a"), "1").expect("write");
        let first = digest();
        assert_eq!(first, digest());
        fs::write(dir.path().join("a"), "2").expect("write");
        let second = digest();
        assert_ne!(first, second);
        fs::rename(dir.path().join("a"), dir.path().join("b")).expect("rename");
        assert_ne!(second, digest());
    }
}
