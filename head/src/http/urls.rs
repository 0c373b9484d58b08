//! Where boot files are, as DHCP and boot scripts name them; [`super::route`] is the other direction.

use std::net::Ipv4Addr;

use uuid::Uuid;

use crate::boot::MacAddr;

/// The boot script of a node.
pub(crate) fn script(server: Ipv4Addr, port: u16, mac: MacAddr) -> String {
    format!("http://{server}:{port}/boot/{mac}/script")
}

/// The kernel of a node.
pub(crate) fn kernel(server: Ipv4Addr, port: u16, mac: MacAddr) -> String {
    format!("http://{server}:{port}/boot/{mac}/kernel")
}

/// The initramfs of a node.
pub(crate) fn initramfs(server: Ipv4Addr, port: u16, mac: MacAddr) -> String {
    format!("http://{server}:{port}/boot/{mac}/initramfs")
}

/// The archive with a boot grant.
pub(crate) fn grant(server: Ipv4Addr, port: u16, grant: Uuid) -> String {
    format!("http://{server}:{port}/g/{grant}")
}

/// A first-stage loader, for UEFI HTTP boot.
pub(crate) fn loader(server: Ipv4Addr, port: u16, name: &str) -> String {
    format!("http://{server}:{port}/loader/{name}")
}
