use super::*;

#[test]
fn the_line_of_a_boot_script() {
    let (params, ignored) = parse(
        "console=ttyS0 kraken.node=n1 kraken.id=0191d2a0-0000-7000-8000-000000000001 kraken.parent=10.77.0.1:31415 \
         kraken.http=10.77.0.1:8080 kraken.ip=10.77.0.11/24 kraken.gw=10.77.0.1 kraken.mac=52:54:00:4b:00:01 \
         kraken.boot=0191d2a0-0000-7000-8000-0000000000b0 initrd=initramfs initrd=grant\n",
    );
    assert!(ignored.is_empty(), "{ignored:?}");
    assert_eq!(params.node.as_deref(), Some("n1"));
    assert_eq!(
        params.id.unwrap().to_string(),
        "0191d2a0-0000-7000-8000-000000000001"
    );
    assert_eq!(params.parents, ["10.77.0.1:31415".parse().unwrap()]);
    assert_eq!(params.http, Some("10.77.0.1:8080".parse().unwrap()));
    assert_eq!(params.address.unwrap().to_string(), "10.77.0.11/24");
    assert_eq!(params.gateway, Some(Ipv4Addr::new(10, 77, 0, 1)));
    assert_eq!(params.mac.unwrap().to_string(), "52:54:00:4b:00:01");
    assert!(params.boot.is_some() && !params.debug);
}

#[test]
fn nonsense_is_named_and_ignored() {
    for (word, why) in [
        ("kraken.ip=10.0.0.1", "ADDRESS/PREFIX is wanted"),
        ("kraken.ip=10.0.0.1/33", "ADDRESS/PREFIX is wanted"),
        (
            "kraken.mac=52:54:00:4b:00",
            "a link-layer address is wanted",
        ),
        (
            "kraken.mac=52:54:00:4b:00:01:02",
            "a link-layer address is wanted",
        ),
        (
            "kraken.parent=head:31415",
            "ADDRESS:PORT is wanted, or several joined by commas",
        ),
        ("kraken.id=7", "a UUID is wanted"),
        ("kraken.colour=red", "no such parameter"),
    ] {
        let (params, ignored) = parse(word);
        assert_eq!(params, BootParams::default(), "{word}");
        assert_eq!(ignored, [format!("{word} is ignored: {why}")]);
    }
}

#[test]
fn empty_values_and_foreign_words_are_no_news() {
    let (params, ignored) = parse("quiet kraken.gw= kraken.ip= root=/dev/sda1 krakenx=1");
    assert_eq!((params, ignored), (BootParams::default(), Vec::new()));
    assert!(parse("kraken.debug=1").0.debug);
    assert!(!parse("kraken.debug kraken.debug=0").0.debug);
}

#[test]
fn several_parents_keep_their_order() {
    let (params, _) = parse("kraken.parent=10.0.0.2:1,10.0.0.1:2");
    assert_eq!(
        params.parents,
        ["10.0.0.2:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap()]
    );
}

#[test]
fn any_text_is_survived() {
    for line in [
        "kraken.",
        "kraken.=",
        "kraken.ip=/",
        "kraken.mac=äöü:-",
        "kraken.node=\u{0}",
        &"kraken.x=1 ".repeat(1000),
    ] {
        let _ = parse(line);
    }
}
