//! Extension schemas: which values a node can have, of which type, and who may write them (DESIGN 2).
//!
//! A schema is made from protobuf descriptors (feature `schema`, `extension/descriptor.rs`), so a new extension needs no generated code. Urls that no
//! schema describes are refused by the head, and kept as they are by an agent, whose schema may be older.

use std::collections::BTreeMap;

use crate::state::{StateUrl, Value};

#[cfg(feature = "schema")]
mod descriptor;
#[cfg(feature = "schema")]
pub use descriptor::DescriptorError;

/// How people write a value, beyond its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// As its type.
    #[default]
    Plain,
    /// IP address.
    Ip,
    /// IP address and prefix length.
    Cidr,
    /// Link-layer address.
    Mac,
    /// Nanoseconds, written `10s`.
    Duration,
    /// Bytes, written `4GiB`.
    Size,
}

/// Type of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// Integers, with the bounds of the wire type (an unsigned 64-bit value stops at 2^63-1).
    Int {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// `float`, `double`.
    Float,
    /// `string`.
    Text,
    /// `bytes`.
    Bytes,
    /// Names in the order of their numbers; the first is the zero, which is never stored.
    Enum(Vec<String>),
}

/// One field of an extension.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Type of the value, or of the items when `repeated`.
    pub kind: Kind,
    /// The value is a list.
    pub repeated: bool,
    /// How people write it.
    pub format: Format,
    /// Never shown in clear.
    pub secret: bool,
    /// Modules may report it.
    pub discoverable: bool,
    /// Unit behind a number; may be empty.
    pub unit: String,
    /// What the schema says about it, for help texts.
    pub doc: String,
}

/// All fields of all extensions. Parts of a url that are keys of a map are `*` in the pattern.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Schema {
    fields: BTreeMap<String, Field>,
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
    #[error("{url} cannot be {value:?}: {expected}")]
    BadValue {
        /// The url.
        url: StateUrl,
        /// What was given, cut to a length fit for a message.
        value: String,
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
        self.fields.insert(pattern, field);
        true
    }

    /// The field of `url`.
    pub fn field(&self, url: &StateUrl) -> Option<&Field> {
        if let Some(field) = self.fields.get(url.as_str()) {
            return Some(field);
        }
        self.fields
            .iter()
            .find(|(pattern, _)| pattern.contains('*') && matches(pattern, url))
            .map(|(_, field)| field)
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
            (true, Value::List(items)) => Value::List(
                items
                    .into_iter()
                    .map(|item| field.check_item(url, item))
                    .collect::<Result<_, _>>()?,
            ),
            (true, item) => Value::List(vec![field.check_item(url, item)?]),
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

    fn known(&self, url: &StateUrl) -> Result<&Field, SchemaError> {
        self.field(url).ok_or_else(|| SchemaError::UnknownUrl {
            url: url.clone(),
            nearest: nearest(url.as_str(), self.fields.keys().map(String::as_str)),
        })
    }
}

impl Field {
    fn check_item(&self, url: &StateUrl, value: Value) -> Result<Value, SchemaError> {
        let fits = match (&self.kind, &value) {
            (Kind::Bool, Value::Bool(_))
            | (Kind::Float, Value::Float(_))
            | (Kind::Bytes, Value::Bytes(_)) => true,
            (Kind::Int { min, max }, Value::Int(n)) => (min..=max).contains(&n),
            (Kind::Text, Value::Text(text)) => return self.check_format(url, text),
            (Kind::Enum(names), Value::Text(text)) => names.iter().any(|name| **name == **text),
            _ => false,
        };
        if fits {
            Ok(value)
        } else {
            Err(self.bad(url, &value.to_string()))
        }
    }

    fn check_format(&self, url: &StateUrl, text: &str) -> Result<Value, SchemaError> {
        if text.is_empty() {
            return Ok(Value::text(""));
        }
        let canonical = match self.format {
            Format::Ip => text
                .parse::<std::net::IpAddr>()
                .ok()
                .map(|ip| ip.to_string()),
            Format::Cidr => parse_cidr(text),
            Format::Mac => parse_mac(text),
            Format::Plain | Format::Duration | Format::Size => {
                (text.len() <= crate::state::MAX_VALUE_BYTES).then(|| text.to_owned())
            }
        };
        canonical
            .map(Value::text)
            .ok_or_else(|| self.bad(url, text))
    }

    fn parse_item(&self, url: &StateUrl, text: &str) -> Result<Value, SchemaError> {
        let value = match &self.kind {
            Kind::Bool => match text {
                "true" | "yes" | "1" => Some(Value::Bool(true)),
                "false" | "no" | "0" | "" => Some(Value::Bool(false)),
                _ => None,
            },
            Kind::Int { .. } => match self.format {
                Format::Duration => {
                    parse_duration(text).and_then(|d| i64::try_from(d.as_nanos()).ok())
                }
                Format::Size => parse_size(text),
                _ => text.parse().ok(),
            }
            .map(Value::Int),
            Kind::Float => text
                .parse()
                .ok()
                .map(|x| Value::Float(crate::state::Float(x))),
            Kind::Text | Kind::Enum(_) => Some(Value::text(text)),
            Kind::Bytes => parse_hex(text).map(|bytes| Value::Bytes(bytes.into())),
        };
        value.ok_or_else(|| self.bad(url, text))
    }

    fn bad(&self, url: &StateUrl, value: &str) -> SchemaError {
        let expected = match (&self.kind, self.format) {
            (_, Format::Ip) => "an IP address is wanted, such as 10.0.0.1".into(),
            (_, Format::Cidr) => {
                "an IP address with prefix length is wanted, such as 10.0.0.1/24".into()
            }
            (_, Format::Mac) => "a link-layer address is wanted, such as 52:54:00:12:34:56".into(),
            (_, Format::Duration) => "a duration is wanted, such as 10s or 1m30s".into(),
            (_, Format::Size) => "a size is wanted, such as 512MiB".into(),
            (Kind::Bool, _) => "true or false is wanted".into(),
            (Kind::Int { min, max }, _) => format!("a whole number from {min} to {max} is wanted"),
            (Kind::Float, _) => "a number is wanted".into(),
            (Kind::Text, _) => format!(
                "a text of at most {} bytes is wanted",
                crate::state::MAX_VALUE_BYTES
            ),
            (Kind::Bytes, _) => "hexadecimal digits are wanted".into(),
            (Kind::Enum(names), _) => format!("one of {} is wanted", names.join(", ")),
        };
        SchemaError::BadValue {
            url: url.clone(),
            value: value.chars().take(64).collect(),
            expected,
        }
    }
}

fn matches(pattern: &str, url: &StateUrl) -> bool {
    let mut parts = url.parts();
    let fits = pattern[1..]
        .split('/')
        .all(|want| parts.next().is_some_and(|part| want == "*" || want == part));
    fits && parts.next().is_none()
}

/// Reads `1m30s`, `250ms`, `2h`; a bare number is refused.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = std::time::Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let nanos: u64 = match &rest[..unit_end] {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        rest = &rest[unit_end..];
        total = total.checked_add(std::time::Duration::from_nanos(number.checked_mul(nanos)?))?;
    }
    Some(total)
}

fn parse_size(text: &str) -> Option<i64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: i64 = text[..digits].parse().ok()?;
    let shift = match &text[digits..] {
        "" | "B" => 0,
        "KiB" | "K" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        "TiB" | "T" => 40,
        _ => return None,
    };
    number.checked_mul(1_i64 << shift)
}

fn parse_cidr(text: &str) -> Option<String> {
    let (ip, prefix) = text.split_once('/')?;
    let ip: std::net::IpAddr = ip.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then(|| format!("{ip}/{prefix}"))
}

fn parse_mac(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let fits = parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    fits.then(|| parts.join(":").to_ascii_lowercase())
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// The candidate with the fewest edits from `word`, if it is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (edits(word, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= 1 + word.len() / 4)
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
