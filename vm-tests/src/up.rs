//! `cargo lab up` and `status`: from nothing to machines that run an image, with every stage in sight.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    artifacts,
    cluster::{Cluster, Options},
    doctor, failure_bundle, paths,
    timeline::{self, Event},
    ui::{self, Stage},
};

/// Prints a line; a reader that has closed the pipe (`| head`) is content with what it got.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// A boot takes 15 s of one core under TCG; a machine whose core is shared with others gets many times that.
const BOOT_TIME: Duration = Duration::from_secs(120);
/// Added to [`BOOT_TIME`] for each machine.
const BOOT_TIME_EACH: Duration = Duration::from_secs(40);

/// Between two looks at the machines.
const LOOK: Duration = Duration::from_millis(500);

/// Brings up a cluster and leaves it up. If a node does not get there, keeps the evidence and, without `keep`, ends the cluster.
pub fn up(name: &str, count: u8, keep: bool) -> Result<()> {
    let started = Instant::now();
    if paths::cluster(name)?.join("ctl.sock").exists() && Cluster::find(name)?.status().is_ok() {
        bail!("a cluster {name} is up already; type: cargo lab down");
    }
    doctor::ensure()?;
    let artifacts = artifacts::build()?;
    let stage = Stage::start("head");
    let cluster = Cluster::start(&Options::new(name, count), Some(&artifacts))?;
    stage.done(&cluster.files.api().display().to_string());

    let names: Vec<String> = cluster
        .spec
        .machines
        .iter()
        .map(|m| m.name.clone())
        .collect();
    let result = cluster
        .enrol(&artifacts.demo, &names)
        .and_then(|()| boot(&cluster, &names));
    if let Err(error) = result {
        let folder = failure_bundle::keep(&cluster, "up", &format!("{error:#}"))?;
        eprintln!(
            "lab: everything about this failure is in {}",
            folder.display()
        );
        if !keep {
            cluster.down()?;
        }
        return Err(error);
    }
    cluster.keep();
    let events = cluster.status()?.events;
    say!("\n{}", ui::table(&timeline::rows(&events, &names)));
    say!("{}", cluster.ctl(&["node", "list"])?);
    say!("up after {}. Next:", ui::seconds(started.elapsed()));
    print_next(&cluster, &names);
    Ok(())
}

/// Shows a cluster: machines, power, what their BMCs were told, and the stages of the last boot.
pub fn status(name: &str) -> Result<()> {
    let cluster = Cluster::find(name)?;
    let status = cluster.status()?;
    let mut rows = vec![
        ["machine", "power", "BMC requests"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for machine in &status.machines {
        let resets = machine
            .resets
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"));
        rows.push(vec![
            machine.name.clone(),
            if machine.pid.is_some() { "on" } else { "off" }.to_owned(),
            resets.collect::<Vec<_>>().join(", "),
        ]);
    }
    say!("{}", ui::table(&rows));
    let names: Vec<String> = status
        .machines
        .iter()
        .map(|machine| machine.name.clone())
        .collect();
    say!(
        "last boot:\n{}",
        ui::table(&timeline::rows(&status.events, &names))
    );
    match status.head {
        Some(_) => say!("head: runs; {}", cluster.files.api().display()),
        None => say!(
            "head: does not run; its log is {}",
            cluster.files.head_log().display()
        ),
    }
    print_next(&cluster, &names);
    Ok(())
}

fn print_next(cluster: &Cluster, names: &[String]) {
    let first = names.first().map_or("n1", String::as_str);
    let ctl = format!(
        "{} --socket {}",
        paths::program("krakenctl").display(),
        cluster.files.api().display()
    );
    let option = match cluster.spec.name.as_str() {
        "lab" => String::new(),
        other => format!(" --name {other}"),
    };
    say!("  {ctl} node list");
    say!("  {ctl} node explain {first}");
    say!("  cargo lab status{option}");
    say!("  cargo lab console {first}{option}");
    say!("  cargo lab pull {first}{option}      # pull its plug and watch it come back");
    say!("  cargo lab down{option}");
}

fn boot(cluster: &Cluster, names: &[String]) -> Result<()> {
    let stage = Stage::start(format!("boot {} machines", names.len()));
    let limit = BOOT_TIME + BOOT_TIME_EACH * u32::try_from(names.len())?;
    let until = Instant::now() + limit;
    let mut told = 0;
    loop {
        let events = cluster.status()?.events;
        for event in events[told..]
            .iter()
            .filter(|event| names.contains(&event.node))
        {
            stage.line(&format!("lab:   {}", sentence(event, &events)));
        }
        told = events.len();
        let mut waiting = BTreeSet::new();
        for name in names {
            if !cluster.is_up(name)? {
                waiting.insert(name.as_str());
            }
        }
        if waiting.is_empty() {
            stage.done("all in SYNC with their image ACTIVE");
            return Ok(());
        }
        let waiting: Vec<_> = waiting.into_iter().collect();
        if Instant::now() > until {
            stage.done("FAILED");
            bail!(
                "not there after {}: {}",
                ui::seconds(limit),
                waiting.join(" ")
            );
        }
        stage.note(&format!("waiting for {}", waiting.join(" ")));
        std::thread::sleep(LOOK);
    }
}

fn sentence(event: &Event, events: &[Event]) -> String {
    let boot = timeline::last_boot(events, &event.node);
    let at = boot.iter().find(|(stage, _)| *stage == event.stage);
    let at = at.map_or_else(String::new, |(_, at)| format!("{:6.1} s", at.as_secs_f64()));
    format!("{:<6} {:<10} {at}", event.node, event.stage)
}
