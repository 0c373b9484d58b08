//! What boot programs are told: loaders, scripts and urls by architecture, on both ports.

use super::*;

#[test]
fn firmware_gets_the_loader_of_option_93() {
    let mut server = Server::new();
    for (arch, expect) in [(0, "undionly.kpxe"), (7, "ipxe.efi"), (9, "ipxe.efi")] {
        let (offer, _) = server.reply(pxe(Packet::new(DISCOVER), arch));
        assert_eq!(file(&offer), expect);
        assert_eq!(offer.siaddr(), Ipv4Addr::from(SERVER));
        assert_eq!(
            option(&offer, 60),
            Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec()))
        );
        assert_eq!(
            option(&offer, 43),
            Some(&DhcpOption::VendorExtensions(vec![6, 1, 8, 255]))
        );
        assert_eq!(
            option(&offer, 97),
            Some(&DhcpOption::ClientMachineIdentifier(vec![0; 17]))
        );
        assert_eq!(
            (option(&offer, 66), option(&offer, 67)),
            (None, None),
            "not asked for"
        );
    }
    let asking = pxe(Packet::new(DISCOVER), 0).option(code::PARAMETER_LIST, &[1, 3, 66, 67]);
    let (offer, _) = server.reply(asking);
    assert_eq!(
        option(&offer, 66),
        Some(&DhcpOption::TFTPServerName(b"10.77.0.1".to_vec()))
    );
    assert_eq!(
        option(&offer, 67),
        Some(&DhcpOption::BootfileName(b"undionly.kpxe".to_vec()))
    );
}

#[test]
fn firmware_without_a_loader_gets_an_address_and_a_note() {
    let mut server = Server::new();
    let outcome = server.handle(pxe(Packet::new(DISCOVER), 11));
    let offer = decode(&outcome.decision.expect("a reply"));
    assert_eq!((file(&offer).as_str(), option(&offer, 60)), ("", None));
    assert!(matches!(outcome.note, Some(Note::NoLoader(_))));
    // A node can be told which loader to take.
    server.responder.table.replace_node(BootNode {
        loader: Some(ClientArch::Bios),
        ..node(1)
    });
    assert_eq!(
        file(&server.reply(pxe(Packet::new(DISCOVER), 11)).0),
        "undionly.kpxe"
    );
}

#[test]
fn ipxe_gets_its_script_and_does_not_wait_for_proxies() {
    let ipxe = pxe(Packet::new(DISCOVER), 0).option(code::USER_CLASS, b"iPXE");
    let (offer, _) = Server::new().reply(ipxe);
    assert_eq!(
        file(&offer),
        "http://10.77.0.1:8080/boot/52:54:00:4b:00:01/script"
    );
    assert_eq!((option(&offer, 60), option(&offer, 43)), (None, None));
    let no_proxy = UnknownOption::new(OptionCode::from(175), vec![176, 1, 1]);
    assert_eq!(option(&offer, 175), Some(&DhcpOption::Unknown(no_proxy)));
}

#[test]
fn uefi_http_boot_gets_a_url() {
    let packet = Packet::new(DISCOVER)
        .option(code::VENDOR_CLASS, b"HTTPClient:Arch:00016:UNDI:003001")
        .option(code::ARCHITECTURE, &[0, 16]);
    let (offer, _) = Server::new().reply(packet);
    let url = "http://10.77.0.1:8080/loader/ipxe.efi";
    assert_eq!(
        option(&offer, 60),
        Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()))
    );
    assert_eq!(
        option(&offer, 67),
        Some(&DhcpOption::BootfileName(url.into()))
    );
}

#[test]
fn a_boot_is_noted_when_a_boot_program_gets_its_address_and_not_for_a_renewal() {
    let mut server = Server::new();
    assert_eq!(server.handle(pxe(Packet::new(DISCOVER), 0)).note, None);
    assert!(
        matches!(server.handle(pxe(selecting(), 0)).note, Some(Note::Booting(node)) if node.mac == MAC)
    );
    assert_eq!(server.handle(Packet::new(REQUEST).ciaddr(OWN)).note, None);
    let wrong = pxe(
        Packet::new(REQUEST).option(code::REQUESTED_ADDRESS, &[1, 2, 3, 4]),
        0,
    );
    assert_eq!(server.handle(wrong).note, None);
}

#[test]
fn port_4011_names_the_boot_file_to_the_client_that_asks() {
    let mut server = Server::new();
    let packet = || pxe(Packet::new(REQUEST).ciaddr(OWN), 0).build();
    let reply = server
        .handle_on(ServerPort::Pxe, OWN, &packet())
        .decision
        .expect("a reply");
    assert_eq!(
        reply.to,
        Destination::Client(SocketAddrV4::new(OWN.into(), 68))
    );
    let ack = decode(&reply);
    assert_eq!(
        (file(&ack).as_str(), ack.yiaddr()),
        ("undionly.kpxe", Ipv4Addr::UNSPECIFIED)
    );
    assert_eq!(option(&ack, 51), None);
    let spoofed = server
        .handle_on(ServerPort::Pxe, [192, 0, 2, 1], &packet())
        .decision;
    assert_eq!(spoofed, Err(Ignored::NotItsAddress));
    let plain = Packet::new(REQUEST).ciaddr(OWN).build();
    assert_eq!(
        server.handle_on(ServerPort::Pxe, OWN, &plain).decision,
        Err(Ignored::NotPxe)
    );
    let arm = pxe(Packet::new(REQUEST).ciaddr(OWN), 11).build();
    assert_eq!(
        server.handle_on(ServerPort::Pxe, OWN, &arm).decision,
        Err(Ignored::NoLoader)
    );
}
