//! Addresses of values.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Address of one value of a node: `/PhysState`, `/pxe/state`, `/ipv4/interfaces/ib0/address`.
///
/// Canonical form: a leading slash, parts joined by single slashes. Parts hold ASCII letters, digits and `._-:@+`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateUrl(Arc<str>);

/// Why a text is no StateUrl.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not a state url: {why}")]
pub struct UrlError {
    /// The text, cut to a length fit for a message.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl StateUrl {
    /// Longest url; keeps a change of one value well inside a datagram.
    pub const MAX_BYTES: usize = 256;
    /// Deepest url; no schema comes near.
    pub const MAX_PARTS: usize = 16;

    /// The url as text, with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts between the slashes.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0[1..].split('/')
    }
}

impl FromStr for StateUrl {
    type Err = UrlError;

    /// Reads a url; the leading slash may be left out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why| UrlError {
            url: text.chars().take(64).collect(),
            why,
        };
        let path = text.strip_prefix('/').unwrap_or(text);
        if path.len() >= Self::MAX_BYTES {
            return Err(refuse("it is longer than 256 bytes"));
        }
        if path.split('/').count() > Self::MAX_PARTS {
            return Err(refuse("it has more than 16 parts"));
        }
        for part in path.split('/') {
            if part.is_empty() {
                return Err(refuse("a part is empty"));
            }
            if part == "." || part == ".." {
                return Err(refuse("'.' and '..' are not parts"));
            }
            if !part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-:@+".contains(&b))
            {
                return Err(refuse("parts hold letters, digits and ._-:@+ only"));
            }
        }
        Ok(Self(format!("/{path}").into()))
    }
}

impl Borrow<str> for StateUrl {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Urls and values of the core, which the engine itself reads and writes.
pub mod core {
    /// Power and hardware.
    pub const PHYS_STATE: &str = "/PhysState";
    /// The agent.
    pub const RUN_STATE: &str = "/RunState";
    /// Whether a job runs.
    pub const BUSY: &str = "/Busy";
    /// Why the node's own agent gave up.
    pub const PARKED: &str = "/Parked";
    /// `PhysState`: switched on.
    pub const POWER_ON: &str = "POWER_ON";
    /// `PhysState`: switched off.
    pub const POWER_OFF: &str = "POWER_OFF";
    /// `RunState`: boots.
    pub const INIT: &str = "INIT";
    /// `RunState`: has joined.
    pub const SYNC: &str = "SYNC";
    /// `RunState`: fell silent.
    pub const ERROR: &str = "ERROR";
    /// `Busy`: a job runs.
    pub const BUSY_BUSY: &str = "BUSY";
}
