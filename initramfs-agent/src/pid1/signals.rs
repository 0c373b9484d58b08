//! Signals as readable events: PID 1 has no handlers, so no code runs at a surprising moment.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::reboot::Ending;

/// What a signal means to PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A child may have ended.
    Child,
    /// The machine shall end.
    End(Ending),
}

/// Those that are read; all others keep their default, which for PID 1 is "ignored".
const WATCHED: &[Signal] = &[
    Signal::SIGCHLD,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPWR,
];

/// Blocks the watched signals for this process, whose children inherit that (see [`unblock_all`]), and opens them for reading.
pub(crate) fn open() -> io::Result<SignalFd> {
    let set: SigSet = WATCHED.iter().copied().collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// The next notice, if there is one.
pub(crate) fn read(signals: &SignalFd) -> Option<Notice> {
    let info = signals.read_signal().ok().flatten()?;
    let signal = i32::try_from(info.ssi_signo)
        .ok()
        .and_then(|n| Signal::try_from(n).ok())?;
    Some(meaning(signal))
}

/// Clears the mask that a process inherited from PID 1.
pub(crate) fn unblock_all() {
    let _ = SigSet::empty().thread_set_mask();
}

/// As busybox and sysvinit have it: ctrl-alt-del (SIGINT) and SIGTERM restart, SIGUSR1 halts, SIGUSR2 and a failing power supply switch off.
fn meaning(signal: Signal) -> Notice {
    match signal {
        Signal::SIGINT | Signal::SIGTERM => Notice::End(Ending::Reboot),
        Signal::SIGUSR1 => Notice::End(Ending::Halt),
        Signal::SIGUSR2 | Signal::SIGPWR => Notice::End(Ending::PowerOff),
        _ => Notice::Child,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_watched_signal_has_its_meaning() {
        let meanings: Vec<Notice> = WATCHED.iter().map(|signal| meaning(*signal)).collect();
        assert_eq!(
            meanings,
            [
                Notice::Child,
                Notice::End(Ending::Reboot),
                Notice::End(Ending::Reboot),
                Notice::End(Ending::Halt),
                Notice::End(Ending::PowerOff),
                Notice::End(Ending::PowerOff),
            ]
        );
    }
}
