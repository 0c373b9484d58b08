//! The cluster's network: a bridge with the head's address, a tap for each machine, an address for each BMC.
//!
//! Made with iproute2 inside the cluster's own network namespace; it goes when the namespace goes, so nothing here undoes it.

use std::{net::Ipv4Addr, process::Command};

use anyhow::{Context, Result, bail};

/// The bridge that head and machines share.
pub const BRIDGE: &str = "br0";
/// The head's address on the bridge.
pub const HEAD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Machines a cluster may have: their addresses start at 10.77.0.11, and their MAC's last byte is their number.
pub const MACHINES_MAX: u8 = 64;

/// The address that machine `index` (from 1) gets.
pub fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + index)
}

/// The link-layer address of machine `index` (from 1): QEMU's prefix, then `4b` for K.
pub fn node_mac(index: u8) -> String {
    format!("52:54:00:4b:00:{index:02x}")
}

/// Where the BMC of machine `index` (from 1) listens, on port 80: a network that only the head's side reaches.
pub fn bmc_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, 10 + index)
}

/// The tap of machine `index` (from 1).
pub fn tap(index: u8) -> String {
    format!("tap{index}")
}

/// Makes loopback, bridge, taps and BMC addresses for `machines` machines in the current namespace.
pub fn set_up(machines: u8) -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["addr", "add", &format!("{HEAD}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    for index in 1..=machines {
        let tap = tap(index);
        ip(&["tuntap", "add", &tap, "mode", "tap"])?;
        ip(&["link", "set", &tap, "master", BRIDGE, "up"])?;
        ip(&[
            "addr",
            "add",
            &format!("{}/32", bmc_address(index)),
            "dev",
            "lo",
        ])?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .context("cannot start ip (package iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
