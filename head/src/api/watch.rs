//! Events for watchers: numbered, kept in a bounded ring for those that resume, and filtered by node set.
//!
//! A watcher reads at its own pace. One that falls behind the ring, or comes back with a number that is not in it, hears `resync` and starts again
//! with a snapshot: no gap is ever silent. Numbers begin with that of the head's start, so those of an earlier run are told apart.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::driver::Handle;
use engine::event::{Event, MutationEvent};
use engine::extension::Schema;
use engine::state::{NodeId, NodeName, core};
use proto::v1::{self, WatchEvent, watch_event::Kind};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::convert;
use super::select::TreeInventory;
use super::snapshot::Snapshot;
use crate::event_log::clean;
use crate::nodeset::NodeSet;

/// Events that are kept: a minute or two of 1,000 nodes that boot at once.
const MAX_EVENTS: usize = 16_384;

/// Events handed to a watcher at once.
const BATCH: usize = 256;

/// Room for the events of one start: at 10,000 a second, for three years.
const EPOCH_SHIFT: u32 = 40;

/// Events that a watcher's connection may hold.
const MAX_WAITING: usize = 64;

/// One event.
#[derive(Debug)]
struct Item {
    sequence: u64,
    /// Whose; `None`: everybody's.
    node: Option<NodeId>,
    kind: Kind,
}

struct Ring {
    items: VecDeque<Arc<Item>>,
    newest: u64,
    /// Alarms that are not over, by kind, node and what they are about.
    standing: BTreeMap<AlarmKey, v1::Alarm>,
}

type AlarmKey = (String, Option<NodeId>, String);

/// Kind of the alarm of a node that cannot go on.
const PARKED_ALARM: &str = "parked";
/// Kind of the alarm of two parties that claim one node. It has no end.
const JOIN_ALARM: &str = "join";

/// All events of this run; shared by those that write and those that watch.
#[derive(Clone)]
pub(crate) struct Feed {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Sender<u64>,
}

/// The events a watcher wants are gone.
#[derive(Debug, PartialEq, Eq)]
struct Gone;

impl Feed {
    /// An empty feed; its numbers are greater than those of every earlier start.
    pub(crate) fn new(epoch: u64) -> Self {
        let first = epoch << EPOCH_SHIFT;
        Self {
            ring: Arc::new(Mutex::new(Ring {
                items: VecDeque::new(),
                newest: first,
                standing: BTreeMap::new(),
            })),
            newest: watch::Sender::new(first),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an alarm, and keeps it while it stands.
    fn alarm(&self, node: Option<NodeId>, alarm: v1::Alarm) {
        let key = (alarm.kind.clone(), node, alarm.about.clone());
        let mut ring = self.lock();
        if alarm.over && ring.standing.remove(&key).is_none() {
            return;
        }
        if !alarm.over && alarm.kind != JOIN_ALARM {
            ring.standing.insert(key, alarm.clone());
        }
        drop(ring);
        self.push(node, Kind::Alarm(alarm));
    }

    /// The alarms that stand, of everybody and of these nodes.
    fn standing(&self, wants: impl Fn(NodeId) -> bool) -> Vec<v1::Alarm> {
        let ring = self.lock();
        let alarms = ring.standing.iter();
        let wanted = alarms.filter(|((_, node, _), _)| node.is_none_or(&wants));
        wanted.map(|(_, alarm)| alarm.clone()).collect()
    }

    fn push(&self, node: impl Into<Option<NodeId>>, kind: Kind) {
        let node = node.into();
        let mut ring = self.lock();
        ring.newest += 1;
        let sequence = ring.newest;
        if ring.items.len() == MAX_EVENTS {
            ring.items.pop_front();
        }
        ring.items.push_back(Arc::new(Item {
            sequence,
            node,
            kind,
        }));
        drop(ring);
        self.newest.send_replace(sequence);
    }

    /// A node cannot go on, for this reason, or does so again.
    fn parked(&self, node: NodeId, name: String, why: Option<String>) {
        let alarm = v1::Alarm {
            kind: PARKED_ALARM.to_owned(),
            over: why.is_none(),
            text: why.map_or_else(
                || "the node goes on".to_owned(),
                |why| format!("{}: krakenctl node explain {name}", clean(&why)),
            ),
            ..v1::Alarm::default()
        };
        self.alarm(Some(node), of_node(alarm, Some(node), name));
    }

    /// Forgets everything: events were lost before they came here, so every watcher has to start again.
    pub(crate) fn break_off(&self) {
        let mut ring = self.lock();
        ring.items.clear();
        ring.newest += 1;
        let newest = ring.newest;
        drop(ring);
        self.newest.send_replace(newest);
    }

    fn newest(&self) -> u64 {
        self.lock().newest
    }

    /// The events after number `after`, at most a batch.
    fn after(&self, after: u64) -> Result<Vec<Arc<Item>>, Gone> {
        let ring = self.lock();
        if after == ring.newest {
            return Ok(Vec::new());
        }
        let oldest = ring
            .items
            .front()
            .map_or(ring.newest + 1, |item| item.sequence);
        if after > ring.newest || after + 1 < oldest {
            return Err(Gone);
        }
        let skip = usize::try_from(after + 1 - oldest).unwrap_or(usize::MAX);
        Ok(ring.items.iter().skip(skip).take(BATCH).cloned().collect())
    }

    /// Turns the engine's events into numbered ones.
    pub(crate) async fn record(
        &self,
        names: &mut HashMap<NodeId, NodeName>,
        event: &Event,
        handle: &Handle,
        schema: &Schema,
    ) {
        let named = |names: &HashMap<NodeId, NodeName>, node: &NodeId| {
            names.get(node).map(ToString::to_string).unwrap_or_default()
        };
        match event {
            Event::Node { node } => {
                let id = *node;
                let read = handle.query(move |engine, now| {
                    let node = engine.tree().get(id)?;
                    Some((node.name.clone(), convert::node(engine, node, now)))
                });
                if let Ok(Some((name, message))) = read.await {
                    names.insert(id, name);
                    self.push(id, Kind::Node(message));
                }
            }
            Event::Deleted { node, name } => {
                names.remove(node);
                let of_it = |(_, of, _): &AlarmKey| *of == Some(*node);
                self.lock().standing.retain(|key, _| !of_it(key));
                let deleted = v1::NodeDeleted {
                    node_id: node.as_bytes().to_vec(),
                    node_name: name.to_string(),
                };
                self.push(*node, Kind::Deleted(deleted));
            }
            Event::Cfg { node, changes } | Event::Dsc { node, changes } => {
                let is_dsc = matches!(event, Event::Dsc { .. });
                let parked = changes
                    .iter()
                    .find(|change| is_dsc && change.url.as_str() == core::PARKED);
                if let Some(change) = parked {
                    // The node's own agent gave up, or tries again.
                    let why = change.value.as_ref().map(ToString::to_string);
                    self.parked(*node, named(names, node), why);
                }
                let (cfg, dsc) = if matches!(event, Event::Cfg { .. }) {
                    (convert::cfg_changes(schema, changes), Vec::new())
                } else {
                    (Vec::new(), convert::changes(schema, changes))
                };
                let (node_id, node_name) = (node.as_bytes().to_vec(), named(names, node));
                self.push(
                    *node,
                    Kind::Change(v1::NodeChange {
                        node_id,
                        node_name,
                        cfg,
                        dsc,
                        frozen: None,
                    }),
                );
            }
            Event::Mutation {
                node,
                mutation,
                attempt,
                what,
            } => {
                use v1::mutation_event::Kind as What;
                let (kind, elapsed_ms, text) = match what {
                    MutationEvent::Fired { .. } => (What::Fired, 0, String::new()),
                    MutationEvent::Done { elapsed_ms } => (What::Done, *elapsed_ms, String::new()),
                    MutationEvent::Failed { text } => (What::Failed, 0, text.clone()),
                    MutationEvent::Interrupted => (What::Interrupted, 0, String::new()),
                };
                let message = v1::MutationEvent {
                    kind: kind.into(),
                    node_id: node.as_bytes().to_vec(),
                    node_name: named(names, node),
                    mutation: mutation.to_string(),
                    attempt: *attempt,
                    elapsed_ms,
                    text,
                };
                self.push(*node, Kind::Mutation(message));
            }
            Event::Parked { node, reason } => {
                self.parked(*node, named(names, node), Some(reason.clone()));
            }
            Event::Unparked { node } => self.parked(*node, named(names, node), None),
            Event::Join {
                node,
                text,
                alarm: true,
            } => {
                let alarm = v1::Alarm {
                    kind: JOIN_ALARM.to_owned(),
                    text: clean(text),
                    ..v1::Alarm::default()
                };
                let name = node.map(|node| named(names, &node)).unwrap_or_default();
                self.alarm(*node, of_node(alarm, *node, name));
            }
            Event::Alarm {
                kind,
                about,
                text,
                over,
            } => {
                let alarm = v1::Alarm {
                    kind: (*kind).to_owned(),
                    about: about.clone(),
                    text: text.clone(),
                    over: *over,
                    ..v1::Alarm::default()
                };
                self.alarm(None, alarm);
            }
            // These are for the log.
            Event::Join { .. } | Event::Refused { .. } => {}
        }
    }
}

/// An alarm about a node.
fn of_node(alarm: v1::Alarm, node: Option<NodeId>, node_name: String) -> v1::Alarm {
    let node_id = node.map(|node| node.as_bytes().to_vec());
    v1::Alarm {
        node_id: node_id.unwrap_or_default(),
        node_name,
        ..alarm
    }
}

/// A watcher's stream.
pub(super) type Stream = tokio_stream::wrappers::ReceiverStream<Result<WatchEvent, Status>>;

/// Starts a watcher.
pub(crate) fn follow(
    feed: Feed,
    handle: Handle,
    nodes: &str,
    after: u64,
) -> Result<Stream, Status> {
    let set = NodeSet::parse(nodes).map_err(convert::no_nodes)?;
    let (out, stream) = mpsc::channel(MAX_WAITING);
    let mut watcher = Watcher {
        feed,
        handle,
        set,
        is_all: nodes.trim().is_empty(),
        members: BTreeSet::new(),
        out,
    };
    tokio::spawn(async move {
        metrics::gauge!("kraken_watchers").increment(1.0);
        if let Err(Some(status)) = watcher.run(after).await {
            // A watcher that is gone does not need to know why.
            let _ = watcher.out.send(Err(status)).await;
        }
        metrics::gauge!("kraken_watchers").decrement(1.0);
    });
    Ok(Stream::new(stream))
}

struct Watcher {
    feed: Feed,
    handle: Handle,
    set: NodeSet,
    is_all: bool,
    members: BTreeSet<NodeId>,
    out: mpsc::Sender<Result<WatchEvent, Status>>,
}

/// Why a watcher ends; `None`: the other side is gone.
type End = Option<Status>;

impl Watcher {
    async fn run(&mut self, resume: u64) -> Result<(), End> {
        let mut newest = self.feed.newest.subscribe();
        // Read before the snapshot: what happens in between is sent again, which changes nothing.
        let mut after = if resume == 0 {
            self.feed.newest()
        } else {
            resume
        };
        if resume == 0 {
            self.snapshot(after).await?;
        } else {
            self.resolve().await?;
        }
        loop {
            newest.borrow_and_update();
            let Ok(items) = self.feed.after(after) else {
                return self
                    .send(self.feed.newest(), Kind::Resync(v1::Resync {}))
                    .await;
            };
            if items.is_empty() {
                tokio::select! {
                    changed = newest.changed() => if changed.is_err() { return Ok(()) },
                    () = self.out.closed() => return Ok(()),
                }
                continue;
            }
            for item in items {
                after = item.sequence;
                if self.wants(&item).await? {
                    self.send(item.sequence, item.kind.clone()).await?;
                }
            }
        }
    }

    async fn wants(&mut self, item: &Item) -> Result<bool, End> {
        let Some(node) = item.node else {
            return Ok(true);
        };
        if self.is_all || self.members.contains(&node) {
            return Ok(true);
        }
        // A node that is created, or changes its groups, may be in the set from then on.
        if matches!(item.kind, Kind::Node(_)) {
            self.resolve().await?;
        }
        Ok(self.members.contains(&node))
    }

    /// Who is in the set. Names that no longer exist are no error for a watcher that is under way.
    async fn resolve(&mut self) -> Result<(), End> {
        if self.is_all {
            return Ok(());
        }
        let set = self.set.clone();
        let found = self
            .handle
            .query(move |engine, _| TreeInventory(engine).select(&set))
            .await;
        if let Ok(members) = found.map_err(|_| None)? {
            self.members.extend(members.into_values());
        }
        Ok(())
    }

    async fn snapshot(&mut self, sequence: u64) -> Result<(), End> {
        let taken = Snapshot::take(&self.handle, self.set.clone());
        let snapshot = taken
            .await
            .map_err(|_| None)?
            .map_err(|error| Some(convert::no_nodes(error)))?;
        let revision = snapshot.revision;
        self.members = snapshot.ids().collect();
        let nodes = snapshot.messages().await.map_err(|_| None)?;
        for node in nodes {
            self.send(sequence, Kind::Node(node)).await?;
        }
        let (is_all, members) = (self.is_all, &self.members);
        let wants = |node| is_all || members.contains(&node);
        for alarm in self.feed.standing(wants) {
            self.send(sequence, Kind::Alarm(alarm)).await?;
        }
        self.send(sequence, Kind::SnapshotEnd(v1::SnapshotEnd { revision }))
            .await
    }

    async fn send(&self, sequence: u64, kind: Kind) -> Result<(), End> {
        self.out
            .send(Ok(WatchEvent {
                sequence,
                kind: Some(kind),
            }))
            .await
            .map_err(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(feed: &Feed, times: u64) {
        for _ in 0..times {
            feed.push(NodeId::from_bytes([1; 16]), Kind::Resync(v1::Resync {}));
        }
    }

    fn numbers(feed: &Feed, after: u64) -> Result<Vec<u64>, Gone> {
        Ok(feed
            .after(after)?
            .iter()
            .map(|item| item.sequence)
            .collect())
    }

    #[test]
    fn a_watcher_resumes_without_a_gap_or_is_told() {
        let feed = Feed::new(3);
        let start = 3 << EPOCH_SHIFT;
        assert_eq!(feed.newest(), start);
        push(&feed, 3);
        assert_eq!(
            numbers(&feed, start),
            Ok(vec![start + 1, start + 2, start + 3])
        );
        assert_eq!(numbers(&feed, start + 2), Ok(vec![start + 3]));
        assert_eq!(numbers(&feed, start + 3), Ok(vec![]));
        // Numbers of an earlier run, of nobody, and of the future.
        for gone in [1, start - 1, start + 4, u64::MAX] {
            assert_eq!(numbers(&feed, gone), Err(Gone), "{gone}");
        }
    }

    #[test]
    fn the_ring_is_bounded() {
        let feed = Feed::new(1);
        let start = 1 << EPOCH_SHIFT;
        push(&feed, MAX_EVENTS as u64 + 10);
        assert_eq!(numbers(&feed, start + 9), Err(Gone));
        assert_eq!(
            numbers(&feed, start + 10).map(|all| (all.len(), all[0])),
            Ok((BATCH, start + 11))
        );
        feed.break_off();
        assert_eq!(numbers(&feed, start + MAX_EVENTS as u64), Err(Gone));
        assert_eq!(numbers(&feed, feed.newest()), Ok(vec![]));
    }
}
