use super::*;

/// Node `n<i>` of the lab net: 10.77.0.(10+i), 52:54:00:4b:00:0i.
pub(crate) fn node(i: u8) -> BootNode {
    BootNode {
        name: format!("n{i}").parse().expect("a name"),
        id: Uuid::from_u128(u128::from(i)),
        mac: MacAddr([0x52, 0x54, 0, 0x4b, 0, i]),
        address: Ipv4Net::new(Ipv4Addr::new(10, 77, 0, 10 + i), 24).expect("a prefix"),
        gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
        dns: vec![Ipv4Addr::new(10, 77, 0, 1)],
        loader: None,
        armed: None,
        kernel: "/nonexistent/vmlinuz".into(),
        initramfs: "/nonexistent/initramfs".into(),
        append: "console=ttyS0".parse().expect("arguments"),
    }
}

/// The same, waiting for a boot.
pub(crate) fn armed_node(i: u8) -> BootNode {
    let boot_id = Uuid::from_u128(0x1000 + u128::from(i));
    let grant_id = Uuid::from_u128(0x2000 + u128::from(i));
    BootNode {
        armed: Some(ArmedBoot { boot_id, grant_id }),
        ..node(i)
    }
}

/// A table of these nodes.
pub(crate) fn table(nodes: impl IntoIterator<Item = BootNode>) -> Arc<BootTable> {
    let table = Arc::new(BootTable::default());
    nodes.into_iter().for_each(|node| table.replace_node(node));
    table
}

#[test]
fn a_node_is_found_by_each_key_and_by_none_after_removal() {
    let table = BootTable::default();
    let node = armed_node(1);
    let grant = node.armed.expect("armed").grant_id;
    table.replace_node(node.clone());
    for found in [
        table.by_mac(node.mac),
        table.by_address(node.address.addr()),
        table.by_grant(grant),
    ] {
        assert_eq!(found.as_deref(), Some(&node));
    }
    assert!(table.remove_node(&node.name));
    assert!(!table.remove_node(&node.name));
    assert!(table.by_mac(node.mac).is_none());
    assert!(table.by_address(node.address.addr()).is_none());
    assert!(table.by_grant(grant).is_none());
}

#[test]
fn replacing_a_node_drops_its_old_keys() {
    let table = BootTable::default();
    let old = armed_node(1);
    table.replace_node(old.clone());
    let replaced = BootNode {
        mac: MacAddr([2, 0, 0, 0, 0, 9]),
        armed: None,
        ..old.clone()
    };
    table.replace_node(replaced.clone());
    assert!(table.by_mac(old.mac).is_none());
    assert!(table.by_grant(old.armed.expect("armed").grant_id).is_none());
    assert_eq!(table.by_mac(replaced.mac).as_deref(), Some(&replaced));
}

#[test]
fn a_node_that_lost_its_mac_takes_nothing_along_when_it_goes() {
    let table = BootTable::default();
    let (first, mut second) = (node(1), node(2));
    second.mac = first.mac;
    table.replace_node(first.clone());
    table.replace_node(second.clone());
    assert!(table.remove_node(&first.name));
    assert_eq!(table.by_mac(second.mac).as_deref(), Some(&second));
}

#[test]
fn images_are_replaced_as_a_whole() {
    let table = BootTable::default();
    let hash: Sha256 = "a".repeat(64).parse().expect("a hash");
    let name: BootName = "demo".parse().expect("a name");
    table.replace_images([BootImage {
        name: name.clone(),
        manifest: "/images/demo/manifest.json".into(),
        blobs: vec![(hash, "/images/blobs/aa".into())],
    }]);
    assert_eq!(
        table.manifest(&name).as_deref(),
        Some(Path::new("/images/demo/manifest.json"))
    );
    assert_eq!(
        table.blob(&hash).as_deref(),
        Some(Path::new("/images/blobs/aa"))
    );
    table.replace_images([]);
    assert!(table.manifest(&name).is_none() && table.blob(&hash).is_none());
}

#[test]
fn names_take_no_script_syntax() {
    for good in ["n1", "rack3-n17", "gpu.lab", "N_1"] {
        assert!(good.parse::<BootName>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "-n",
        ".n",
        "n 1",
        "n1\n",
        "${ip}",
        "a;b",
        "a||b",
        "a/b",
        "é",
        &"n".repeat(64),
    ] {
        assert!(bad.parse::<BootName>().is_err(), "{bad}");
    }
    assert!("n".repeat(63).parse::<BootName>().is_ok());
}

#[test]
fn kernel_arguments_take_no_script_syntax() {
    let good: Append = " console=ttyS0,115200   quiet modprobe.blacklist=a,b "
        .parse()
        .expect("fine");
    assert_eq!(
        good.as_str(),
        "console=ttyS0,115200 quiet modprobe.blacklist=a,b"
    );
    assert_eq!("".parse::<Append>().expect("none at all").as_str(), "");
    for bad in [
        "a\nboot",
        "a ${net0/mac}",
        "a || shell",
        "a && b",
        "a;b",
        "a\\",
        "\"a",
        "'",
        "a#b",
        "\u{1b}[2J",
        "{",
    ] {
        assert!(
            matches!(bad.parse::<Append>(), Err(TextError::Character { .. })),
            "{bad}"
        );
    }
    for reserved in ["kraken.node=n2", "kraken.debug=1x", "quiet initrd=other"] {
        assert!(
            matches!(reserved.parse::<Append>(), Err(TextError::Reserved(_))),
            "{reserved}"
        );
    }
    assert!("quiet kraken.debug=1".parse::<Append>().is_ok());
    assert!("a".repeat(MAX_APPEND_BYTES).parse::<Append>().is_ok());
    assert!("a".repeat(MAX_APPEND_BYTES + 1).parse::<Append>().is_err());
}

#[test]
fn hashes_are_64_lower_case_digits_and_nothing_else() {
    let text = "0123456789abcdef".repeat(4);
    assert_eq!(text.parse::<Sha256>().expect("a hash").to_string(), text);
    for bad in [
        &text[1..],
        &text.to_uppercase(),
        &format!("{text}0"),
        "../../../etc/passwd",
        "",
    ] {
        assert!(bad.parse::<Sha256>().is_err(), "{bad}");
    }
}
