//! `cargo lab console NODE`: a terminal on a machine's serial line.

use std::{
    fs,
    io::{IsTerminal, Read, Seek, SeekFrom, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::termios::{self, SetArg};

use crate::control::{ClusterSpec, Files};

/// Ctrl-], as in telnet and virsh.
const LEAVE: u8 = 0x1d;

/// How much of the past is shown first.
const REPLAY_BYTES: i64 = 4096;

/// Connects this terminal to the console of `node`; returns when the user leaves or the machine loses power.
pub fn attach(dir: &Path, node: &str) -> Result<()> {
    let files = Files(dir.to_owned());
    let spec: ClusterSpec = serde_json::from_slice(
        &fs::read(files.spec()).context("no cluster is up; type: cargo lab up")?,
    )?;
    let Some(machine) = spec.machines.iter().find(|machine| machine.name == node) else {
        let names: Vec<_> = spec.machines.iter().map(|m| m.name.as_str()).collect();
        bail!("no machine {node}; there are {}", names.join(", "));
    };
    replay(&machine.console_log(dir))?;
    let stream = UnixStream::connect(machine.console_socket(dir)).with_context(|| {
        format!("{node} has no power, or somebody else is at its console; its log is above")
    })?;
    eprintln!("\r\n[console of {node}; leave with Ctrl-]]\r");
    let saved = raw_mode()?;
    let result = copy(stream);
    if let Some(saved) = saved {
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &saved)?;
    }
    eprintln!("\r\n[left the console of {node}]\r");
    result
}

fn replay(log: &Path) -> Result<()> {
    let Ok(mut file) = fs::File::open(log) else {
        return Ok(());
    };
    let length = i64::try_from(file.metadata()?.len())?;
    file.seek(SeekFrom::End(-length.min(REPLAY_BYTES)))?;
    std::io::copy(&mut file, &mut std::io::stdout())?;
    Ok(())
}

fn raw_mode() -> Result<Option<termios::Termios>> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let saved = termios::tcgetattr(std::io::stdin())?;
    let mut raw = saved.clone();
    termios::cfmakeraw(&mut raw);
    termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)?;
    Ok(Some(saved))
}

fn copy(mut stream: UnixStream) -> Result<()> {
    let mut keys = stream.try_clone()?;
    std::thread::spawn(move || {
        let mut byte = [0];
        while let Ok(1) = std::io::stdin().read(&mut byte) {
            if byte[0] == LEAVE || keys.write_all(&byte).is_err() {
                break;
            }
        }
        // What was typed by a pipe may still be answered.
        if !std::io::stdin().is_terminal() {
            std::thread::sleep(Duration::from_secs(1));
        }
        keys.shutdown(std::net::Shutdown::Both).ok();
    });
    let mut bytes = [0; 1024];
    let mut out = std::io::stdout();
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        out.write_all(&bytes[..length])?;
        out.flush()?;
    }
    Ok(())
}
