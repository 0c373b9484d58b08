//! Numbers as conditions compare them: integers and floats on one line (DESIGN 3).
//!
//! What is written as a duration or a size is an integer too, in nanoseconds or bytes; enums are texts and have no order.

use std::cmp::Ordering;
use std::fmt;

use super::{Float, Value};

/// A number, compared by what it is worth: 3 equals 3.0. Never NaN.
#[derive(Clone, Copy)]
pub struct Number(Kind);

#[derive(Clone, Copy)]
enum Kind {
    Int(i64),
    Float(f64),
}

impl Number {
    /// The number that `value` is; `None` for anything else, NaN included.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(n) => Some(Self(Kind::Int(*n))),
            Value::Float(Float(x)) if !x.is_nan() => Some(Self(Kind::Float(*x))),
            _ => None,
        }
    }

    /// As a value.
    pub fn to_value(self) -> Value {
        match self.0 {
            Kind::Int(n) => Value::Int(n),
            Kind::Float(x) => Value::Float(Float(x)),
        }
    }
}

impl From<i64> for Number {
    fn from(n: i64) -> Self {
        Self(Kind::Int(n))
    }
}

/// Exact, also where an integer has no float of its own.
fn compare(n: i64, x: f64) -> Ordering {
    /// 2^63, one more than the greatest integer.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if x >= END {
        return Ordering::Less;
    }
    if x < -END {
        return Ordering::Greater;
    }
    let whole = x.trunc();
    // In range, so the cast is exact. Adding zero makes one zero of both.
    n.cmp(&(whole as i64))
        .then((whole + 0.0).total_cmp(&(x + 0.0)))
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (Kind::Int(a), Kind::Int(b)) => a.cmp(&b),
            (Kind::Int(a), Kind::Float(b)) => compare(a, b),
            (Kind::Float(a), Kind::Int(b)) => compare(b, a).reverse(),
            // Adding zero makes one zero of both.
            (Kind::Float(a), Kind::Float(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
