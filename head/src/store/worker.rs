//! The thread on which the store lives.
//!
//! Commits come one at a time (the engine groups what waits), so the queue is short. Between commits the thread writes down what was
//! last known of nodes and what the engine wants to remember, in batches: hints for the next start that cost one transaction every few seconds,
//! whatever the traffic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::event::{CommitError, CommitId, Event, Record};
use engine::memory::Memo;
use engine::mutation::MutationId;
use engine::state::{Change, LastKnown, NodeId, StateUrl, Value, Values};
use tracing::{error, warn};

use super::latency::{Latency, Verdict};
use super::{Retention, Store};

/// Time between two batches of what was last known: a crash loses at most this much of a hint.
const NOTE_EVERY: Duration = Duration::from_secs(3);

/// Time between two looks for history that is too old; what is kept exceeds its limits by at most the writes of that time.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// Attempts that may wait to be written down: all that 10,000 nodes try in a boot. The oldest are lost beyond that.
const MAX_ATTEMPTS: usize = 65_536;

/// Memos that are written in one batch: some 50 ms, for which a commit may have to wait.
const MEMOS_A_BATCH: usize = 8_192;

enum Order {
    Commit(Commit),
    Stop,
}

struct Commit {
    id: CommitId,
    records: Vec<Record>,
    own: bool,
}

/// What became known of a node since the last batch; `None`: the node is gone.
type News = BTreeMap<NodeId, Option<BTreeMap<StateUrl, Option<Value>>>>;

/// How often somebody looks whether a commit hangs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How the store is: for `/readyz`, and for alarms.
#[derive(Clone, Default)]
pub(crate) struct StoreHealth(Arc<Mutex<Health>>);

#[derive(Default)]
struct Health {
    trouble: Option<String>,
    latency: Latency,
    /// Whether an alarm was raised about `trouble`.
    told: bool,
}

impl StoreHealth {
    /// Why writes are refused; `None` while they are not.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.0).trouble.clone()
    }

    /// Raises and ends alarms, for as long as it is polled.
    pub(crate) async fn watch(self, tell: impl Fn(Event)) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            self.look(Instant::now()).into_iter().for_each(&tell);
        }
    }

    fn look(&self, now: Instant) -> Vec<Event> {
        let mut health = lock(&self.0);
        let alarm = |kind, text, over| Event::Alarm {
            kind,
            about: String::new(),
            text,
            over,
        };
        let slow = health.latency.look(now).map(|verdict| match verdict {
            Verdict::Slow(took) => {
                let text = format!(
                    "a write to the state directory took {:.1} s so far: its disk is slow, and whoever writes waits for it; nodes do not. Look at that disk",
                    took.as_secs_f64()
                );
                alarm("slow_store", text, false)
            }
            Verdict::Good => {
                let text = "writes to the state directory are quick again".to_owned();
                alarm("slow_store", text, true)
            }
        });
        let refuses = match (&health.trouble, health.told) {
            (Some(why), false) => {
                let text = format!("writes are refused, reads and sync go on: {why}");
                Some(alarm("store", text, false))
            }
            (None, true) => Some(alarm("store", "writes are taken again".into(), true)),
            _ => None,
        };
        health.told = health.trouble.is_some();
        let gauge = |name: &'static str, is: bool| {
            metrics::gauge!(name).set(if is { 1.0 } else { 0.0 });
        };
        gauge("kraken_store_slow", health.latency.is_slow());
        gauge("kraken_store_refuses", health.told);
        slow.into_iter().chain(refuses).collect()
    }

    /// Notes how long `work` on so many changes takes.
    fn timed<T>(&self, changes: usize, work: impl FnOnce() -> T) -> (T, Duration) {
        let start = Instant::now();
        lock(&self.0).latency.begun(changes, start);
        let done = work();
        let end = Instant::now();
        lock(&self.0).latency.ended(end);
        (done, end - start)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sending end. The engine has at most one commit under way, so the queue holds at most that; news of nodes are merged, so they take
/// no more memory than the tree does.
#[derive(Clone)]
pub(crate) struct StoreWorker {
    orders: Sender<Order>,
    news: Arc<Mutex<News>>,
    memos: Arc<Mutex<Memos>>,
    health: StoreHealth,
}

/// What is to be remembered, with the times at which it was told.
#[derive(Default)]
struct Memos {
    /// Each counts.
    attempts: VecDeque<(u64, Memo)>,
    /// Only the latest about one thing counts.
    latest: BTreeMap<About, (u64, Memo)>,
}

/// What a memo is about, where a later one replaces an earlier one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Parked(NodeId),
    Times(MutationId),
    Breaker(MutationId),
    Limit(String),
}

impl Memos {
    fn add(&mut self, told_ms: u64, memo: Memo) {
        let about = match &memo {
            Memo::Attempt { .. } => {
                if self.attempts.len() == MAX_ATTEMPTS {
                    self.attempts.pop_front();
                }
                self.attempts.push_back((told_ms, memo));
                return;
            }
            Memo::Parked { node, .. } => About::Parked(*node),
            Memo::Times { mutation, .. } => About::Times(mutation.clone()),
            Memo::Breaker { mutation, .. } => About::Breaker(mutation.clone()),
            Memo::Limit { name, .. } => About::Limit(name.clone()),
        };
        self.latest.insert(about, (told_ms, memo));
    }

    /// The next ones to write; what holds nodes back comes first.
    fn take(&mut self) -> Vec<(u64, Memo)> {
        let mut batch = Vec::new();
        while batch.len() < MEMOS_A_BATCH {
            match self.latest.pop_first() {
                Some((_, memo)) => batch.push(memo),
                None => break,
            }
        }
        let room = self.attempts.len().min(MEMOS_A_BATCH - batch.len());
        batch.extend(self.attempts.drain(..room));
        batch
    }
}

impl StoreWorker {
    /// Starts the thread. `known` is what the store holds already, `committed` hears the fate of every commit.
    pub(crate) fn start(
        store: impl Store + 'static,
        known: BTreeMap<NodeId, Values>,
        keep: Retention,
        now_ms: impl Fn() -> u64 + Send + 'static,
        committed: impl Fn(CommitId, Result<(), CommitError>) + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (orders, inbox) = channel();
        let worker = Self {
            orders,
            news: Arc::default(),
            memos: Arc::default(),
            health: StoreHealth::default(),
        };
        let (news, health) = (Arc::clone(&worker.news), worker.health.clone());
        let memos = Arc::clone(&worker.memos);
        if store.is_on_reserve() {
            lock(&health.0).trouble = Some(CommitError::DiskFull.to_string());
        }
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                Thread {
                    store,
                    known,
                    behind: BTreeSet::new(),
                    keep,
                    news,
                    memos,
                    now_ms,
                    committed,
                    health,
                }
                .run(&inbox)
            })?;
        Ok((worker, thread))
    }

    /// Makes records durable; `own`: none is an operator's.
    pub(crate) fn commit(&self, id: CommitId, records: Vec<Record>, own: bool) {
        // The thread ends after `stop` only; what comes later is not durable, and nobody is told that it were.
        let commit = Commit { id, records, own };
        let _ = self.orders.send(Order::Commit(commit));
    }

    /// Something about a node became known.
    pub(crate) fn known(&self, node: NodeId, changes: &[Change]) {
        let mut news = lock(&self.news);
        let values = news.entry(node).or_default().get_or_insert_default();
        values.extend(
            LastKnown::to_keep(changes)
                .into_iter()
                .map(|change| (change.url, change.value)),
        );
    }

    /// The engine wants to remember something, told at this time.
    pub(crate) fn remember(&self, told_ms: u64, memo: Memo) {
        lock(&self.memos).add(told_ms, memo);
    }

    /// A node is gone.
    pub(crate) fn forget(&self, node: NodeId) {
        lock(&self.news).insert(node, None);
    }

    /// Ends the thread after what is queued.
    pub(crate) fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
    }

    /// Whether writes work.
    pub(crate) fn health(&self) -> StoreHealth {
        self.health.clone()
    }
}

struct Thread<S, N, C> {
    store: S,
    known: BTreeMap<NodeId, Values>,
    /// Nodes of which the store knows less.
    behind: BTreeSet<NodeId>,
    keep: Retention,
    news: Arc<Mutex<News>>,
    memos: Arc<Mutex<Memos>>,
    now_ms: N,
    committed: C,
    health: StoreHealth,
}

impl<S: Store, N: Fn() -> u64, C: Fn(CommitId, Result<(), CommitError>)> Thread<S, N, C> {
    fn run(&mut self, inbox: &Receiver<Order>) {
        let mut note_at = Instant::now() + NOTE_EVERY;
        let mut prune_at = note_at;
        loop {
            match inbox.recv_timeout(note_at.saturating_duration_since(Instant::now())) {
                Ok(Order::Commit(commit)) => self.commit(&commit),
                Err(RecvTimeoutError::Timeout) => {
                    note_at = Instant::now() + NOTE_EVERY;
                    self.note();
                    self.remember();
                    self.try_again();
                    if prune_at <= Instant::now() {
                        prune_at = Instant::now() + PRUNE_EVERY;
                        self.prune();
                    }
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.note();
                    while self.remember() {}
                    return;
                }
            }
        }
    }

    fn commit(&mut self, Commit { id, records, own }: &Commit) {
        let changes = records.iter().map(|record| match record {
            Record::Write { ops, .. } => ops.len(),
            _ => 1,
        });
        let store = &mut self.store;
        let (result, took) = self
            .health
            .timed(changes.sum(), || store.commit(records, *own));
        metrics::histogram!("kraken_store_commit_seconds").record(took.as_secs_f64());
        let outcome = match &result {
            Ok(()) => "ok",
            Err(CommitError::DiskFull) => "disk_full",
            Err(CommitError::Failed(_)) => "failed",
        };
        metrics::counter!("kraken_store_commits_total", "result" => outcome).increment(1);
        if let Err(why) = &result {
            match self.store.failed() {
                Some(why) => error!(
                    why,
                    "the store failed: no more writes until the head is restarted"
                ),
                None => warn!(%why, "a commit failed"),
            }
        }
        let refused = result.as_ref().err().cloned();
        let on_reserve = || self.store.is_on_reserve().then_some(CommitError::DiskFull);
        match refused.or_else(on_reserve) {
            Some(why) => lock(&self.health.0).trouble = Some(why.to_string()),
            // What the head needs for itself may be small enough for a disk that is full for operators.
            None if *own => {}
            None => lock(&self.health.0).trouble = None,
        }
        (self.committed)(*id, result);
    }

    /// Whether writes that were refused would be taken: a full disk may have room again, and nobody may come to write.
    fn try_again(&mut self) {
        if lock(&self.health.0).trouble.is_some() && self.store.failed().is_none() {
            let result = self.store.probe();
            lock(&self.health.0).trouble = result.err().map(|why| why.to_string());
        }
    }

    fn prune(&mut self) {
        if self.is_short() {
            return;
        }
        if let Err(why) = self.store.prune(&self.keep, (self.now_ms)()) {
            warn!(%why, "old history is not forgotten");
        }
    }

    /// Writes a batch of memos; whether there was one, and room for it.
    fn remember(&mut self) -> bool {
        if self.is_short() {
            return false;
        }
        let memos = lock(&self.memos).take();
        if memos.is_empty() {
            return false;
        }
        let store = &mut self.store;
        let (noted, _) = (self.health).timed(memos.len(), || store.remember(&memos));
        if let Err(why) = &noted {
            warn!(%why, memos = memos.len(), "what was tried and measured is not written down");
        }
        noted.is_ok()
    }

    fn note(&mut self) {
        let news = std::mem::take(&mut *lock(&self.news));
        for (node, changes) in news {
            let Some(changes) = changes else {
                self.known.remove(&node);
                self.behind.remove(&node);
                continue;
            };
            let changes = changes
                .into_iter()
                .map(|(url, value)| Change { url, value });
            let values = self.known.entry(node).or_default();
            if !values.apply(changes).is_empty() {
                self.behind.insert(node);
            }
        }
        if self.behind.is_empty() || self.is_short() {
            return;
        }
        let known = |id: &NodeId| Some((*id, self.known.get(id)?.clone()));
        let batch: Vec<_> = self.behind.iter().filter_map(known).collect();
        let (store, now_ms) = (&mut self.store, (self.now_ms)());
        let (noted, _) = (self.health).timed(batch.len(), || store.note_last_known(&batch, now_ms));
        match noted {
            Ok(()) => self.behind.clear(),
            // A hint: whoever starts before it is written is more careful, and nothing else.
            Err(why) => {
                warn!(%why, nodes = batch.len(), "what was last known of nodes is not written down yet");
            }
        }
    }

    /// Whether nothing shall be written that can wait.
    fn is_short(&self) -> bool {
        self.store.failed().is_some() || self.store.is_on_reserve()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Noted = Arc<Mutex<Vec<Vec<(NodeId, Values)>>>>;

    /// A store that remembers what it was told to note, and whose commits do as they are told.
    struct FakeStore {
        noted: Noted,
        result: Result<(), CommitError>,
    }

    impl Store for FakeStore {
        fn commit(&mut self, _: &[Record], _: bool) -> Result<(), CommitError> {
            self.result.clone()
        }

        fn probe(&mut self) -> Result<(), CommitError> {
            self.result.clone()
        }

        fn is_on_reserve(&self) -> bool {
            false
        }

        fn note_last_known(
            &mut self,
            known: &[(NodeId, Values)],
            _: u64,
        ) -> Result<(), CommitError> {
            lock(&self.noted).push(known.to_vec());
            self.result.clone()
        }

        fn remember(&mut self, _: &[(u64, Memo)]) -> Result<(), CommitError> {
            Ok(())
        }

        fn prune(&mut self, _: &Retention, _: u64) -> Result<(), CommitError> {
            Ok(())
        }

        fn failed(&self) -> Option<&str> {
            None
        }
    }

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn change(value: &str) -> Change {
        Change {
            url: "/RunState".parse().unwrap(),
            value: Some(Value::from(value)),
        }
    }

    fn start(
        result: Result<(), CommitError>,
        known: BTreeMap<NodeId, Values>,
    ) -> (StoreWorker, JoinHandle<()>, Noted, Receiver<bool>) {
        let noted = Noted::default();
        let (told, fates) = channel();
        let store = FakeStore {
            noted: Arc::clone(&noted),
            result,
        };
        let heard = move |_, result: Result<(), CommitError>| told.send(result.is_ok()).unwrap();
        let (worker, thread) =
            StoreWorker::start(store, known, Retention::default(), || 7, heard).unwrap();
        (worker, thread, noted, fates)
    }

    #[test]
    fn only_news_is_noted_and_the_last_of_it_counts() {
        let same: Values = [("/RunState".parse().unwrap(), Value::from("SYNC"))]
            .into_iter()
            .collect();
        let (worker, thread, noted, _fates) = start(Ok(()), [(id(1), same.clone())].into());
        worker.known(id(1), &[change("ERROR"), change("SYNC")]);
        worker.known(id(2), &[change("INIT")]);
        worker.known(id(2), &[change("SYNC")]);
        worker.known(id(3), &[change("SYNC")]);
        worker.forget(id(3));
        worker.stop();
        thread.join().unwrap();
        assert_eq!(*lock(&noted), [vec![(id(2), same)]]);
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_noted_later() {
        let worker = StoreWorker {
            orders: channel().0,
            news: Arc::default(),
            memos: Arc::default(),
            health: StoreHealth::default(),
        };
        let noted = Noted::default();
        let mut behind = Thread {
            store: FakeStore {
                noted: Arc::clone(&noted),
                result: Err(CommitError::DiskFull),
            },
            known: BTreeMap::new(),
            behind: BTreeSet::new(),
            keep: Retention::default(),
            news: Arc::clone(&worker.news),
            memos: Arc::default(),
            now_ms: || 7,
            committed: |_, _| {},
            health: StoreHealth::default(),
        };
        worker.known(id(1), &[change("SYNC")]);
        worker.known(id(2), &[change("SYNC")]);
        behind.note();
        worker.forget(id(2));
        behind.store.result = Ok(());
        behind.note();
        behind.note();
        let nodes = |batch: &Vec<(NodeId, Values)>| batch.len();
        assert_eq!(lock(&noted).iter().map(nodes).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn health_follows_the_last_commit() {
        let (worker, thread, _noted, fates) = start(Err(CommitError::DiskFull), BTreeMap::new());
        let health = worker.health();
        assert_eq!(health.trouble(), None);
        worker.commit(CommitId(1), Vec::new(), false);
        assert!(!fates.recv().unwrap());
        assert!(health.trouble().unwrap().contains("is full"));
        let alarms = |now| {
            let alarms = health.look(now).into_iter().map(|event| match event {
                Event::Alarm { kind, over, .. } => (kind, over),
                other => panic!("{other:?}"),
            });
            alarms.collect::<Vec<_>>()
        };
        let now = Instant::now();
        assert_eq!(alarms(now), [("store", false)]);
        assert_eq!(alarms(now), []);
        lock(&health.0).trouble = None;
        lock(&health.0).latency.begun(1, now);
        let later = now + Duration::from_secs(5);
        assert_eq!(alarms(later), [("slow_store", false), ("store", true)]);
        worker.stop();
        thread.join().unwrap();
    }
}
