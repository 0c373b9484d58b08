//! Where the lab keeps things: the workspace, artifacts under `target/lab`, and one run folder per cluster.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Longest path that fits `sockaddr_un` with its final NUL (unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;

/// Longest file name that the lab puts below a cluster's folder as a socket.
const LONGEST_SOCKET_NAME: usize = "head/api.sock".len() + 8;

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Cargo's target folder, as the running program was built into it.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// Artifacts that are built once and shared by `up` and the tests.
pub fn lab() -> PathBuf {
    target().join("lab")
}

/// Bundles of failed claims.
pub fn failures() -> PathBuf {
    lab().join("failures")
}

/// One of the workspace's programs, dev profile.
pub fn program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// The folder that holds all of this user's clusters; made with mode 0700 and refused if it belongs to somebody else.
pub fn clusters() -> Result<PathBuf> {
    let uid = nix::unistd::getuid().as_raw();
    let base = env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let dir = base.join(format!("kraken-lab-{uid}"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    let meta = fs::symlink_metadata(&dir)?;
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
        bail!(
            "{} is not a folder that only you can enter; remove it and try again",
            dir.display()
        );
    }
    Ok(dir)
}

/// The run folder of the cluster `name`. Checks that sockets in it stay within the system's limit.
pub fn cluster(name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        bail!("cluster name {name:?}: use letters, digits, '-' and '_'");
    }
    let dir = clusters()?.join(name);
    if dir.as_os_str().len() + 1 + LONGEST_SOCKET_NAME > SOCKET_PATH_MAX {
        bail!(
            "{} is too long for unix sockets; set XDG_RUNTIME_DIR to a shorter folder",
            dir.display()
        );
    }
    Ok(dir)
}
