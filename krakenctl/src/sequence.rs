//! Addresses that count up: `--mac-start 52:54:00:4b:00:01`, `--address-start 10.77.0.11/24`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why there is no next address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SequenceError {
    /// Not a link-layer address.
    #[error("{0:?} is not a link-layer address such as 52:54:00:4b:00:01")]
    Mac(String),
    /// Not an address with prefix length.
    #[error("{0:?} is not an address with prefix length such as 10.77.0.11/24")]
    Cidr(String),
    /// The network is too small.
    #[error("{start} has no room for {count} addresses: the network ends before")]
    Full {
        /// The first one.
        start: String,
        /// How many were wanted.
        count: usize,
    },
}

/// `count` link-layer addresses from `start` on.
///
/// # Errors
/// Not an address, or the count passes the last one.
pub(crate) fn macs(start: &str, count: usize) -> Result<Vec<String>, SequenceError> {
    let bad = || SequenceError::Mac(start.to_owned());
    let parts: Vec<&str> = start.split([':', '-']).collect();
    if parts.len() != 6 {
        return Err(bad());
    }
    let mut first: u64 = 0;
    for part in parts {
        let two = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let byte = if two {
            u64::from_str_radix(part, 16).ok()
        } else {
            None
        };
        first = first << 8 | byte.ok_or_else(bad)?;
    }
    let last = first
        .checked_add(count as u64)
        .filter(|end| *end <= 1 << 48);
    let end = last.ok_or_else(|| SequenceError::Full {
        start: start.to_owned(),
        count,
    })?;
    Ok((first..end)
        .map(|n| {
            let b = n.to_be_bytes();
            format!(
                "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
                b[2], b[3], b[4], b[5], b[6], b[7]
            )
        })
        .collect())
}

/// `count` addresses from `start` on, all in its network, short of an IPv4 network's broadcast address.
///
/// # Errors
/// Not an address with prefix length, or the network is too small.
pub(crate) fn addresses(start: &str, count: usize) -> Result<Vec<String>, SequenceError> {
    let bad = || SequenceError::Cidr(start.to_owned());
    let (ip, prefix) = start.split_once('/').ok_or_else(bad)?;
    let ip: IpAddr = ip.parse().map_err(|_| bad())?;
    let prefix: u32 = prefix.parse().map_err(|_| bad())?;
    let (first, bits) = match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let host_bits = u32::checked_sub(bits, prefix).ok_or_else(bad)?;
    let mask = 1_u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |size| size - 1);
    // Point-to-point networks have no broadcast address (RFC 3021).
    let broadcast = u128::from(bits == 32 && host_bits > 1);
    let last = (first | mask) - broadcast;
    let room = last
        .checked_sub(first)
        .is_some_and(|more| count == 0 || count as u128 - 1 <= more);
    if !room {
        return Err(SequenceError::Full {
            start: start.to_owned(),
            count,
        });
    }
    Ok((0..count as u128)
        .map(|n| match bits {
            32 => format!("{}/{prefix}", Ipv4Addr::from((first + n) as u32)),
            _ => format!("{}/{prefix}", Ipv6Addr::from(first + n)),
        })
        .collect())
}

#[cfg(test)]
mod tests;
