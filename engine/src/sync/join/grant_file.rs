//! The text by which a grant reaches a booting node, as `/etc/kraken/grant` of its initramfs.
//!
//! ```text
//! kraken-grant-v1
//! grant <uuid>
//! node <uuid>
//! boot <uuid>
//! secret <64 hex digits>
//! ```

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::{GrantId, Secret};
use crate::state::NodeId;

/// Longest grant file that is looked at; a real one has 216 bytes.
pub const MAX_FILE_BYTES: usize = 512;

/// What a grant file says. Its text form is [`Display`](fmt::Display): mind where it goes, it holds the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFile {
    /// Which grant.
    pub grant: GrantId,
    /// Whose.
    pub node: NodeId,
    /// For which boot.
    pub boot: Uuid,
    /// S of KJ1.
    pub secret: Secret,
}

/// Why a text is no grant file. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantFileError {
    /// Too long.
    #[error("the grant file is longer than {MAX_FILE_BYTES} bytes")]
    TooLong,
    /// Another kind of file, or a later version.
    #[error("the grant file does not start with kraken-grant-v1")]
    Kind,
    /// A line is missing or wrong.
    #[error("line {line} of the grant file is not \"{expected}\"")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What it should look like.
        expected: &'static str,
    },
    /// Something follows.
    #[error("the grant file has more than five lines")]
    Extra,
}

impl FromStr for GrantFile {
    type Err = GrantFileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_FILE_BYTES {
            return Err(GrantFileError::TooLong);
        }
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        if lines.next() != Some("kraken-grant-v1") {
            return Err(GrantFileError::Kind);
        }
        let mut field = |line, word: &str, expected| {
            let error = GrantFileError::Line { line, expected };
            let rest = lines
                .next()
                .and_then(|text| text.strip_prefix(word))
                .ok_or(error)?;
            Ok((rest.strip_prefix(' ').ok_or(error)?, error))
        };
        let mut uuid = |line, word, expected| {
            let (text, error) = field(line, word, expected)?;
            Uuid::try_parse(text)
                .ok()
                .filter(|uuid| !uuid.is_nil())
                .ok_or(error)
        };
        let grant = GrantId(uuid(2, "grant", "grant <uuid>")?);
        let node = NodeId::from(uuid(3, "node", "node <uuid>")?);
        let boot = uuid(4, "boot", "boot <uuid>")?;
        let (digits, error) = field(5, "secret", "secret <64 hex digits>")?;
        let secret = parse_secret(digits).ok_or(error)?;
        if lines.next().is_some() {
            return Err(GrantFileError::Extra);
        }
        Ok(Self {
            grant,
            node,
            boot,
            secret,
        })
    }
}

fn parse_secret(digits: &str) -> Option<Secret> {
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = Secret([0; 32]);
    for (byte, at) in secret.0.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(secret)
}

impl fmt::Display for GrantFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kraken-grant-v1")?;
        writeln!(f, "grant {}", self.grant)?;
        writeln!(f, "node {}", self.node)?;
        writeln!(f, "boot {}", self.boot.hyphenated())?;
        f.write_str("secret ")?;
        self.secret
            .0
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        writeln!(f)
    }
}
