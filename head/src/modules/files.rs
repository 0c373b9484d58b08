//! Mutation files as far as they can be used: a bad one is left out as a whole, or stays as it was when it was good, and is named until it is
//! mended (`engine/docs/mutation-file.md`). The head never dies of a file.
//!
//! What is in force has precedence over what is new, and of two new files that contradict each other the first by name. The engine reads single files
//! (`engine::mutation::file`); `datafile::watch` says when to look again.

use std::collections::BTreeMap;
use std::path::Path;

use engine::extension::Schema;
use engine::mutation::file::{
    FileError, FileRead, Loaded, MutationFile, Problem, Together, read_each,
};
use engine::mutation::graph::{GraphError, MutationGraph};
use engine::mutation::{MutationId, MutationSet};
use proto::v1;
use tracing::error;

/// What the files of a folder amount to.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Together.
    pub(super) loaded: Loaded,
    /// What is not in force, ordered by name.
    pub(super) refused: Vec<Refused>,
    in_force: BTreeMap<String, MutationFile>,
}

/// A file that cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Its name, as in the problems.
    pub(super) file: String,
    /// Why.
    pub(super) error: FileError,
    /// An earlier form of it is in force.
    pub(super) earlier: bool,
}

/// A file that may come into force.
struct Candidate {
    name: String,
    file: MutationFile,
    is_new: bool,
}

impl Files {
    /// What the folder amounts to now, beside what modules declare, with the graph of both.
    ///
    /// # Errors
    /// The modules alone contradict each other.
    pub(super) fn read(
        &self,
        folder: &Path,
        schema: &Schema,
        modules: &MutationSet,
    ) -> Result<(Self, MutationGraph), GraphError> {
        let reads = match read_each(folder, schema) {
            Ok(reads) => reads,
            Err(error) => {
                let mut same = self.clone();
                same.refused = vec![Refused {
                    file: folder.display().to_string(),
                    error,
                    earlier: !self.in_force.is_empty(),
                }];
                let graph = MutationGraph::new(&beside(modules, &same.loaded.set))?;
                return Ok((same, graph));
            }
        };
        let mut refused = BTreeMap::new();
        let (mut candidates, mut new) = (Vec::new(), Vec::new());
        for FileRead { name, said } in reads {
            let before = self.in_force.get(&name);
            let (file, is_new) = match said {
                Ok(file) => {
                    let is_new = before != Some(&file);
                    (Some(file), is_new)
                }
                Err(error) => {
                    refused.insert(name.clone(), error);
                    (before.cloned(), false)
                }
            };
            let list = if is_new { &mut new } else { &mut candidates };
            list.extend(file.map(|file| Candidate { name, file, is_new }));
        }
        let mut old = candidates.len();
        candidates.append(&mut new);
        let (loaded, graph) = loop {
            match fit(&candidates, modules)? {
                Fit::All(all) => break *all,
                Fit::Not(at, error) => {
                    let Candidate { name, is_new, .. } = candidates.remove(at);
                    match self.in_force.get(&name) {
                        Some(before) if is_new => {
                            let file = before.clone();
                            let candidate = Candidate {
                                name: name.clone(),
                                file,
                                is_new: false,
                            };
                            candidates.insert(old, candidate);
                            old += 1;
                        }
                        _ if !is_new => old -= 1,
                        _ => (),
                    }
                    refused.entry(name).or_insert(error);
                }
            }
        };
        let in_force: BTreeMap<String, MutationFile> = candidates
            .into_iter()
            .map(|candidate| (candidate.name, candidate.file))
            .collect();
        let refused = refused.into_iter().map(|(file, error)| Refused {
            earlier: in_force.contains_key(&file),
            file,
            error,
        });
        let files = Self {
            loaded,
            refused: refused.collect(),
            in_force,
        };
        Ok((files, graph))
    }

    /// Logs what is refused and was not, or not for this reason, and counts.
    pub(super) fn tell_refused(&self, before: &[Refused]) {
        metrics::gauge!("kraken_mutation_files_bad").set(self.refused.len() as f64);
        for refused in self.refused.iter().filter(|one| !before.contains(one)) {
            for problem in &refused.error.problems {
                error!(%problem, "{}", refused.standing());
            }
        }
    }

    /// What was not refused `before`.
    pub(super) fn newly_refused(&self, before: &Self) -> Option<&FileError> {
        let was = |file: &str| before.refused.iter().any(|one| one.file == file);
        let new = self.refused.iter().find(|one| !was(&one.file));
        new.map(|refused| &refused.error)
    }
}

impl Refused {
    /// What is in force in its place, and what to do.
    pub(super) fn standing(&self) -> &'static str {
        if self.earlier {
            "a mutation file is not good: what it said before stays in force until it is corrected (krakenctl mutation lint)"
        } else {
            "a mutation file is not good: it is left out until it is corrected (krakenctl mutation lint)"
        }
    }
}

impl From<&Refused> for v1::RefusedFile {
    fn from(refused: &Refused) -> Self {
        let problems = refused.error.problems.iter();
        Self {
            file: refused.file.clone(),
            problems: problems.map(ToString::to_string).collect(),
            earlier_in_force: refused.earlier,
        }
    }
}

/// How files go together.
enum Fit {
    /// They do.
    All(Box<(Loaded, MutationGraph)>),
    /// They do without this one.
    Not(usize, FileError),
}

/// Whether all of them go together with what modules declare; else the first that does not.
fn fit(candidates: &[Candidate], modules: &MutationSet) -> Result<Fit, GraphError> {
    let mut together = Together::default();
    for (at, candidate) in candidates.iter().enumerate() {
        if let Err(error) = together.add(&candidate.name, &candidate.file) {
            return Ok(Fit::Not(at, error));
        }
    }
    let loaded = together.finish();
    let mut error = match MutationGraph::new(&beside(modules, &loaded.set)) {
        Ok(graph) => return Ok(Fit::All(Box::new((loaded, graph)))),
        Err(error) => error,
    };
    MutationGraph::new(modules)?;
    // Whatever a set contradicts, a larger one contradicts, too: the first that fails is between one that does not and one that does.
    let (mut good, mut bad) = (0, candidates.len());
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        let mut together = Together::default();
        for candidate in &candidates[..middle] {
            // They were added a moment ago.
            let _ = together.add(&candidate.name, &candidate.file);
        }
        match MutationGraph::new(&beside(modules, &together.finish().set)) {
            Ok(_) => good = middle,
            Err(first) => (bad, error) = (middle, first),
        }
    }
    let at = bad.saturating_sub(1);
    let named = candidates.get(at);
    let why = named.map(|candidate| problem(candidate, &error));
    why.map_or(Err(error), |why| Ok(Fit::Not(at, why)))
}

/// A set with what files declare in it.
pub(super) fn beside(modules: &MutationSet, files: &MutationSet) -> MutationSet {
    let mut set = modules.clone();
    set.mutations.extend_from_slice(&files.mutations);
    set.dependencies.extend_from_slice(&files.dependencies);
    set.discoverables.extend_from_slice(&files.discoverables);
    set.mutations.sort_by(|a, b| a.id.cmp(&b.id));
    set.dependencies.sort();
    set.discoverables.sort();
    set.discoverables.dedup();
    set
}

/// What is wrong with a file that a set cannot have, and where.
fn problem(candidate: &Candidate, error: &GraphError) -> FileError {
    let of_mutation = |id: &MutationId| {
        let mut mutations = candidate.file.mutations.iter();
        mutations
            .find(|(_, mutation)| mutation.id == *id)
            .map(|(line, _)| *line)
    };
    let (line, text) = match error {
        GraphError::DeclaredTwice(id) => {
            let text = format!(
                "mutation {id} is declared already, by module {} of this head: give the file's module another name",
                id.module()
            );
            (of_mutation(id), text)
        }
        GraphError::DependsTwice(url) => {
            let mut dependencies = candidate.file.dependencies.iter();
            let line = dependencies.find(|(_, one)| one.url == *url);
            let text = format!(
                "what {url} depends on is declared already, by a module of this head: take this [[depends]] out"
            );
            (line.map(|(line, _)| *line), text)
        }
        GraphError::MutatesNothing(id) | GraphError::UrlTwice { id, .. } => {
            (of_mutation(id), error.to_string())
        }
        other => (None, other.to_string()),
    };
    FileError {
        problems: vec![Problem {
            file: candidate.name.clone(),
            line,
            text,
        }],
    }
}
