//! DHCP for nodes that boot: reservations, boot files by firmware, and a list of strangers (DESIGN.md 5).
//!
//! `packet`, `options`, `lease`, `exchange` and `responder` are pure: bytes and time in, decisions out. `socket` and `frame` carry
//! them: one batched socket per interface. Replies to clients without an address are whole Ethernet frames.

pub(crate) mod exchange;
mod frame;
mod lease;
mod options;
mod packet;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
pub(crate) mod responder;
pub(crate) mod socket;

pub(crate) use responder::Responder;
