use super::*;

#[test]
fn link_layer_addresses_count_up() {
    let all = macs("52:54:00:4B:00:fe", 3).expect("room");
    assert_eq!(
        all,
        [
            "52:54:00:4b:00:fe",
            "52:54:00:4b:00:ff",
            "52:54:00:4b:01:00"
        ]
    );
    assert_eq!(macs("ff-ff-ff-ff-ff-ff", 1).map(|all| all.len()), Ok(1));
    assert!(matches!(
        macs("ff:ff:ff:ff:ff:ff", 2),
        Err(SequenceError::Full { .. })
    ));
    for text in [
        "",
        "52:54:00:4b:00",
        "52:54:00:4b:00:1",
        "52:54:00:4b:00:+1",
        "52:54:00:4b:00:zz",
    ] {
        assert!(
            matches!(macs(text, 1), Err(SequenceError::Mac(_))),
            "{text}"
        );
    }
}

#[test]
fn addresses_stay_in_their_network() {
    let all = addresses("10.77.0.254/16", 3).expect("room");
    assert_eq!(all, ["10.77.0.254/16", "10.77.0.255/16", "10.77.1.0/16"]);
    assert_eq!(addresses("10.77.0.253/24", 2).map(|all| all.len()), Ok(2));
    assert!(
        matches!(
            addresses("10.77.0.253/24", 3),
            Err(SequenceError::Full { .. })
        ),
        "broadcast"
    );
    assert_eq!(addresses("10.0.0.0/31", 2).map(|all| all.len()), Ok(2));
    assert_eq!(addresses("10.0.0.1/32", 1).map(|all| all.len()), Ok(1));
    assert!(matches!(
        addresses("10.0.0.255/24", 1),
        Err(SequenceError::Full { .. })
    ));
    assert_eq!(
        addresses("fd00::ffff/64", 2).expect("room")[1],
        "fd00::1:0/64"
    );
    assert_eq!(
        addresses("255.255.255.254/0", 1).map(|all| all.len()),
        Ok(1)
    );
    for text in ["", "10.0.0.1", "10.0.0.1/33", "10.0.0/24", "10.0.0.1/x"] {
        assert!(
            matches!(addresses(text, 1), Err(SequenceError::Cidr(_))),
            "{text}"
        );
    }
}
