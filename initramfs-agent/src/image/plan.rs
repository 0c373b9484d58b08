//! What it takes to see an image as a root directory, as a list of steps. Pure.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::{Flags, Mount};

/// Longest options of mount(2): one page with its closing zero.
const MAX_OPTIONS: usize = 4095;

/// What the helper processes are told, as a JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// Name of the image.
    pub(crate) name: String,
    /// Its digest.
    pub(crate) digest: String,
    /// Verified squashfs files, lowest first.
    pub(crate) layers: Vec<PathBuf>,
    /// Program and arguments.
    pub(crate) init: Vec<String>,
    /// Name of the node.
    pub(crate) hostname: String,
    /// The agent's directory.
    pub(crate) run_dir: PathBuf,
    /// Times that an image's init ended untold since the node booted.
    pub(crate) deaths: u32,
}

/// One step towards the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Leave the mounts of everybody else alone.
    Private,
    /// Make a directory.
    Dir(PathBuf),
    /// Make a symbolic link: target, place.
    Link(&'static str, PathBuf),
    /// Put a squashfs file behind a loop device and mount it here.
    Layer(PathBuf, PathBuf),
    /// Mount.
    Mount(Mount),
    /// Name the machine.
    Hostname(String),
    /// Make this the root directory.
    Root(PathBuf),
}

/// Why an image cannot be planned.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the paths of {layers} layers do not fit the options of one mount")]
pub(crate) struct TooManyLayers {
    layers: usize,
}

/// The steps, in order, for a process that is the first of its own pid, mount, uts and ipc namespaces.
///
/// # Errors
/// More layers than the kernel takes.
pub(crate) fn steps(launch: &Launch) -> Result<Vec<Step>, TooManyLayers> {
    let base = launch.run_dir.join("root");
    let root = base.join("r");
    let mut steps = vec![
        Step::Private,
        pseudo("tmpfs", &base, Flags::default(), "mode=0755"),
    ];
    for (number, file) in launch.layers.iter().enumerate() {
        steps.push(Step::Layer(file.clone(), base.join(number.to_string())));
    }
    steps.push(Step::Dir(base.join("u")));
    steps.push(Step::Dir(base.join("w")));
    steps.push(overlay(&base, &root, launch.layers.len())?);

    let inert = Flags {
        inert: true,
        ..Flags::default()
    };
    let nosuid = Flags {
        nosuid: true,
        ..Flags::default()
    };
    let no_devices = Flags {
        nodev: true,
        ..nosuid
    };
    steps.extend([
        pseudo("proc", &root.join("proc"), inert, ""),
        pseudo("sysfs", &root.join("sys"), inert, ""),
        pseudo("cgroup2", &root.join("sys/fs/cgroup"), inert, ""),
        pseudo("devtmpfs", &root.join("dev"), nosuid, "mode=0755"),
        pseudo(
            "devpts",
            &root.join("dev/pts"),
            nosuid,
            "newinstance,gid=5,mode=620,ptmxmode=666",
        ),
        pseudo("tmpfs", &root.join("dev/shm"), no_devices, "mode=1777"),
        pseudo("tmpfs", &root.join("run"), no_devices, "mode=0755"),
        shared(launch, &root, "busy.d"),
        shared(launch, &root, "modules.d"),
        Step::Link("/proc/self/fd", root.join("dev/fd")),
        Step::Link("/proc/self/fd/0", root.join("dev/stdin")),
        Step::Link("/proc/self/fd/1", root.join("dev/stdout")),
        Step::Link("/proc/self/fd/2", root.join("dev/stderr")),
        Step::Hostname(launch.hostname.clone()),
        Step::Root(root),
    ]);
    Ok(steps)
}

/// A directory of ours that shows in the image at the same place.
fn shared(launch: &Launch, root: &Path, name: &str) -> Step {
    Step::Mount(Mount {
        source: launch.run_dir.join(name),
        target: root.join("run/kraken").join(name),
        kind: "",
        flags: Flags {
            bind: true,
            ..Flags::default()
        },
        data: String::new(),
    })
}

fn pseudo(kind: &'static str, target: &Path, flags: Flags, data: &str) -> Step {
    Step::Mount(Mount {
        source: PathBuf::from(kind),
        target: target.to_path_buf(),
        kind,
        flags,
        data: data.to_owned(),
    })
}

/// The highest layer comes first in overlayfs's list.
fn overlay(base: &Path, root: &Path, layers: usize) -> Result<Step, TooManyLayers> {
    let base = base.display();
    let lower: Vec<String> = (0..layers)
        .rev()
        .map(|number| format!("{base}/{number}"))
        .collect();
    let data = format!(
        "lowerdir={},upperdir={base}/u,workdir={base}/w",
        lower.join(":")
    );
    if data.len() > MAX_OPTIONS {
        return Err(TooManyLayers { layers });
    }
    Ok(pseudo("overlay", root, Flags::default(), &data))
}

#[cfg(test)]
mod tests;
