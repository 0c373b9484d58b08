//! What is remembered of writes beyond the tree: keys that make them safe to repeat (fault F57), and trials that are taken back unless they
//! are confirmed. Both are durable with the write they belong to. Leaves out time: who watches the wall clock asks for [`Engine::trials`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Engine;
use crate::event::{WriteError, WriteKey};
use crate::state::NodeId;

/// Keys that are remembered: a caller that repeats a write does so within minutes, and each takes about 100 bytes.
pub const MAX_KEYS: usize = 4096;

/// Trials at once; more than a cluster has operators.
pub const MAX_TRIALS: usize = 256;

/// A write on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// When it is taken back, milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// Nodes that it is about.
    pub nodes: BTreeSet<NodeId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    keys: BTreeMap<String, ([u8; 32], u64)>,
    /// Keys by age, oldest first.
    order: VecDeque<String>,
    pub(super) trials: BTreeMap<u64, Trial>,
}

/// What the writes of one commit add to the ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) keys: Vec<(WriteKey, u64)>,
    pub(super) tried: BTreeMap<u64, Trial>,
    pub(super) settled: BTreeSet<u64>,
}

impl Ledger {
    /// Whether a write with this key was made.
    pub(super) fn check(&self, key: &WriteKey) -> Result<(), WriteError> {
        match self.keys.get(&key.text) {
            None => Ok(()),
            Some((request, revision)) => Err(repeated(key, request, *revision)),
        }
    }

    pub(super) fn note_key(&mut self, key: WriteKey, revision: u64) {
        if self.keys.len() >= MAX_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.order.push_back(key.text.clone());
        self.keys.insert(key.text, (key.request, revision));
    }

    pub(super) fn take_over(&mut self, news: News) {
        for (key, revision) in news.keys {
            self.note_key(key, revision);
        }
        self.trials.extend(news.tried);
        self.trials
            .retain(|revision, _| !news.settled.contains(revision));
    }
}

/// What is wrong with a key that revision `revision` has.
pub(super) fn repeated(key: &WriteKey, request: &[u8; 32], revision: u64) -> WriteError {
    if key.request == *request {
        WriteError::Repeated { revision }
    } else {
        WriteError::KeyReused {
            key: key.text.clone(),
            revision,
        }
    }
}

impl Engine {
    /// Writes on trial, by revision.
    pub fn trials(&self) -> &BTreeMap<u64, Trial> {
        &self.ledger.trials
    }

    /// Whether a write with this key was made.
    ///
    /// # Errors
    /// [`WriteError::Repeated`] if it was, [`WriteError::KeyReused`] if another one was.
    pub fn check_key(&self, key: &WriteKey) -> Result<(), WriteError> {
        self.ledger.check(key)
    }

    /// Puts back a trial that the store kept. Before the first input.
    pub fn restore_trial(&mut self, revision: u64, trial: Trial) {
        self.ledger.trials.insert(revision, trial);
    }

    /// Puts back a key that the store kept, oldest first. Before the first input.
    pub fn restore_key(&mut self, key: WriteKey, revision: u64) {
        self.ledger.note_key(key, revision);
    }
}

#[cfg(test)]
mod tests;
