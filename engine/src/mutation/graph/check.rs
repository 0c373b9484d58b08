//! Which sets cannot be used at all: contradictions in themselves, and limits. What is merely doubtful is for lints.

use std::collections::BTreeSet;

use super::{MAX_CUTS, MAX_ITEMS, MAX_URLS};
use crate::mutation::{Dependency, MAX_MUTATIONS, MutationId, MutationSet};
use crate::state::StateUrl;

/// Why a set of mutations cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two mutations have one id.
    #[error("mutation {0} is declared twice")]
    DeclaredTwice(MutationId),
    /// A mutation changes nothing.
    #[error("mutation {0} mutates nothing")]
    MutatesNothing(MutationId),
    /// One mutation names a url twice in `mutates`.
    #[error("mutation {id} mutates {url} twice")]
    UrlTwice {
        /// The mutation.
        id: MutationId,
        /// The url.
        url: StateUrl,
    },
    /// A `from` or a condition allows no value, so that it could never hold.
    #[error("{what} allows no value of {url}")]
    NoValues {
        /// The mutation, or the dependency.
        what: String,
        /// The url.
        url: StateUrl,
    },
    /// One url has two declared dependencies.
    #[error("dependencies of {0} are declared twice")]
    DependsTwice(StateUrl),
    /// More than [`MAX_MUTATIONS`].
    #[error("{0} mutations are too many: at most {MAX_MUTATIONS} fit in one set")]
    TooManyMutations(usize),
    /// More than [`MAX_URLS`].
    #[error("mutations name more than {MAX_URLS} urls")]
    TooManyUrls,
    /// More than [`MAX_CUTS`].
    #[error("conditions compare {0} with more than {MAX_CUTS} numbers")]
    TooManyCuts(StateUrl),
    /// More than [`MAX_ITEMS`].
    #[error("{what} has {count} {items}: at most {MAX_ITEMS} fit")]
    TooManyItems {
        /// The mutation, or the dependency.
        what: String,
        /// Of what.
        items: &'static str,
        /// How many.
        count: usize,
    },
}

/// Checks a set in canonical order; how many urls and comparisons it has shows only when it is compiled.
pub(super) fn check(set: &MutationSet) -> Result<(), GraphError> {
    if set.mutations.len() > MAX_MUTATIONS {
        return Err(GraphError::TooManyMutations(set.mutations.len()));
    }
    if let Some(pair) = set
        .mutations
        .windows(2)
        .find(|pair| pair[0].id == pair[1].id)
    {
        return Err(GraphError::DeclaredTwice(pair[0].id.clone()));
    }
    for mutation in &set.mutations {
        let no_values = |url: &StateUrl| GraphError::NoValues {
            what: format!("mutation {}", mutation.id),
            url: url.clone(),
        };
        if mutation.mutates.is_empty() {
            return Err(GraphError::MutatesNothing(mutation.id.clone()));
        }
        let count = |items, count| at_most(|| format!("mutation {}", mutation.id), items, count);
        count("changes", mutation.mutates.len())?;
        count("requires", mutation.requires.len())?;
        count("excludes", mutation.excludes.len())?;
        count("requires_of", mutation.requires_of.len())?;
        count("fail_to", mutation.fail_to.len())?;
        for change in &mutation.mutates {
            count("values in a from", change.from.len())?;
        }
        let mut seen = BTreeSet::new();
        for change in &mutation.mutates {
            if !seen.insert(&change.url) {
                return Err(GraphError::UrlTwice {
                    id: mutation.id.clone(),
                    url: change.url.clone(),
                });
            }
            if change.from.is_empty() {
                return Err(no_values(&change.url));
            }
        }
        let others = mutation.requires_of.iter().map(|others| &others.condition);
        let conditions = mutation
            .requires
            .iter()
            .chain(&mutation.excludes)
            .chain(others);
        for condition in conditions.clone() {
            count("values in a condition", condition.values().len())?;
        }
        if let Some(empty) = conditions.into_iter().find(|condition| condition.is_void()) {
            return Err(no_values(&empty.url));
        }
    }
    if let Some(pair) = set
        .dependencies
        .windows(2)
        .find(|pair| pair[0].url == pair[1].url)
    {
        return Err(GraphError::DependsTwice(pair[0].url.clone()));
    }
    for Dependency { url, conditions } in &set.dependencies {
        let count = |items, count| at_most(|| format!("the dependency of {url}"), items, count);
        count("conditions", conditions.len())?;
        for condition in conditions {
            count("values in a condition", condition.values().len())?;
        }
        if let Some(empty) = conditions.iter().find(|condition| condition.is_void()) {
            return Err(GraphError::NoValues {
                what: format!("the dependency of {url}"),
                url: empty.url.clone(),
            });
        }
    }
    Ok(())
}

fn at_most(what: impl Fn() -> String, items: &'static str, count: usize) -> Result<(), GraphError> {
    if count <= MAX_ITEMS {
        return Ok(());
    }
    Err(GraphError::TooManyItems {
        what: what(),
        items,
        count,
    })
}
