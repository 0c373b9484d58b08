//! What the agent discovers and carries out on its own node. Modules never write state: they report, and the engine decides.

pub(crate) mod external;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod schema;

use std::borrow::Cow;

use engine::driver::Handle;
use engine::event::{Discovery, Input};
use engine::mutation::MutationId;
use engine::state::{Change, NodeId, Value, Values};
use tokio::sync::watch;
use tracing::error;

/// How modules speak to the engine, always about this node.
#[derive(Clone)]
pub(crate) struct Reporter {
    engine: Handle,
    node: NodeId,
}

impl Reporter {
    /// A way to report about `node`.
    pub(crate) fn new(engine: Handle, node: NodeId) -> Self {
        Self { engine, node }
    }

    /// Reports real values.
    pub(crate) async fn report(&self, source: impl Into<Cow<'static, str>>, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let discovery = Discovery {
            node: self.node,
            source: source.into(),
            changes,
        };
        self.tell(Input::Discover(discovery)).await;
    }

    /// Says that an attempt is over.
    pub(crate) async fn failed(&self, mutation: MutationId, attempt: u64, text: String) {
        let node = self.node;
        self.tell(Input::MutationFailed {
            node,
            mutation,
            attempt,
            text,
        })
        .await;
    }

    /// What the engine believes of this node.
    pub(crate) async fn believed(&self) -> Values {
        let node = self.node;
        let read = self
            .engine
            .query(move |engine, _| engine.tree().get(node).map(|node| node.dsc.clone()));
        read.await.ok().flatten().unwrap_or_default()
    }

    async fn tell(&self, input: Input) {
        if self.engine.input(input).await.is_err() {
            error!("the engine has stopped");
        }
    }
}

/// A change of one value; `None` if `url` is none, as with an interface whose name no url can hold.
pub(crate) fn change(url: &str, value: Option<Value>) -> Option<Change> {
    let url = url.parse().ok()?;
    Some(Change { url, value })
}

/// Tells modules that a session began. The engine takes no reports before the first one, and a new session brings what the
/// parent believed of us, so each module then says again what is so.
#[derive(Clone)]
pub(crate) struct Attached(watch::Receiver<u64>);

impl Attached {
    /// The sender's end counts sessions.
    pub(crate) fn channel() -> (watch::Sender<u64>, Self) {
        let (sender, receiver) = watch::channel(0);
        (sender, Self(receiver))
    }

    /// Waits for the next session.
    pub(crate) async fn again(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
