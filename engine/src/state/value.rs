//! One typed value.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Longest text or bytes value; larger things are images, not state.
pub const MAX_VALUE_BYTES: usize = 64 << 10;
/// Most items in a list value.
pub const MAX_LIST_ITEMS: usize = 1024;

/// A value of a node. Enum values are texts: their names, so that a peer with an older schema keeps what it does not know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `bool`.
    Bool(bool),
    /// Every integer type.
    Int(i64),
    /// `float` and `double`.
    Float(Float),
    /// `string`, and enums by name.
    Text(Arc<str>),
    /// `bytes`.
    Bytes(Arc<[u8]>),
    /// `repeated` of any of the above.
    List(Vec<Value>),
}

/// A float that has a total order (IEEE 754 totalOrder), so that values can be compared and digested.
#[derive(Clone, Copy, Debug)]
pub struct Float(pub f64);

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Float {}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Float {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Value {
    /// A text value.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// The text, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// True for the zero of its type. Zeros of enums are known to their schema only.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Bool(b) => !b,
            Self::Int(n) => *n == 0,
            Self::Float(f) => f.0 == 0.0,
            Self::Text(t) => t.is_empty(),
            Self::Bytes(b) => b.is_empty(),
            Self::List(items) => items.is_empty(),
        }
    }

    /// Bytes that it takes, more or less.
    pub fn size(&self) -> usize {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Float(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.iter().map(|item| 4 + item.size()).sum(),
        }
    }

    /// Appends the canonical encoding: a tag byte, then a fixed-size or length-prefixed little-endian body.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let prefixed = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Bool(b) => out.extend_from_slice(&[1, u8::from(*b)]),
            Self::Int(n) => {
                out.push(2);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::Float(f) => {
                out.push(3);
                out.extend_from_slice(&f.0.to_bits().to_le_bytes());
            }
            Self::Text(t) => {
                out.push(4);
                prefixed(out, t.as_bytes());
            }
            Self::Bytes(b) => {
                out.push(5);
                prefixed(out, b);
            }
            Self::List(items) => {
                out.push(6);
                out.extend_from_slice(&(items.len() as u32).to_le_bytes());
                for item in items {
                    item.encode(out);
                }
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Int(n) => n.fmt(f),
            Self::Float(x) => x.0.fmt(f),
            Self::Text(t) => f.write_str(t),
            Self::Bytes(b) => b.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    item.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
