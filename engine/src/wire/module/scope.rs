//! What a module may report and see: the urls that it declared, the core, and what is its own.

use std::collections::BTreeSet;

use crate::state::{StateUrl, Values};
use crate::wire::convert::Declared;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Reported by its mutations.
    changed: BTreeSet<StateUrl>,
    /// Reported with all below.
    discoverables: Vec<String>,
    /// Seen with all below.
    seen: Vec<String>,
    /// Its own part of the tree.
    own: [String; 2],
}

impl Scope {
    /// The scope of the module of this name, which declares this.
    pub fn new(module: &str, declared: &Declared) -> Self {
        let mut scope = Self {
            own: [format!("/{module}"), format!("/services/{module}")],
            ..Self::default()
        };
        let text = |url: &StateUrl| url.as_str().to_owned();
        for mutation in &declared.mutations {
            let changed = mutation.mutates.iter().map(|change| &change.url);
            let failed = mutation.fail_to.iter().map(|change| &change.url);
            scope.changed.extend(changed.chain(failed).cloned());
            let conditions = mutation.requires.iter().chain(&mutation.excludes);
            scope
                .seen
                .extend(conditions.map(|condition| text(&condition.url)));
        }
        scope
            .discoverables
            .extend(declared.discoverables.iter().map(text));
        scope.seen.extend(declared.reads.iter().map(text));
        scope.seen.extend(scope.changed.iter().map(text));
        scope.seen.extend_from_slice(&scope.discoverables);
        scope.seen.sort();
        scope.seen.dedup();
        scope
    }

    /// Whether it may report this value.
    pub fn may_report(&self, url: &StateUrl) -> bool {
        self.changed.contains(url) || self.discoverables.iter().any(|top| is_below(top, url))
    }

    /// Whether it may see this value, if that is no secret.
    pub fn may_see(&self, url: &StateUrl) -> bool {
        url.parts().count() == 1
            || self.is_own(url)
            || self.seen.iter().any(|top| is_below(top, url))
    }

    /// Whether this value is the module's own, so that it sees it even if it is a secret.
    pub fn is_own(&self, url: &StateUrl) -> bool {
        self.own.iter().any(|top| is_below(top, url))
    }

    /// What it may see of these values: `hidden` are secrets that it may not. Of the rest, what lies below `urls`, or all if there are none.
    pub fn filter(
        &self,
        values: &Values,
        urls: &[StateUrl],
        hidden: impl Fn(&StateUrl) -> bool,
    ) -> Values {
        let wanted = |url: &StateUrl| {
            (urls.is_empty() || urls.iter().any(|top| is_below(top.as_str(), url)))
                && self.may_see(url)
                && (self.is_own(url) || !hidden(url))
        };
        let kept = values.iter().filter(|(url, _)| wanted(url));
        kept.map(|(url, value)| (url.clone(), value.clone()))
            .collect()
    }
}

/// Whether `url` is `top`, or lies below it.
pub(super) fn is_below(top: &str, url: &StateUrl) -> bool {
    let rest = url.as_str().strip_prefix(top);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
