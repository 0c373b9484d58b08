//! State files of `plan --offline`: flat YAML maps from StateUrl to value.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use engine::extension::Schema;
use engine::mutation::file::value;
use engine::state::{Float, MAX_VALUES, StateUrl, Value, Values};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_saphyr::Spanned;

use crate::exit::Failure;

/// Largest file: the limit of one node's values.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads a state file; `-` is standard input.
///
/// Values are stored as mutation files store them: zeros, `null` and zero names of enums are absent.
pub(super) fn read(path: &Path, schema: &Schema) -> Result<Values, Failure> {
    let name = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::usage(format!("{name}: cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::usage(format!(
            "{name}: is larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{name}: is not UTF-8 text")))?;
    parse(&name, &text, schema).map_err(Failure::usage)
}

/// The values in a text; problems come with the name and the line.
pub(super) fn parse(name: &str, text: &str, schema: &Schema) -> Result<Values, String> {
    // YAML 1.1 reads `on`, `off`, `yes` and `no` as truth values; as states of a machine they are words.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let entries: Entries = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error
            .location()
            .map(|location| format!(":{}", location.line()))
            .unwrap_or_default();
        format!("{name}{line}: {}", words(&error.to_string()))
    })?;
    let mut values = Values::default();
    let mut seen: Vec<StateUrl> = Vec::new();
    for (key, entry) in entries.0 {
        let at = |text: String| format!("{name}:{}: {text}", key.referenced.line());
        let url: StateUrl = key
            .value
            .parse()
            .map_err(|error: engine::state::UrlError| at(error.to_string()))?;
        if seen.contains(&url) {
            return Err(at(format!("{url} is named twice")));
        }
        if seen.len() >= MAX_VALUES {
            return Err(at(format!("a node has at most {MAX_VALUES} values")));
        }
        if let Some(scalar) = entry.0 {
            let stored = value(schema, &url, scalar).map_err(at)?;
            values.set(url.clone(), stored);
        }
        seen.push(url);
    }
    Ok(values)
}

/// The library's message on one line, without the position that it repeats.
fn words(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    first
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The entries of the map, in the order of the file; an empty file has none.
struct Entries(Vec<(Spanned<String>, Scalar)>);

/// A plain value; `None` for null.
struct Scalar(Option<Value>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a flat map from StateUrl to value, such as `/PhysState: POWER_OFF`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Entries(Vec::new()))
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        self.visit_unit()
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true, false or null")
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Scalar, E> {
        Ok(Scalar(Some(Value::Bool(truth))))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(Some(Value::Int(number))))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        let number = i64::try_from(number)
            .map_err(|_| E::custom(format!("{number} is too large a number")))?;
        self.visit_i64(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar(Some(Value::Float(Float(number)))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(Some(Value::text(text))))
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }

    fn visit_none<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}
