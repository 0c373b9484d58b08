//! Whether a job runs: any file in `busy.d` means BUSY, its name says whose.
//!
//! Prologue and epilogue scripts of a batch system make and remove such files, on the node or inside the image, where the directory
//! shows at the same place.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use engine::state::{Change, Value, core};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::modules::{Attached, Reporter};
use crate::sys::linux::watch_readable;

/// Looks without being told, should the kernel lose a notice.
const LOOK: Duration = Duration::from_secs(10);

/// Reports for ever.
pub(crate) async fn run(dir: &Path, reporter: Reporter, mut attached: Attached) {
    if let Err(error) = fs::create_dir_all(dir) {
        warn!(%error, dir = %dir.display(), "jobs cannot mark this node busy");
    }
    let mut watch = Watch::open(dir);
    let mut known = None;
    loop {
        let holders = holders(dir);
        let busy = !holders.is_empty();
        if known != Some(busy) {
            known = Some(busy);
            match busy {
                true => info!(holders = holders.join(","), "a job runs here"),
                false => info!("no job runs here"),
            }
        }
        let changes = mark(busy).into_iter().collect();
        reporter.report("busy", changes).await;
        tokio::select! {
            () = watch.changed() => {}
            () = attached.again() => {}
        }
    }
}

/// What the marks say at this moment. It comes with every session: what a job forbids must not begin because nobody has looked yet.
pub(crate) fn found(dir: &Path) -> Option<Change> {
    mark(!holders(dir).is_empty())
}

fn mark(busy: bool) -> Option<Change> {
    crate::modules::change(core::BUSY, busy.then(|| Value::from(core::BUSY_BUSY)))
}

/// Names of the marks. Marks that cannot be read may be a job's, so they count as one.
fn holders(dir: &Path) -> Vec<String> {
    let name =
        |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let names = fs::read_dir(dir)
        .and_then(|entries| entries.map(name).collect::<io::Result<Vec<String>>>());
    match names {
        Ok(mut names) => {
            names.sort();
            names
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => vec![format!("{} cannot be read: {error}", dir.display())],
    }
}

/// Notices of the kernel about a directory; where there are none, time passes instead.
struct Watch(Option<(Inotify, AsyncFd<OwnedFd>)>);

impl Watch {
    fn open(dir: &Path) -> Self {
        let open = || {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let what = AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_MOVED_FROM;
            inotify.add_watch(dir, what)?;
            let ready = watch_readable(inotify.as_fd().try_clone_to_owned()?)?;
            std::io::Result::Ok((inotify, ready))
        };
        Self(open().ok())
    }

    async fn changed(&mut self) {
        let Some((inotify, ready)) = &self.0 else {
            return tokio::time::sleep(LOOK).await;
        };
        if let Ok(Ok(mut guard)) = timeout(LOOK, ready.readable()).await {
            let _ = inotify.read_events();
            guard.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_noticed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut watch = Watch::open(dir.path());
            assert!(holders(dir.path()).is_empty());
            fs::write(dir.path().join("job"), "").unwrap();
            timeout(Duration::from_secs(2), watch.changed())
                .await
                .unwrap();
            assert_eq!(holders(dir.path()), ["job"]);
            assert!(holders(&dir.path().join("none")).is_empty());
            // Not even root reads a file as a folder.
            assert_eq!(holders(&dir.path().join("job")).len(), 1);
            fs::remove_file(dir.path().join("job")).unwrap();
            timeout(Duration::from_secs(2), watch.changed())
                .await
                .unwrap();
            assert!(holders(dir.path()).is_empty());
        });
    }
}
