//! Node sets in ClusterShell's grammar: the text by which people name nodes (DESIGN 2).
//!
//! ```text
//!   set      = term *( operator term )         operators bind left to right
//!   operator = ","   union
//!            | "!"   difference
//!            | "&"   intersection
//!            | "^"   either, not both
//!   term     = "n[001-128,200-300/2]r[1-4]"    names, written out; every one must exist
//!            | "n*", "n?"                      names that match
//!            | "@rack3", "@*"                  a group; all nodes
//!            | "run=ERROR", "/pxe/state=WAIT"  what is known: run, phys, busy, image, or any url
//! ```
//!
//! Parsing and folding are pure. Resolving asks an [`Inventory`]; the result is ordered by name. Leaves out ClusterShell's group sources
//! and nested `@group[1-3]` expansion beyond plain names.

mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use engine::state::{NodeName, StateUrl};

use pattern::Pattern;
pub(crate) use pattern::fold;

/// Most names that one set may write out: ten times the largest cluster we promise.
pub(crate) const MAX_NAMES: u64 = 100_000;

/// Longest text of a node set: 10,000 names that nothing folds.
pub(crate) const MAX_TEXT_BYTES: usize = 256 << 10;

/// Most names an error lists.
const MAX_LISTED: usize = 8;

/// What a node set is asked of.
pub(crate) trait Inventory {
    /// All names.
    fn all(&self) -> BTreeSet<NodeName>;
    /// Whether there is such a node.
    fn has(&self, name: &NodeName) -> bool;
    /// The nodes of a group; `None` if nobody is in it.
    fn group(&self, group: &str) -> Option<BTreeSet<NodeName>>;
    /// The nodes whose known value of `url` is written `value`; an empty value: is unknown.
    fn having(&self, url: &StateUrl, value: &str) -> Result<BTreeSet<NodeName>, String>;
}

/// Why a text names no nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeSetError {
    /// The text does not parse.
    #[error("{text:?} is not a node set, at character {at}: {why}")]
    Syntax {
        /// The text, cut to a length fit for a message.
        text: String,
        /// Where, from 1.
        at: usize,
        /// What is wrong.
        why: String,
    },
    /// It would be too many names.
    #[error(
        "the node set writes out more than {MAX_NAMES} names; use a group or a pattern such as n*"
    )]
    TooMany,
    /// Names that no node has.
    #[error("there is no node {0}")]
    NoSuchNode(String),
    /// A group that nobody is in.
    #[error("no node is in group @{0}")]
    NoSuchGroup(String),
    /// A selector that asks for nonsense.
    #[error("{0}")]
    Selector(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Union,
    Difference,
    Intersection,
    Either,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Names(Pattern),
    Matching(String),
    All,
    Group(String),
    Having(StateUrl, String),
}

/// A parsed node set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeSet {
    terms: Vec<(Operator, Term)>,
}

impl NodeSet {
    /// Reads a text. An empty text is the set of all nodes.
    pub(crate) fn parse(text: &str) -> Result<Self, NodeSetError> {
        let syntax = |at: usize, why: String| NodeSetError::Syntax {
            text: text.chars().take(64).collect(),
            at: at + 1,
            why,
        };
        if text.len() > MAX_TEXT_BYTES {
            return Err(syntax(
                0,
                format!("it is longer than {MAX_TEXT_BYTES} bytes"),
            ));
        }
        if text.trim().is_empty() {
            return Ok(Self {
                terms: vec![(Operator::Union, Term::All)],
            });
        }
        let mut terms = Vec::new();
        let mut names = 0_u64;
        let (mut operator, mut start, mut depth) = (Operator::Union, 0, 0_u32);
        let ends = text
            .char_indices()
            .map(|(at, c)| (at, Some(c)))
            .chain([(text.len(), None)]);
        for (at, c) in ends {
            match c {
                Some('[') => depth += 1,
                Some(']') => {
                    depth = depth
                        .checked_sub(1)
                        .ok_or_else(|| syntax(at, "']' without '['".into()))?
                }
                _ => {}
            }
            let next = match c {
                None if depth > 0 => return Err(syntax(start, "'[' is never closed".into())),
                None => Operator::Union,
                Some(',') if depth == 0 => Operator::Union,
                Some('!') if depth == 0 => Operator::Difference,
                Some('&') if depth == 0 => Operator::Intersection,
                Some('^') if depth == 0 => Operator::Either,
                _ => continue,
            };
            let term = Term::parse(text[start..at].trim()).map_err(|error| match error {
                TermError::Why(why) => syntax(start, why),
                TermError::TooMany => NodeSetError::TooMany,
            })?;
            if let Term::Names(pattern) = &term {
                names = names.saturating_add(pattern.len());
                if names > MAX_NAMES {
                    return Err(NodeSetError::TooMany);
                }
            }
            terms.push((operator, term));
            (operator, start) = (next, at + 1);
        }
        Ok(Self { terms })
    }

    /// The groups that it names as such, and the rest: of a plain list only. Where nodes are taken out or picked, a group is its nodes.
    pub(crate) fn groups_apart(self) -> (BTreeSet<String>, Option<Self>) {
        let is_list = |(operator, _): &(Operator, Term)| *operator == Operator::Union;
        if !self.terms.iter().all(is_list) {
            return (BTreeSet::new(), Some(self));
        }
        let mut groups = BTreeSet::new();
        let mut rest = Vec::new();
        for (operator, term) in self.terms {
            match term {
                Term::Group(group) => drop(groups.insert(group)),
                term => rest.push((operator, term)),
            }
        }
        let rest = (!rest.is_empty()).then_some(Self { terms: rest });
        (groups, rest)
    }

    /// Whether it stands for all nodes, whoever they are.
    pub(crate) fn is_all(&self) -> bool {
        matches!(self.terms[..], [(Operator::Union, Term::All)])
    }

    /// The names it stands for, ordered.
    pub(crate) fn resolve(
        &self,
        inventory: &dyn Inventory,
    ) -> Result<BTreeSet<NodeName>, NodeSetError> {
        let mut all = BTreeSet::new();
        for (operator, term) in &self.terms {
            let names = term.resolve(inventory)?;
            all = match operator {
                Operator::Union => &all | &names,
                Operator::Difference => &all - &names,
                Operator::Intersection => &all & &names,
                Operator::Either => &all ^ &names,
            };
        }
        Ok(all)
    }
}

enum TermError {
    Why(String),
    TooMany,
}

impl Term {
    fn parse(text: &str) -> Result<Self, TermError> {
        let why = |why: &str| TermError::Why(why.to_owned());
        if text.is_empty() {
            return Err(why("a name, @group or selector is missing"));
        }
        if let Some(group) = text.strip_prefix('@') {
            return match group {
                "*" => Ok(Self::All),
                _ if is_group_name(group) => Ok(Self::Group(group.to_owned())),
                _ => Err(why("a group's name has letters, digits and ._-")),
            };
        }
        if let Some((key, value)) = text.split_once('=') {
            let url = match key {
                "run" => "/RunState",
                "phys" => "/PhysState",
                "busy" => "/Busy",
                "image" => "/image/name",
                _ if key.starts_with('/') => key,
                _ => {
                    return Err(why(
                        "a selector is run=, phys=, busy=, image= or a url such as /pxe/state=",
                    ));
                }
            };
            let url = url
                .parse()
                .map_err(|error: engine::state::UrlError| TermError::Why(error.to_string()))?;
            return Ok(Self::Having(url, value.to_owned()));
        }
        if text.contains(['*', '?']) {
            let fits = text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"*?.-".contains(&b));
            return if fits {
                Ok(Self::Matching(text.to_ascii_lowercase()))
            } else {
                Err(why("a pattern has letters, digits, '.', '-', '*' and '?'"))
            };
        }
        let pattern = Pattern::parse(text).map_err(TermError::Why)?;
        if pattern.len() > MAX_NAMES {
            return Err(TermError::TooMany);
        }
        Ok(Self::Names(pattern))
    }

    fn resolve(&self, inventory: &dyn Inventory) -> Result<BTreeSet<NodeName>, NodeSetError> {
        match self {
            Self::All => Ok(inventory.all()),
            Self::Group(group) => inventory
                .group(group)
                .ok_or_else(|| NodeSetError::NoSuchGroup(group.clone())),
            Self::Having(url, value) => {
                inventory.having(url, value).map_err(NodeSetError::Selector)
            }
            Self::Matching(pattern) => {
                let mut names = inventory.all();
                names.retain(|name| matches(pattern.as_bytes(), name.as_str().as_bytes()));
                Ok(names)
            }
            Self::Names(pattern) => {
                let (mut found, mut missing) = (BTreeSet::new(), Vec::new());
                for text in pattern.names() {
                    match text.parse::<NodeName>() {
                        Ok(name) if inventory.has(&name) => {
                            found.insert(name);
                        }
                        _ => missing.push(text),
                    }
                }
                if missing.is_empty() {
                    Ok(found)
                } else {
                    Err(NodeSetError::NoSuchNode(listed(&missing)))
                }
            }
        }
    }
}

/// Names folded, and cut to a length fit for a message.
fn listed(names: &[String]) -> String {
    let folded = fold(names.iter().map(String::as_str));
    let parts = folded.len();
    let mut text = folded
        .into_iter()
        .take(MAX_LISTED)
        .collect::<Vec<_>>()
        .join(",");
    if parts > MAX_LISTED {
        text.push_str(&format!(" and {} more", parts - MAX_LISTED));
    }
    text
}

/// Whether a text can be the name of a group.
pub(crate) fn is_group_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Wildcards: `*` any run, `?` any one. Linear in the product of the lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}
