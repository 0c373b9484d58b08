//! Questions to the engine whose answers come later, by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use engine::event::{RequestId, WriteDone, WriteError};
use tokio::sync::oneshot;

/// Answers awaited by number.
struct Open<T>(Mutex<HashMap<RequestId, oneshot::Sender<T>>>);

impl<T> Default for Open<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Open<T> {
    fn ask(&self, request: RequestId) -> oneshot::Receiver<T> {
        let (sender, answer) = oneshot::channel();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Askers that have gone left their entry behind; the engine answers every question, so these are few.
        open.insert(request, sender);
        answer
    }

    fn answer(&self, request: RequestId, answer: T) {
        let sender = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&request);
        if let Some(sender) = sender {
            // The asker may have given up.
            let _ = sender.send(answer);
        }
    }
}

/// All open questions of this head.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Inner>);

#[derive(Default)]
struct Inner {
    next: AtomicU64,
    writes: Open<Result<WriteDone, WriteError>>,
    grants: Open<Result<String, String>>,
}

impl Requests {
    fn number(&self) -> RequestId {
        RequestId(self.0.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a write, and where its answer comes.
    pub(crate) fn write(&self) -> (RequestId, oneshot::Receiver<Result<WriteDone, WriteError>>) {
        let request = self.number();
        (request, self.0.writes.ask(request))
    }

    /// A number for the fetch of a grant, and where its answer comes.
    pub(crate) fn grant(&self) -> (RequestId, oneshot::Receiver<Result<String, String>>) {
        let request = self.number();
        (request, self.0.grants.ask(request))
    }

    /// The engine's answer to a write.
    pub(crate) fn written(&self, request: RequestId, result: Result<WriteDone, WriteError>) {
        self.0.writes.answer(request, result);
    }

    /// The engine's answer to the fetch of a grant.
    pub(crate) fn granted(&self, request: RequestId, result: Result<String, String>) {
        self.0.grants.answer(request, result);
    }
}
