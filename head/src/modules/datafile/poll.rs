//! Polls: every node that a poll is about is looked at once a period, spread over it, until it stops answering; then ever more rarely.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use engine::driver::Handle;
use engine::mutation::Condition;
use engine::mutation::file::program::Poll;
use engine::mutation::file::template::Subject;
use engine::state::{Node, NodeId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::{DataFile, RunFailed, Shared, Table};

/// Longest time that a node which does not answer is not looked at, unless the period is longer.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);

impl Shared {
    /// Starts a task for each poll in place of those that run.
    pub(super) fn restart_pollers(self: &Arc<Self>, table: &mut Table) {
        for poller in table.pollers.drain(..) {
            poller.abort();
        }
        let Some(engine) = &table.engine else { return };
        for file in &table.files {
            for at in 0..file.program.polls.len() {
                let poller = poll(Arc::clone(self), Arc::clone(file), at, engine.clone());
                table.pollers.push(tokio::spawn(poller).abort_handle());
            }
        }
    }

    /// Begins to look at a node, unless somebody does something with it.
    fn begin(
        self: &Arc<Self>,
        file: &Arc<DataFile>,
        at: usize,
        node: NodeId,
        wait: Duration,
        engine: &Handle,
    ) {
        let Some(poll) = file.program.polls.get(at) else {
            return;
        };
        let key = (file.program.module.clone(), poll.name.clone());
        let mut table = self.table();
        let work = table.nodes.entry(node).or_default();
        let fires = (work.firing.values()).any(|firing| firing.module == file.program.module);
        let rests = (work.unanswered.get(&key)).is_some_and(|(_, until)| Instant::now() < *until);
        if fires || rests || work.polling.contains_key(&key) {
            return;
        }
        let (shared, file, engine) = (Arc::clone(self), Arc::clone(file), engine.clone());
        let (generation, ours) = (work.generation, key.clone());
        // The table is locked until the entry is in, so that the look cannot end before it is known.
        let task = tokio::spawn(async move {
            sleep(wait).await;
            let answered = match file.program.polls.get(at) {
                Some(poll) => shared.look(&file, poll, node, generation, &engine).await,
                None => true,
            };
            shared.looked(&file, at, node, &ours, answered);
        });
        work.polling.insert(key, task.abort_handle());
    }

    fn looked(
        &self,
        file: &DataFile,
        at: usize,
        node: NodeId,
        key: &(String, String),
        answered: bool,
    ) {
        let every = file
            .program
            .polls
            .get(at)
            .map_or(LOOK_AGAIN_MAX, |poll| poll.every);
        let mut table = self.table();
        let Some(work) = table.nodes.get_mut(&node) else {
            return;
        };
        work.polling.remove(key);
        if answered {
            work.unanswered.remove(key);
            return;
        }
        let times = work.unanswered.get(key).map_or(0, |(times, _)| *times) + 1;
        let rest = every
            .saturating_mul(1 << times.min(16))
            .min(LOOK_AGAIN_MAX.max(every));
        work.unanswered
            .insert(key.clone(), (times, Instant::now() + rest));
    }

    /// Looks at a node once, and reports what is news. False: it did not answer.
    async fn look(
        &self,
        file: &DataFile,
        poll: &Poll,
        node: NodeId,
        generation: u64,
        engine: &Handle,
    ) -> bool {
        let wanted = poll.requires.clone();
        let found = engine.query(move |engine, _| {
            let node = engine.tree().get(node)?;
            let due = wanted
                .iter()
                .all(|condition| holds(engine, node, condition));
            due.then(|| (node.name.clone(), node.cfg.clone(), node.dsc.clone()))
        });
        let Ok(Some((name, cfg, dsc))) = found.await else {
            return true;
        };
        let subject = Subject {
            name: &name,
            id: node,
            attempt: None,
            cfg: &cfg,
            dsc: &dsc,
        };
        let deadline = Instant::now() + poll.timeout;
        let answer = self
            .answer(file, &file.polling, poll, &subject, deadline)
            .await;
        // What is known may have changed while the program ran.
        let result = match answer {
            Err(failed) => Err(failed),
            Ok(done) => {
                let (poll, schema) = (poll.clone(), self.schema());
                let (stdout, said) = (done.ran.stdout, done.said);
                let read = engine.query(move |engine, _| {
                    let node = engine.tree().get(node)?;
                    let holds = |condition: &Condition| holds(engine, node, condition);
                    let news = poll.read(&stdout, said, holds, &schema).map(|mut found| {
                        found.retain(|change| {
                            node.dsc.get(change.url.as_str()) != change.value.as_ref()
                        });
                        found
                    });
                    Some(news)
                });
                match read.await {
                    Ok(Some(news)) => {
                        news.map_err(|why| RunFailed::passing(done.filled.redacted(&why)))
                    }
                    _ => return true,
                }
            }
        };
        let is_current =
            (self.table().nodes.get(&node)).is_some_and(|work| work.generation == generation);
        if !is_current {
            return true;
        }
        let program = &file.program;
        match result {
            Ok(news) => {
                self.note_error(node, &name, program, poll, "").await;
                if !news.is_empty() {
                    // The engine's event tells the values, without secrets.
                    let urls: Vec<&str> = news.iter().map(|change| change.url.as_str()).collect();
                    info!(node = %name, module = program.module, poll = poll.name, found = urls.join(" "), "found");
                    self.discover(node, program, news).await;
                }
                true
            }
            Err(failed) => {
                metrics::counter!("kraken_file_polls_unanswered_total", "module" => program.module.clone())
                    .increment(1);
                self.note_error(node, &name, program, poll, &failed.text)
                    .await;
                false
            }
        }
    }
}

/// One poll, for as long as its file stays as it is.
async fn poll(shared: Arc<Shared>, file: Arc<DataFile>, at: usize, engine: Handle) {
    let Some(poll) = file.program.polls.get(at) else {
        return;
    };
    let chance = RandomState::new();
    let mut ticks = interval(poll.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for round in 0_u64.. {
        ticks.tick().await;
        let wanted = poll.requires.clone();
        let read = engine.query(move |engine, _| {
            let all = engine.tree().iter();
            let due = all.filter(|node| {
                wanted
                    .iter()
                    .all(|condition| holds(engine, node, condition))
            });
            let due: Vec<NodeId> = due.map(|node| node.id).collect();
            let there: HashSet<NodeId> = engine.tree().iter().map(|node| node.id).collect();
            (due, there)
        });
        let Ok((due, there)) = read.await else {
            warn!(
                module = file.program.module,
                poll = poll.name,
                "the engine has stopped; so does the poll"
            );
            return;
        };
        // Nodes that are gone need no memory.
        shared
            .table()
            .nodes
            .retain(|id, work| there.contains(id) || !work.firing.is_empty());
        let count = u32::try_from(due.len()).unwrap_or(u32::MAX).max(1);
        let slot = poll.every / count;
        for (place, node) in (0_u32..).zip(due) {
            // Each node has a place in the period, and a chance within it: polls that began together do not stay together.
            let chance = u32::try_from(chance.hash_one((round, node)) % 1000).unwrap_or(0);
            let wait = slot * place + slot * chance / 1000;
            shared.begin(&file, at, node, wait, &engine);
        }
    }
}

/// Whether a condition holds for a node, as for its mutations: what can be discovered is asked of its Dsc, the rest of its Cfg.
fn holds(engine: &Engine, node: &Node, condition: &Condition) -> bool {
    let values = match engine.graph().is_discoverable(&condition.url) {
        true => &node.dsc,
        false => &node.cfg,
    };
    condition.holds(values.get(condition.url.as_str()))
}
