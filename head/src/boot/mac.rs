//! Hardware addresses, the key by which the boot plane knows a machine.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address; prints as six lower-case pairs with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MacAddr(pub(crate) [u8; 6]);

/// The text is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address: expected six pairs of hex digits with ':' or '-' between them")]
pub(crate) struct MacAddrError;

impl MacAddr {
    /// The address that every station on the link takes.
    pub(crate) const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// A station's own address: neither all zero nor a group address.
    pub(crate) fn is_station(self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<Self, MacAddrError> {
        let bytes = text.as_bytes();
        if bytes.len() != 17 {
            return Err(MacAddrError);
        }
        let separator = bytes[2];
        if separator != b':' && separator != b'-' {
            return Err(MacAddrError);
        }
        let mut mac = [0u8; 6];
        for (i, byte) in mac.iter_mut().enumerate() {
            let at = i * 3;
            if i > 0 && bytes[at - 1] != separator {
                return Err(MacAddrError);
            }
            *byte = hex_digit(bytes[at]).ok_or(MacAddrError)? << 4
                | hex_digit(bytes[at + 1]).ok_or(MacAddrError)?;
        }
        Ok(MacAddr(mac))
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let parsed = text.parse::<MacAddr>().ok().map(|mac| mac.to_string());
        assert_eq!(parsed.as_deref(), expect, "{text:?}");
    }

    #[test]
    fn parses_the_two_usual_forms_only() {
        check("52:54:00:4B:00:0a", Some("52:54:00:4b:00:0a"));
        check("52-54-00-4b-00-01", Some("52:54:00:4b:00:01"));
        check("52-54:00-4b-00-01", None);
        check("5254004b0001", None);
        check("52:54:00:4b:00:0g", None);
        check("52:54:00:4b:00:0", None);
        check("52:54:00:4b:00:011", None);
        check("", None);
        check("é2:54:00:4b:00:0", None);
    }

    #[test]
    fn group_and_zero_addresses_are_no_station() {
        assert!(MacAddr([0x52, 0x54, 0, 0, 0, 1]).is_station());
        assert!(!MacAddr::BROADCAST.is_station());
        assert!(!MacAddr([0; 6]).is_station());
        assert!(!MacAddr([1, 0, 0x5e, 0, 0, 1]).is_station());
    }
}
