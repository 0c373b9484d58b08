//! A cgroup (version 2) for each module, where one was delegated to the head: the kernel bounds its memory and its processes, and ends
//! them all at one word, also those that left the module's session.
//!
//! ```text
//!   kraken-head.service        Delegate=memory pids           memory.max pids.max
//!   ├── kraken-head            DelegateSubgroup=kraken-head, or made here: no process may live where controllers are handed down
//!   ├── module-fan             ──────────────────────────────▶ limits of [modules.fan]
//!   └── module-ups
//! ```
//!
//! A head that is not root takes its own cgroup for delegated if it may write there. Root may write everywhere, so a head that runs as root
//! has to find itself in a subgroup of this name. Without any of this, rlimits and a look a second have to do (`spawn`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::config::Limits;

/// Where the head itself lives.
const SUBGROUP: &str = "kraken-head";
/// What bounds modules.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// How often a cgroup is asked whether its processes have ended, and how often at most.
const EMPTY_POLL: (Duration, u32) = (Duration::from_millis(10), 100);

/// The cgroup below which those of modules are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroups(PathBuf);

/// One module's.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroups {
    /// Finds the one that was delegated to this process, and moves the process out of the modules' way.
    ///
    /// # Errors
    /// Why there is none, and what to do about it.
    pub(super) fn find() -> Result<Self, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let mount = mount_point(&read("/proc/self/mountinfo")?)
            .ok_or("no cgroup2 file system is mounted")?;
        let cgroup = read("/proc/self/cgroup")?;
        let own = own_path(&cgroup).ok_or("this process is in no cgroup of version 2")?;
        let is_root = nix::unistd::Uid::effective().is_root();
        Self::find_in(&mount.join(own.trim_start_matches('/')), is_root)
    }

    fn find_in(own: &Path, is_root: bool) -> Result<Self, String> {
        let is_subgroup = own.file_name().is_some_and(|name| name == SUBGROUP);
        let base = match own.parent() {
            Some(parent) if is_subgroup => parent,
            _ => own,
        };
        if is_root && !is_subgroup {
            return Err(format!(
                "{} may be somebody else's to manage: set Delegate=memory pids and DelegateSubgroup={SUBGROUP} in the head's unit",
                own.display()
            ));
        }
        let failed =
            |what: &str, error: io::Error| format!("{}: cannot {what}: {error}", base.display());
        let there = fs::read_to_string(base.join("cgroup.controllers"))
            .map_err(|error| failed("read its controllers", error))?;
        if !CONTROLLERS
            .iter()
            .all(|one| there.split_whitespace().any(|word| word == *one))
        {
            return Err(format!(
                "{} has no controllers memory and pids: set Delegate=memory pids in the head's unit",
                base.display()
            ));
        }
        let pid = std::process::id().to_string();
        if !is_subgroup {
            let subgroup = base.join(SUBGROUP);
            make(&subgroup)
                .and_then(|()| fs::write(subgroup.join("cgroup.procs"), &pid))
                .map_err(|error| failed("move into a subgroup", error))?;
        }
        let control: Vec<String> = CONTROLLERS.iter().map(|one| format!("+{one}")).collect();
        fs::write(base.join("cgroup.subtree_control"), control.join(" ")).map_err(|error| {
            if !is_subgroup {
                // Back to where nothing was changed; what fails now is no worse than before.
                let _ = fs::write(base.join("cgroup.procs"), &pid);
                let _ = fs::remove_dir(base.join(SUBGROUP));
            }
            failed("hand its controllers down", error)
        })?;
        Ok(Self(base.to_owned()))
    }

    /// Where they are.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// An empty one for a module, with its limits. What an earlier run left in it is ended.
    ///
    /// # Errors
    /// The system's reason.
    pub(super) fn module(&self, name: &str, limits: &Limits) -> io::Result<Cgroup> {
        let path = self.0.join(format!("module-{name}"));
        let is_left = path.exists();
        make(&path)?;
        let cgroup = Cgroup(path);
        if is_left {
            cgroup.kill();
        }
        let set = |file: &str, value: String| fs::write(cgroup.0.join(file), value);
        set("memory.max", limits.memory.to_string())?;
        set("pids.max", limits.pids.to_string())?;
        // One process that is ended for want of memory would leave half a module.
        set("memory.oom.group", "1".into())?;
        // Without swap in the kernel there is no such file.
        let _ = set("memory.swap.max", "0".into());
        Ok(cgroup)
    }
}

impl Cgroup {
    /// Where it is, for [`enter`].
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What the module asked for beyond its limits, if it did.
    pub(super) fn excess(&self, limits: &Limits) -> Option<String> {
        if self.count("memory.events", "oom_kill") > 0 {
            return Some(format!(
                "the kernel ended it for want of memory, more than {} MiB",
                limits.memory >> 20
            ));
        }
        (self.count("pids.events", "max") > 0).then(|| {
            format!(
                "it asked for processes and threads, more than {}",
                limits.pids
            )
        })
    }

    /// Ends all that is in it.
    fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }

    /// Ends all that is in it, and removes it.
    pub(super) async fn end(self) {
        self.kill();
        for _ in 0..EMPTY_POLL.1 {
            // Refused while there are processes in it.
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    sleep(EMPTY_POLL.0).await
                }
                _ => return,
            }
        }
    }

    fn count(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).unwrap_or_default();
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        found.unwrap_or_default()
    }
}

/// Moves this process into a module's cgroup.
///
/// # Errors
/// The system's reason.
pub(super) fn enter(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), "0")
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// proc_pid_mountinfo(5): optional fields end with a hyphen, and the file system's type follows.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (place, about) = line.split_once(" - ")?;
        about.starts_with("cgroup2 ").then_some(())?;
        place.split(' ').nth(4).map(PathBuf::from)
    })
}

/// cgroups(7): the line of version 2 has number 0 and no controllers.
fn own_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that stands for a delegated cgroup; the kernel's files in it are plain ones.
    fn delegated(controllers: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("kraken-head.service");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("cgroup.controllers"), controllers).unwrap();
        (folder, own)
    }

    fn read(path: &Path, file: &str) -> String {
        fs::read_to_string(path.join(file)).unwrap()
    }

    #[test]
    fn the_tables_of_the_kernel_are_read() {
        let mountinfo = "29 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                         30 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            mount_point(mountinfo),
            Some("/sys/fs/cgroup/unified".into())
        );
        assert_eq!(mount_point("1 1 0:1 / / rw - ext4 /dev/vda rw\n"), None);
        assert_eq!(
            own_path("4:memory:/a\n0::/system.slice/x\n"),
            Some("/system.slice/x")
        );
        assert_eq!(own_path("4:memory:/a\n"), None);
    }

    #[test]
    fn the_head_moves_out_of_the_way_and_hands_controllers_down() {
        let (_folder, own) = delegated("cpu memory pids\n");
        let cgroups = Cgroups::find_in(&own, false).unwrap();
        assert_eq!(cgroups.path(), own);
        assert_eq!(read(&own, "cgroup.subtree_control"), "+memory +pids");
        assert_eq!(
            read(&own.join(SUBGROUP), "cgroup.procs"),
            std::process::id().to_string()
        );
        // Started again in its place, as root too.
        assert_eq!(Cgroups::find_in(&own.join(SUBGROUP), true), Ok(cgroups));
    }

    #[test]
    fn what_was_not_delegated_is_left_alone_with_a_word_on_what_to_do() {
        let (_folder, own) = delegated("memory pids\n");
        let why = Cgroups::find_in(&own, true).unwrap_err();
        assert!(why.contains("DelegateSubgroup=kraken-head"), "{why}");
        let (_folder, own) = delegated("cpu\n");
        let why = Cgroups::find_in(&own, false).unwrap_err();
        assert!(why.contains("Delegate=memory pids"), "{why}");
        assert!(!own.join(SUBGROUP).exists() && !own.join("cgroup.subtree_control").exists());
        let (_folder, own) = delegated("memory pids\n");
        fs::create_dir(own.join("cgroup.subtree_control")).unwrap();
        let why = Cgroups::find_in(&own, false).unwrap_err();
        assert!(why.contains("cannot hand its controllers down"), "{why}");
        assert_eq!(
            read(&own, "cgroup.procs"),
            std::process::id().to_string(),
            "it moved back"
        );
    }

    #[tokio::test]
    async fn f32_a_module_gets_its_limits_and_what_exceeds_them_is_named() {
        let (_folder, own) = delegated("memory pids\n");
        let cgroups = Cgroups::find_in(&own, false).unwrap();
        let limits = Limits {
            memory: 64 << 20,
            pids: 12,
            discoveries_per_second: 1,
        };
        let cgroup = cgroups.module("fan", &limits).unwrap();
        let path = cgroup.path().to_owned();
        assert_eq!(path, own.join("module-fan"));
        let set = [
            "memory.max",
            "pids.max",
            "memory.oom.group",
            "memory.swap.max",
        ]
        .map(|file| read(&path, file));
        assert_eq!(set, ["67108864", "12", "1", "0"]);
        assert!(!path.join("cgroup.kill").exists(), "nothing was left in it");
        assert_eq!(cgroup.excess(&limits), None);
        fs::write(path.join("pids.events"), "max 3\n").unwrap();
        let why = cgroup.excess(&limits).unwrap();
        assert_eq!(why, "it asked for processes and threads, more than 12");
        fs::write(
            path.join("memory.events"),
            "low 0\noom 1\noom_kill 1\noom_group_kill 1\n",
        )
        .unwrap();
        let why = cgroup.excess(&limits).unwrap();
        assert_eq!(
            why,
            "the kernel ended it for want of memory, more than 64 MiB"
        );
        // An earlier head may have left processes there.
        cgroups.module("fan", &limits).unwrap();
        assert_eq!(read(&path, "cgroup.kill"), "1");
    }
}
