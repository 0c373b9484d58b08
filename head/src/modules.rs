//! What the head can change on nodes: its modules (DESIGN 3).
//!
//! A module declares mutations, and carries out those that the engine fires. It never writes state: what it finds goes back as
//! discoveries. Each file has the declaration on top and the actor below; nothing here waits, actors have their own tasks.

mod carriers;
mod core;
mod datafile;
mod declare;
mod external;
mod files;
mod image;
mod power;
mod pxe;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::Context as _;
use engine::event::{Discovery, Fire, Input};
use engine::extension::Schema;
use engine::mutation::file::lint::Polled;
use engine::mutation::graph::{GraphError, MutationGraph};
use engine::mutation::lint::{Known, Lint, Severity};
use engine::mutation::{Dependency, Mutation, MutationId, MutationSet, file};
use engine::state::{Change, NodeId, StateUrl};
use proto::v1;
use tokio::sync::{Mutex, mpsc};
use tracing::{debug, info, warn};

pub(crate) use self::core::Core;
pub(crate) use datafile::{DataFiles, watch_files};
pub(crate) use external::{Confined, External, Reloaded, Setup};
use files::Files;
pub(crate) use image::{ImageStore, Images, SystemImage};
pub(crate) use power::{Observed, Power, check_template};
pub(crate) use pxe::Pxe;

/// Name of the folder of mutation files in the state directory.
pub(crate) const FOLDER: &str = "mutations";

/// Reports of modules that may wait for the engine: one of every node of the largest cluster we promise.
const MAX_REPORTS: usize = 16_384;

/// What a module declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The first part of its mutations' names; always the same.
    fn name(&self) -> &str;
    /// What it declares now. Whoever declares something else later says so with [`Modules::put`].
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
    pub(crate) async fn discover(
        &self,
        node: NodeId,
        source: impl Into<Cow<'static, str>>,
        changes: Vec<Change>,
    ) {
        self.send(Input::Discover(Discovery {
            node,
            source: source.into(),
            changes,
        }))
        .await;
    }

    /// Reports that an attempt is over.
    pub(crate) async fn fail(&self, fire: &Fire, text: String) {
        let mutation = fire.mutation.clone();
        self.fail_attempt(fire.node, mutation, fire.attempt, text)
            .await;
    }

    /// Likewise, of an attempt of which no more is known than its number.
    pub(crate) async fn fail_attempt(
        &self,
        node: NodeId,
        mutation: MutationId,
        attempt: u64,
        text: String,
    ) {
        self.send(Input::MutationFailed {
            node,
            mutation,
            attempt,
            text,
        })
        .await;
    }
}

/// Why a module's declaration is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeclareError {
    /// The name is one of the head's own modules.
    #[error("the name {0:?} is taken by a module of this head: give it another one")]
    Taken(String),
    /// A mutation that carries another module's name.
    #[error("module {module:?} declares {mutation}, which is not its own")]
    Foreign {
        /// Who declares.
        module: String,
        /// What.
        mutation: MutationId,
    },
    /// The set as a whole would contradict itself.
    #[error("{0}")]
    Contradicts(GraphError),
}

/// All modules, and what they declare together. Modules come, go and change while the head runs; each change makes a set of a generation
/// of its own, which the engine and every joined child get at once.
pub(crate) struct Modules {
    reports: Reports,
    /// Carry out what mutation files have commands for.
    files: DataFiles,
    table: RwLock<Table>,
    /// Held from a change until the engine's queue has it, so that sets arrive in the order of their generations.
    declaring: Mutex<()>,
}

#[derive(Default)]
struct Table {
    generation: u64,
    /// Steps of one node never run side by side.
    one_by_one: bool,
    /// What mutation files say, and which of them cannot be used.
    files: Files,
    /// By which the files were read.
    schema: Arc<Schema>,
    /// What their polls find.
    polled: Polled,
    modules: BTreeMap<String, Entry>,
    /// What is doubtful in the latest set, and was told.
    lints: Vec<Lint>,
}

#[derive(Clone)]
struct Entry {
    module: Arc<dyn Module>,
    declared: Declaration,
    built_in: bool,
}

impl Modules {
    /// These modules, which stay.
    pub(crate) fn new(built_in: Vec<Arc<dyn Module>>, files: DataFiles, reports: Reports) -> Self {
        let modules = built_in.into_iter().map(|module| {
            let declared = module.declaration();
            let entry = Entry {
                module,
                declared,
                built_in: true,
            };
            (entry.module.name().to_owned(), entry)
        });
        let table = Table {
            modules: modules.collect(),
            ..Table::default()
        };
        Self {
            reports,
            files,
            table: RwLock::new(table),
            declaring: Mutex::default(),
        }
    }

    /// Whether nodes follow their paths strictly step by step. Before anything is declared.
    pub(crate) fn set_one_by_one(&self, one_by_one: bool) {
        self.write().one_by_one = one_by_one;
    }

    /// What they declare, and what the mutation files of a folder declare, as far as they can be used.
    ///
    /// # Errors
    /// The modules contradict each other.
    pub(crate) fn declared(&self, folder: &Path, schema: &Schema) -> anyhow::Result<MutationSet> {
        let mut table = self.write();
        let read = Files::default().read(folder, schema, &table.of_modules());
        let (files, graph) = read.context("the declared mutations cannot be used together")?;
        self.take(&mut table, files, Arc::new(schema.clone()), &graph);
        table.generation += 1;
        Ok(table.set())
    }

    /// Takes what the mutation files say now, as far as they can be used. Returns how many mutations they declare.
    ///
    /// # Errors
    /// The modules contradict each other. Nothing changes then.
    pub(crate) async fn reload(
        &self,
        folder: &Path,
        schema: &Arc<Schema>,
    ) -> Result<usize, GraphError> {
        let _declaring = self.declaring.lock().await;
        let (files, graph) = {
            let table = self.read();
            table.files.read(folder, schema, &table.of_modules())?
        };
        let count = files.loaded.set.mutations.len();
        let changed = {
            let mut table = self.write();
            let is_changed = table.files.loaded.set != files.loaded.set;
            // The commands are there before the first mutation is fired.
            self.take(&mut table, files, Arc::clone(schema), &graph);
            is_changed.then(|| {
                table.generation += 1;
                table.set()
            })
        };
        if let Some(set) = changed {
            self.reports.send(Input::Declare(set)).await;
        }
        Ok(count)
    }

    fn take(&self, table: &mut Table, files: Files, schema: Arc<Schema>, graph: &MutationGraph) {
        files.tell_refused(&table.files.refused);
        table.polled = Polled::new(&files.loaded.programs);
        self.files
            .put(files.loaded.programs.clone(), Arc::clone(&schema));
        table.schema = schema;
        table.files = files;
        table.tell_lints(graph);
    }

    /// Whether the mutation files of a folder that are in force could be used under another schema.
    ///
    /// # Errors
    /// Names file and line.
    pub(crate) fn check_schema(&self, folder: &Path, schema: &Schema) -> anyhow::Result<()> {
        let table = self.read();
        let (files, _) = table.files.read(folder, schema, &table.of_modules())?;
        let refused = files.newly_refused(&table.files).cloned();
        refused.map_or(Ok(()), |error| {
            Err(error).context("the mutation files cannot be used")
        })
    }

    /// The mutation files that cannot be used as they are.
    pub(crate) fn refused_files(&self) -> Vec<v1::RefusedFile> {
        let table = self.read();
        table.files.refused.iter().map(Into::into).collect()
    }

    /// What is doubtful in the set that is in force; a file that cannot be used comes first.
    pub(crate) fn lints(&self) -> v1::LintMutationsResponse {
        let table = self.read();
        let refused = table.files.refused.iter().flat_map(|refused| {
            let standing = if refused.earlier {
                "what the file said before stays in force"
            } else {
                "the file is left out"
            };
            let problems = refused.error.problems.iter();
            problems.map(move |problem| v1::MutationLint {
                severity: Severity::Warn.word().into(),
                kind: "refused-file".into(),
                text: format!("{problem} ({standing})"),
            })
        });
        let doubts = table.lints.iter().map(|lint| v1::MutationLint {
            severity: lint.severity.word().into(),
            kind: lint.kind.word().into(),
            text: lint.text.clone(),
        });
        v1::LintMutationsResponse {
            lints: refused.chain(doubts).collect(),
            mutations: u32::try_from(table.set().mutations.len()).unwrap_or(u32::MAX),
        }
    }

    /// Adds a module, or takes what one of this name declares now in place of what it declared before. The engine and all children hear of it.
    ///
    /// # Errors
    /// A name or a declaration that does not do. Nothing changes then: what it declared before stays.
    pub(crate) async fn put(&self, module: Arc<dyn Module>) -> Result<(), DeclareError> {
        let name = module.name().to_owned();
        let declared = module.declaration();
        if let Some(mutation) = declared.mutations.iter().find(|m| m.id.module() != name) {
            return Err(DeclareError::Foreign {
                module: name,
                mutation: mutation.id.clone(),
            });
        }
        let _declaring = self.declaring.lock().await;
        let changed = {
            let mut table = self.write();
            let old = table.modules.get(&name);
            if old.is_some_and(|old| old.built_in) {
                return Err(DeclareError::Taken(name));
            }
            let changed = old.is_none_or(|old| old.declared != declared);
            let entry = Entry {
                module,
                declared,
                built_in: false,
            };
            let old = table.modules.insert(name.clone(), entry);
            let set = table.next();
            match MutationGraph::new(&set) {
                Ok(graph) => changed.then(|| {
                    table.tell_lints(&graph);
                    table.generation = set.generation;
                    set
                }),
                Err(error) => {
                    match old {
                        Some(old) => table.modules.insert(name, old),
                        None => table.modules.remove(&name),
                    };
                    return Err(DeclareError::Contradicts(error));
                }
            }
        };
        if let Some(set) = changed {
            info!(
                module = name,
                generation = set.generation,
                "module declared"
            );
            self.reports.send(Input::Declare(set)).await;
        }
        Ok(())
    }

    /// Takes a module away, with all that it declared. The head's own stay.
    pub(crate) async fn remove(&self, name: &str) {
        let _declaring = self.declaring.lock().await;
        let set = {
            let mut table = self.write();
            if table.modules.get(name).is_none_or(|entry| entry.built_in) {
                return;
            }
            table.modules.remove(name);
            table.generation += 1;
            let set = table.set();
            // A smaller set contradicts nothing that the larger one did not.
            if let Ok(graph) = MutationGraph::new(&set) {
                table.tell_lints(&graph);
            }
            set
        };
        info!(module = name, generation = set.generation, "module removed");
        self.reports.send(Input::Declare(set)).await;
    }

    /// Whether a module of the head itself has this name.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        let table = self.read();
        table.modules.get(name).is_some_and(|entry| entry.built_in) || name == "service"
    }

    /// All modules that are declared, by name.
    pub(crate) fn list(&self) -> Vec<v1::ModuleInfo> {
        let table = self.read();
        let info = |(name, entry): (&String, &Entry)| v1::ModuleInfo {
            name: name.clone(),
            kind: v1::module_info::Kind::BuiltIn.into(),
            state: "RUN".into(),
            up: true,
            mutations: u32::try_from(entry.declared.mutations.len()).unwrap_or(u32::MAX),
            ..v1::ModuleInfo::default()
        };
        let modules = table.modules.iter().map(info);
        modules.chain(table.of_files()).collect()
    }

    /// Hands a mutation to its module. One that no module here carries out is left to its timeout, or to whoever else discovers it.
    pub(crate) fn fire(&self, fire: Fire) {
        if self.files.carries_out(&fire.mutation) {
            return self.files.fire(fire);
        }
        match self.of(&fire.mutation) {
            Some(module) => module.fire(fire),
            None => {
                warn!(node = %fire.name, mutation = %fire.mutation, "no module carries this mutation out")
            }
        }
    }

    /// Hands an interrupt to its module.
    pub(crate) fn interrupt(&self, node: NodeId, mutation: &MutationId, attempt: u64) {
        if self.files.interrupt(node, attempt) {
            return;
        }
        if let Some(module) = self.of(mutation) {
            module.interrupt(node, mutation, attempt);
        }
    }

    fn of(&self, mutation: &MutationId) -> Option<Arc<dyn Module>> {
        let table = self.read();
        let entry = table.modules.get(mutation.module());
        entry.map(|entry| Arc::clone(&entry.module))
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The set as it would be next.
    fn next(&self) -> MutationSet {
        let mut set = self.set();
        set.generation += 1;
        set
    }

    /// Modules that are data files, by name; one of the same name that is a program is told of instead.
    fn of_files(&self) -> Vec<v1::ModuleInfo> {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for program in &self.files.loaded.programs {
            counts.insert(&program.module, 0);
        }
        for mutation in &self.files.loaded.set.mutations {
            *counts.entry(mutation.id.module()).or_default() += 1;
        }
        counts.retain(|name, _| !self.modules.contains_key(*name));
        let info = |(name, mutations): (&str, u32)| v1::ModuleInfo {
            name: name.to_owned(),
            kind: v1::module_info::Kind::File.into(),
            state: "RUN".into(),
            up: true,
            mutations,
            ..v1::ModuleInfo::default()
        };
        counts.into_iter().map(info).collect()
    }

    fn set(&self) -> MutationSet {
        files::beside(&self.of_modules(), &self.files.loaded.set)
    }

    /// What modules declare, without the files.
    fn of_modules(&self) -> MutationSet {
        let mut set = together(self.modules.values().map(|entry| &entry.declared));
        (set.generation, set.one_by_one) = (self.generation, self.one_by_one);
        set
    }

    /// Logs what is doubtful in the set that is taken, unless it was so before.
    fn tell_lints(&mut self, graph: &MutationGraph) {
        let known = Known {
            schema: &self.schema,
            complete: true,
        };
        let lints = self.polled.lint(graph, known);
        for lint in lints.iter().filter(|lint| !self.lints.contains(lint)) {
            match lint.severity {
                Severity::Warn => warn!(lint = lint.kind.word(), "{}", lint.text),
                Severity::Note => debug!(lint = lint.kind.word(), "{}", lint.text),
            }
        }
        self.lints = lints;
    }
}

fn together<'a>(declared: impl Iterator<Item = &'a Declaration>) -> MutationSet {
    let mut set = MutationSet::default();
    for declaration in declared {
        set.mutations.extend_from_slice(&declaration.mutations);
        set.dependencies
            .extend_from_slice(&declaration.dependencies);
        set.discoverables
            .extend_from_slice(&declaration.discoverables);
    }
    set
}

/// What is wrong with the mutation files of a folder, without starting anything.
pub(crate) fn check_files(folder: &Path, schema: &Schema) -> anyhow::Result<Vec<file::FileError>> {
    let own = [
        Core.declaration(),
        power::declared(),
        pxe::declared(),
        Images.declaration(),
    ];
    let read = Files::default().read(folder, schema, &together(own.iter()));
    let (files, _) = read.context("the declared mutations cannot be used together")?;
    Ok(files.refused.into_iter().map(|one| one.error).collect())
}
