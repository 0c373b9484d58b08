//! Values that differ by node: `52:54:00:4b:00:{i:02x}`, `10.77.{i1}.{i2+10}/16`, `https://bmc-{name}/redfish/v1/Systems/1`.
//!
//! ```text
//! {i}         the last number in the node's name: 12 for r3n12
//! {i1} {i2}   its numbers from left to right: 3 and 12
//! {n}         position in the list of nodes, from 0
//! {name}      the name itself
//! {i+10} {i*2-1} {i/4} {i%4}    arithmetic, from left to right
//! {i:02} {i:02x} {i:X}          zero padding, hexadecimal
//! {{ }}       braces
//! ```
//!
//! A text without braces is itself.

/// A text with places that a node fills.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Name,
    Number {
        source: Source,
        steps: Vec<(Operator, i64)>,
        format: NumberFormat,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Last,
    /// From 1.
    Nth(usize),
    Position,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct NumberFormat {
    width: usize,
    radix: Radix,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Radix {
    #[default]
    Decimal,
    Hex,
    UpperHex,
}

/// Widest zero padding; a name or value that needs more is a slip.
const MAX_WIDTH: usize = 32;

/// Why a template cannot be read or filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// A brace without its partner.
    #[error("{0:?}: a brace has no partner; write {{{{ or }}}} for the brace itself")]
    Brace(String),
    /// What stands between braces makes no sense.
    #[error(
        "{{{0}}} is not understood: use name, n, i, i1, i2, ... with + - * / % and a format such as :02x"
    )]
    Place(String),
    /// The name has too few numbers.
    #[error("{name} has no number for {{{place}}}")]
    NoNumber {
        /// The node.
        name: String,
        /// The place.
        place: String,
    },
    /// Division by zero, overflow, or a negative result.
    #[error("{name}: the number for {text:?} is out of bounds")]
    Bounds {
        /// The node.
        name: String,
        /// The template's place.
        text: String,
    },
}

/// What fills a template.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filler<'a> {
    /// The node's name.
    pub(crate) name: &'a str,
    /// Its position in the list, from 0.
    pub(crate) position: usize,
}

impl Template {
    /// A text without places, whatever it holds.
    pub(crate) fn literal(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// # Errors
    /// See [`TemplateError`].
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let (place, tail) = match brace {
                "{" => after.split_once('}'),
                _ => None,
            }
            .ok_or_else(|| TemplateError::Brace(text.to_owned()))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(parse_place(place).ok_or_else(|| TemplateError::Place(place.to_owned()))?);
            rest = tail;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// # Errors
    /// The name lacks a number, or arithmetic leaves its bounds.
    pub(crate) fn fill(&self, filler: Filler<'_>) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name => out.push_str(filler.name),
                Part::Number {
                    source,
                    steps,
                    format,
                } => {
                    let start = source.number(filler)?;
                    let number = steps
                        .iter()
                        .try_fold(start, |n, (operator, operand)| operator.apply(n, *operand))
                        .filter(|n| *n >= 0)
                        .ok_or_else(|| TemplateError::Bounds {
                            name: filler.name.to_owned(),
                            text: source.to_string(),
                        })?;
                    out.push_str(&format.write(number));
                }
            }
        }
        Ok(out)
    }
}

impl Source {
    fn number(self, filler: Filler<'_>) -> Result<i64, TemplateError> {
        let numbers = crate::names::numbers_in(filler.name);
        match self {
            Self::Last => numbers.last().copied(),
            Self::Nth(n) => numbers.get(n - 1).copied(),
            Self::Position => i64::try_from(filler.position).ok(),
        }
        .ok_or_else(|| TemplateError::NoNumber {
            name: filler.name.to_owned(),
            place: self.to_string(),
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Last => f.write_str("i"),
            Self::Nth(n) => write!(f, "i{n}"),
            Self::Position => f.write_str("n"),
        }
    }
}

impl Operator {
    fn apply(self, left: i64, right: i64) -> Option<i64> {
        match self {
            Self::Add => left.checked_add(right),
            Self::Sub => left.checked_sub(right),
            Self::Mul => left.checked_mul(right),
            Self::Div => left.checked_div_euclid(right),
            Self::Rem => left.checked_rem_euclid(right),
        }
    }
}

impl NumberFormat {
    fn parse(text: &str) -> Option<Self> {
        let (digits, radix) = match text.as_bytes().last()? {
            b'x' => (&text[..text.len() - 1], Radix::Hex),
            b'X' => (&text[..text.len() - 1], Radix::UpperHex),
            b'd' => (&text[..text.len() - 1], Radix::Decimal),
            _ => (text, Radix::Decimal),
        };
        let width = match digits {
            "" => 0,
            digits => digits.parse().ok().filter(|width| *width <= MAX_WIDTH)?,
        };
        Some(Self { width, radix })
    }

    fn write(self, n: i64) -> String {
        let width = self.width;
        match self.radix {
            Radix::Decimal => format!("{n:0width$}"),
            Radix::Hex => format!("{n:0width$x}"),
            Radix::UpperHex => format!("{n:0width$X}"),
        }
    }
}

fn parse_place(place: &str) -> Option<Part> {
    let place = place.trim();
    if place == "name" {
        return Some(Part::Name);
    }
    let (expression, format) = match place.split_once(':') {
        Some((expression, format)) => (expression, NumberFormat::parse(format)?),
        None => (place, NumberFormat::default()),
    };
    let end = expression
        .find(['+', '-', '*', '/', '%'])
        .unwrap_or(expression.len());
    let source = match expression[..end].trim() {
        "i" => Source::Last,
        "n" => Source::Position,
        nth => Source::Nth(nth.strip_prefix('i')?.parse().ok().filter(|n| *n > 0)?),
    };
    let mut steps = Vec::new();
    let mut rest = &expression[end..];
    while let Some(operator) = rest.chars().next() {
        let operator = match operator {
            '+' => Operator::Add,
            '-' => Operator::Sub,
            '*' => Operator::Mul,
            '/' => Operator::Div,
            _ => Operator::Rem,
        };
        let operand = &rest[1..];
        let end = operand
            .find(['+', '-', '*', '/', '%'])
            .unwrap_or(operand.len());
        let number = operand[..end].trim();
        let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        steps.push((operator, plain.then(|| number.parse().ok()).flatten()?));
        rest = &operand[end..];
    }
    Some(Part::Number {
        source,
        steps,
        format,
    })
}

#[cfg(test)]
mod tests;
