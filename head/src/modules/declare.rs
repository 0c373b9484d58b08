//! Short forms for declaring mutations in Rust. An empty value stands for unknown, as in the tree.

use std::time::Duration;

use engine::mutation::{Condition, Mutation, MutationContext, MutationId, UrlChange};
use engine::state::{Change, StateUrl, Value};

/// A mutation under construction.
pub(super) struct Declare(Mutation);

/// A url that stands in our own code.
pub(super) fn url(text: &'static str) -> StateUrl {
    text.parse().unwrap_or_else(|_| {
        unreachable!("urls in declarations are constants, checked by the module's tests")
    })
}

fn known(text: &'static str) -> Option<Value> {
    (!text.is_empty()).then(|| Value::from(text))
}

/// A condition: `at` has any of these values.
pub(super) fn any_of(at: &'static str, values: &[&'static str]) -> Condition {
    Condition::any_of(url(at), values.iter().copied().map(known).collect())
}

/// The mutation `name` of `module`.
pub(super) fn mutation(module: &str, name: &str, context: MutationContext) -> Declare {
    Declare(Mutation::new(
        MutationId::new(module, name),
        context,
        Vec::new(),
    ))
}

impl Declare {
    /// Changes `at` from any of these to that.
    pub(super) fn change(
        mut self,
        at: &'static str,
        from: &[&'static str],
        to: &'static str,
    ) -> Self {
        let from = from.iter().copied().map(known).collect();
        self.0.mutates.push(UrlChange {
            url: url(at),
            from,
            to: known(to),
        });
        self
    }

    /// Needs `at` to have any of these values.
    pub(super) fn requires(mut self, at: &'static str, values: &[&'static str]) -> Self {
        self.0.requires.push(any_of(at, values));
        self
    }

    /// Is forbidden while `at` has that value.
    pub(super) fn excludes(mut self, at: &'static str, value: &'static str) -> Self {
        self.0.excludes.push(any_of(at, &[value]));
        self
    }

    /// Has failed after this time, and then `at` has that value.
    pub(super) fn within(
        mut self,
        timeout: Duration,
        at: &'static str,
        value: &'static str,
    ) -> Self {
        self.0.timeout = Some(timeout);
        self.0.fail_to.push(Change {
            url: url(at),
            value: known(value),
        });
        self
    }

    /// May end a running job.
    pub(super) fn disruptive(mut self) -> Self {
        self.0.disruptive = true;
        self
    }

    /// The mutation.
    pub(super) fn done(self) -> Mutation {
        self.0
    }
}
