//! Lists of node names, written short: `n[01-16,20]` to names and back.
//!
//! Selecting among existing nodes (`@rack3&run=ERROR`) is the head's: it gets node sets as text. Here names are made, for
//! `node add`, and folded, for people and for sets that were resolved already. Zero padding stays as written; folding goes over
//! the last number of the host part, so that Slurm and ClusterShell read the result.

use std::collections::{BTreeMap, BTreeSet};

/// Most names one command makes; a cluster has at most some 10,000.
pub(crate) const MAX_NAMES: usize = 1 << 16;

/// Why a text is no list of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NamesError {
    /// Nothing there.
    #[error("the list of nodes is empty")]
    Empty,
    /// A bracket without its partner, or within another.
    #[error("{0:?}: brackets do not match")]
    Bracket(String),
    /// What stands between brackets is no list of numbers.
    #[error("{0:?} is not a range: write 1-4, 01-16, 0-10/2 or 1,3,7")]
    Range(String),
    /// More names than anyone means.
    #[error("this makes more than {MAX_NAMES} names")]
    TooMany,
    /// An operator or selector, where names have to be made.
    #[error("{0:?} selects among existing nodes; names to make are written as n1,n2 or n[1-4]")]
    Selector(String),
}

/// The names that `text` lists, in the order written, each once.
///
/// # Errors
/// Not a list of names, or too many.
pub(crate) fn expand(text: &str) -> Result<Vec<String>, NamesError> {
    let mut names = Vec::new();
    for item in split_list(text)? {
        if item.contains(['@', '!', '&', '^', '=', '*', '~']) {
            return Err(NamesError::Selector(item.to_owned()));
        }
        expand_item(item, &mut names)?;
    }
    if names.is_empty() {
        return Err(NamesError::Empty);
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

/// Splits at commas and spaces outside of brackets.
fn split_list(text: &str) -> Result<Vec<&str>, NamesError> {
    let mut items = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' if inside => return Err(NamesError::Bracket(text.to_owned())),
            '[' => inside = true,
            ']' if !inside => return Err(NamesError::Bracket(text.to_owned())),
            ']' => inside = false,
            c if !inside && (c == ',' || c.is_whitespace()) => {
                items.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if inside {
        return Err(NamesError::Bracket(text.to_owned()));
    }
    items.push(&text[start..]);
    items.retain(|item| !item.is_empty());
    Ok(items)
}

fn expand_item(item: &str, out: &mut Vec<String>) -> Result<(), NamesError> {
    let mut made = vec![String::new()];
    let mut rest = item;
    while let Some((before, after)) = rest.split_once('[') {
        let (ranges, tail) = after
            .split_once(']')
            .ok_or_else(|| NamesError::Bracket(item.to_owned()))?;
        let numbers = numbers(ranges)?;
        if made.len().saturating_mul(numbers.len()) > MAX_NAMES {
            return Err(NamesError::TooMany);
        }
        made = made
            .iter()
            .flat_map(|start| numbers.iter().map(move |n| format!("{start}{before}{n}")))
            .collect();
        rest = tail;
    }
    if out.len() + made.len() > MAX_NAMES {
        return Err(NamesError::TooMany);
    }
    out.extend(made.into_iter().map(|start| start + rest));
    Ok(())
}

/// `01-03,7,0-10/5` as numbers with their padding.
fn numbers(ranges: &str) -> Result<Vec<String>, NamesError> {
    let bad = || NamesError::Range(ranges.to_owned());
    let number = |text: &str| -> Result<u64, NamesError> {
        let plain =
            !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten().ok_or_else(bad)
    };
    let mut all = Vec::new();
    for range in ranges.split(',').map(str::trim) {
        let (range, step) = match range.split_once('/') {
            Some((range, step)) => (range, number(step)?),
            None => (range, 1),
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (low, high) = (number(first)?, number(last)?);
        let width = if first.starts_with('0') {
            first.len()
        } else {
            0
        };
        if step == 0 || high < low {
            return Err(bad());
        }
        if (high - low) / step >= (MAX_NAMES - all.len()) as u64 {
            return Err(NamesError::TooMany);
        }
        let steps = usize::try_from(step).map_err(|_| bad())?;
        all.extend((low..=high).step_by(steps).map(|n| format!("{n:0width$}")));
    }
    Ok(all)
}

/// The numbers in a name, left to right: 3 and 12 of `r3n12`.
pub(crate) fn numbers_in(name: &str) -> Vec<i64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(i64::MAX))
        .collect()
}

/// Writes names short, sorted by their numbers: `login,n[1-4,7]`.
pub(crate) fn fold<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    // (text before the number, text behind it) -> length of the digits as written -> numbers
    let mut families: BTreeMap<(String, String), BTreeMap<usize, Vec<u64>>> = BTreeMap::new();
    let mut rest: Vec<String> = Vec::new();
    for name in names {
        let name = name.as_ref();
        match split_number(name) {
            Some((prefix, digits, suffix)) => {
                let family = families
                    .entry((prefix.to_owned(), suffix.to_owned()))
                    .or_default();
                let number = digits.parse().unwrap_or(0);
                family.entry(digits.len()).or_default().push(number);
            }
            None => rest.push(name.to_owned()),
        }
    }
    let mut parts: Vec<String> = rest;
    for ((prefix, suffix), by_length) in families {
        let mut natural: Vec<u64> = Vec::new();
        let mut padded: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (length, numbers) in by_length {
            // One number with a leading zero makes the width count for all of its length: n[09-10].
            let is_padded = length > 1 && numbers.iter().any(|n| digits_of(*n) < length);
            if is_padded {
                padded.insert(length, numbers);
            } else {
                natural.extend(numbers);
            }
        }
        padded.insert(0, natural);
        for (width, mut numbers) in padded {
            numbers.sort_unstable();
            numbers.dedup();
            match numbers[..] {
                [] => {}
                [one] => parts.push(format!("{prefix}{one:0width$}{suffix}")),
                _ => parts.push(format!("{prefix}[{}]{suffix}", ranges(&numbers, width))),
            }
        }
    }
    parts.sort();
    parts.join(",")
}

/// The last number of the host part, with what stands around it. Longer digits than fit stay plain text.
fn split_number(name: &str) -> Option<(&str, &str, &str)> {
    let host = name.split('.').next().unwrap_or(name);
    let end = host.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = host[..end]
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| {
            at + host[at..].chars().next().map_or(1, char::len_utf8)
        });
    (end - start <= 18).then(|| (&name[..start], &name[start..end], &name[end..]))
}

fn digits_of(n: u64) -> usize {
    n.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn ranges(numbers: &[u64], width: usize) -> String {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < numbers.len() {
        let first = numbers[at];
        let mut last = first;
        while at + 1 < numbers.len() && numbers[at + 1] == last + 1 {
            at += 1;
            last = numbers[at];
        }
        at += 1;
        parts.push(if first == last {
            format!("{first:0width$}")
        } else {
            format!("{first:0width$}-{last:0width$}")
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests;
