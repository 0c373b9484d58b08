//! What the options of a request say about the machine: loader stage, firmware, identity (RFC 2132, 3004, 3046, 4578).
//!
//! Texts of strangers go to logs and screens, so they are cut and made printable here, once.

use std::net::Ipv4Addr;
use std::sync::Arc;

use uuid::Uuid;

use crate::boot::{ClientArch, PendingMachine};

use super::packet::{Options, Request};

/// Option codes that we read or write ourselves.
pub(crate) mod code {
    pub(crate) const PAD: u8 = 0;
    pub(crate) const HOSTNAME: u8 = 12;
    pub(crate) const REQUESTED_ADDRESS: u8 = 50;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const MESSAGE_TYPE: u8 = 53;
    pub(crate) const SERVER_ID: u8 = 54;
    pub(crate) const PARAMETER_LIST: u8 = 55;
    pub(crate) const MAX_MESSAGE_SIZE: u8 = 57;
    pub(crate) const VENDOR_CLASS: u8 = 60;
    pub(crate) const CLIENT_ID: u8 = 61;
    pub(crate) const TFTP_SERVER: u8 = 66;
    pub(crate) const BOOT_FILE: u8 = 67;
    pub(crate) const USER_CLASS: u8 = 77;
    pub(crate) const RELAY_AGENT: u8 = 82;
    pub(crate) const ARCHITECTURE: u8 = 93;
    pub(crate) const MACHINE_ID: u8 = 97;
    /// iPXE's own options (Etherboot's number).
    pub(crate) const IPXE: u8 = 175;
    pub(crate) const END: u8 = 255;
}

/// Vendor class of UEFI HTTP boot, in requests and replies (UEFI specification, section 24.7).
pub(crate) const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// Vendor class of PXE (PXE specification 2.1, section 2.2).
pub(crate) const PXE_CLIENT: &[u8] = b"PXEClient";

/// Option 43 for a PXE ROM: "discovery control" (6) with bit 3, use the boot file of this offer and look no further.
pub(crate) const PXE_USE_BOOT_FILE: [u8; 4] = [6, 1, 8, code::END];

/// Option 175 for iPXE: `no-pxedhcp` (176), do not wait for offers of proxy DHCP servers.
pub(crate) const IPXE_NO_PROXY: [u8; 3] = [176, 1, 1];

/// Longest piece of a stranger's text that is kept, as for a host name; evidence, not data.
const MAX_TEXT_BYTES: usize = 63;

/// Which program of the boot chain sends the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BootClient {
    /// iPXE: can read a boot script over HTTP.
    Ipxe,
    /// A PXE ROM: takes a loader over TFTP.
    Pxe(Option<ClientArch>),
    /// UEFI HTTP boot: takes the URL of a loader.
    Http(Option<ClientArch>),
    /// No boot program: an operating system.
    Other,
}

impl BootClient {
    /// Reads it off options 60, 77, 93 and 175. iPXE comes first, because it calls itself a PXE client as well.
    pub(crate) fn of(options: &Options<'_>) -> Self {
        let class = options.get(code::VENDOR_CLASS).unwrap_or_default();
        if is_ipxe(options) {
            BootClient::Ipxe
        } else if class.starts_with(HTTP_CLIENT) {
            BootClient::Http(architecture(options))
        } else if class.starts_with(PXE_CLIENT) {
            BootClient::Pxe(architecture(options))
        } else {
            BootClient::Other
        }
    }
}

fn is_ipxe(options: &Options<'_>) -> bool {
    // RFC 3004 wants a length before each class; iPXE and others send the bare text.
    let user_class = options.get(code::USER_CLASS).unwrap_or_default();
    user_class == b"iPXE" || user_class == b"\x04iPXE" || options.get(code::IPXE).is_some()
}

/// Kind of firmware, of option 93 or else of a vendor class such as `PXEClient:Arch:00007:UNDI:003016`.
pub(crate) fn architecture(options: &Options<'_>) -> Option<ClientArch> {
    let number = options.number(code::ARCHITECTURE).or_else(|| {
        let class = std::str::from_utf8(options.get(code::VENDOR_CLASS)?).ok()?;
        class
            .split_once(":Arch:")?
            .1
            .split(':')
            .next()?
            .parse()
            .ok()
    })?;
    ClientArch::from_option_93(number)
}

/// Whether the client asks for an option by name (option 55).
pub(crate) fn asks_for(options: &Options<'_>, code: u8) -> bool {
    options
        .get(code::PARAMETER_LIST)
        .is_some_and(|list| list.contains(&code))
}

/// The evidence for the holding list.
pub(crate) fn evidence(request: &Request<'_>, interface: &Arc<str>) -> PendingMachine {
    let options = &request.options;
    let text = |code| options.get(code).map(printable);
    PendingMachine {
        mac: request.chaddr,
        uuid: machine_uuid(options),
        arch: architecture(options),
        vendor_class: text(code::VENDOR_CLASS),
        interface: Arc::clone(interface),
        giaddr: (request.giaddr != Ipv4Addr::UNSPECIFIED).then_some(request.giaddr),
        circuit: options.get(code::RELAY_AGENT).and_then(circuit),
        hostname: text(code::HOSTNAME),
    }
}

/// Option 97: type 0 and 16 bytes (RFC 4578 section 2.3). All zeros and all ones are what firmware without a UUID sends.
fn machine_uuid(options: &Options<'_>) -> Option<Uuid> {
    let [0, uuid @ ..] = options.get(code::MACHINE_ID)? else {
        return None;
    };
    let uuid = Uuid::from_bytes(uuid.try_into().ok()?);
    (!uuid.is_nil() && !uuid.is_max()).then_some(uuid)
}

/// Circuit id, suboption 1 of option 82 (RFC 3046 section 3.1), as text or as hex digits.
fn circuit(relay_agent: &[u8]) -> Option<String> {
    let mut rest = relay_agent;
    while let [code, length, after @ ..] = rest {
        let (value, after) = after.split_at_checked(usize::from(*length))?;
        if *code == 1 && !value.is_empty() {
            let value = &value[..value.len().min(MAX_TEXT_BYTES)];
            return Some(if value.iter().all(|b| (0x20..0x7f).contains(b)) {
                printable(value)
            } else {
                value.iter().map(|byte| format!("{byte:02x}")).collect()
            });
        }
        rest = after;
    }
    None
}

fn printable(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let kept = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
    kept.iter()
        .map(|&byte| {
            if (0x20..0x7f).contains(&byte) {
                char::from(byte)
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
