//! The configuration read again while the head runs: at SIGHUP, and for `krakenctl module reload`.
//!
//! Modules out of process come, go and change with it; everything else is compared with what the head started with, and named as what the
//! next start brings. A file that is not good changes nothing at all.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Notify;
use tracing::{error, info};

use crate::config::{Config, Shown};
use crate::modules::{External, Reloaded};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reloader(Arc<Parts>);

struct Parts {
    file: PathBuf,
    /// What the head started with.
    at_start: Vec<Shown>,
    external: External,
    /// Told to read the mutation files again.
    files: Arc<Notify>,
}

/// What reading it again did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// To modules.
    pub(crate) modules: Reloaded,
    /// Keys that say something else than at the head's start, and count from the next one.
    pub(crate) at_next_start: Vec<String>,
}

impl Reloader {
    /// Reads `file`, of which the head took `config` at its start.
    pub(crate) fn new(
        file: PathBuf,
        config: &Config,
        external: External,
        files: Arc<Notify>,
    ) -> Self {
        let at_start = config.shown.clone();
        Self(Arc::new(Parts {
            file,
            at_start,
            external,
            files,
        }))
    }

    /// Reads the configuration again, and has the mutation files read again.
    ///
    /// # Errors
    /// What is wrong with it, in words. The head goes on with the one it has.
    pub(crate) async fn reload(&self) -> Result<Done, String> {
        self.0.files.notify_one();
        let file = self.0.file.display();
        match self.try_reload().await {
            Ok(done) => {
                let Reloaded {
                    added,
                    removed,
                    restarted,
                    configured,
                } = &done.modules;
                let at_next_start = &done.at_next_start;
                info!(%file, ?added, ?removed, ?restarted, ?configured, ?at_next_start, "the configuration is good; its modules are in force");
                Ok(done)
            }
            Err(error) => {
                error!(%file, error, "the configuration is not good; this head goes on with the one it has");
                Err(error)
            }
        }
    }

    async fn try_reload(&self) -> Result<Done, String> {
        let file = self.0.file.clone();
        let read = tokio::task::spawn_blocking(move || Config::read(&file));
        let config = read
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let modules = self.0.external.reload(&config.modules).await;
        Ok(Done {
            modules: modules.map_err(|error| format!("{error:#}"))?,
            at_next_start: differences(&self.0.at_start, &config.shown),
        })
    }
}

/// Keys, those of modules aside, whose values differ.
fn differences(old: &[Shown], new: &[Shown]) -> Vec<String> {
    let differs = |of: &[Shown], one: &Shown| {
        let value = of
            .iter()
            .find(|other| other.key == one.key)
            .map(|other| &other.value);
        value != Some(&one.value)
    };
    let mut keys: Vec<String> = new
        .iter()
        .filter(|one| differs(old, one))
        .chain(old.iter().filter(|one| differs(new, one)))
        .map(|one| one.key.clone())
        .filter(|key| !key.starts_with("modules."))
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_the_next_start_brings_is_named() {
        let shown = |text: &str| {
            let text = format!("cluster = \"a\"\n{text}");
            Config::parse(Path::new("head.toml"), &text, &|_| None)
                .unwrap()
                .shown
        };
        let old = shown("[log]\nlevel = \"info\"\n[api]\nlisten = \"127.0.0.1:1\"\n");
        let new = shown("[log]\nlevel = \"debug\"\n[modules.fan]\ncommand = [\"fan\"]\n");
        assert_eq!(differences(&old, &new), ["api.listen", "log.level"]);
        assert_eq!(differences(&old, &old), [""; 0]);
    }
}
