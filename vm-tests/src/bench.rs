//! `cargo lab bench`: figures that the design promises, beside what they are compared to, from one run on one machine.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    artifacts::{self, Artifacts},
    cluster::{Cluster, Options},
    control::Request,
    doctor, paths,
    ui::{self, Stage},
};

/// A boot under TCG on a busy core.
const BOOT_TIME: Duration = Duration::from_secs(180);

/// How often the console is looked at: the error of every figure that is read off it.
const LOOK: Duration = Duration::from_millis(10);

/// The planner on 10,000 nodes; the engine's own example prints the table.
pub fn plan() -> Result<()> {
    let mut command = artifacts::cargo();
    command.args([
        "run",
        "--release",
        "--package",
        "engine",
        "--example",
        "bench_plan",
        "--features",
        "files",
    ]);
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the planner's benchmark failed: {status}");
    }
    Ok(())
}

/// Sizes of agent and initramfs, and what a machine takes to PID 1 and to SYNC.
pub fn footprint() -> Result<()> {
    doctor::ensure()?;
    let built = artifacts::build()?;
    let bare = without_drivers(&built)?;
    let file = Command::new("file")
        .arg("--brief")
        .arg(&built.agent)
        .output()?;
    println!("\nagent: {}", String::from_utf8_lossy(&file.stdout).trim());

    let stage = Stage::start("boot");
    let cluster = Cluster::start(
        &Options {
            lifeline: true,
            ..Options::new("bench", 1)
        },
        Some(&built),
    )?;
    let busybox = measure(&cluster, &built, &built.probe, None)?;
    let kraken = measure(&cluster, &built, &built.initramfs, Some(&built.demo))?;
    stage.done(&cluster.down()?);

    let mib = |path: &Path| -> Result<String> {
        Ok(format!(
            "{:.2} MiB",
            fs::metadata(path)?.len() as f64 / f64::from(1 << 20)
        ))
    };
    let time = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let above =
        |time: Duration| format!("{:+.2} s", time.as_secs_f64() - busybox.pid1.as_secs_f64());
    let sync = kraken.sync.context("the machine did not get to SYNC")?;
    let rows = [
        ["what", "Kraken", "busybox only", "difference", "target"].map(str::to_owned),
        [
            "agent on disk".into(),
            mib(&built.agent)?,
            "-".into(),
            "-".into(),
            "4 MiB".into(),
        ],
        [
            "initramfs without drivers, compressed".into(),
            mib(&bare)?,
            mib(&built.probe)?,
            "-".into(),
            "2.5 MiB".into(),
        ],
        [
            "initramfs with the lab's drivers".into(),
            mib(&built.initramfs)?,
            "-".into(),
            "-".into(),
            "-".into(),
        ],
        [
            "kernel start to PID 1".into(),
            time(kraken.pid1),
            time(busybox.pid1),
            above(kraken.pid1),
            "+0.1 s".into(),
        ],
        [
            "kernel start to SYNC".into(),
            time(sync),
            "-".into(),
            above(sync),
            "+1.5 s".into(),
        ],
    ];
    println!("\n{}", ui::table(&rows.map(|row| row.to_vec())));
    println!(
        "accelerator: {}; both booted over the network, one after the other; busybox-only is not compressed",
        built.accel
    );
    Ok(())
}

struct Figures {
    /// The kernel's own time at which it starts init.
    pid1: Duration,
    /// The same clock, at the join.
    sync: Option<Duration>,
}

fn without_drivers(built: &Artifacts) -> Result<std::path::PathBuf> {
    let out = paths::lab().join("initramfs-bare");
    let stage = Stage::start("initramfs without drivers");
    let mut command = Command::new(&built.image_tool);
    command
        .arg("initramfs")
        .arg("--no-default-modules")
        .arg("--agent")
        .arg(&built.agent);
    command
        .arg("--kernel")
        .arg(&built.kernel)
        .arg("--keys")
        .arg(&built.keys)
        .arg("--out")
        .arg(&out);
    stage.run(&mut command, &paths::lab().join("log/initramfs-bare.log"))?;
    stage.done("");
    Ok(out)
}

/// Boots machine n1 from `initramfs` on the bench's head: with an image to SYNC, without one to PID 1.
fn measure(
    cluster: &Cluster,
    built: &Artifacts,
    initramfs: &Path,
    demo: Option<&Path>,
) -> Result<Figures> {
    let Some(demo) = demo else {
        let pid1 = direct(built, initramfs)?;
        return Ok(Figures { pid1, sync: None });
    };
    cluster.enrol(demo, &["n1".to_owned()])?;
    let log = cluster.machine("n1")?.console_log(&cluster.files.0);
    let started = Instant::now();
    let (mut pid1, mut seen) = (None, None);
    loop {
        if started.elapsed() > BOOT_TIME {
            bail!("n1 did not join within {BOOT_TIME:?}");
        }
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        if let (None, Some(time)) = (pid1, time_of_init(&text)) {
            pid1 = Some(time);
            seen = Some(now_ms());
        }
        let status: crate::control::Status = crate::control::call(
            &cluster.files.control(),
            &Request::Status,
            Duration::from_secs(5),
        )?;
        let join = status.events.iter().find(|event| event.stage == "join");
        if let (Some(pid1), Some(seen), Some(join)) = (pid1, seen, join) {
            let after = Duration::from_millis(join.at_ms.saturating_sub(seen));
            return Ok(Figures {
                pid1,
                sync: Some(pid1 + after),
            });
        }
        std::thread::sleep(LOOK);
    }
}

/// The kernel's time of PID 1 when QEMU loads kernel and initramfs itself: the kernel's clock does not see the loader.
fn direct(built: &Artifacts, initramfs: &Path) -> Result<Duration> {
    let mut command = Command::new("timeout");
    command.args([
        "60",
        "qemu-system-x86_64",
        "-machine",
        &format!("pc,accel={}", built.accel),
    ]);
    command.args([
        "-m",
        "512",
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
        "-nographic",
        "-monitor",
        "none",
    ]);
    command.args([
        "-net",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
        "-append",
        "console=ttyS0 panic=-1",
        "-kernel",
    ]);
    command
        .arg(built.kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(initramfs);
    let output = command.stdin(std::process::Stdio::null()).output()?;
    time_of_init(&String::from_utf8_lossy(&output.stdout))
        .context("the busybox-only machine did not get to PID 1")
}

/// `[    2.193313] Run /init as init process`
fn time_of_init(console: &str) -> Option<Duration> {
    let line = console
        .lines()
        .find(|line| line.contains("Run /init as init process"))?;
    let stamp = line.split('[').next_back()?.split(']').next()?;
    stamp.trim().parse().ok().map(Duration::from_secs_f64)
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_when_init_starts() {
        let console = "x\r\n[    2.193313] Run /init as init process\r\n[    2.2] other";
        assert_eq!(
            time_of_init(console),
            Some(Duration::from_micros(2_193_313))
        );
        assert_eq!(time_of_init("[ 1.0] nothing"), None);
    }
}
