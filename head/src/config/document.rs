//! A TOML file as a flat list of keys with their lines, overridden by the environment.
//!
//! Readers ask for keys by dotted path (`boot.http_port`); a key that nobody asked for is a mistake in the file and is reported with the
//! nearest spelling of those that were. `KRAKEN_BOOT_HTTP_PORT` overrides `boot.http_port`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use engine::extension::nearest;
use engine::state::Float;
use toml::de::{DeTable, DeValue};

/// Largest configuration file; ours have 2 KiB.
pub(crate) const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Most tables inside tables; ours have three.
const MAX_DEPTH: usize = 8;

/// A value as it stands in the file or in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// Text, or anything that came from the environment.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number with a point.
    Float(Float),
    /// `true` or `false`.
    Bool(bool),
    /// Several texts.
    List(Vec<String>),
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line of the file.
    Line(usize),
    /// A variable of the environment.
    Env(String),
    /// Nobody said anything.
    Default,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where, as `file:line` or a variable's name.
    pub(crate) place: String,
    /// What, and what to write instead.
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// A key that was read, as `config show` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Dotted path.
    pub(crate) key: String,
    /// Its value as TOML.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) origin: Origin,
}

struct Entry {
    raw: Raw,
    line: usize,
    read: bool,
}

/// The file, the environment, and what is wrong with them so far.
pub(crate) struct Document<'a> {
    file: PathBuf,
    env: &'a dyn Fn(&str) -> Option<String>,
    entries: BTreeMap<String, Entry>,
    known: Vec<String>,
    problems: Vec<Problem>,
    shown: Vec<Shown>,
}

impl<'a> Document<'a> {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// The text is not TOML, or holds values of a kind that no key of ours has.
    pub(crate) fn parse(
        file: &Path,
        text: &str,
        env: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Problem>> {
        let line_of = |at: usize| {
            1 + text.as_bytes()[..at.min(text.len())]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
        };
        let mut document = Self {
            file: file.to_path_buf(),
            env,
            entries: BTreeMap::new(),
            known: Vec::new(),
            problems: Vec::new(),
            shown: Vec::new(),
        };
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            vec![document.problem_at(line, error.message().to_owned())]
        })?;
        document.flatten("", table.get_ref(), &line_of, 0);
        if document.problems.is_empty() {
            Ok(document)
        } else {
            Err(document.problems)
        }
    }

    fn flatten(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        line_of: &dyn Fn(usize) -> usize,
        depth: usize,
    ) {
        for (key, value) in table.iter() {
            let line = line_of(key.span().start);
            let path = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            let raw = match value.get_ref() {
                DeValue::Table(inner) if depth < MAX_DEPTH => {
                    self.flatten(&path, inner, line_of, depth + 1);
                    continue;
                }
                DeValue::String(text) => Some(Raw::Text(text.to_string())),
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                    .ok()
                    .map(Raw::Int),
                DeValue::Float(number) => (number.as_str().replace('_', "").parse().ok())
                    .filter(|number: &f64| number.is_finite())
                    .map(|number| Raw::Float(Float(number))),
                DeValue::Boolean(flag) => Some(Raw::Bool(*flag)),
                DeValue::Array(items) => items
                    .iter()
                    .map(|item| item.get_ref().as_str().map(str::to_owned))
                    .collect::<Option<Vec<_>>>()
                    .map(Raw::List),
                _ => None,
            };
            match raw {
                Some(raw) => {
                    self.entries.insert(
                        path,
                        Entry {
                            raw,
                            line,
                            read: false,
                        },
                    );
                }
                None => {
                    let text = format!(
                        "{path} must be a text, a whole number, true or false, or a list of texts"
                    );
                    self.problems.push(self.problem_at(line, text));
                }
            }
        }
    }

    fn problem_at(&self, line: usize, text: String) -> Problem {
        Problem {
            place: format!("{}:{line}", self.file.display()),
            text,
        }
    }

    /// Reads a key through `read`, which says what it wants when a value does not fit.
    pub(crate) fn get<T>(
        &mut self,
        key: &str,
        read: impl Fn(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(key.to_owned());
        let (raw, origin) = self.raw(key)?;
        match read(&raw) {
            Ok(value) => {
                self.shown.push(Shown {
                    key: key.to_owned(),
                    value: raw.to_string(),
                    origin,
                });
                Some(value)
            }
            Err(wanted) => {
                let text = format!("{key} cannot be {raw}: {wanted}");
                let problem = match origin {
                    Origin::Line(line) => self.problem_at(line, text),
                    Origin::Env(name) => Problem { place: name, text },
                    Origin::Default => self.problem_at(1, text),
                };
                self.problems.push(problem);
                None
            }
        }
    }

    /// As [`get`](Self::get), with what holds when nobody says anything.
    pub(crate) fn get_or<T>(
        &mut self,
        key: &str,
        default: T,
        shown: impl fmt::Display,
        read: impl Fn(&Raw) -> Result<T, String>,
    ) -> T {
        let problems = self.problems.len();
        if let Some(value) = self.get(key, read) {
            return value;
        }
        if self.problems.len() == problems {
            self.shown.push(Shown {
                key: key.to_owned(),
                value: shown.to_string(),
                origin: Origin::Default,
            });
        }
        default
    }

    /// The names below `key`, for tables whose keys are free.
    pub(crate) fn names_below(&self, key: &str) -> Vec<String> {
        let prefix = format!("{key}.");
        self.entries
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    }

    /// Says that a key is missing.
    pub(crate) fn missing(&mut self, key: &str, why: &str) {
        let text = format!("{key} is missing: {why}");
        self.problems.push(Problem {
            place: self.file.display().to_string(),
            text,
        });
    }

    /// Says that a value that was read does not do.
    pub(crate) fn refuse(&mut self, key: &str, why: &str) {
        let line = self.entries.get(key).map_or(1, |entry| entry.line);
        let problem = self.problem_at(line, format!("{key}: {why}"));
        self.problems.push(problem);
    }

    /// What was read, and all problems, unknown keys among them.
    pub(crate) fn finish(mut self) -> (Vec<Shown>, Vec<Problem>) {
        let unknown: Vec<Problem> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.read)
            .map(|(key, entry)| {
                let hint = nearest(key, self.known.iter().map(String::as_str))
                    .map(|known| format!("; did you mean {known}?"))
                    .unwrap_or_default();
                self.problem_at(entry.line, format!("there is no key {key}{hint}"))
            })
            .collect();
        self.problems.extend(unknown);
        (self.shown, self.problems)
    }

    fn raw(&mut self, key: &str) -> Option<(Raw, Origin)> {
        let entry = self.entries.get_mut(key).map(|entry| {
            entry.read = true;
            (entry.raw.clone(), Origin::Line(entry.line))
        });
        let name = format!(
            "KRAKEN_{}",
            key.replace(['.', '-'], "_").to_ascii_uppercase()
        );
        match (self.env)(&name) {
            Some(text) => Some((Raw::Text(text), Origin::Env(name))),
            None => entry,
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => write!(f, "{:?}", number.0),
            Self::Bool(flag) => flag.fmt(f),
            Self::List(items) => write!(f, "{items:?}"),
        }
    }
}

impl Raw {
    /// The text.
    pub(crate) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) if !text.is_empty() => Ok(text),
            _ => Err("a text is wanted".into()),
        }
    }

    /// The whole number, within bounds.
    pub(crate) fn int(&self, min: i64, max: i64) -> Result<i64, String> {
        let number = match self {
            Self::Int(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| format!("a whole number from {min} to {max} is wanted"))
    }

    /// The switch; from the environment as a word.
    pub(crate) fn bool(&self) -> Result<bool, String> {
        match self {
            Self::Bool(flag) => Ok(*flag),
            Self::Text(text) if text == "true" => Ok(true),
            Self::Text(text) if text == "false" => Ok(false),
            _ => Err("true or false is wanted".into()),
        }
    }

    /// The texts; from the environment, separated by commas.
    pub(crate) fn list(&self) -> Result<Vec<String>, String> {
        match self {
            Self::List(items) => Ok(items.clone()),
            Self::Text(text) => Ok(text
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|i| !i.is_empty())
                .collect()),
            _ => Err("a list of texts is wanted".into()),
        }
    }

    /// The duration, within bounds.
    pub(crate) fn duration(
        &self,
        min: std::time::Duration,
        max: std::time::Duration,
    ) -> Result<std::time::Duration, String> {
        let Self::Text(text) = self else {
            return Err("a duration is wanted, such as \"10s\"".into());
        };
        engine::extension::parse_duration(text)
            .filter(|duration| (min..=max).contains(duration))
            .ok_or_else(|| format!("a duration from {min:?} to {max:?} is wanted, such as \"10s\""))
    }
}
