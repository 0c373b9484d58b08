//! One extension, and what happens to nodes when it is replaced: fields may come at any time, and go or change while no node has a value of them.
//!
//! Numbers of fields are protobuf's promise to programs that were generated from a file; a number that means another field would break them
//! without a word. The urls are ours: a value whose url goes, or that no longer fits, is *stranded*.

use std::collections::BTreeMap;
use std::fmt;

use super::{Field, Schema};
use crate::state::{Node, NodeId, NodeName, StateUrl, Value};

/// One extension: what a message with `option (kraken.v1.extension)` declares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extension {
    /// First part of its urls; empty for the core.
    pub name: String,
    /// What its schema says about it, for help texts.
    pub doc: String,
    /// Its fields by pattern.
    pub fields: BTreeMap<String, Declared>,
}

/// A field, and where its message has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declared {
    /// The field.
    pub field: Field,
    /// Numbers of the protobuf fields that lead to it, from the extension's message inwards.
    pub numbers: Vec<u32>,
}

/// A field number that means something else than before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Renumbered {
    /// A field has another number.
    Moved {
        /// Its pattern.
        pattern: String,
        /// Its numbers before.
        from: Vec<u32>,
        /// Its numbers after.
        to: Vec<u32>,
    },
    /// A number belongs to another field.
    Reused {
        /// The pattern that had the number.
        before: String,
        /// The pattern that has it.
        after: String,
        /// The numbers.
        numbers: Vec<u32>,
    },
}

/// A value that a schema leaves without a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stranded {
    /// Whose.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Which value.
    pub url: StateUrl,
    /// Why, in words; never the value.
    pub why: String,
}

impl Extension {
    /// The field numbers that mean something else in `new`.
    pub fn renumbered(&self, new: &Self) -> Vec<Renumbered> {
        let after: BTreeMap<&[u32], &str> = new
            .fields
            .iter()
            .map(|(pattern, declared)| (&declared.numbers[..], pattern.as_str()))
            .collect();
        let mut found = Vec::new();
        for (pattern, old) in &self.fields {
            match new.fields.get(pattern) {
                Some(declared) if declared.numbers != old.numbers => {
                    found.push(Renumbered::Moved {
                        pattern: pattern.clone(),
                        from: old.numbers.clone(),
                        to: declared.numbers.clone(),
                    });
                }
                Some(_) => {}
                None => {
                    if let Some(taken) = after.get(&old.numbers[..]) {
                        found.push(Renumbered::Reused {
                            before: pattern.clone(),
                            after: (*taken).to_owned(),
                            numbers: old.numbers.clone(),
                        });
                    }
                }
            }
        }
        found
    }
}

impl Schema {
    /// Adds an extension's fields, all or none.
    ///
    /// # Errors
    /// The first pattern that is taken.
    pub fn extend(&mut self, extension: &Extension) -> Result<(), String> {
        let taken = |pattern: &&String| self.fields.contains_key(*pattern);
        if let Some(pattern) = extension.fields.keys().find(taken) {
            return Err(pattern.clone());
        }
        for (pattern, declared) in &extension.fields {
            self.add(pattern.clone(), declared.field.clone());
        }
        Ok(())
    }

    /// Why a Cfg value that fits `self` has no place in `new`; `None` when it has, or had none before.
    pub fn strands(&self, new: &Self, url: &StateUrl, value: &Value) -> Option<String> {
        let old = self.field(url)?;
        let Some(field) = new.field(url) else {
            return Some("its field is gone".into());
        };
        if old.secret != field.secret {
            return Some(match field.secret {
                true => "its field becomes secret, but the value is in the history for all to read"
                    .into(),
                false => "its field is secret no longer, which would show the value".into(),
            });
        }
        match new.check(url, value.clone()) {
            Ok(Some(same)) if same == *value => None,
            Ok(_) => Some("its field reads it in another way".into()),
            Err(_) => Some(format!("it no longer fits: {}", field.expected())),
        }
    }

    /// The Cfg values of `nodes` that have a place here and none in `new`.
    pub fn stranded<'a>(&self, new: &Self, nodes: impl Iterator<Item = &'a Node>) -> Vec<Stranded> {
        let mut found = Vec::new();
        for node in nodes {
            for (url, value) in node.cfg.iter() {
                if let Some(why) = self.strands(new, url, value) {
                    found.push(Stranded {
                        node: node.id,
                        name: node.name.clone(),
                        url: url.clone(),
                        why,
                    });
                }
            }
        }
        found
    }
}

/// Stranded values in one line: which url, why, and which nodes.
pub fn stranded_words(stranded: &[Stranded]) -> String {
    /// Nodes and urls that a message names; the rest is counted.
    const NAMED: usize = 8;
    let mut by_url: BTreeMap<&StateUrl, Vec<&Stranded>> = BTreeMap::new();
    for one in stranded {
        by_url.entry(&one.url).or_default().push(one);
    }
    let rest = |count: usize| match count.saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let of_url = |(url, all): (&&StateUrl, &Vec<&Stranded>)| {
        let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        let shown = names[..names.len().min(NAMED)].join(", ");
        let (verb, why) = (if all.len() == 1 { "has" } else { "have" }, &all[0].why);
        format!(
            "{shown}{} {verb} a value of {url}: {why}",
            rest(names.len())
        )
    };
    let lines: Vec<String> = by_url.iter().take(NAMED).map(of_url).collect();
    format!("{}{}", lines.join("; "), rest(by_url.len()))
}

impl fmt::Display for Renumbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dotted = |numbers: &[u32]| {
            let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
            texts.join(".")
        };
        match self {
            Self::Moved { pattern, from, to } => write!(
                f,
                "{pattern} had field number {} and has {}: give it its old number back",
                dotted(from),
                dotted(to)
            ),
            Self::Reused {
                before,
                after,
                numbers,
            } => write!(
                f,
                "field number {} was {before} and is {after}: give {after} a number that was never used (and write `reserved` for the old one)",
                dotted(numbers)
            ),
        }
    }
}
