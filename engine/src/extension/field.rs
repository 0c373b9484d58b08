//! One field of an extension: its type, how people write it, and what fits it.
//!
//! Whatever is refused is named by its url, with an example of what would do; a secret is never repeated.

use super::{REDACTED, SchemaError};
use crate::state::{Float, MAX_LIST_ITEMS, MAX_VALUE_BYTES, StateUrl, Value};

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
    /// What the zero stands for, where it is not "unknown" or "don't care"; may be empty.
    pub zero: String,
    /// A secret that the node's own modules need: it travels in the node's Cfg.
    pub node_reads: bool,
}

/// Whole numbers up to this one are numbers of any kind without loss (IEEE 754 binary64).
const MAX_WHOLE: u64 = 1 << 53;

impl Field {
    /// A field of this kind, without options.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            repeated: false,
            format: Format::Plain,
            secret: false,
            discoverable: false,
            unit: String::new(),
            doc: String::new(),
            zero: String::new(),
            node_reads: false,
        }
    }

    /// What fits, in words, with an example.
    pub fn expected(&self) -> String {
        match (&self.kind, self.format) {
            (_, Format::Ip) => "an IP address is wanted, such as 10.0.0.1".into(),
            (_, Format::Cidr) => {
                "an IP address with prefix length is wanted, such as 10.0.0.1/24".into()
            }
            (_, Format::Mac) => "a link-layer address is wanted, such as 52:54:00:12:34:56".into(),
            (_, Format::Duration) => "a duration is wanted, such as 10s or 1m30s".into(),
            (_, Format::Size) => "a size is wanted, such as 512MiB".into(),
            (Kind::Bool, _) => "true or false is wanted".into(),
            (Kind::Int { min, max }, _) => format!(
                "a whole number from {min} to {max}{} is wanted, such as {}",
                self.of_unit(),
                42.clamp(*min, *max)
            ),
            (Kind::Float, _) => format!("a number{} is wanted, such as 1.5", self.of_unit()),
            (Kind::Text, _) => format!("a text of at most {MAX_VALUE_BYTES} bytes is wanted"),
            (Kind::Bytes, _) => format!(
                "an even count of hexadecimal digits for at most {MAX_VALUE_BYTES} bytes is wanted, such as 0a1b"
            ),
            (Kind::Enum(names), _) => format!("one of {} is wanted", names.join(", ")),
        }
    }

    fn of_unit(&self) -> String {
        match self.unit.as_str() {
            "" => String::new(),
            unit => format!(" (in {unit})"),
        }
    }

    pub(super) fn check_items(
        &self,
        url: &StateUrl,
        items: Vec<Value>,
    ) -> Result<Value, SchemaError> {
        if items.len() > MAX_LIST_ITEMS {
            return Err(SchemaError::BadValue {
                url: url.clone(),
                value: Some(format!("a list of {} items", items.len())),
                expected: format!("at most {MAX_LIST_ITEMS} items are wanted"),
            });
        }
        let items = items.into_iter().map(|item| self.check_item(url, item));
        Ok(Value::List(items.collect::<Result<_, _>>()?))
    }

    pub(super) fn check_item(&self, url: &StateUrl, value: Value) -> Result<Value, SchemaError> {
        let fits = match (&self.kind, &value) {
            (Kind::Bool, Value::Bool(_)) => true,
            (Kind::Float, Value::Float(x)) => x.0.is_finite(),
            (Kind::Bytes, Value::Bytes(bytes)) => bytes.len() <= MAX_VALUE_BYTES,
            // A program that has a whole number where a number is wanted means it.
            (Kind::Float, Value::Int(n)) if n.unsigned_abs() <= MAX_WHOLE => {
                return Ok(Value::Float(Float(*n as f64)));
            }
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
            Format::Mac => {
                let mac = parse_mac(text);
                // What is reported is what there is; what is wanted has to be possible.
                if !self.discoverable && mac.as_deref().is_some_and(|mac| !is_of_one_card(mac)) {
                    return Err(self.not(
                        url,
                        text,
                        "the address of one card is wanted: neither all zeros nor multicast, as ff:ff:ff:ff:ff:ff and all with an odd first byte are".into(),
                    ));
                }
                mac
            }
            Format::Plain | Format::Duration | Format::Size => {
                (text.len() <= MAX_VALUE_BYTES).then(|| text.to_owned())
            }
        };
        canonical
            .map(Value::text)
            .ok_or_else(|| self.bad(url, text))
    }

    pub(super) fn parse_item(&self, url: &StateUrl, text: &str) -> Result<Value, SchemaError> {
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
            Kind::Float => text.parse().ok().map(|x| Value::Float(Float(x))),
            Kind::Text | Kind::Enum(_) => Some(Value::text(text)),
            Kind::Bytes => parse_hex(text).map(|bytes| Value::Bytes(bytes.into())),
        };
        value.ok_or_else(|| self.bad(url, text))
    }

    fn bad(&self, url: &StateUrl, value: &str) -> SchemaError {
        self.not(url, value, self.expected())
    }

    fn not(&self, url: &StateUrl, value: &str, expected: String) -> SchemaError {
        let shown = value.chars().take(64).collect();
        SchemaError::BadValue {
            url: url.clone(),
            // Somebody may write the mark of a secret where none is kept; that much can be said.
            value: (!self.secret || value == REDACTED).then_some(shown),
            expected,
        }
    }
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

/// Whether a canonical link-layer address can be that of a card (IEEE 802: the least bit of the first byte is that of groups).
fn is_of_one_card(mac: &str) -> bool {
    let is_group = u8::from_str_radix(&mac[..2], 16).is_ok_and(|first| first & 1 == 1);
    !is_group && mac != "00:00:00:00:00:00"
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
