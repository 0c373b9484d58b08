//! What the engine wants done, handed on to whoever does it. Nothing here waits: the engine's loop calls it.

use std::collections::HashMap;
use std::sync::Arc;

use engine::driver::Handle;
use engine::event::{Event, MutationEvent, Output};
use engine::extension::Schema;
use engine::state::{NodeId, NodeName, core};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::api::Feed;
use crate::boot_link::BootBook;
use crate::modules::Modules;
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
            Output::Commit { commit, records } => self.store.commit(commit, records),
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
            // A head without a parent attaches to nobody.
            Output::Attach { attempt } => debug!(attempt, "nobody to attach to"),
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

    fn push(&self, event: Event) {
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
    schema: Arc<Schema>,
    feed: Feed,
    mut book: BootBook,
) {
    let names = handle.query(|engine, _| {
        engine
            .tree()
            .iter()
            .map(|node| (node.id, node.name.clone()))
            .collect()
    });
    let mut names: HashMap<NodeId, NodeName> = names.await.unwrap_or_default();
    let mut boots = Boots::default();
    while let Some(event) = events.recv().await {
        log(&event, &names);
        boots.note(&event, &names);
        book.follow(&event, &handle).await;
        feed.record(&mut names, &event, &handle, &schema).await;
    }
}

fn name_of(names: &HashMap<NodeId, NodeName>, node: NodeId) -> String {
    names
        .get(&node)
        .map_or_else(|| node.to_string(), ToString::to_string)
}

fn log(event: &Event, names: &HashMap<NodeId, NodeName>) {
    match event {
        Event::Node { node } => debug!(node = name_of(names, *node), "node written"),
        Event::Deleted { name, .. } => info!(node = %name, "node deleted"),
        Event::Cfg { node, changes } => debug!(
            node = name_of(names, *node),
            changes = changes.len(),
            "cfg changed"
        ),
        Event::Dsc { node, changes } => {
            for change in changes {
                let node = name_of(names, *node);
                match &change.value {
                    // The agent's whole inventory comes at once; the states are what moves a node.
                    _ if change.url.as_str().starts_with("/host/") => {
                        debug!(node, ?change, "discovered")
                    }
                    Some(value) => info!(node, url = %change.url, %value, "discovered"),
                    None => info!(node, url = %change.url, "unknown"),
                }
            }
        }
        Event::Mutation {
            node,
            mutation,
            attempt,
            what,
        } => {
            let node = name_of(names, *node);
            let count = |what: &'static str| {
                metrics::counter!("kraken_mutations_total", "mutation" => mutation.to_string(), "what" => what).increment(1);
            };
            match what {
                MutationEvent::Fired { ours } => {
                    count("fired");
                    info!(node, %mutation, attempt, ours, "mutation fired");
                }
                MutationEvent::Done { elapsed_ms } => {
                    count("done");
                    info!(node, %mutation, attempt, elapsed_ms, "mutation done");
                }
                MutationEvent::Failed { text } => {
                    count("failed");
                    warn!(node, %mutation, attempt, why = text, "mutation failed");
                }
                MutationEvent::Interrupted => {
                    count("interrupted");
                    info!(node, %mutation, attempt, "mutation interrupted");
                }
            }
        }
        Event::Parked { node, reason } => {
            metrics::counter!("kraken_parked_total").increment(1);
            warn!(
                node = name_of(names, *node),
                reason, "node parked: `krakenctl node explain` says more"
            );
        }
        Event::Join { node, text, alarm } => {
            let node = node.map(|node| name_of(names, node));
            if *alarm {
                metrics::counter!("kraken_join_alarms_total").increment(1);
                error!(node, text, "join alarm");
            } else {
                info!(node, text, "join");
            }
        }
        Event::Refused { node, why } => {
            metrics::counter!("kraken_refused_total").increment(1);
            warn!(node = node.map(|node| name_of(names, node)), why, "refused");
        }
    }
}

/// The stages of a boot that the engine sees, with the time since power-on. The boot plane logs those between.
#[derive(Default)]
struct Boots(HashMap<NodeId, Instant>);

impl Boots {
    fn note(&mut self, event: &Event, names: &HashMap<NodeId, NodeName>) {
        let (node, changes) = match event {
            Event::Dsc { node, changes } => (*node, changes),
            Event::Deleted { node, .. } => {
                self.0.remove(node);
                return;
            }
            _ => return,
        };
        for change in changes {
            let Some(value) = change.value.as_ref().and_then(|value| value.as_text()) else {
                continue;
            };
            let stage = match (change.url.as_str(), value) {
                (core::PHYS_STATE, core::POWER_ON) => "power-on",
                (core::RUN_STATE, core::SYNC) => "join",
                ("/image/state", "ACTIVE") => "image",
                _ => continue,
            };
            if stage == "power-on" {
                self.0.insert(node, Instant::now());
            }
            let since_power_on_ms = self
                .0
                .get(&node)
                .map(|start| start.elapsed().as_millis() as u64);
            info!(
                node = name_of(names, node),
                stage, since_power_on_ms, "boot stage"
            );
            metrics::counter!("kraken_boot_stages_total", "stage" => stage).increment(1);
        }
    }
}
