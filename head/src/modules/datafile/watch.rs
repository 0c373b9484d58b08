//! Mutation files that change while the head runs: they are read again once they lie still, or at SIGHUP. Of a bad file stays what it said
//! when it was good.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use engine::driver::Handle;
use engine::mutation::file::MAX_FILES;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use super::super::Modules;

/// How often the folder is looked at. A file that is being written is left alone until it is the same twice.
const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of the folder from another; empty: no folder.
type Print = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// Reads the files of `folder` again whenever they change or `now` is told.
pub(crate) async fn watch_files(
    modules: Arc<Modules>,
    folder: PathBuf,
    engine: Handle,
    now: Arc<Notify>,
) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut read = print(&folder).await;
    let mut seen = read.clone();
    loop {
        let told = tokio::select! {
            () = now.notified() => true,
            _ = ticks.tick() => false,
        };
        let found = print(&folder).await;
        let still = found == std::mem::replace(&mut seen, found.clone());
        if !told && (found == read || !still) {
            continue;
        }
        read = found;
        // Extensions may have come since the last time.
        let schema = engine.query(|engine, _| Arc::new(engine.schema().clone()));
        let Ok(schema) = schema.await else { return };
        match modules.reload(&folder, &schema).await {
            Ok(mutations) => {
                info!(folder = %folder.display(), mutations, "mutation files are in force");
            }
            Err(why) => {
                error!(folder = %folder.display(), %why, "the declared mutations cannot be used together; this head goes on with those it has");
            }
        }
    }
}

async fn print(folder: &Path) -> Print {
    let folder = folder.to_owned();
    let look = tokio::task::spawn_blocking(move || look(&folder));
    look.await.unwrap_or_default()
}

fn look(folder: &Path) -> Print {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().extension().is_some_and(|ext| ext == "toml"));
    let mut print: Print = files
        .take(MAX_FILES + 1)
        .filter_map(|file| {
            // Followed, as the reader does: a file may be a link to one of a package.
            let about = std::fs::metadata(file.path()).ok()?;
            Some((file.path(), about.len(), about.modified().ok()))
        })
        .collect();
    print.sort();
    print
}
