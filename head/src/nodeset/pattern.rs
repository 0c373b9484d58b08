//! Names with ranges: `n[001-128]r[1-4]`, written out and folded again.

use std::collections::{BTreeMap, BTreeSet};

/// Most pairs of brackets in one name.
const MAX_DIMENSIONS: usize = 4;

/// Longest number in a range; keeps arithmetic far from overflow.
const MAX_DIGITS: usize = 12;

/// Numbers from `first` to `last` by `step`, written with at least `width` digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    step: u64,
    width: usize,
}

impl Range {
    fn len(self) -> u64 {
        (self.last - self.first) / self.step + 1
    }

    fn numbers(self) -> impl Iterator<Item = String> {
        (0..self.len())
            .map(move |i| format!("{:0width$}", self.first + i * self.step, width = self.width))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (bounds, step) = match text.split_once('/') {
            Some((bounds, step)) => (bounds, number(step)?),
            None => (text, 1),
        };
        let (first, last) = bounds.split_once('-').unwrap_or((bounds, bounds));
        let width = if first.len() > 1 && first.starts_with('0') {
            first.len()
        } else {
            0
        };
        let (from, to) = (number(first)?, number(last)?);
        if to < from {
            return Err(format!("the range {bounds} runs backwards"));
        }
        if step == 0 {
            return Err(format!("the range {text} has step 0"));
        }
        if width > 0 && last.starts_with('0') && last.len() > 1 && last.len() != width {
            return Err(format!("the ends of {bounds} have different lengths"));
        }
        Ok(Self {
            first: from,
            last: to,
            step,
            width,
        })
    }
}

fn number(text: &str) -> Result<u64, String> {
    let fits = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten().ok_or_else(|| {
        format!(
            "{:?} is not a number of at most {MAX_DIGITS} digits",
            text.chars().take(20).collect::<String>()
        )
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Ranges(Vec<Range>),
}

/// Fixed texts and ranges in turn; stands for the product of all ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

impl Pattern {
    /// Reads a name; nothing is written out yet.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut dimensions = 0;
        while !rest.is_empty() {
            let Some(open) = rest.find('[') else {
                parts.push(Part::Text(plain(rest)?));
                break;
            };
            if open > 0 {
                parts.push(Part::Text(plain(&rest[..open])?));
            }
            let close = rest
                .find(']')
                .filter(|close| *close > open)
                .ok_or("'[' is never closed")?;
            dimensions += 1;
            if dimensions > MAX_DIMENSIONS {
                return Err(format!(
                    "a name has at most {MAX_DIMENSIONS} pairs of brackets"
                ));
            }
            let ranges = rest[open + 1..close]
                .split(',')
                .map(|range| Range::parse(range.trim()))
                .collect::<Result<Vec<_>, _>>()?;
            parts.push(Part::Ranges(ranges));
            rest = &rest[close + 1..];
        }
        Ok(Self(parts))
    }

    /// Number of names, at most `u64::MAX`.
    pub(super) fn len(&self) -> u64 {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(_) => 1,
                Part::Ranges(ranges) => ranges
                    .iter()
                    .fold(0, |sum: u64, range| sum.saturating_add(range.len())),
            })
            .fold(1, u64::saturating_mul)
    }

    /// All names, in the order of the ranges.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = vec![String::new()];
        for part in &self.0 {
            match part {
                Part::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                Part::Ranges(ranges) => {
                    let numbers: Vec<String> =
                        ranges.iter().flat_map(|range| range.numbers()).collect();
                    names = names
                        .iter()
                        .flat_map(|name| {
                            numbers.iter().map(move |number| format!("{name}{number}"))
                        })
                        .collect();
                }
            }
        }
        names
    }
}

fn plain(text: &str) -> Result<String, String> {
    match text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !".-".contains(*c))
    {
        Some(c) => Err(format!("{c:?} is no part of a name")),
        None => Ok(text.to_owned()),
    }
}

/// Names in their shortest usual form, one part for each prefix and suffix: `n[1-3,7]`, `login`.
///
/// The last number of a name becomes the range. Writing the parts out gives the names again.
pub(crate) fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    // Key: prefix, suffix, width (0: not padded).
    let mut classes: BTreeMap<(&str, &str, usize), BTreeSet<u64>> = BTreeMap::new();
    let mut singles = BTreeSet::new();
    for name in names {
        let end = name
            .rfind(|c: char| c.is_ascii_digit())
            .map_or(0, |at| at + 1);
        let start = name[..end]
            .rfind(|c: char| !c.is_ascii_digit())
            .map_or(0, |at| at + 1);
        let digits = &name[start..end];
        match number(digits) {
            Ok(value) => {
                let width = if digits.len() > 1 && digits.starts_with('0') {
                    digits.len()
                } else {
                    0
                };
                classes
                    .entry((&name[..start], &name[end..], width))
                    .or_default()
                    .insert(value);
            }
            Err(_) => {
                singles.insert(name.to_owned());
            }
        }
    }
    // A number that fills the width of a padded class joins it: n[098-099] and n100 are n[098-100].
    let padded: Vec<(&str, &str, usize)> = classes
        .keys()
        .copied()
        .filter(|(_, _, width)| *width > 0)
        .collect();
    for (prefix, suffix, width) in padded {
        let full = 10_u64.pow(width as u32 - 1)..10_u64.pow(width as u32);
        let Some(plain) = classes.get_mut(&(prefix, suffix, 0)) else {
            continue;
        };
        let moved: Vec<u64> = plain.range(full).copied().collect();
        plain.retain(|value| !moved.contains(value));
        classes
            .entry((prefix, suffix, width))
            .or_default()
            .extend(moved);
    }
    let folded = classes
        .into_iter()
        .filter(|(_, numbers)| !numbers.is_empty())
        .map(|((prefix, suffix, width), numbers)| {
            format!("{prefix}{}{suffix}", fold_numbers(&numbers, width))
        });
    folded.chain(singles).collect()
}

fn fold_numbers(numbers: &BTreeSet<u64>, width: usize) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    if let [(first, last)] = runs[..]
        && first == last
    {
        return format!("{first:0width$}");
    }
    let runs: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| match first == last {
            true => format!("{first:0width$}"),
            false => format!("{first:0width$}-{last:0width$}"),
        })
        .collect();
    format!("[{}]", runs.join(","))
}
