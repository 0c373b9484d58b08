//! kraken-agent: what a node runs first. One static program with several roles, told apart by how it is started:
//!
//! - as process 1: the supervisor ([`pid1`]), which starts
//! - `--agent`: the agent ([`agent`]), which joins a parent, discovers and carries out mutations, and starts
//! - `--stage2 FILE`, which starts `--stage3 FILE`: on the way to a system image's init ([`image::apply`]);
//! - `--plain --run-dir DIR --etc DIR --cmdline TEXT`: the agent as an ordinary process, for tests: no network setup, no clock, no reboot.
//!
//! DESIGN section 6.

mod agent;
mod busy;
mod clock;
mod cmdline;
mod drivers;
mod identity;
mod image;
mod join;
mod kmsg;
mod log;
mod modules;
mod net;
mod pid1;
mod sys;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::agent::Options;
use crate::kmsg::{Kmsg, Level};

const USAGE: &str = "usage: kraken-agent --plain --run-dir DIR --etc DIR --cmdline TEXT
As process 1 it needs no arguments: it is the /init of an initramfs made by `kraken-image initramfs`.";

/// What this process is.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    Supervisor,
    Agent(Options),
    Stage2(PathBuf),
    Stage3(PathBuf),
    Version,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match role(std::process::id() == 1, &arguments) {
        Ok(Role::Supervisor) => pid1::run(),
        Ok(Role::Agent(options)) => match agent::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let kmsg = if options.owns_machine {
                    Kmsg::open()
                } else {
                    Kmsg::stderr()
                };
                kmsg.line(Level::Error, &format!("the agent cannot go on: {error:#}"));
                ExitCode::FAILURE
            }
        },
        Ok(Role::Stage2(file)) => match image::apply::stage2(&file) {
            Ok(pid) => {
                println!("{pid}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("{error:#}");
                ExitCode::FAILURE
            }
        },
        Ok(Role::Stage3(file)) => {
            image::apply::stage3(&file);
            ExitCode::FAILURE
        }
        Ok(Role::Version) => {
            println!("kraken-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Reads the command line. The first process of a machine supervises, whatever words the kernel passes on; but so is the first process of
/// a pid namespace, which stage 3 is.
fn role(is_first: bool, arguments: &[String]) -> Result<Role, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--stage2", file] => return Ok(Role::Stage2(Path::new(file).to_path_buf())),
        ["--stage3", file] => return Ok(Role::Stage3(Path::new(file).to_path_buf())),
        _ if is_first => return Ok(Role::Supervisor),
        ["--version"] => return Ok(Role::Version),
        _ => {}
    }
    let mut options = Options::default();
    let mut kind = None;
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word {
            "--agent" | "--plain" => {
                options.owns_machine = word == "--agent";
                kind = Some(word);
            }
            "--starts" => {
                options.starts = value()?.parse().map_err(|_| "--starts wants a number")?
            }
            "--run-dir" => options.run_dir = value()?.into(),
            "--etc" => options.etc_dir = value()?.into(),
            "--cmdline" => options.cmdline = Some(value()?.to_owned()),
            _ => return Err(format!("{word} is no argument of kraken-agent")),
        }
    }
    match kind {
        Some(_) => Ok(Role::Agent(options)),
        None => Err("this is not process 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is_first: bool, line: &str, expect: Result<Role, &str>) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(
            role(is_first, &words),
            expect.map_err(str::to_owned),
            "{line}"
        );
    }

    #[test]
    fn roles() {
        check(true, "", Ok(Role::Supervisor));
        check(true, "single splash", Ok(Role::Supervisor));
        check(true, "--stage3 /x", Ok(Role::Stage3("/x".into())));
        check(false, "--stage2 /x", Ok(Role::Stage2("/x".into())));
        check(false, "", Err("this is not process 1"));
        check(false, "--version", Ok(Role::Version));
        check(
            false,
            "--stage4",
            Err("--stage4 is no argument of kraken-agent"),
        );
        check(false, "--plain --etc", Err("--etc wants a value"));
        let second = Options {
            starts: 2,
            ..Options::default()
        };
        check(false, "--agent --starts 2", Ok(Role::Agent(second)));
        let plain = Options {
            owns_machine: false,
            run_dir: "/r".into(),
            etc_dir: "/e".into(),
            cmdline: Some("kraken.node=n1".into()),
            ..Options::default()
        };
        check(
            false,
            "--plain --run-dir /r --etc /e --cmdline kraken.node=n1",
            Ok(Role::Agent(plain)),
        );
    }
}
