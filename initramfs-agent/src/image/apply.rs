//! The helper processes between the agent and an image's init. Each is this program again, single-threaded, as namespaces want it.
//!
//! Stage 2 opens a pid namespace, starts stage 3 as its first process, writes down who that is, lets it go on, and leaves; so the image
//! is nobody's child but PID 1's and outlives every agent. It is written down before it does anything, so an agent that
//! dies meanwhile finds it. Stage 3 mounts and becomes the init.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};

use super::plan::{Launch, Step, steps};
use super::process::{Record, start_time};
use crate::pid1::{EXITS, RUN_DIR, own_program, signals};
use crate::sys::{Flags, Linux, Mount, Sys};

/// The image's cgroup.
const CGROUP: &str = "/sys/fs/cgroup/image";
/// Memory kept from the image, so that agent and kernel live through its worst day (fault F39).
const RESERVE_BYTES: u64 = 64 << 20;
/// Longest complaint of stage 3 that is passed on.
const MAX_COMPLAINT: u64 = 4096;

/// `--stage2 LAUNCH`: prints the pid of the image's init, or says why there is none.
pub(crate) fn stage2(launch_file: &Path) -> Result<u32> {
    let launch = read_launch(launch_file)?;
    signals::unblock_all();
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    // An image that a test starts elsewhere has no machine to leave memory to.
    if launch.run_dir == Path::new(RUN_DIR) {
        join_cgroup();
    }
    unshare(CloneFlags::CLONE_NEWPID).context("no pid namespace")?;
    let mut child = Command::new(own_program())
        .arg("--stage3")
        .arg(launch_file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start stage 3")?;
    let pid = child.id();
    let begun = settle(&launch, pid, &mut child);
    if begun.is_err() {
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(launch.run_dir.join(Record::FILE));
        let _ = fs::remove_file(launch.run_dir.join(EXITS).join(pid.to_string()));
    }
    begun.map(|()| pid)
}

/// Writes the child down, lets it go on, and waits until it is the image's init.
fn settle(launch: &Launch, pid: u32, child: &mut std::process::Child) -> Result<()> {
    let record = Record {
        name: launch.name.clone(),
        digest: launch.digest.clone(),
        pid,
        start_time: start_time(pid).context("stage 3 is gone already")?,
        deaths: launch.deaths,
    };
    let exits = launch.run_dir.join(EXITS);
    fs::create_dir_all(&exits)?;
    fs::write(exits.join(pid.to_string()), "")?;
    record
        .save(&launch.run_dir)
        .context("cannot write the image down")?;
    let go = child.stdin.take().context("no pipe to stage 3")?;
    drop(go);
    let complaints = child.stdout.take().context("no pipe from stage 3")?;
    let mut complaint = String::new();
    // Ends when the last writer closes: when exec succeeds, or stage 3 ends.
    complaints
        .take(MAX_COMPLAINT)
        .read_to_string(&mut complaint)?;
    if !complaint.is_empty() {
        bail!("{}", complaint.trim());
    }
    if let Some(status) = child.try_wait()? {
        bail!("it ended at once: {status}");
    }
    Ok(())
}

/// `--stage3 LAUNCH`: becomes the image's init; returns only if it cannot, and has said why to stage 2.
pub(crate) fn stage3(launch_file: &Path) {
    // A copy that exec closes, which tells stage 2 that all is well. Standard output itself becomes the image's.
    let complaints = std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from);
    let Err(error) = become_init(launch_file);
    if let Ok(mut complaints) = complaints {
        let _ = complaints.write_all(format!("{error:#}\n").as_bytes());
    }
}

fn become_init(launch_file: &Path) -> Result<std::convert::Infallible> {
    let launch = read_launch(launch_file)?;
    // Stage 2 closes its end when it has written us down.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    unshare(namespaces).context("no mount, uts and ipc namespaces")?;
    // Only in kernels with cgroups.
    let _ = unshare(CloneFlags::CLONE_NEWCGROUP);
    // Opened while our own /dev is in sight.
    let console = OpenOptions::new().write(true).open("/dev/console");
    carry_out(&Linux, &steps(&launch)?)?;
    nix::unistd::setsid().ok();
    let [program, arguments @ ..] = launch.init.as_slice() else {
        bail!("the image names no init")
    };
    let output = || {
        console
            .as_ref()
            .map_or_else(|_| Stdio::null(), clone_or_null)
    };
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("TERM", "linux")
        // Tells systemd and others that they are in a container, and whose.
        .env("container", "kraken")
        .env("KRAKEN_NODE", &launch.hostname)
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .exec();
    Err(error).with_context(|| format!("cannot run {program} of the image"))
}

fn clone_or_null(file: &File) -> Stdio {
    file.try_clone().map_or_else(|_| Stdio::null(), Stdio::from)
}

/// Carries the steps out, in order.
fn carry_out(sys: &impl Sys, steps: &[Step]) -> Result<()> {
    for step in steps {
        match step {
            Step::Private => sys.make_private().context("cannot keep mounts private")?,
            Step::Dir(path) => sys
                .make_dir(path)
                .with_context(|| format!("cannot make {}", path.display()))?,
            // Programs want these, but few.
            Step::Link(target, link) => drop(sys.symlink(target, link)),
            Step::Layer(file, target) => mount_layer(sys, file, target)?,
            Step::Mount(mount) => match sys.mount(mount) {
                // A kernel without cgroups runs simple images all the same.
                Err(_) if mount.kind == "cgroup2" => {}
                other => other.with_context(|| {
                    format!("cannot mount {} on {}", mount.kind, mount.target.display())
                })?,
            },
            Step::Hostname(name) => sys.set_hostname(name).context("cannot set the host name")?,
            Step::Root(root) => sys
                .enter_root(root)
                .context("cannot make the image the root directory")?,
        }
    }
    Ok(())
}

fn mount_layer(sys: &impl Sys, file: &Path, target: &Path) -> Result<()> {
    let device = sys.attach_loop(file).with_context(|| {
        format!(
            "no loop device for {}; is the module loop in the initramfs?",
            file.display()
        )
    })?;
    let mount = Mount {
        source: device,
        target: target.to_path_buf(),
        kind: "squashfs",
        flags: Flags {
            read_only: true,
            nodev: true,
            ..Flags::default()
        },
        data: String::new(),
    };
    sys.mount(&mount).with_context(|| {
        format!(
            "cannot mount {} as squashfs; is the module squashfs in the initramfs?",
            file.display()
        )
    })
}

fn read_launch(file: &Path) -> Result<Launch> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} makes no sense", file.display()))
}

/// Moves this process, and so the image, into a cgroup with limits; without cgroups there are none.
fn join_cgroup() {
    let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids");
    if fs::create_dir_all(CGROUP).is_err() {
        return;
    }
    if let Some(total) = total_memory() {
        let limit = total.saturating_sub(RESERVE_BYTES).max(total / 2);
        let _ = fs::write(format!("{CGROUP}/memory.max"), limit.to_string());
    }
    let _ = fs::write(format!("{CGROUP}/cgroup.procs"), "0");
}

fn total_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake::FakeSys;

    fn launch() -> Launch {
        Launch {
            name: "demo".into(),
            digest: "d".into(),
            layers: vec!["/run/kraken/images/a".into(), "/run/kraken/images/b".into()],
            init: vec!["/sbin/init".into()],
            hostname: "n1".into(),
            run_dir: "/run/kraken".into(),
            deaths: 0,
        }
    }

    #[test]
    fn each_layer_has_a_loop_device_of_its_own() {
        let sys = FakeSys::default();
        carry_out(&sys, &steps(&launch()).unwrap()).unwrap();
        let calls = sys.calls();
        let has = |line: &str| calls.iter().any(|call| call == line);
        assert!(
            has("loop /run/kraken/images/a") && has("mount squashfs /dev/loop0 /run/kraken/root/0"),
            "{calls:#?}"
        );
        assert!(
            has("loop /run/kraken/images/b") && has("mount squashfs /dev/loop1 /run/kraken/root/1"),
            "{calls:#?}"
        );
        assert_eq!(calls.first().unwrap(), "private");
        assert_eq!(calls.last().unwrap(), "root /run/kraken/root/r");
        assert!(has("hostname n1"));
    }

    #[test]
    fn what_fails_is_named_and_ends_it() {
        let sys = FakeSys::failing_on("squashfs");
        let error = carry_out(&sys, &steps(&launch()).unwrap()).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("cannot mount /run/kraken/images/a as squashfs"),
            "{error:#}"
        );
        assert!(!sys.calls().iter().any(|call| call.starts_with("root")));
    }

    #[test]
    fn images_run_without_cgroups() {
        assert!(carry_out(&FakeSys::failing_on("cgroup2"), &steps(&launch()).unwrap()).is_ok());
        assert!(carry_out(&FakeSys::failing_on("symlink"), &steps(&launch()).unwrap()).is_ok());
        assert!(
            carry_out(
                &FakeSys::failing_on("proc /run"),
                &steps(&launch()).unwrap()
            )
            .is_err()
        );
    }

    #[test]
    fn memory_is_known() {
        assert!(total_memory().unwrap() > RESERVE_BYTES);
    }
}
