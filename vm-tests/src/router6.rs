//! An IPv6 router that offers nothing (RFC 4861, section 6.2), so that iPXE need not wait for one.
//!
//! iPXE configures IPv4 and IPv6 side by side and goes on when both are settled; without any router that is 16 s, three quarters
//! of a boot. Lifetime 0 and no prefix make no address and no route on anybody.

use std::{
    io::Read,
    mem::size_of,
    net::{Ipv6Addr, SocketAddrV6},
    thread,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// ff02::2, where solicitations go.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// ff02::1, where advertisements go.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

/// Advertisements with any other hop limit are dropped (RFC 4861, section 6.1.2).
const HOP_LIMIT: u32 = 255;

/// Type, code, checksum, hop limit, flags, router lifetime, reachable time, retransmit timer.
const LENGTH: usize = 2 * size_of::<u64>();

/// Answers solicitations on `interface` from a thread of its own, as long as the process lives.
pub fn start(interface: &str) -> Result<()> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))
        .context("cannot open an ICMPv6 socket")?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_multicast_if_v6(index)?;
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    let to = SockAddr::from(SocketAddrV6::new(ALL_NODES, 0, 0, index));
    thread::spawn(move || {
        let mut bytes = [0; 1500];
        loop {
            match (&socket).read(&mut bytes) {
                Ok(length) if length > 0 && bytes[0] == SOLICITATION => {
                    // The kernel fills in the checksum. Errors pass: the bridge's own address is tentative in its first second.
                    socket.send_to(&advertisement(), &to).ok();
                }
                Ok(_) => {}
                Err(error) => {
                    eprintln!("supervisor: router: {error}");
                    return;
                }
            }
        }
    });
    Ok(())
}

fn advertisement() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = ADVERTISEMENT;
    bytes
}
