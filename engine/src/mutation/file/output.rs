//! What programs say: lines of discoveries, patterns in a poll's output, last words of one that failed. Pure.
//!
//! An answer that is missing, contradicts itself or has the wrong type is no answer: nothing is discovered from it (reliability F33).

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::program::Poll;
use crate::extension::{Schema, SchemaError};
use crate::mutation::Condition;
use crate::state::{Change, Float, StateUrl, Value};

/// Most values taken from one run; a hardware inventory has a few hundred.
pub const MAX_DISCOVERIES: usize = 512;
/// Longest text about a failure that becomes part of a node's history.
pub const MAX_WORDS_BYTES: usize = 300;
/// Lines of a failed program that are kept: the last ones say why.
const LAST_LINES: usize = 3;

/// One entry of a poll's `map`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Which lines it is about.
    pub pattern: Pattern,
    /// What such a line means.
    pub discover: Vec<(StateUrl, Found)>,
    /// It means nothing while any of these holds.
    pub unless: Vec<Condition>,
}

/// Which lines of an output are meant. Blanks around a line do not count.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Exactly this line.
    Line(String),
    /// Lines with this in them.
    Contains(String),
    /// Lines that match.
    Regex(Regex),
}

/// What a line means for one url.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// This value; `None`: unknown.
    Value(Option<Value>),
    /// What the pattern's group of this number matched.
    Group(usize),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Line(a), Self::Line(b)) | (Self::Contains(a), Self::Contains(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl Eq for Pattern {}

/// The lines `discover URL VALUE` of an output. Without a value, the url becomes unknown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// What they report, in order.
    pub changes: Vec<Change>,
    /// Lines that were not accepted, and why.
    pub refused: Vec<String>,
}

/// Reads the lines `discover URL VALUE`; all others are somebody else's.
pub fn discover_lines(stdout: &str, may: impl Fn(&StateUrl) -> bool, schema: &Schema) -> Said {
    let mut said = Said::default();
    for line in stdout.lines() {
        let mut words = line.trim().splitn(3, char::is_whitespace);
        if words.next() != Some("discover") {
            continue;
        }
        let (url, text) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if said.changes.len() >= MAX_DISCOVERIES {
            said.refused.push(format!(
                "more than {MAX_DISCOVERIES} values, from {url:.80} on"
            ));
            break;
        }
        let change = url
            .parse::<StateUrl>()
            .map_err(|error| error.to_string())
            .and_then(|url| match may(&url) {
                true => Ok(url),
                false => Err(format!(
                    "{url} is not declared in the file: mutate it, or list it in `discoverables`"
                )),
            })
            .and_then(|url| {
                let value = typed(schema, &url, text.trim())?;
                Ok(Change { url, value })
            });
        match change {
            Ok(change) => said.changes.push(change),
            Err(why) => said.refused.push(why),
        }
    }
    said
}

/// A value as a program writes it: typed by the schema; for urls that it does not know as TOML would, other words being texts.
fn typed(schema: &Schema, url: &StateUrl, text: &str) -> Result<Option<Value>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match schema.parse(url, text) {
        Err(SchemaError::UnknownUrl { .. }) => {
            let quoted = text
                .strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'));
            let value = match (quoted, text) {
                (Some(quoted), _) => Value::text(quoted),
                (None, "true") => Value::Bool(true),
                (None, "false") => Value::Bool(false),
                (None, _) => match (text.parse(), text.parse::<f64>()) {
                    (Ok(number), _) => Value::Int(number),
                    (_, Ok(number)) if number.is_finite() => Value::Float(Float(number)),
                    _ => Value::text(text),
                },
            };
            Ok((!value.is_zero()).then_some(value))
        }
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

impl Poll {
    /// What the output of a run that ended well means.
    ///
    /// # Errors
    /// It is no answer: nothing in it means anything, or it says two things of one url.
    pub fn read(
        &self,
        stdout: &str,
        said: Vec<Change>,
        holds: impl Fn(&Condition) -> bool,
        schema: &Schema,
    ) -> Result<Vec<Change>, String> {
        let mut found: BTreeMap<StateUrl, Option<Value>> = BTreeMap::new();
        let mut note = |url: &StateUrl, value: Option<Value>| match found.get(url) {
            Some(other) if *other != value => Err(format!(
                "it says two things of {url}: {}",
                quote(stdout, MAX_WORDS_BYTES / 2)
            )),
            Some(_) => Ok(()),
            None if found.len() >= MAX_DISCOVERIES => Err(format!(
                "it has more than {MAX_DISCOVERIES} values to report"
            )),
            None => {
                found.insert(url.clone(), value);
                Ok(())
            }
        };
        let mut understood = !said.is_empty();
        for change in said {
            note(&change.url, change.value)?;
        }
        // Whether an entry applies is known only when every line has been held against all others.
        let mut silent: Vec<StateUrl> = Vec::new();
        for line in stdout.lines().map(str::trim) {
            for reading in &self.readings {
                let Some(groups) = reading.pattern.matches(line) else {
                    continue;
                };
                understood = true;
                for (url, meaning) in &reading.discover {
                    let value = match meaning {
                        Found::Value(value) => value.clone(),
                        Found::Group(number) => {
                            let text = groups.get(*number).map_or("", String::as_str);
                            typed(schema, url, text)?
                        }
                    };
                    note(url, value)?;
                    if reading.unless.iter().any(&holds) {
                        silent.push(url.clone());
                    }
                }
            }
        }
        if !understood {
            return Err(format!(
                "nothing in its output has a meaning: {}",
                quote(stdout, MAX_WORDS_BYTES / 2)
            ));
        }
        found.retain(|url, _| !silent.contains(url));
        Ok(found
            .into_iter()
            .map(|(url, value)| Change { url, value })
            .collect())
    }
}

impl Pattern {
    /// The groups, if the line is meant; the first is all that matched.
    fn matches(&self, line: &str) -> Option<Vec<String>> {
        match self {
            Self::Line(text) => (line == text).then(Vec::new),
            Self::Contains(text) => line.contains(text.as_str()).then(Vec::new),
            Self::Regex(regex) => regex.captures(line).map(|groups| {
                let text = |group: Option<regex_lite::Match<'_>>| {
                    group.map_or("", |group| group.as_str()).to_owned()
                };
                groups.iter().map(text).collect()
            }),
        }
    }
}

/// The last lines of a program's complaints, else of what else it said; empty if it said nothing.
pub fn last_words(stderr: &str, stdout: &str) -> String {
    let lines = |text: &str| {
        let all: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        all[all.len().saturating_sub(LAST_LINES)..].join("; ")
    };
    let said = lines(stderr);
    let said = if said.is_empty() { lines(stdout) } else { said };
    clean(&said, MAX_WORDS_BYTES)
}

/// In quotes, cut, for messages.
fn quote(text: &str, limit: usize) -> String {
    format!("{:?}", clean(text.trim(), limit))
}

/// Without control characters, and at most so long.
fn clean(text: &str, limit: usize) -> String {
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
