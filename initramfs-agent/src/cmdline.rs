//! The kernel command line as boot parameters. Pure.
//!
//! Only public things travel here: every user of the node can read `/proc/cmdline`. Words that are not ours are left alone; one of
//! ours that makes no sense is reported and ignored, so that a typo in `append` never keeps a node from booting.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use uuid::Uuid;

/// Most parents on the command line.
const MAX_PARENTS: usize = 8;

/// What the boot script tells the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BootParams {
    /// `kraken.node`: the node's name, for the console; the parent says it again, authenticated.
    pub(crate) node: Option<String>,
    /// `kraken.id`: the node's identity.
    pub(crate) id: Option<Uuid>,
    /// `kraken.parent`: whom to join, in order, `address:port` joined by commas.
    pub(crate) parents: Vec<SocketAddr>,
    /// `kraken.http`: where images are.
    pub(crate) http: Option<SocketAddr>,
    /// `kraken.ip`: our address; without it we ask DHCP.
    pub(crate) address: Option<Cidr>,
    /// `kraken.gw`: the default gateway.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// `kraken.mac`: the interface that booted.
    pub(crate) mac: Option<Mac>,
    /// `kraken.boot`: which boot this is.
    pub(crate) boot: Option<Uuid>,
    /// `kraken.debug=1`: commands on the console, and more lines in the log.
    pub(crate) debug: bool,
}

/// An IPv4 address with the length of its network prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cidr {
    /// The address.
    pub(crate) ip: Ipv4Addr,
    /// Length of the prefix, at most 32.
    pub(crate) prefix: u8,
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ip, prefix) = text.split_once('/').ok_or(())?;
        let ip = ip.parse().map_err(drop)?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= 32)
            .ok_or(())?;
        Ok(Self { ip, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// A link-layer address of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl FromStr for Mac {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(drop)?;
        }
        if parts.next().is_some() {
            Err(())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Reads the command line. The second part names what was ignored, one sentence each.
pub(crate) fn parse(line: &str) -> (BootParams, Vec<String>) {
    let mut params = BootParams::default();
    let mut ignored = Vec::new();
    for word in line.split_whitespace() {
        let Some(ours) = word.strip_prefix("kraken.") else {
            continue;
        };
        let (key, value) = ours.split_once('=').unwrap_or((ours, ""));
        // An absent gateway comes as an empty value.
        if value.is_empty() && key != "debug" {
            continue;
        }
        if let Err(wanted) = set(&mut params, key, value) {
            let shown: String = word.chars().take(80).collect();
            ignored.push(format!("{shown} is ignored: {wanted}"));
        }
    }
    (params, ignored)
}

fn set(params: &mut BootParams, key: &str, value: &str) -> Result<(), &'static str> {
    match key {
        "node" => params.node = Some(value.chars().take(253).collect()),
        "id" => params.id = Some(value.parse().map_err(|_| "a UUID is wanted")?),
        "boot" => params.boot = Some(value.parse().map_err(|_| "a UUID is wanted")?),
        "parent" => {
            let parents: Result<Vec<SocketAddr>, _> =
                value.split(',').take(MAX_PARENTS).map(str::parse).collect();
            params.parents =
                parents.map_err(|_| "ADDRESS:PORT is wanted, or several joined by commas")?;
        }
        "http" => params.http = Some(value.parse().map_err(|_| "ADDRESS:PORT is wanted")?),
        "ip" => params.address = Some(value.parse().map_err(|()| "ADDRESS/PREFIX is wanted")?),
        "gw" => params.gateway = Some(value.parse().map_err(|_| "an IPv4 address is wanted")?),
        "mac" => {
            params.mac = Some(
                value
                    .parse()
                    .map_err(|()| "a link-layer address is wanted")?,
            )
        }
        "debug" => params.debug = value == "1",
        _ => return Err("no such parameter"),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
