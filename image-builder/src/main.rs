//! `kraken-image` makes what a cluster boots: keys, kernel, agent, initramfs (layer 0) and system images (layer 1).
//!
//! Pure parts decide what goes where ([`cpio`], [`elf`], [`manifest`], [`modules`], [`plan`], [`squashfs`], [`toolchain`]);
//! [`steps`] read, run tools and write. The head serves the results, the agent checks them by itself.
//! Left out: OCI layouts and images straight from Debian packages, which come as tar archives until then.

mod cpio;
mod digest;
mod elf;
mod manifest;
mod modules;
mod plan;
mod squashfs;
mod steps;
mod toolchain;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use steps::Report;

/// Make what a Kraken cluster boots: keys, kernel, agent, initramfs and system images
///
/// Files appear whole or not at all, and the same input gives the same bytes.
#[derive(Debug, Parser)]
#[command(
    name = "kraken-image",
    version,
    after_help = "The whole way, once:
  kraken-image keys keys
  kraken-image kernel --package linux-image-cloud-amd64 --out kernel
  kraken-image initramfs --kernel kernel --keys keys --out initramfs
  kraken-image image --name demo --from rootfs.tar --keys keys --out images/demo"
)]
struct Cli {
    /// Print the result as JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Keys(steps::keys::KeysArgs),
    Kernel(steps::kernel::KernelArgs),
    Agent(steps::agent::AgentArgs),
    Initramfs(steps::initramfs::InitramfsArgs),
    Image(steps::image::ImageArgs),
    Show(steps::show::ShowArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.step {
        Step::Keys(args) => steps::keys::run(args),
        Step::Kernel(args) => steps::kernel::run(args),
        Step::Agent(args) => steps::agent::run(args),
        Step::Initramfs(args) => steps::initramfs::run(args),
        Step::Image(args) => steps::image::run(args),
        Step::Show(args) => steps::show::run(args),
    };
    match result {
        Ok(report) => print(&report, cli.json),
        Err(error) => {
            eprintln!("kraken-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A reader that has closed the pipe (`| head`) is content with what it got.
fn print(report: &Report, as_json: bool) -> ExitCode {
    let text = if as_json {
        report.json.to_string()
    } else {
        report.text.clone()
    };
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("kraken-image: can't print the result: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
