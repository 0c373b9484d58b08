//! Collecting the processes that end under PID 1.
//!
//! Orphans of the whole machine arrive here: an image's init among them, once the helper that started it is gone. The agent wants to
//! know how that one ended, but is not its parent. So it leaves an empty file named after the process in a directory, and whoever
//! reaps the process writes the status into it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::sys::linux::{Exit, collect_child, peek_ended_child};

/// Most processes collected in one go, so that a storm of them cannot keep PID 1 from its other duties.
const MAX_PER_CALL: usize = 256;

/// Collects the children that have ended and returns the status of `agent`, should it be among them.
pub(crate) fn reap(agent: Option<u32>, exits: &Path) -> Option<Exit> {
    let mut agent_exit = None;
    for _ in 0..MAX_PER_CALL {
        let Ok(Some(pid)) = peek_ended_child() else {
            break;
        };
        let Ok(Some(exit)) = collect_child(pid) else {
            break;
        };
        if agent == Some(pid) {
            agent_exit = Some(exit);
        } else {
            leave_word(exits, pid, exit);
        }
    }
    agent_exit
}

/// Writes the status where somebody asked for it; never creates a file.
fn leave_word(exits: &Path, pid: u32, exit: Exit) {
    if let Ok(mut file) = OpenOptions::new()
        .write(true)
        .open(exits.join(pid.to_string()))
    {
        let _ = file.write_all(exit.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_is_left_only_where_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("7"), "").unwrap();
        leave_word(dir.path(), 7, Exit::Signal(37));
        leave_word(dir.path(), 8, Exit::Code(0));
        assert_eq!(
            std::fs::read_to_string(dir.path().join("7")).unwrap(),
            "signal 37"
        );
        assert!(!dir.path().join("8").exists());
    }
}
