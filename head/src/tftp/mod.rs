//! TFTP for first-stage loaders and boot scripts (RFC 1350, options by RFC 2347 to 2349 and 7440).
//!
//! `async-tftp` speaks the protocol; `names` (pure) and `handler` decide what is served, from memory; `socket` runs it.

mod handler;
mod names;
pub(crate) mod socket;

pub(crate) use handler::{Served, Sessions};
