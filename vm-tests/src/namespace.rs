//! The namespaces of a cluster: user, network, mount, pid, and how the supervisor gets into them.
//!
//! Works the same for root and for an ordinary user (user_namespaces(7)). `unshare` must run before the first thread exists, so
//! the program starts itself again: `supervise` (outside, waits) -> `supervise --inner` (pid 1 inside).

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
    unistd::{getgid, getuid},
};

/// Leaves this process's namespaces for fresh ones in which it is root, then runs `inner` as their pid 1 and waits for it.
///
/// # Errors
/// When the kernel refuses (threads exist already, or user namespaces are forbidden), or `inner` cannot be started.
pub fn run_inside(inner: &mut Command) -> Result<i32> {
    let (uid, gid) = (getuid(), getgid());
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .context(
        "cannot make namespaces (kernel.unprivileged_userns_clone=0, or a container without them?)",
    )?;
    write_proc("setgroups", "deny")?;
    write_proc("uid_map", &format!("0 {uid} 1\n"))?;
    write_proc("gid_map", &format!("0 {gid} 1\n"))?;
    let status = inner
        .status()
        .context("cannot start the supervisor in its namespaces")?;
    Ok(exit_code(status))
}

/// What pid 1 does first: dies with its parent, and sees only the processes of its own namespace.
pub fn settle_inside() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    mount(
        None::<&Path>,
        "/",
        None::<&Path>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&Path>,
    )
    .context("cannot make mounts private")?;
    // A container may mask parts of /proc and then forbids a fresh one; the lab works without it.
    if let Err(error) = mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&Path>,
    ) {
        eprintln!("supervisor: no /proc of its own: {error}");
    }
    Ok(())
}

/// The inode that names this process's network namespace, for the proof of [`down`](crate::down).
pub fn net_inode(pid: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    let text = link.to_str()?;
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn write_proc(name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/self/{name}");
    fs::write(&path, text).with_context(|| format!("cannot write {path}"))
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}
