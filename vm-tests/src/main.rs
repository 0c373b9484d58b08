//! `kraken-lab`, started as `cargo lab`: virtual clusters to try Kraken on, and the whole test suite.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use vm_tests::{artifacts, bench, console, doctor, down, net_probe, paths, suite, supervisor, up};

#[derive(Parser)]
#[command(
    name = "cargo lab",
    about = "Virtual Kraken clusters: try one, test everything",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum Firmware {
    Bios,
}

#[derive(Subcommand)]
enum Command {
    /// Build all, start a head and virtual machines, boot them to a running image, leave the cluster up.
    Up {
        /// Number of machines.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
        nodes: u8,
        /// What the machines boot with.
        #[arg(long, default_value = "bios")]
        firmware: Firmware,
        /// Leave the cluster up even if a node does not get there.
        #[arg(long)]
        keep: bool,
        /// The cluster's name.
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// End the cluster and prove that nothing of it remains.
    Down {
        /// The cluster's name.
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Show machines, power, resets and the last boot's stages.
    Status {
        /// The cluster's name.
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Serial console of a machine.
    Console {
        /// The machine.
        node: String,
        /// The cluster's name.
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Pull a machine's plug.
    Pull {
        /// The machine.
        node: String,
        /// The cluster's name.
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Run every test there is.
    Test {
        /// Only the VM claims whose name contains one of these; the other checks are left out.
        #[arg(value_name = "CLAIM")]
        claims: Vec<String>,
    },
    /// Measure.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Show what this machine lacks and what to type.
    Doctor,
    /// Build what clusters boot from, and stop there.
    Build,
    #[command(hide = true)]
    Supervise {
        dir: PathBuf,
        #[arg(long)]
        inner: bool,
        #[arg(long)]
        lifeline: bool,
    },
    #[command(hide = true)]
    Net {
        #[command(subcommand)]
        probe: net_probe::Probe,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Sizes of agent and initramfs; kernel start to PID 1 and to SYNC beside a busybox-only initramfs.
    Footprint,
    /// Planner, engine and store with up to 100,000 nodes: times, memory, transactions, starts.
    Engine,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Supervise {
            dir,
            inner: true,
            lifeline,
        } => {
            supervisor::inside(&dir, lifeline)?;
            // A blocked read of the lifeline would hold a return.
            std::process::exit(0);
        }
        Command::Supervise {
            dir,
            inner: false,
            lifeline,
        } => {
            let code = supervisor::outside(&dir, lifeline)?;
            Ok(u8::try_from(code).unwrap_or(1))
        }
        Command::Net { probe } => net_probe::run(probe).map(|()| 0),
        Command::Doctor => Ok(u8::from(!doctor::doctor())),
        Command::Build => {
            doctor::ensure()?;
            artifacts::build().map(|_| 0)
        }
        Command::Up {
            nodes,
            firmware: Firmware::Bios,
            keep,
            name,
        } => up::up(&name, nodes, keep).map(|()| 0),
        Command::Down { name } => {
            println!("lab: {}", down::down(&paths::cluster(&name)?)?);
            Ok(0)
        }
        Command::Status { name } => up::status(&name).map(|()| 0),
        Command::Console { node, name } => {
            console::attach(&paths::cluster(&name)?, &node).map(|()| 0)
        }
        Command::Pull { node, name } => {
            let cluster = vm_tests::cluster::Cluster::find(&name)?;
            cluster.pull_plug(&node)?;
            println!("lab: {node} has no power; watch the head find out: cargo lab status");
            Ok(0)
        }
        Command::Test { claims } => suite::run(&claims),
        Command::Bench {
            what: Bench::Footprint,
        } => bench::footprint().map(|()| 0),
        Command::Bench {
            what: Bench::Engine,
        } => bench::engine().map(|()| 0),
    }
}
