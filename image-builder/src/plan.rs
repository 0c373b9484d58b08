//! What lies where in the initramfs (layer 0), as a list of archive members; DESIGN.md section 6.
//!
//! The grant is not here: the head renders it for each boot as an archive of its own, unpacked over this one at
//! `/etc/kraken/grant`, which is why `/etc/kraken` must exist. Reading and compressing are [`crate::steps::initramfs`]'s.

use serde::{Deserialize, Serialize};

use crate::cpio::{Archive, BuildError, Content};

/// Mount points and scratch folders, with their permissions.
const EMPTY_DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("mnt", 0o755),
    ("newroot", 0o755),
    ("etc/kraken", 0o755),
];

/// What the kernel and PID 1 open before devtmpfs is mounted.
const DEVICES: &[(&str, u32, u32, u32)] =
    &[("dev/console", 0o600, 5, 1), ("dev/null", 0o666, 1, 3)];

/// Contents of `/etc/kraken/build`: a floor for the clock of a machine whose battery is empty, and who made this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Build {
    /// Seconds since 1970.
    pub(crate) time: u64,
    /// Version of the agent.
    pub(crate) agent: String,
}

/// Everything that goes in.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) agent: Vec<u8>,
    pub(crate) ca_pem: Vec<u8>,
    pub(crate) cluster_pub: Vec<u8>,
    pub(crate) build: Build,
    pub(crate) kernel_version: String,
    /// Path below the kernel's module folder and contents, uncompressed.
    pub(crate) modules: Vec<(String, Vec<u8>)>,
    pub(crate) modules_dep: String,
    pub(crate) modules_alias: String,
    pub(crate) modules_softdep: String,
}

/// The archive of `contents`.
pub(crate) fn layout(contents: Contents) -> Result<Archive, BuildError> {
    let mut archive = Archive::default();
    for (name, mode) in EMPTY_DIRECTORIES {
        archive.add(name, *mode, Content::Directory)?;
    }
    for &(name, mode, major, minor) in DEVICES {
        archive.add(name, mode, Content::CharDevice { major, minor })?;
    }
    archive.add("init", 0o755, Content::File(contents.agent))?;
    archive.add("etc/kraken/ca.pem", 0o644, Content::File(contents.ca_pem))?;
    archive.add(
        "etc/kraken/cluster.pub",
        0o644,
        Content::File(contents.cluster_pub),
    )?;
    let Build { time, agent } = contents.build;
    let build = format!("{}\n", serde_json::json!({ "time": time, "agent": agent }));
    archive.add("etc/kraken/build", 0o644, Content::File(build.into_bytes()))?;
    let folder = format!("lib/modules/{}", contents.kernel_version);
    for (path, module) in contents.modules {
        archive.add(&format!("{folder}/{path}"), 0o644, Content::File(module))?;
    }
    let indexes = [
        ("dep", contents.modules_dep),
        ("alias", contents.modules_alias),
        ("softdep", contents.modules_softdep),
    ];
    for (name, text) in indexes {
        archive.add(
            &format!("{folder}/modules.{name}"),
            0o644,
            Content::File(text.into_bytes()),
        )?;
    }
    Ok(archive)
}

#[cfg(test)]
mod tests;
