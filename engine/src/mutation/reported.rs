//! Urls of conditions that modules report because their schema says so (`kraken.v1.discoverable`), without any `discoverables` that lists them: a
//! condition on `/host/cpus` is about the machine, not about what Cfg says of it.
//!
//! They are added to the declared set, so that plans, `explain` and agents, whose schema may be older, agree.

use std::collections::BTreeSet;

use super::MutationSet;
use crate::extension::Schema;
use crate::state::StateUrl;

impl MutationSet {
    /// This set with the urls of its conditions that `schema` marks as reported among its discoverables. Doing it twice changes nothing.
    pub fn with_reported(mut self, schema: &Schema) -> Self {
        let reported = self.reported(schema);
        self.discoverables.extend(reported);
        self
    }

    /// The urls that [`with_reported`](Self::with_reported) adds, ordered.
    pub(crate) fn reported(&self, schema: &Schema) -> Vec<StateUrl> {
        let known: BTreeSet<&StateUrl> = self.discoverables.iter().collect();
        let of_mutations = self.mutations.iter().flat_map(|mutation| {
            let others = mutation.requires_of.iter().map(|others| &others.condition);
            let own = mutation.requires.iter().chain(&mutation.excludes);
            own.chain(others)
        });
        let of_dependencies = (self.dependencies.iter()).flat_map(|one| &one.conditions);
        let urls: BTreeSet<&StateUrl> = of_mutations
            .chain(of_dependencies)
            .map(|condition| &condition.url)
            .collect();
        let is_reported =
            |url: &&StateUrl| schema.field(url).is_some_and(|field| field.discoverable);
        let new = urls.difference(&known).copied();
        new.filter(is_reported).cloned().collect()
    }
}
