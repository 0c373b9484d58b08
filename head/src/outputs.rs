//! What the engine wants done, handed on to whoever does it. Nothing here waits: the engine's loop calls it.

use std::collections::HashMap;
use std::sync::Arc;

use engine::driver::{Handle, wall_ms};
use engine::event::{Event, Output};
use engine::state::{NodeId, NodeName};
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::api::Feed;
use crate::boot_link::BootBook;
use crate::event_log::EventLog;
use crate::extensions::Extensions;
use crate::modules::{External, Modules};
use crate::requests::Requests;
use crate::store::StoreWorker;
use crate::sync::SyncHub;

/// Events that may wait to be logged and numbered: all that 10,000 nodes do when they are switched on at once. What is more is lost, and
/// watchers are told to start again.
const MAX_EVENTS: usize = 65_536;

/// Those who carry out the engine's outputs.
pub(crate) struct Outputs {
    /// Makes records durable.
    pub(crate) store: StoreWorker,
    /// Wait for answers.
    pub(crate) requests: Requests,
    /// Carry out mutations.
    pub(crate) modules: Arc<Modules>,
    /// Talks to children.
    pub(crate) sync: SyncHub,
    /// Hear of events.
    pub(crate) events: EventQueue,
}

impl Outputs {
    /// Passes one output on.
    pub(crate) fn carry_out(&self, output: Output) {
        match output {
            Output::Commit {
                commit,
                records,
                own,
            } => self.store.commit(commit, records, own),
            Output::Written { request, result } => self.requests.written(request, result),
            Output::Fire(fire) => self.modules.fire(fire),
            Output::Interrupt {
                node,
                mutation,
                attempt,
            } => self.modules.interrupt(node, &mutation, attempt),
            Output::Grant { request, result } => self.requests.granted(request, result),
            Output::Join { conn, outcome } => self.sync.join(conn, outcome),
            Output::Send { session, frame } => self.sync.send(session, frame),
            Output::EndSession { session, node, why } => {
                info!(%node, ?session, why, "session ends");
                self.sync.end(session, why);
            }
            Output::Declared { sessions, set } => self.sync.declared(&sessions, &set),
            // A head without a parent attaches to nobody.
            Output::Attach { attempt } => debug!(attempt, "nobody to attach to"),
            Output::Remember(memo) => self.store.remember(wall_ms(), memo),
            Output::Event(event) => {
                match &event {
                    Event::Dsc { node, changes } => self.store.known(*node, changes),
                    Event::Deleted { node, .. } => self.store.forget(*node),
                    _ => {}
                }
                self.events.push(event);
            }
        }
    }
}

/// The sending end of the queue of events.
#[derive(Clone)]
pub(crate) struct EventQueue {
    queue: mpsc::Sender<Event>,
    feed: Feed,
}

impl EventQueue {
    /// A queue, and where it comes out.
    pub(crate) fn new(feed: Feed) -> (Self, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(MAX_EVENTS);
        (Self { queue, feed }, events)
    }

    /// Passes an event on, if there is room.
    pub(crate) fn push(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            metrics::counter!("kraken_events_lost_total").increment(1);
            self.feed.break_off();
        }
    }
}

/// Logs events, numbers them for watchers, and keeps the boot table up to date, until the engine ends.
pub(crate) async fn follow_events(
    mut events: mpsc::Receiver<Event>,
    handle: Handle,
    extensions: Arc<Extensions>,
    feed: Feed,
    mut book: BootBook,
    external: External,
) {
    let me = handle.query(|engine, _| engine.me()).await.ok();
    let names = handle.query(|engine, _| {
        engine
            .tree()
            .iter()
            .map(|node| (node.id, node.name.clone()))
            .collect()
    });
    let mut names: HashMap<NodeId, NodeName> = names.await.unwrap_or_default();
    let mut log = EventLog::default();
    while let Some(event) = events.recv().await {
        let schema = extensions.schema();
        log.write(&event, &names, &schema);
        book.follow(&event, &handle).await;
        if matches!(&event, Event::Cfg { node, .. } if Some(*node) == me) {
            external.configure();
        }
        feed.record(&mut names, &event, &handle, &schema).await;
    }
}
