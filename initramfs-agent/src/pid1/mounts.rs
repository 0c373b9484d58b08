//! The file systems that every later phase needs, as a table.

use std::path::PathBuf;

use crate::sys::{Flags, Mount, Sys};

const INERT: Flags = Flags {
    inert: true,
    nosuid: false,
    nodev: false,
    read_only: false,
    bind: false,
};
const NOSUID: Flags = Flags {
    inert: false,
    nosuid: true,
    ..INERT
};
const NO_DEVICES: Flags = Flags {
    nodev: true,
    ..NOSUID
};

/// Kind, where, flags, options. In order: `/dev` before what lies in it.
const TABLE: &[(&str, &str, Flags, &str)] = &[
    ("proc", "/proc", INERT, ""),
    ("sysfs", "/sys", INERT, ""),
    ("devtmpfs", "/dev", NOSUID, "mode=0755"),
    ("devpts", "/dev/pts", NOSUID, "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", NO_DEVICES, "mode=1777"),
    // Holds the images' files, which take most of a small node's memory.
    ("tmpfs", "/run", NO_DEVICES, "mode=0755,size=75%"),
    ("tmpfs", "/tmp", NO_DEVICES, "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", INERT, ""),
];

/// Mounts the table and returns a line for each that failed: a node without `/dev/shm` is better than no node.
pub(crate) fn mount_all(sys: &impl Sys) -> Vec<String> {
    let mut failed = Vec::new();
    for (kind, target, flags, data) in TABLE {
        let mount = Mount {
            source: PathBuf::from(kind),
            target: PathBuf::from(target),
            kind,
            flags: *flags,
            data: (*data).to_owned(),
        };
        if let Err(error) = sys.mount(&mount) {
            failed.push(format!("cannot mount {kind} on {target}: {error}"));
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::FakeSys;

    #[test]
    fn parents_come_first() {
        let sys = FakeSys::default();
        assert!(mount_all(&sys).is_empty());
        let targets: Vec<&str> = TABLE.iter().map(|(_, target, ..)| *target).collect();
        for (at, target) in targets.iter().enumerate() {
            assert!(
                !targets[at..]
                    .iter()
                    .skip(1)
                    .any(|later| target.starts_with(&format!("{later}/")))
            );
        }
        assert_eq!(sys.calls()[0], "mount proc proc /proc");
    }

    #[test]
    fn one_failure_does_not_stop_the_rest() {
        let sys = FakeSys::failing_on("cgroup2");
        let failed = mount_all(&sys);
        assert_eq!(failed.len(), 1);
        assert!(
            failed[0].starts_with("cannot mount cgroup2 on /sys/fs/cgroup: "),
            "{failed:?}"
        );
        assert_eq!(sys.calls().len(), TABLE.len());
    }
}
