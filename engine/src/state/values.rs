//! The values of one node, of one kind, and what changes between two such sets.

use std::cmp::Ordering;
use std::fmt;

use ring::digest;

use super::{StateUrl, Value};

/// Most values of one node and kind; a full hardware inventory has a few hundred.
pub const MAX_VALUES: usize = 4096;
/// Most bytes of one node's values of one kind: they travel in one message of 1 MiB, with room for what surrounds them.
pub const MAX_VALUES_BYTES: usize = 960 << 10;

/// Up to so many values, space is not worth wasting on growth.
const FEW: usize = 64;

/// Values by url. Never holds a zero value.
///
/// Sorted by url and closely packed: nodes have few values, and every firing copies them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Values(Vec<(StateUrl, Value)>);

/// The change of one value; `None` makes it unset.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Change {
    /// Whose value.
    pub url: StateUrl,
    /// What it becomes.
    pub value: Option<Value>,
}

/// SHA-256 of the canonical encoding of a set of values: for each value, in the order of urls, the length of the url in two bytes, the
/// url, and the value's own encoding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The first eight bytes, little endian: what hellos carry.
    pub fn short(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }
}

impl Values {
    /// For one lookup after the other, of urls that ascend.
    pub(crate) fn ascend(&self) -> Ascent<'_> {
        Ascent(&self.0)
    }

    /// The value of `url`; `None` when unset.
    pub fn get(&self, url: &str) -> Option<&Value> {
        let at = self.find(url).ok()?;
        Some(&self.0[at].1)
    }

    /// Where `url` is, or would be.
    fn find(&self, url: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(at, _)| at.as_str().cmp(url))
    }

    /// The url as it is kept here, and its value.
    pub fn get_key_value(&self, url: &str) -> Option<(&StateUrl, &Value)> {
        let (url, value) = &self.0[self.find(url).ok()?];
        Some((url, value))
    }

    /// The text value of `url`.
    pub fn text(&self, url: &str) -> Option<&str> {
        self.get(url)?.as_text()
    }

    /// Sets or unsets one value; a zero value unsets. Returns whether anything changed.
    pub fn set(&mut self, url: StateUrl, value: Option<Value>) -> bool {
        match (
            self.find(url.as_str()),
            value.filter(|value| !value.is_zero()),
        ) {
            (Ok(at), Some(value)) => {
                let changed = self.0[at].1 != value;
                self.0[at].1 = value;
                changed
            }
            (Err(at), Some(value)) => {
                // Few values grow one by one, not twofold: what a node has rarely changes.
                if self.0.len() < FEW {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (url, value));
                true
            }
            (Ok(at), None) => {
                self.0.remove(at);
                true
            }
            (Err(_), None) => false,
        }
    }

    /// Applies changes in order and returns those that changed anything.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
        let mut real = Vec::new();
        for change in changes {
            if self.set(change.url.clone(), change.value.clone()) {
                real.push(change);
            }
        }
        real
    }

    /// The changes that turn `self` into `goal`, ordered by url.
    pub fn diff(&self, goal: &Self) -> Vec<Change> {
        let gone = |url: &&StateUrl| goal.get(url.as_str()).is_none();
        let unset = self.iter().map(|(url, _)| url).filter(gone);
        let set = goal.iter();
        let set = set.filter(|(url, value)| self.get(url.as_str()) != Some(value));
        let mut changes: Vec<Change> = unset
            .map(|url| Change::unset(url.clone()))
            .chain(set.map(|(url, value)| Change::set(url.clone(), value.clone())))
            .collect();
        changes.sort();
        changes
    }

    /// All values, ordered by url.
    pub fn iter(&self) -> impl Iterator<Item = (&StateUrl, &Value)> {
        self.0.iter().map(|(url, value)| (url, value))
    }

    /// All values as changes from nothing.
    pub fn to_changes(&self) -> Vec<Change> {
        self.iter()
            .map(|(url, value)| Change::set(url.clone(), value.clone()))
            .collect()
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes that urls and values take.
    pub fn size(&self) -> usize {
        let sizes = self
            .iter()
            .map(|(url, value)| url.as_str().len() + value.size());
        sizes.sum()
    }

    /// True when every value is unset.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Digest of all values; equal sets have equal digests on every machine and version.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(self.0.len() * 32);
        for (url, value) in &self.0 {
            bytes.extend_from_slice(&(url.as_str().len() as u16).to_le_bytes());
            bytes.extend_from_slice(url.as_str().as_bytes());
            value.encode(&mut bytes);
        }
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
        Digest(out)
    }
}

/// Looks up urls in their order: see [`Values::ascend`].
pub(crate) struct Ascent<'a>(&'a [(StateUrl, Value)]);

impl<'a> Ascent<'a> {
    /// The value of `url`, which comes after all that were asked for.
    pub(crate) fn get(&mut self, url: &StateUrl) -> Option<&'a Value> {
        while let Some(((at, value), rest)) = self.0.split_first() {
            match at.cmp(url) {
                Ordering::Less => self.0 = rest,
                Ordering::Equal => return Some(value),
                Ordering::Greater => break,
            }
        }
        None
    }
}

impl Change {
    /// The change that gives `url` a value.
    pub fn set(url: StateUrl, value: Value) -> Self {
        Self {
            url,
            value: Some(value),
        }
    }

    /// The change that unsets `url`.
    pub fn unset(url: StateUrl) -> Self {
        Self { url, value: None }
    }
}

impl FromIterator<(StateUrl, Value)> for Values {
    fn from_iter<I: IntoIterator<Item = (StateUrl, Value)>>(values: I) -> Self {
        let mut all = Self::default();
        for (url, value) in values {
            all.set(url, Some(value));
        }
        all
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
