//! The node's network: one interface with one address, by rtnetlink.
//!
//! [`plan`] compares what is wanted with what is there, [`netlink`] asks the kernel and carries the steps out, [`dhcp`] gets an
//! address where the boot script gave none. Names are never looked up: a static binary has no resolver, and needs none.

pub(crate) mod dhcp;
pub(crate) mod netlink;
pub(crate) mod plan;
