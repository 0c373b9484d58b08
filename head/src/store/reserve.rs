//! Room on the disk that is kept for a head whose disk is full (promise P7).
//!
//! A file of blocks that nobody needs lies beside the database. When there is no room for what the head has to note itself (a grant that is
//! used up, an intent to fire, the epoch of a start), the file is emptied and its room taken; operators' writes are refused from then on,
//! until the file has its size again. An empty file says so to the next start.
//!
//! Left out: who else writes to that file system can take the room, too, once it is set free. A file system that promises no blocks (some copy
//! all that they write) keeps no reserve.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use tracing::{info, warn};

/// Name of the file in the state directory.
const FILE: &str = "reserve";

/// Room for a log of a thousand pages, where SQLite merges it (4 MiB), and for as much growth of the database: thousands of grants and intents.
pub(super) const BYTES: i64 = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Reserve {
    file: Option<File>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none: the disk never had room for it, or cannot promise any.
    None,
    /// It is whole.
    Kept,
    /// It is in use.
    Used,
}

impl Reserve {
    /// Looks at the reserve in `dir`; makes nothing.
    pub(super) fn find(dir: &Path) -> Self {
        let open = |create| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(create)
                .mode(0o600)
                .open(dir.join(FILE))
        };
        match open(false) {
            Ok(file) => {
                // A copy of it may be a hole.
                let blocks = file.metadata().map_or(0, |of| of.blocks() * 512);
                let state = match blocks >= BYTES.unsigned_abs() {
                    true => State::Kept,
                    false => State::Used,
                };
                let file = Some(file);
                Self { file, state }
            }
            Err(_) => Self {
                file: open(true).ok(),
                state: State::None,
            },
        }
    }

    /// Makes it if there is none, or says in the log why not. At the end of a start.
    pub(super) fn make(&mut self, dir: &Path) {
        if self.state == State::Kept {
            return;
        }
        match (self.allocate(), self.state) {
            (Ok(()), _) => {}
            (Err(why), State::Used) => {
                warn!(%why, "the state directory's disk is full: writes are refused until there is room, boots go on");
            }
            (Err(why), _) => {
                warn!(dir = %dir.display(), %why, "no room is kept in reserve in the state directory: boots stop, too, when its disk is full");
                // The next start tries again.
                self.file = None;
                let _ = std::fs::remove_file(dir.join(FILE));
            }
        }
    }

    /// Sets the room free, if it is there; whether it was.
    pub(super) fn release(&mut self) -> bool {
        let is_kept = self.state == State::Kept;
        let freed = is_kept
            && self
                .file
                .as_ref()
                .is_some_and(|file| file.set_len(0).is_ok());
        if freed {
            self.state = State::Used;
            warn!(
                "the state directory's disk is full: the reserve is used for what boots need; operators' writes are refused until there is room"
            );
        }
        freed
    }

    /// Whether operators may write: the reserve is whole, or has its room again, or there never was one.
    pub(super) fn is_whole(&mut self) -> bool {
        if self.state == State::Used && self.allocate().is_ok() {
            info!("the state directory's disk has room again");
        }
        self.state != State::Used
    }

    /// Whether it is in use.
    pub(super) fn is_used(&self) -> bool {
        self.state == State::Used
    }

    fn allocate(&mut self) -> Result<(), Errno> {
        let file = self.file.as_ref().ok_or(Errno::ENOENT)?;
        let done = fallocate(file, FallocateFlags::empty(), 0, BYTES);
        match done {
            Ok(()) => self.state = State::Kept,
            // What it got before there was no more.
            Err(_) => drop(file.set_len(0)),
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_used_and_made_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let size = || std::fs::metadata(dir.path().join(FILE)).unwrap().blocks() * 512;
        let mut reserve = Reserve::find(dir.path());
        assert!(reserve.is_whole() && !reserve.release(), "there is none");
        reserve.make(dir.path());
        assert!(size() >= BYTES.unsigned_abs());
        let mut reserve = Reserve::find(dir.path());
        assert!(reserve.release() && reserve.is_used());
        assert!(!reserve.release(), "only once");
        assert_eq!(size(), 0);
        // The next start knows that it is in use.
        let mut reserve = Reserve::find(dir.path());
        assert!(reserve.is_used());
        assert!(reserve.is_whole() && !reserve.is_used(), "there is room");
        assert!(size() >= BYTES.unsigned_abs());
    }
}
