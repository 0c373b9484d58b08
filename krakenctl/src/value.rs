//! Values as people write and read them, and as the API carries them.
//!
//! Typing follows the head's schema, or the built-in one where no head was asked; a url that it does not know is sent as text, so that the head, whose schema may be larger,
//! decides. Secrets are never shown, whatever the head sends.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use engine::extension::{Field, Format, REDACTED, Schema, SchemaError};
use engine::state::{StateUrl, Value};
use engine::wire::convert::value_to_proto;
use proto::v1;
use proto::v1::value::Kind;

use crate::exit::Failure;

/// Values of one node by url, as JSON and YAML show them.
pub(crate) type JsonValues = BTreeMap<String, serde_json::Value>;

/// Splits `URL=VALUE`.
pub(crate) fn split_assignment(text: &str) -> Result<(StateUrl, &str), Failure> {
    let (url, value) = text.split_once('=').ok_or_else(|| {
        Failure::usage(format!("{text:?} is not URL=VALUE"))
            .hint("for example /PhysState=POWER_ON; `node unset` takes urls alone")
    })?;
    Ok((parse_url(url)?, value))
}

/// Reads a url.
pub(crate) fn parse_url(text: &str) -> Result<StateUrl, Failure> {
    text.trim()
        .parse()
        .map_err(|error: engine::state::UrlError| Failure::usage(error.to_string()))
}

/// The change that gives `url` the value written as `text`; an empty text, or the zero of the type, unsets.
pub(crate) fn change(
    schema: &Schema,
    url: &StateUrl,
    text: &str,
) -> Result<v1::ValueChange, Failure> {
    let value = if text.is_empty() {
        None
    } else {
        match schema.parse(url, text) {
            Ok(value) => value,
            Err(SchemaError::UnknownUrl { .. }) => Some(Value::text(text)),
            Err(error @ SchemaError::BadValue { .. }) => return Err(bad_value(schema, url, error)),
        }
    };
    Ok(v1::ValueChange {
        url: url.to_string(),
        value: value.as_ref().map(value_to_proto),
    })
}

/// The error about a value, without the value where it is a secret.
fn bad_value(schema: &Schema, url: &StateUrl, error: SchemaError) -> Failure {
    let secret = schema.field(url).is_some_and(|field| field.secret);
    match error {
        SchemaError::BadValue { expected, .. } if secret => {
            Failure::usage(format!("{url}: {expected}"))
        }
        error => Failure::usage(error.to_string()),
    }
}

/// A value for JSON and YAML: bytes as hexadecimal digits.
fn to_json(value: &v1::Value) -> serde_json::Value {
    match &value.kind {
        None => serde_json::Value::Null,
        Some(Kind::BoolValue(b)) => (*b).into(),
        Some(Kind::IntValue(n)) => (*n).into(),
        Some(Kind::FloatValue(x)) => (*x).into(),
        Some(Kind::TextValue(text)) => text.as_str().into(),
        Some(Kind::BytesValue(bytes)) => hex(bytes).into(),
        Some(Kind::ListValue(list)) => list.items.iter().map(to_json).collect(),
    }
}

/// How values are shown: with their formats and without secrets.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    built_in: Schema,
    /// That of the head, once it was asked.
    of_head: OnceLock<Schema>,
}

impl Shown {
    pub(crate) fn new(built_in: Schema) -> Self {
        Self {
            built_in,
            of_head: OnceLock::new(),
        }
    }

    /// Takes the schema of the head that this run speaks with.
    pub(crate) fn learn(&self, schema: Schema) {
        // One run speaks with one head; its first answer stands.
        let _ = self.of_head.set(schema);
    }

    /// The schema itself.
    pub(crate) fn schema(&self) -> &Schema {
        self.of_head.get().unwrap_or(&self.built_in)
    }

    /// True when modules may report this url.
    pub(crate) fn is_discoverable(&self, url: &str) -> bool {
        self.field(url).is_some_and(|field| field.discoverable)
    }

    fn field(&self, url: &str) -> Option<&Field> {
        self.schema().field(&url.parse().ok()?)
    }

    /// For people: `4 GiB`, `1m30s`; empty when there is no value.
    pub(crate) fn text(&self, url: &str, value: Option<&v1::Value>) -> String {
        let Some(value) = value else {
            return String::new();
        };
        let field = self.field(url);
        if field.is_some_and(|field| field.secret) {
            return REDACTED.to_owned();
        }
        let format = field.map_or(Format::Plain, |field| field.format);
        let unit = field.map_or("", |field| field.unit.as_str());
        plain(value, format, unit)
    }

    /// For programs: exact.
    pub(crate) fn json(&self, url: &str, value: &v1::Value) -> serde_json::Value {
        if self.field(url).is_some_and(|field| field.secret) {
            return REDACTED.into();
        }
        to_json(value)
    }

    /// All of a node's values, for programs.
    pub(crate) fn json_values(&self, values: &[v1::ValueChange]) -> JsonValues {
        values
            .iter()
            .filter_map(|change| {
                Some((
                    change.url.clone(),
                    self.json(&change.url, change.value.as_ref()?),
                ))
            })
            .collect()
    }
}

fn plain(value: &v1::Value, format: Format, unit: &str) -> String {
    match (&value.kind, format) {
        (None, _) => String::new(),
        (Some(Kind::IntValue(n)), Format::Size) => size(*n),
        (Some(Kind::IntValue(n)), Format::Duration) => match u64::try_from(*n) {
            Ok(nanos) => duration(Duration::from_nanos(nanos)),
            Err(_) => format!("{n}ns"),
        },
        (Some(Kind::IntValue(n)), _) => with_unit(n, unit),
        (Some(Kind::FloatValue(x)), _) => with_unit(x, unit),
        (Some(Kind::BoolValue(b)), _) => b.to_string(),
        (Some(Kind::TextValue(text)), _) => text.clone(),
        (Some(Kind::BytesValue(bytes)), _) => hex(bytes),
        (Some(Kind::ListValue(list)), _) => {
            let items: Vec<String> = list
                .items
                .iter()
                .map(|item| plain(item, format, unit))
                .collect();
            items.join(",")
        }
    }
}

fn with_unit(number: impl std::fmt::Display, unit: &str) -> String {
    if unit.is_empty() {
        number.to_string()
    } else {
        format!("{number} {unit}")
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes in the largest unit that leaves a number of at least 1, with one digit behind the point unless it is whole.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let Ok(bytes) = u64::try_from(bytes) else {
        return format!("{bytes} B");
    };
    let step = (bytes.max(1).ilog2() / 10).min(4);
    let unit = 1_u64 << (10 * step);
    let name = UNITS[step as usize];
    if bytes % unit == 0 {
        format!("{} {name}", bytes / unit)
    } else {
        format!("{:.1} {name}", bytes as f64 / unit as f64)
    }
}

/// `250ms`, `4.2s`, `1m30s`, `3h20m`, `12d4h`: the two largest units.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0s".to_owned(),
        0 if duration.as_millis() == 0 => format!("{}us", duration.as_micros()),
        0 => format!("{}ms", duration.as_millis()),
        1..=9 => {
            let tenths = duration.subsec_millis() / 100;
            if tenths == 0 {
                format!("{seconds}s")
            } else {
                format!("{seconds}.{tenths}s")
            }
        }
        10..=59 => format!("{seconds}s"),
        60..=3_599 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..=86_399 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests;
