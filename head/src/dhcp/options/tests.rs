use super::*;
use crate::dhcp::packet::tests::{MAC, Packet};

fn with<T>(packet: Packet, read: impl FnOnce(&Request<'_>) -> T) -> T {
    let bytes = packet.build();
    let request = Request::decode(&bytes).expect("a request");
    read(&request)
}

fn discover() -> Packet {
    Packet::new(1)
}

fn client(packet: Packet) -> BootClient {
    with(packet, |request| BootClient::of(&request.options))
}

#[test]
fn the_program_of_the_boot_chain_is_recognized() {
    let pxe = || discover().option(code::VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001");
    let x86_64 = Some(ClientArch::UefiX86_64);
    assert_eq!(client(discover()), BootClient::Other);
    assert_eq!(
        client(discover().option(code::VENDOR_CLASS, b"udhcp 1.35.0")),
        BootClient::Other
    );
    assert_eq!(client(pxe()), BootClient::Pxe(Some(ClientArch::Bios)));
    assert_eq!(
        client(pxe().option(code::ARCHITECTURE, &[0, 7])),
        BootClient::Pxe(x86_64)
    );
    assert_eq!(
        client(pxe().option(code::ARCHITECTURE, &[0, 6])),
        BootClient::Pxe(None)
    );
    let http = b"HTTPClient:Arch:00016:UNDI:003001";
    assert_eq!(
        client(discover().option(code::VENDOR_CLASS, http)),
        BootClient::Http(x86_64)
    );
    for ipxe in [
        pxe().option(code::USER_CLASS, b"iPXE"),
        pxe().option(code::USER_CLASS, b"\x04iPXE"),
        pxe().option(code::IPXE, &[177, 5, 1, 0x1a, 0xf4, 0x10, 0]),
    ] {
        assert_eq!(client(ipxe), BootClient::Ipxe);
    }
    assert_eq!(
        client(pxe().option(code::USER_CLASS, b"iPXEs")),
        BootClient::Pxe(Some(ClientArch::Bios))
    );
}

#[test]
fn a_vendor_class_stands_in_for_option_93() {
    for (class, expect) in [
        (
            &b"PXEClient:Arch:00011:UNDI:003000"[..],
            Some(ClientArch::UefiAarch64),
        ),
        (b"PXEClient:Arch:00007", Some(ClientArch::UefiX86_64)),
        (b"PXEClient:Arch:", None),
        (b"PXEClient:Arch:99999999:UNDI:1", None),
        (b"PXEClient\xff:Arch:00000", None),
        (b"PXEClient", None),
    ] {
        let arch = with(discover().option(code::VENDOR_CLASS, class), |request| {
            architecture(&request.options)
        });
        assert_eq!(arch, expect, "{}", String::from_utf8_lossy(class));
    }
}

#[test]
fn evidence_is_complete_printable_and_short() {
    let mut id = vec![0];
    id.extend_from_slice(Uuid::from_u128(0x0011_2233).as_bytes());
    let packet = discover()
        .giaddr([10, 9, 0, 1])
        .option(code::HOSTNAME, b"evil\x1b[31m\n\0")
        .option(code::VENDOR_CLASS, &[b'P'; 200])
        .option(code::ARCHITECTURE, &[0, 0])
        .option(code::MACHINE_ID, &id)
        .option(
            code::RELAY_AGENT,
            &[2, 1, b'r', 1, 5, b'e', b't', b'h', b'1', b'7'],
        );
    let machine = with(packet, |request| evidence(request, &"br0".into()));
    assert_eq!(
        machine,
        PendingMachine {
            mac: MAC,
            uuid: Some(Uuid::from_u128(0x0011_2233)),
            arch: Some(ClientArch::Bios),
            vendor_class: Some("P".repeat(63)),
            interface: "br0".into(),
            giaddr: Some(Ipv4Addr::new(10, 9, 0, 1)),
            circuit: Some("eth17".into()),
            hostname: Some("evil?[31m?".into()),
        }
    );
}

#[test]
fn evidence_that_is_missing_or_broken_is_none() {
    for (option, value) in [
        (code::MACHINE_ID, &[0; 17][..]),
        (code::MACHINE_ID, &[1; 17]),
        (code::MACHINE_ID, &[0; 5]),
        (code::RELAY_AGENT, &[1, 9, b'x']),
        (code::RELAY_AGENT, &[1]),
        (code::RELAY_AGENT, &[1, 0]),
    ] {
        let machine = with(discover().option(option, value), |request| {
            evidence(request, &"br0".into())
        });
        assert_eq!(
            (machine.uuid, machine.circuit, machine.giaddr),
            (None, None, None),
            "{option} {value:?}"
        );
    }
    let binary = with(
        discover().option(code::RELAY_AGENT, &[1, 2, 0, 0xab]),
        |r| evidence(r, &"br0".into()),
    );
    assert_eq!(binary.circuit.as_deref(), Some("00ab"));
}
