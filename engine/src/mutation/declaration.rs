//! What a module declares.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Condition;
use crate::state::{Change, NodeName, StateUrl, Value};

/// Most mutations in one set; keeps a search over a careless set bounded.
pub const MAX_MUTATIONS: usize = 10_000;

/// Identity of a mutation. Its text, `module/NAME`, orders mutations everywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MutationId(Arc<str>);

impl MutationId {
    /// The mutation `name` of `module`.
    pub fn new(module: &str, name: &str) -> Self {
        Self(format!("{module}/{name}").into())
    }

    /// `module/NAME`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The module's name.
    pub fn module(&self) -> &str {
        self.0
            .split_once('/')
            .map_or(&*self.0, |(module, _)| module)
    }

    /// The mutation's name within its module.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for MutationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MutationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who carries a mutation out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MutationContext {
    /// The node itself.
    SelfNode,
    /// The node's parent.
    Child,
    /// Both.
    All,
}

/// The change of one url.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UrlChange {
    /// Which url.
    pub url: StateUrl,
    /// Any of these, `None` being unknown. Never empty.
    pub from: Vec<Option<Value>>,
    /// What it becomes; `None`: unknown.
    pub to: Option<Value>,
}

/// Which other nodes a condition is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Others {
    /// The node's parent.
    Parent,
    /// All other nodes of a group, named without its `@`.
    Group(Arc<str>),
}

/// A condition on other nodes. It never changes the path, it holds the firing until it is fulfilled.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OthersCondition {
    /// Of whom.
    pub who: Others,
    /// What must hold for each of them.
    pub condition: Condition,
}

/// A declared change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mutation {
    /// Identity.
    pub id: MutationId,
    /// Who carries it out; never matters to planning.
    pub context: MutationContext,
    /// What it changes; never empty, one entry a url.
    pub mutates: Vec<UrlChange>,
    /// All must hold.
    pub requires: Vec<Condition>,
    /// None may hold.
    pub excludes: Vec<Condition>,
    /// What must hold for other nodes at the instant of firing.
    pub requires_of: Vec<OthersCondition>,
    /// After this without all `to` values discovered, `fail_to` is discovered; `None`: never.
    pub timeout: Option<Duration>,
    /// What a timeout means.
    pub fail_to: Vec<Change>,
    /// Least total cost wins.
    pub cost: u32,
    /// May end a running job; the guard rails watch it.
    pub disruptive: bool,
}

impl Mutation {
    /// A mutation without conditions and timeout, at the default cost.
    pub fn new(id: MutationId, context: MutationContext, mutates: Vec<UrlChange>) -> Self {
        Self {
            id,
            context,
            mutates,
            requires: Vec::new(),
            excludes: Vec::new(),
            requires_of: Vec::new(),
            timeout: None,
            fail_to: Vec::new(),
            cost: 1,
            disruptive: false,
        }
    }
}

/// What must hold for the value of `url` to be known. A declared one replaces the one derived from the mutations.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dependency {
    /// Whose value.
    pub url: StateUrl,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

/// Everything declared, ordered by id: equal sets give equal plans, whatever the order of registration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MutationSet {
    /// Rises with each change of what is declared on one head; learned costs change without it.
    pub generation: u64,
    /// Ordered by id, no id twice.
    pub mutations: Vec<Mutation>,
    /// Declared dependencies, ordered by url.
    pub dependencies: Vec<Dependency>,
    /// Discoverable urls beyond the mutated ones and the core's.
    pub discoverables: Vec<StateUrl>,
    /// Steps of one node never run side by side, not even independent ones.
    pub one_by_one: bool,
}

impl Others {
    /// `parent` or `@group`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('@') {
            Some(group) => {
                let is_name = group.parse::<NodeName>().is_ok();
                is_name.then(|| Self::Group(group.into()))
            }
            None => (text == "parent").then_some(Self::Parent),
        }
    }
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parent => f.write_str("parent"),
            Self::Group(group) => write!(f, "@{group}"),
        }
    }
}
