//! What a mutation demands of one url: one of some values, or a number within bounds (DESIGN 3).

use std::fmt;

use crate::state::{Number, StateUrl, Value};

/// A condition on one url.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Condition {
    /// Which url.
    pub url: StateUrl,
    /// The values at which it holds.
    pub allows: Allowed,
}

/// The values at which a condition holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Allowed {
    /// Any of these, `None` being unknown. Never empty.
    AnyOf(Vec<Option<Value>>),
    /// Every number within these bounds. Never holds for unknown, and so not for 0 either, which is stored as unknown.
    Number(NumberRange),
}

/// Numbers that a comparison accepts, bounds included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NumberRange {
    /// This or more.
    AtLeast(Number),
    /// This or less.
    AtMost(Number),
    /// From the first to the second.
    Between(Number, Number),
}

impl Condition {
    /// `url` has exactly this value.
    pub fn is(url: StateUrl, value: impl Into<Value>) -> Self {
        Self::any_of(url, vec![Some(value.into())])
    }

    /// `url` has any of these values; `None` among them is unknown.
    pub fn any_of(url: StateUrl, values: Vec<Option<Value>>) -> Self {
        Self {
            url,
            allows: Allowed::AnyOf(values),
        }
    }

    /// `url` is a number within these bounds.
    pub fn number(url: StateUrl, range: NumberRange) -> Self {
        Self {
            url,
            allows: Allowed::Number(range),
        }
    }

    /// Whether it holds for this value.
    pub fn holds(&self, value: Option<&Value>) -> bool {
        match &self.allows {
            Allowed::AnyOf(values) => values.iter().any(|allowed| allowed.as_ref() == value),
            Allowed::Number(range) => value.and_then(Number::of).is_some_and(|n| range.has(n)),
        }
    }

    /// The listed values; none for a comparison.
    pub fn values(&self) -> &[Option<Value>] {
        match &self.allows {
            Allowed::AnyOf(values) => values,
            Allowed::Number(_) => &[],
        }
    }

    /// The bounds, if it is a comparison.
    pub fn range(&self) -> Option<NumberRange> {
        match &self.allows {
            Allowed::AnyOf(_) => None,
            Allowed::Number(range) => Some(*range),
        }
    }

    /// Whether no value at all fulfills it.
    pub fn is_void(&self) -> bool {
        match &self.allows {
            Allowed::AnyOf(values) => values.is_empty(),
            Allowed::Number(NumberRange::Between(least, most)) => least > most,
            Allowed::Number(_) => false,
        }
    }

    /// In the one form that makes equal conditions equal.
    pub(super) fn tidy(&mut self) {
        if let Allowed::AnyOf(values) = &mut self.allows {
            values.sort();
            values.dedup();
        }
    }
}

impl NumberRange {
    /// Whether `number` is within the bounds.
    pub fn has(&self, number: Number) -> bool {
        self.least().is_none_or(|least| least <= number)
            && self.most().is_none_or(|most| number <= most)
    }

    /// The lower bound.
    pub fn least(&self) -> Option<Number> {
        match self {
            Self::AtLeast(least) | Self::Between(least, _) => Some(*least),
            Self::AtMost(_) => None,
        }
    }

    /// The upper bound.
    pub fn most(&self) -> Option<Number> {
        match self {
            Self::AtMost(most) | Self::Between(_, most) => Some(*most),
            Self::AtLeast(_) => None,
        }
    }
}

/// `at least 3`.
impl fmt::Display for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::Between(least, most) => write!(f, "{least} to {most}"),
        }
    }
}

/// `/power/driver=REDFISH or COMMAND`, `/host/cpus of at least 8`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.url;
        let values = match &self.allows {
            Allowed::Number(range) => return write!(f, "{url} of {range}"),
            Allowed::AnyOf(values) => values,
        };
        if let [None] = values[..] {
            return write!(f, "{url} unknown");
        }
        write!(f, "{url}=")?;
        for (at, value) in values.iter().enumerate() {
            match at {
                0 => {}
                _ if at + 1 == values.len() => f.write_str(" or ")?,
                _ => f.write_str(", ")?,
            }
            match value {
                Some(value) => value.fmt(f)?,
                None => f.write_str("unknown")?,
            }
        }
        Ok(())
    }
}
