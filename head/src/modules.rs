//! What the head can change on nodes: its modules (DESIGN 3).
//!
//! A module declares mutations, and carries out those that the engine fires. It never writes state: what it finds goes back as
//! discoveries. Each file has the declaration on top and the actor below; nothing here waits, actors have their own tasks.

mod core;
mod declare;
mod image;
mod power;
mod pxe;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use engine::event::{Discovery, Fire, Input};
use engine::extension::Schema;
use engine::mutation::{Dependency, Mutation, MutationId, MutationSet, file};
use engine::state::{Change, NodeId, StateUrl};
use tokio::sync::mpsc;
use tracing::{info, warn};

pub(crate) use self::core::Core;
pub(crate) use image::{ImageStore, Images, SystemImage};
pub(crate) use power::{Observed, Power, check_template};
pub(crate) use pxe::Pxe;

/// Reports of modules that may wait for the engine: one of every node of the largest cluster we promise.
const MAX_REPORTS: usize = 16_384;

/// What a module declares.
#[derive(Debug, Default)]
pub(crate) struct Declaration {
    /// What it can change.
    pub(crate) mutations: Vec<Mutation>,
    /// What must hold for values to be known, where the mutations do not say it.
    pub(crate) dependencies: Vec<Dependency>,
    /// What it may report beyond what it changes.
    pub(crate) discoverables: Vec<StateUrl>,
}

/// A module within the head.
pub(crate) trait Module: Send + Sync {
    /// The first part of its mutations' names.
    fn name(&self) -> &'static str;
    /// What it declares; always the same.
    fn declaration(&self) -> Declaration;
    /// Starts to carry out a mutation. Does not wait.
    fn fire(&self, fire: Fire);
    /// Stops carrying out an attempt, if it still does.
    fn interrupt(&self, node: NodeId, mutation: &MutationId, attempt: u64);
}

/// By which modules talk to the engine.
#[derive(Clone)]
pub(crate) struct Reports(mpsc::Sender<Input>);

impl Reports {
    /// Reports, and where they come out.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Input>) {
        let (sender, receiver) = mpsc::channel(MAX_REPORTS);
        (Self(sender), receiver)
    }

    /// Tells the engine something; waits while it is behind.
    pub(crate) async fn send(&self, input: Input) {
        // The engine's loop ends only with the process.
        let _ = self.0.send(input).await;
    }

    /// Reports values of a node.
    pub(crate) async fn discover(&self, node: NodeId, source: &'static str, changes: Vec<Change>) {
        self.send(Input::Discover(Discovery {
            node,
            source,
            changes,
        }))
        .await;
    }

    /// Reports that an attempt is over.
    pub(crate) async fn fail(&self, fire: &Fire, text: String) {
        let (node, mutation, attempt) = (fire.node, fire.mutation.clone(), fire.attempt);
        self.send(Input::MutationFailed {
            node,
            mutation,
            attempt,
            text,
        })
        .await;
    }
}

/// All modules, and what they declare together.
pub(crate) struct Modules {
    modules: Vec<Arc<dyn Module>>,
}

impl Modules {
    /// These modules.
    pub(crate) fn new(modules: Vec<Arc<dyn Module>>) -> Self {
        Self { modules }
    }

    /// What they declare, and what the mutation files of a folder declare, if there are any.
    ///
    /// # Errors
    /// A file that cannot be read or says nonsense; a set that contradicts itself.
    pub(crate) fn declared(&self, folder: &Path, schema: &Schema) -> anyhow::Result<MutationSet> {
        let mut set = if has_files(folder) {
            let set =
                file::load_dir(folder, schema).context("the mutation files cannot be used")?;
            info!(folder = %folder.display(), mutations = set.mutations.len(), "mutation files loaded");
            set
        } else {
            MutationSet::default()
        };
        for module in &self.modules {
            let declaration = module.declaration();
            set.mutations.extend(declaration.mutations);
            set.dependencies.extend(declaration.dependencies);
            set.discoverables.extend(declaration.discoverables);
        }
        set.generation = 1;
        set.mutations.sort_by(|a, b| a.id.cmp(&b.id));
        set.dependencies.sort();
        set.discoverables.sort();
        set.discoverables.dedup();
        engine::Engine::check_set(&set).context("the declared mutations contradict each other")?;
        Ok(set)
    }

    /// Hands a mutation to its module. One that no module here carries out is left to its timeout, or to whoever else discovers it.
    pub(crate) fn fire(&self, fire: Fire) {
        match self.of(&fire.mutation) {
            Some(module) => module.fire(fire),
            None => {
                warn!(node = %fire.name, mutation = %fire.mutation, "no module carries this mutation out")
            }
        }
    }

    /// Hands an interrupt to its module.
    pub(crate) fn interrupt(&self, node: NodeId, mutation: &MutationId, attempt: u64) {
        if let Some(module) = self.of(mutation) {
            module.interrupt(node, mutation, attempt);
        }
    }

    fn of(&self, mutation: &MutationId) -> Option<&Arc<dyn Module>> {
        self.modules
            .iter()
            .find(|module| module.name() == mutation.module())
    }
}

fn has_files(folder: &Path) -> bool {
    let is_toml = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "toml")
        })
    };
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.any(is_toml))
}
