//! `cargo lab bench`: figures that the design promises, beside what they are compared to, from one run on one machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    artifacts::{self, Artifacts},
    cluster::{Cluster, Options},
    doctor, paths,
    ui::{self, Stage},
};

/// Boots of each kind; the median of three forgives one that something disturbed.
const RUNS: usize = 3;

/// A boot under TCG on a busy core.
const BOOT_TIME: Duration = Duration::from_secs(180);

/// How often the console is looked at: the error of every figure that is read off it.
const LOOK: Duration = Duration::from_millis(10);

/// Engine and store: plans, whole clusters, memory, transactions, starts. The programs that know these parts print the tables.
pub fn engine() -> Result<()> {
    example("engine", "bench_engine", &[])?;
    let folder = paths::lab();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    example("head", "bench_store", &[&folder])
}

/// An example of a package, built for speed.
fn example(package: &str, name: &str, arguments: &[&Path]) -> Result<()> {
    let mut command = artifacts::cargo();
    command
        .args(["run", "--quiet", "--release", "--package", package])
        .args(["--example", name, "--"])
        .args(arguments);
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{name} failed: {status}");
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

    let packed = packed_probe(&built)?;
    let stage = Stage::start(format!("{RUNS} boots of each"));
    let (mut busybox, mut kraken) = (Vec::new(), Vec::new());
    // In turns, so that whatever else the machine does falls on both.
    for run in 1..=RUNS {
        stage.note(&format!("run {run}: busybox"));
        busybox.push(measure(
            &Artifacts {
                initramfs: packed.clone(),
                ..built.clone()
            },
            false,
        )?);
        stage.note(&format!("run {run}: Kraken"));
        kraken.push(measure(&built, true)?);
    }
    stage.done("");
    let median = |figures: &[Figures], of: fn(&Figures) -> Option<Duration>| {
        let mut times: Vec<Duration> = figures.iter().filter_map(of).collect();
        times.sort();
        times
            .get(times.len() / 2)
            .copied()
            .context("no boot got there")
    };
    let pid1 = |figures: &[Figures]| median(figures, |figures| Some(figures.pid1));
    let (busybox, kraken, sync) = (
        pid1(&busybox)?,
        pid1(&kraken)?,
        median(&kraken, |figures| figures.sync)?,
    );

    let mib = |path: &Path| -> Result<String> {
        Ok(format!(
            "{:.2} MiB",
            fs::metadata(path)?.len() as f64 / f64::from(1 << 20)
        ))
    };
    let time = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let above = |time: Duration| format!("{:+.2} s", time.as_secs_f64() - busybox.as_secs_f64());
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
            mib(&packed)?,
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
            time(kraken),
            time(busybox),
            above(kraken),
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
        "median of {RUNS} boots over the network in turns, by the kernel's clock; accelerator: {}",
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

fn without_drivers(built: &Artifacts) -> Result<PathBuf> {
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

/// The busybox-only initramfs, compressed as Kraken's is.
fn packed_probe(built: &Artifacts) -> Result<PathBuf> {
    let out = paths::lab().join("probe-packed");
    let mut command = Command::new("zstd");
    command
        .args(["--quiet", "--force", "-19", "-o"])
        .arg(&out)
        .arg(&built.probe);
    let status = command.status().context("cannot start zstd")?;
    if !status.success() {
        bail!("zstd: {status}");
    }
    Ok(out)
}

/// Boots a machine over the network in a cluster of its own, to PID 1 or on to SYNC.
fn measure(built: &Artifacts, to_sync: bool) -> Result<Figures> {
    let options = Options {
        lifeline: true,
        ..Options::new(&format!("bench-{}", std::process::id()), 1)
    };
    let cluster = Cluster::start(&options, Some(built))?;
    cluster.enrol(&built.demo, &["n1".to_owned()])?;
    let log = cluster.machine("n1")?.console_log(&cluster.files.0);
    let started = Instant::now();
    let mut init = None;
    let figures = loop {
        if started.elapsed() > BOOT_TIME {
            bail!("n1 did not get there within {BOOT_TIME:?}");
        }
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        if let (None, Some(time)) = (init, time_of_init(&text)) {
            init = Some((time, now_ms()));
        }
        let Some((pid1, seen)) = init else {
            std::thread::sleep(LOOK);
            continue;
        };
        if !to_sync {
            break Figures { pid1, sync: None };
        }
        let events = cluster.status()?.events;
        let join = events
            .iter()
            .find(|event| event.node == "n1" && event.stage == "join");
        if let Some(join) = join {
            let after = Duration::from_millis(join.at_ms.saturating_sub(seen));
            break Figures {
                pid1,
                sync: Some(pid1 + after),
            };
        }
        std::thread::sleep(LOOK);
    };
    cluster.down()?;
    Ok(figures)
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
