//! Texts of a mutation file with fields in them, and what comes out for one node. Pure.
//!
//! ```text
//! {node} {id} {mutation} {attempt}     words
//! {/power/target}                      the node's Cfg value of a url
//! {dsc:/ipv4/address}                  what is known of it (Dsc)
//! {/power/port|623}                    with a text to take where the value is not set; else a missing value is a failure
//! {dash:/site/options}                 the argument may begin with a minus sign
//! {secret:/power/password}             a secret may stand in an argument, where every user of the machine can read it
//! {{ }}                                braces
//! ```
//!
//! A value goes in as it is, into one argument, variable or input: nothing is ever split, quoted or read again. Durations are written in seconds,
//! sizes in bytes, lists with commas. An argument that begins with a value which begins with a minus sign is refused, for programs would take it
//! for an option.

use std::fmt;

use super::program::MAX_ARGUMENT_BYTES;
use crate::extension::{Format, Schema};
use crate::mutation::MutationId;
use crate::state::{NodeId, NodeName, StateUrl, Value, Values};

/// A text with fields.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Template(Vec<Piece>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Field(Field),
}

/// One field of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Where its value comes from.
    pub source: Source,
    /// May begin an argument with a minus sign.
    pub dash: bool,
    /// A secret may stand in an argument.
    pub open: bool,
    /// Taken where there is no value.
    pub fallback: Option<String>,
    /// The value is secret.
    pub secret: bool,
    /// The value is a number of nanoseconds.
    duration: bool,
}

/// Where the value of a field comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The node's name.
    Node,
    /// The node's UUID.
    Id,
    /// The mutation, `module/NAME`.
    Mutation,
    /// The number of the attempt.
    Attempt,
    /// A value of its Cfg.
    Cfg(StateUrl),
    /// A value of its Dsc.
    Dsc(StateUrl),
}

/// Where a template stands, which decides what may go in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// An argument: public, and read by a program that looks for options.
    Argument,
    /// A variable of the environment, or the standard input: only the program sees it.
    Hidden,
}

/// For which node, and what of it, a template is filled in.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// Its id.
    pub id: NodeId,
    /// The mutation and the number of the attempt; none for a poll.
    pub attempt: Option<(&'a MutationId, u64)>,
    /// What it should be.
    pub cfg: &'a Values,
    /// What is known of it.
    pub dsc: &'a Values,
}

/// Why a template cannot be filled in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FillError {
    /// The node has no such value.
    #[error("{name} has no {url}: set it with krakenctl node set {name} {url}=VALUE")]
    Unset {
        /// The node.
        name: NodeName,
        /// What is missing.
        url: StateUrl,
    },
    /// Nothing is known of it.
    #[error("{url} of {name} is not known yet")]
    Unknown {
        /// The node.
        name: NodeName,
        /// What is missing.
        url: StateUrl,
    },
    /// An argument would begin with a minus sign.
    #[error("{field} begins with '-' and would be taken for an option")]
    Option {
        /// The field.
        field: String,
    },
    /// An argument would hold a zero byte, which ends it.
    #[error("{field} holds a zero byte")]
    Zero {
        /// The field.
        field: String,
    },
    /// It is too long.
    #[error("{field} makes a text of more than {MAX_ARGUMENT_BYTES} bytes")]
    Long {
        /// The field.
        field: String,
    },
}

impl Template {
    /// A text without fields.
    pub fn plain(text: &str) -> Self {
        Self(vec![Piece::Text(text.to_owned())])
    }

    /// Reads a template. Whether its urls exist is for the caller to say.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let (inside, after) = match (brace, rest.split_once('}')) {
                ("{", Some(found)) => found,
                ("{", None) => {
                    return Err(format!(
                        "{text:?} has a {{ without its }}; a plain one is written {{{{"
                    ));
                }
                _ => {
                    return Err(format!(
                        "{text:?} has a }} without its {{; a plain one is written }}}}"
                    ));
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Field(Field::parse(inside, schema)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Its fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(field),
            Piece::Text(_) => None,
        })
    }

    /// The text for one node. Secret values that went in are added to `secrets`.
    ///
    /// # Errors
    /// A value is missing, or must not stand there.
    pub fn fill(
        &self,
        place: Place,
        subject: &Subject<'_>,
        secrets: &mut Vec<String>,
    ) -> Result<String, FillError> {
        let mut out = String::new();
        for piece in &self.0 {
            let field = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Field(field) => field,
            };
            let value = field.value(subject)?;
            let name = || field.to_string();
            if value.contains('\0') {
                return Err(FillError::Zero { field: name() });
            }
            let begins = out.is_empty() && value.starts_with('-');
            if begins && place == Place::Argument && !field.dash {
                return Err(FillError::Option { field: name() });
            }
            out.push_str(&value);
            if out.len() > MAX_ARGUMENT_BYTES {
                return Err(FillError::Long { field: name() });
            }
            if field.secret && !value.is_empty() {
                secrets.push(value);
            }
        }
        Ok(out)
    }
}

impl Field {
    fn parse(text: &str, schema: &Schema) -> Result<Self, String> {
        let (mut what, fallback) = match text.split_once('|') {
            Some((what, fallback)) => (what, Some(fallback.to_owned())),
            None => (text, None),
        };
        let (mut dash, mut open, mut dsc) = (false, false, false);
        while let Some((word, rest)) = what.split_once(':').filter(|_| !what.starts_with('/')) {
            match word {
                "dash" => dash = true,
                "secret" => open = true,
                "dsc" => dsc = true,
                _ => {
                    return Err(format!(
                        "{{{text}}}: {word:?} is none of dsc, dash and secret"
                    ));
                }
            }
            what = rest;
        }
        let mut field = Self {
            source: Source::Node,
            dash,
            open,
            fallback,
            secret: false,
            duration: false,
        };
        field.source = match what {
            "node" => Source::Node,
            "id" => Source::Id,
            "mutation" => Source::Mutation,
            "attempt" => Source::Attempt,
            _ if what.starts_with('/') => {
                let url: StateUrl = what
                    .parse()
                    .map_err(|error| format!("{{{text}}}: {error}"))?;
                if let Some(known) = schema.field(&url) {
                    field.secret = known.secret;
                    field.duration = known.format == Format::Duration;
                }
                if dsc {
                    Source::Dsc(url)
                } else {
                    Source::Cfg(url)
                }
            }
            _ => {
                return Err(format!(
                    "{{{text}}} is no field: use node, id, mutation, attempt or a url that begins with a slash"
                ));
            }
        };
        Ok(field)
    }

    /// The url that it names.
    pub fn url(&self) -> Option<&StateUrl> {
        match &self.source {
            Source::Cfg(url) | Source::Dsc(url) => Some(url),
            _ => None,
        }
    }

    fn value(&self, subject: &Subject<'_>) -> Result<String, FillError> {
        let name = || subject.name.clone();
        let (found, missing) = match &self.source {
            Source::Node => return Ok(subject.name.to_string()),
            Source::Id => return Ok(subject.id.to_string()),
            // Polls cannot name them: the reader refuses that.
            Source::Mutation => {
                return Ok(subject
                    .attempt
                    .map(|(mutation, _)| mutation.to_string())
                    .unwrap_or_default());
            }
            Source::Attempt => {
                return Ok(subject
                    .attempt
                    .map(|(_, attempt)| attempt.to_string())
                    .unwrap_or_default());
            }
            Source::Cfg(url) => (
                subject.cfg.get(url.as_str()),
                FillError::Unset {
                    name: name(),
                    url: url.clone(),
                },
            ),
            Source::Dsc(url) => (
                subject.dsc.get(url.as_str()),
                FillError::Unknown {
                    name: name(),
                    url: url.clone(),
                },
            ),
        };
        match (found, &self.fallback) {
            (Some(value), _) => Ok(self.written(value)),
            (None, Some(fallback)) => Ok(fallback.clone()),
            (None, None) => Err(missing),
        }
    }

    fn written(&self, value: &Value) -> String {
        match value {
            Value::Int(nanos) if self.duration => {
                const SECOND: i64 = 1_000_000_000;
                let text = format!("{}.{:09}", nanos / SECOND, (nanos % SECOND).abs());
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            _ => value.to_string(),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Node => f.write_str("{node}"),
            Source::Id => f.write_str("{id}"),
            Source::Mutation => f.write_str("{mutation}"),
            Source::Attempt => f.write_str("{attempt}"),
            Source::Cfg(url) => write!(f, "{{{url}}}"),
            Source::Dsc(url) => write!(f, "{{dsc:{url}}}"),
        }
    }
}

impl fmt::Display for Template {
    /// As it is written, without options of fields.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Field(field) => field.fmt(f),
        })
    }
}

#[cfg(test)]
mod tests;
