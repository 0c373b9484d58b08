//! Which accelerator QEMU can use: KVM if a tiny guest really boots with it in time, else TCG.
//!
//! `/dev/kvm` can exist and hang for ever, or stop at a register of the host, so nothing but a boot counts as proof.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// A KVM guest reaches PID 1 in about a second; one that needs longer than this is no faster than TCG.
const KVM_PATIENCE: Duration = Duration::from_secs(12);

/// What the probe's init prints.
pub const ALIVE: &str = "KRAKEN-PROBE-ALIVE";

/// `kvm` or `tcg`; asks the machine once per boot and QEMU version and remembers the answer in `cache`.
pub fn choose(kernel: &Path, initramfs: &Path, cache: &Path) -> Result<(String, String)> {
    if let Ok(forced) = std::env::var("KRAKEN_LAB_ACCEL") {
        return Ok((forced, "set by KRAKEN_LAB_ACCEL".into()));
    }
    if fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(("tcg".into(), "no /dev/kvm that this user may open".into()));
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let version = Command::new("qemu-system-x86_64").arg("--version").output();
    let version = version.context("cannot start qemu-system-x86_64")?.stdout;
    let key = format!("{}{}", boot, String::from_utf8_lossy(&version));
    if let Ok(text) = fs::read_to_string(cache)
        && let Some((accel, kept)) = text.split_once('\n')
        && kept == key
    {
        return Ok((accel.to_owned(), "probed before".into()));
    }
    let took = boots("kvm", kernel, initramfs, KVM_PATIENCE)?;
    let (accel, why) = match took {
        Some(time) => (
            "kvm",
            format!("a guest booted in {:.1} s", time.as_secs_f64()),
        ),
        None => (
            "tcg",
            format!("KVM booted no guest in {} s", KVM_PATIENCE.as_secs()),
        ),
    };
    fs::write(cache, format!("{accel}\n{key}"))?;
    Ok((accel.to_owned(), why))
}

/// The time until the initramfs's init speaks, or nothing if it does not within `patience`.
pub fn boots(
    accel: &str,
    kernel: &Path,
    initramfs: &Path,
    patience: Duration,
) -> Result<Option<Duration>> {
    let started = Instant::now();
    let mut child = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            &format!("pc,accel={accel}"),
            "-m",
            "256",
            "-smp",
            "1",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            "-monitor",
            "none",
        ])
        .args(["-net", "none", "-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut output = child.stdout.take().context("no pipe to QEMU")?;
    let (found, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut text, mut bytes) = (Vec::new(), [0; 512]);
        while let Ok(length @ 1..) = output.read(&mut bytes) {
            text.extend_from_slice(&bytes[..length]);
            if String::from_utf8_lossy(&text).contains(ALIVE) {
                found.send(()).ok();
                return;
            }
        }
    });
    let alive = wait.recv_timeout(patience).is_ok();
    let took = started.elapsed();
    child.kill().ok();
    child.wait()?;
    Ok(alive.then_some(took))
}
