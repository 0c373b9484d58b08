//! Runs other programs and turns their failures into sentences.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Folders for system programs that an ordinary user's PATH lacks on Debian.
const SYSTEM_FOLDERS: &[&str] = &["/usr/sbin", "/sbin"];
/// Lines of a failed program's output that an error shows.
const FIRST_LINES: usize = 3;
const LAST_LINES: usize = 12;

/// A program in PATH or the system folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = SYSTEM_FOLDERS.iter().map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// A command for `program`, or an error that names the Debian package it is in.
pub(crate) fn command(program: &str, package: &str) -> Result<Command> {
    let path = find(program).with_context(|| {
        format!("the program {program} is missing; try: apt-get install {package}")
    })?;
    let mut command = Command::new(path);
    // Messages are shown in errors and parsed, so they come in one language; mksquashfs refuses SOURCE_DATE_EPOCH beside its flags.
    command.env("LC_ALL", "C").env_remove("SOURCE_DATE_EPOCH");
    Ok(command)
}

/// Runs to the end and returns standard output; a failure shows the end of what the program said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start {}", name(command.get_program())))?;
    check(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs with `input` as standard input.
pub(crate) fn run_with_input(command: &mut Command, mut input: impl Read) -> Result<()> {
    let program = name(command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {program}"))?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        stderr.map(|mut pipe| pipe.read_to_end(&mut said));
        said
    });
    let copied = stdin.map_or(Ok(0), |mut pipe| io::copy(&mut input, &mut pipe));
    let status = child
        .wait()
        .with_context(|| format!("can't wait for {program}"))?;
    let stderr = reader.join().unwrap_or_default();
    // A program that gives up closes the pipe; its own words tell why better than that.
    match copied {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("can't read the input")
        }
        _ => check(
            command,
            &Output {
                status,
                stdout: Vec::new(),
                stderr,
            },
        ),
    }
}

fn check(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stderr.trim_ascii().is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    bail!(
        "{} failed ({}):\n{}",
        name(command.get_program()),
        output.status,
        excerpt(said)
    );
}

/// The beginning and the end of a program's output, indented: reasons stand in one of the two.
pub(crate) fn excerpt(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("  {line}"))
        .collect();
    if lines.len() <= FIRST_LINES + LAST_LINES {
        return lines.join("\n");
    }
    let (first, last) = (&lines[..FIRST_LINES], &lines[lines.len() - LAST_LINES..]);
    [first, &["  ...".to_owned()], last].concat().join("\n")
}

fn name(program: &OsStr) -> String {
    Path::new(program)
        .file_name()
        .unwrap_or(program)
        .to_string_lossy()
        .into_owned()
}
