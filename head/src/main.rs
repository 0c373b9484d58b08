//! `kraken-head`: boot services and the authoritative state of a cluster.
//!
//! One process: an engine (crate `engine`) in the middle, and around it the shells that give it eyes and hands.
//!
//! ```text
//!   api ──Write──▶ ┌────────┐ ──Commit──▶ store
//!   modules ─────▶ │ engine │ ──Fire────▶ modules (power, pxe, ...)
//!   sync ──Frame─▶ │        │ ──Send────▶ sync
//!   boot ──grant─▶ └────────┘ ──Event───▶ api (watch), boot (table), log
//! ```

mod api;
mod boot;
mod boot_link;
mod config;
mod dhcp;
mod event_log;
mod extensions;
mod http;
mod modules;
mod nodeset;
mod outputs;
mod pending;
mod reload;
mod requests;
mod run;
mod sources;
mod store;
mod sync;
mod tftp;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

#[derive(Parser)]
#[command(
    name = "kraken-head",
    version,
    about = "Boots and keeps a compute cluster"
)]
struct Arguments {
    /// Configuration file (TOML)
    #[arg(long, global = true, env = "KRAKEN_CONFIG", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Looks at the configuration without starting anything
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Runs a module's program within its limits; the head calls this
    #[command(hide = true)]
    ModuleExec(modules::Confined),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Says what is wrong with the configuration, if anything is
    Check,
    /// Prints the effective configuration and where each value comes from
    Show,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::ModuleExec(confined)) = &arguments.command {
        return confined.exec();
    }
    let config = match Config::read(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match arguments.command {
        Some(Command::Config(ConfigCommand::Check)) => {
            println!("{} is good", arguments.config.display());
            if !files_are_good(&config) {
                return ExitCode::FAILURE;
            }
            for missing in config.missing_files() {
                println!("on this machine, {missing}");
            }
            ExitCode::SUCCESS
        }
        Some(Command::Config(ConfigCommand::Show)) => {
            print!("{}", config.show(&arguments.config));
            ExitCode::SUCCESS
        }
        Some(Command::ModuleExec(_)) | None => run::main(config, &arguments.config),
    }
}

/// Says what is wrong with the extensions and mutation files of the state directory; whether nothing is.
fn files_are_good(config: &Config) -> bool {
    let (extensions, schema) = extensions::check(&config.state_dir.join(extensions::FOLDER));
    let mut bad: Vec<String> = extensions.iter().map(ToString::to_string).collect();
    match modules::check_files(&config.state_dir.join(modules::FOLDER), &schema) {
        Ok(refused) => bad.extend(refused.iter().map(ToString::to_string)),
        Err(error) => bad.push(format!("{error:#}")),
    }
    for error in &bad {
        eprintln!("{error}");
    }
    if !bad.is_empty() {
        eprintln!(
            "the head would start without these, or with the last form of them that was good"
        );
    }
    bad.is_empty()
}
