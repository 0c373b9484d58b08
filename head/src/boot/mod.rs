//! The boot plane: DHCP, TFTP and HTTP for nodes that boot, over one table in memory.
//!
//! The rest of the head sees only this module: it fills the [`BootTable`], reads [`BootEvent`]s and answers the fetches of
//! grants. The servers are [`crate::dhcp`], [`crate::tftp`] and [`crate::http`], one of each per boot interface (DESIGN.md 5).
//! They decide nothing about nodes: DHCP and file requests are hints, and whether a grant is given is the engine's decision.

mod event;
mod interfaces;
mod loader;
mod mac;
#[cfg(test)]
pub(crate) mod netns;
mod plane;
pub(crate) mod stages;
pub(crate) mod table;

pub(crate) use event::{
    BootEvent, BootStage, EventSender, GrantArchive, GrantRefused, PendingMachine,
};
pub(crate) use interfaces::{FactsReceiver, InterfaceFacts};
pub(crate) use loader::{ClientArch, Loader, Loaders};
pub(crate) use mac::MacAddr;
pub(crate) use plane::{BootPlaneConfig, start};
pub(crate) use stages::StageLog;
pub(crate) use table::{Append, ArmedBoot, BootImage, BootName, BootNode, BootTable, Sha256};

/// One interface, followed for ever.
#[cfg(test)]
pub(crate) fn interfaces_for_tests(name: &str) -> FactsReceiver {
    interfaces::follow(&[name.into()], tokio_util::sync::CancellationToken::new()).remove(0)
}
