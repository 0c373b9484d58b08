//! Tasks without which a head is none.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};
use tracing::error;

/// The tasks by name.
#[derive(Default)]
pub(super) struct Vital {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Vital {
    /// Starts a task that must not end before the head does.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Watches a thread in the same way.
    pub(super) fn watch(&mut self, name: &'static str, thread: std::thread::JoinHandle<()>) {
        let id = self
            .tasks
            .spawn_blocking(move || {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            })
            .id();
        self.names.insert(id, name);
    }

    /// Waits until one of them ends, and says which.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next_with_id().await {
            Some(ended) => {
                let (name, why) = self.name(ended);
                anyhow::anyhow!(
                    "the {name} task has ended ({why}): this is a bug; restart kraken-head, nodes keep running meanwhile"
                )
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the end of one of them.
    pub(super) async fn join(&mut self, wanted: &str) {
        while self.names.values().any(|name| *name == wanted) {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return;
            };
            let panicked = ended.as_ref().is_err_and(JoinError::is_panic);
            let (name, why) = self.name(ended);
            if panicked {
                error!(name, why, "a task panicked while the head was stopping");
            }
        }
    }

    fn name(&mut self, ended: Result<(Id, ()), JoinError>) -> (&'static str, String) {
        let (id, why) = match ended {
            Ok((id, ())) => (id, "it returned".to_owned()),
            Err(error) => (error.id(), error.to_string()),
        };
        (self.names.remove(&id).unwrap_or("unknown"), why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_task_that_ends_is_named() {
        let mut vital = Vital::default();
        vital.spawn("patient", std::future::pending());
        vital.spawn("hasty", async {});
        let error = vital.ended().await.to_string();
        assert!(
            error.starts_with("the hasty task has ended (it returned)"),
            "{error}"
        );
        vital.watch(
            "thread",
            std::thread::spawn(|| panic!("as the test wants it")),
        );
        let error = vital.ended().await.to_string();
        assert!(
            error.starts_with("the thread task has ended (task ") && error.contains("panicked"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_task_can_be_waited_for() {
        let mut vital = Vital::default();
        vital.spawn("patient", std::future::pending());
        vital.spawn("hasty", async {});
        vital.watch("store", std::thread::spawn(|| ()));
        vital.join("store").await;
        vital.join("store").await;
    }
}
