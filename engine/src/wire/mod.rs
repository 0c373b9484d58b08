//! The border between the engine and the network (docs/sync-protocol.md): behind it there are no generated types and no unchecked message.
//!
//! - [`convert`]: messages of the schema to engine types and back, with every limit of the schema checked.
//! - [`module`]: the host's half of the module API, as a state machine.
//! - [`seal`]: frames as authenticated, encrypted datagrams with a replay window.
//!
//! Still no I/O: sockets, TLS and certificates belong to head and agent.

pub mod convert;
pub mod module;
pub mod seal;
