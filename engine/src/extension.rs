//! Extension schemas: which values a node can have, of which type, and who may write them (DESIGN 2).
//!
//! A schema is made from protobuf descriptors (feature `schema`, `extension/descriptor.rs`), so a new extension needs no generated code. Urls that no
//! schema describes are refused by the head, and kept as they are by an agent, whose schema may be older. `field` says what fits one url, `change`
//! what a schema that replaces another would do to values that are there (`engine/docs/extensions.md` has the rules).

use std::collections::BTreeMap;

use crate::state::{Change, StateUrl, Value, Values};

mod change;
#[cfg(feature = "schema")]
mod descriptor;
mod field;
mod scrub;
#[cfg(test)]
mod tests;

pub use change::{Declared, Extension, Renumbered, Stranded, stranded_words};
#[cfg(feature = "schema")]
pub use descriptor::{DescriptorError, Misfit};
pub use field::{Field, Format, Kind, parse_duration};
pub use scrub::without_secrets;

/// All fields of all extensions. Parts of a url that are keys of a map are `*` in the pattern.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Schema {
    fields: BTreeMap<String, Field>,
    /// Patterns with a `*`: they are tried one by one.
    wild: Vec<String>,
    /// Patterns of secrets, without and with a `*`.
    secrets: (Vec<String>, Vec<String>),
}

/// Why a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// No extension has this url.
    #[error("no extension has {url}{}", .nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownUrl {
        /// The url.
        url: StateUrl,
        /// The nearest known spelling.
        nearest: Option<String>,
    },
    /// The value is of another type, or out of bounds.
    #[error("{url} {}: {expected}", match .value { Some(value) => format!("cannot be {value:?}"), None => "cannot be this (it is secret, so it is not shown)".into() })]
    BadValue {
        /// The url.
        url: StateUrl,
        /// What was given, cut to a length fit for a message; `None` for a secret.
        value: Option<String>,
        /// What fits.
        expected: String,
    },
}

/// What a value shows instead of a secret; written back it means "unchanged".
pub const REDACTED: &str = "(secret)";

impl Schema {
    /// Adds a field under its pattern, such as `/ipv4/interfaces/*/address`. Returns false when the pattern is taken.
    pub fn add(&mut self, pattern: String, field: Field) -> bool {
        if self.fields.contains_key(&pattern) {
            return false;
        }
        if pattern.contains('*') {
            self.wild.push(pattern.clone());
            // Where two patterns fit one url, the order in which extensions came must not decide.
            self.wild.sort();
        }
        if field.secret {
            let (plain, wild) = &mut self.secrets;
            let secrets = if pattern.contains('*') { wild } else { plain };
            secrets.push(pattern.clone());
        }
        self.fields.insert(pattern, field);
        true
    }

    /// The field of `url`.
    pub fn field(&self, url: &StateUrl) -> Option<&Field> {
        if let Some(field) = self.fields.get(url.as_str()) {
            return Some(field);
        }
        let pattern = self.wild.iter().find(|pattern| matches(pattern, url))?;
        self.fields.get(pattern)
    }

    /// Whether `url` is never shown in clear.
    pub fn is_secret(&self, url: &StateUrl) -> bool {
        self.field(url).is_some_and(|field| field.secret)
    }

    /// Whether a Cfg value of `url` must not be shown: it is secret, or no extension says that it is not.
    pub fn hides(&self, url: &StateUrl) -> bool {
        self.field(url).is_none_or(|field| field.secret)
    }

    /// A change as everybody may see it.
    pub fn redacted(&self, change: &Change) -> Change {
        match &change.value {
            Some(_) if self.is_secret(&change.url) => {
                Change::set(change.url.clone(), Value::from(REDACTED))
            }
            value => Change {
                url: change.url.clone(),
                value: value.clone(),
            },
        }
    }

    /// The secrets among these values.
    pub fn secrets_of<'a>(
        &'a self,
        values: &'a Values,
    ) -> impl Iterator<Item = (&'a StateUrl, &'a Value)> {
        let (plain, wild) = &self.secrets;
        let plain = plain
            .iter()
            .filter_map(|pattern| values.get_key_value(pattern));
        let is_wild = |url| wild.iter().any(|pattern| matches(pattern, url));
        plain.chain(values.iter().filter(move |(url, _)| is_wild(url)))
    }

    /// All fields by pattern, ordered.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields
            .iter()
            .map(|(pattern, field)| (pattern.as_str(), field))
    }

    /// Checks a typed value and brings it to its stored form: `None` for a zero.
    ///
    /// # Errors
    /// Unknown url; wrong type; out of bounds; not written as its format wants.
    pub fn check(&self, url: &StateUrl, value: Value) -> Result<Option<Value>, SchemaError> {
        let field = self.known(url)?;
        let value = match (field.repeated, value) {
            (true, Value::List(items)) => field.check_items(url, items)?,
            (true, item) => field.check_items(url, vec![item])?,
            (false, item) => field.check_item(url, item)?,
        };
        let zero_name = match (&field.kind, &value) {
            (Kind::Enum(names), Value::Text(text)) => {
                names.first().map(String::as_str) == Some(text)
            }
            _ => false,
        };
        Ok((!zero_name && !value.is_zero()).then_some(value))
    }

    /// Reads a value as people write it: `POWER_ON`, `10s`, `a,b` for a list.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub fn parse(&self, url: &StateUrl, text: &str) -> Result<Option<Value>, SchemaError> {
        let field = self.known(url)?;
        let value = if field.repeated {
            let items = text.split(',').filter(|item| !item.is_empty());
            Value::List(
                items
                    .map(|item| field.parse_item(url, item.trim()))
                    .collect::<Result<_, _>>()?,
            )
        } else {
            field.parse_item(url, text)?
        };
        self.check(url, value)
    }

    /// The zero of a field by name, where its schema gives it one: `FREE` for `/Busy`.
    pub fn zero_name(&self, url: &StateUrl) -> Option<&str> {
        match &self.field(url)?.kind {
            Kind::Enum(names) => names.first().map(String::as_str),
            _ => None,
        }
    }

    /// Whether a url exists.
    ///
    /// # Errors
    /// It does not; the nearest spelling is named.
    pub fn known_url(&self, url: &StateUrl) -> Result<(), SchemaError> {
        self.known(url).map(|_| ())
    }

    fn known(&self, url: &StateUrl) -> Result<&Field, SchemaError> {
        self.field(url).ok_or_else(|| SchemaError::UnknownUrl {
            url: url.clone(),
            nearest: nearest(url.as_str(), self.fields.keys().map(String::as_str)),
        })
    }
}

fn matches(pattern: &str, url: &StateUrl) -> bool {
    let mut parts = url.parts();
    let fits = pattern[1..]
        .split('/')
        .all(|want| parts.next().is_some_and(|part| want == "*" || want == part));
    fits && parts.next().is_none()
}

/// The candidate with the fewest edits from `word`, if it is near enough to be meant: more than half of the longer one is as it was.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (edits(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| {
            *distance <= 1 + word.len() / 4 && 2 * distance < word.len().max(candidate.len())
        })
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein distance without regard to case.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
