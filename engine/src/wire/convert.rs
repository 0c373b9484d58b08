//! Messages of the schema (`proto/kraken/v1`) to engine types and back.
//!
//! What comes in is checked against every limit that the schema documents; what breaks one is refused with the path of the field. What goes
//! out is as the schema wants it. Nothing here panics on any bytes.

mod frame;
mod join;
mod module;
mod mutation;
mod node;
mod report;
mod state;

use std::fmt;

pub use frame::{decode_frame, encode_frame, frame_from_proto, frame_to_proto};
pub use join::{
    AcceptMessage, Issued, accept_from_proto, accept_to_proto, challenge_from_proto,
    challenge_to_proto, join_hello_from_proto, join_hello_to_proto, proof_from_proto,
    proof_to_proto, refused_from_proto, refused_to_proto,
};
pub use module::{Declared, MAX_QUERY, declared_from_proto, mutate_to_proto};
pub use mutation::{
    context_to_proto, mutation_from_proto, mutation_set_from_proto, mutation_set_to_proto,
    mutation_to_proto, url_change_to_proto,
};
pub use node::{NodeFacts, node_from_proto, node_to_proto};
pub use report::{
    attempt_to_proto, estimate_to_proto, indices, report_to_proto, time_estimate_to_proto,
};
pub use state::{
    change_from_proto, change_to_proto, changes_from_proto, changes_to_proto, node_id_from_proto,
    url_from_proto, value_from_proto, value_to_proto, values_from_proto, values_to_proto,
};

use crate::state::{NodeNameError, UrlError};

/// Longest message; the whole state of a node fits (schema: state.proto).
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Why a message is refused, and which of its fields is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConvertError {
    /// The field, such as `changes[3].url`; empty: the message as a whole.
    pub path: String,
    /// What is wrong with it.
    pub why: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes are no message of this kind.
    #[error("cannot be read: {0}")]
    Protobuf(String),
    /// The field is needed.
    #[error("is missing")]
    Missing,
    /// A field of fixed length.
    #[error("has {is} bytes, not {want}")]
    Length {
        /// Bytes wanted.
        want: usize,
        /// Bytes found.
        is: usize,
    },
    /// Too many bytes.
    #[error("has {is} bytes, more than {limit}")]
    TooLong {
        /// Most bytes.
        limit: usize,
        /// Bytes found.
        is: usize,
    },
    /// Too many items.
    #[error("has {is} items, more than {limit}")]
    TooMany {
        /// Most items.
        limit: usize,
        /// Items found.
        is: usize,
    },
    /// No StateUrl.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// No node name.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// An id of zeros.
    #[error("is the nil UUID")]
    NilId,
    /// A name with a letter that names do not have.
    #[error("is no name: use letters, digits and \"_.+-\"")]
    Word,
    /// A number that the enum does not have.
    #[error("is {0}, which this version does not know")]
    UnknownEnum(i32),
    /// A comparison with something else, or with NaN.
    #[error("is no number")]
    NoNumber,
    /// A condition of both kinds.
    #[error("cannot stand beside at_least and at_most")]
    BothKinds,
    /// A list inside a list.
    #[error("is a list inside a list")]
    Nested,
    /// The same item twice.
    #[error("names {0} twice")]
    Twice(String),
    /// A number out of its bounds.
    #[error("is {is}, not within {least} and {most}")]
    Bounds {
        /// The number.
        is: u64,
        /// Least number.
        least: u64,
        /// Greatest number.
        most: u64,
    },
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.path.is_empty() {
            "the message"
        } else {
            &self.path
        };
        write!(f, "{field} {}", self.why)
    }
}

impl From<Fault> for ConvertError {
    fn from(why: Fault) -> Self {
        Self {
            path: String::new(),
            why,
        }
    }
}

/// Puts the name of the surrounding field in front of an error's path.
trait Within<T> {
    fn within(self, field: &str) -> Result<T, ConvertError>;
    fn within_item(self, index: usize) -> Result<T, ConvertError>;
}

impl<T, E: Into<ConvertError>> Within<T> for Result<T, E> {
    fn within(self, field: &str) -> Result<T, ConvertError> {
        self.map_err(|error| {
            let inner = error.into();
            let dot = if inner.path.is_empty() || inner.path.starts_with('[') {
                ""
            } else {
                "."
            };
            ConvertError {
                path: format!("{field}{dot}{}", inner.path),
                why: inner.why,
            }
        })
    }

    fn within_item(self, index: usize) -> Result<T, ConvertError> {
        self.within(&format!("[{index}]"))
    }
}

fn convert_items<T, U>(
    field: &str,
    limit: usize,
    items: Vec<T>,
    convert: impl Fn(T) -> Result<U, ConvertError>,
) -> Result<Vec<U>, ConvertError> {
    at_most(limit, items.len()).within(field)?;
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| convert(item).within_item(index).within(field))
        .collect()
}

const fn at_most(limit: usize, is: usize) -> Result<(), Fault> {
    if is > limit {
        Err(Fault::TooMany { limit, is })
    } else {
        Ok(())
    }
}

const fn no_longer(limit: usize, is: usize) -> Result<(), Fault> {
    if is > limit {
        Err(Fault::TooLong { limit, is })
    } else {
        Ok(())
    }
}

fn bytes_exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Fault> {
    bytes.try_into().map_err(|_| Fault::Length {
        want: N,
        is: bytes.len(),
    })
}

#[cfg(test)]
mod tests;
