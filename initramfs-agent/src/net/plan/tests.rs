use super::*;

fn present() -> Present {
    let link = |index, name: &str, mac: &str| Link {
        index,
        name: name.to_owned(),
        mac: mac.parse().ok(),
        ..Link::default()
    };
    Present {
        links: vec![
            Link {
                loopback: true,
                ..link(1, "lo", "00:00:00:00:00:00")
            },
            link(2, "eth0", "52:54:00:4b:00:01"),
            Link {
                carrier: true,
                ..link(3, "eth1", "52:54:00:4b:00:02")
            },
        ],
        defaults: Vec::new(),
    }
}

fn wanted() -> Wanted {
    Wanted {
        link: 2,
        address: "10.77.0.11/24".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
    }
}

#[test]
fn the_interface_is_the_one_that_booted() {
    let present = present();
    assert_eq!(
        present
            .choose("52:54:00:4b:00:01".parse().ok())
            .unwrap()
            .index,
        2
    );
    assert_eq!(present.choose("52:54:00:4b:00:09".parse().ok()), None);
    assert_eq!(
        present.choose(None).unwrap().index,
        3,
        "the one with a carrier"
    );
    assert_eq!(
        present.describe(),
        "eth0 (52:54:00:4b:00:01), eth1 (52:54:00:4b:00:02)"
    );
    assert_eq!(Present::default().describe(), "none");
}

#[test]
fn members_of_a_bridge_are_no_candidates() {
    let mut present = present();
    present.links[1].enslaved = true;
    assert_eq!(present.choose("52:54:00:4b:00:01".parse().ok()), None);
}

#[test]
fn from_nothing_to_all() {
    assert_eq!(
        present().steps_to(&wanted()),
        [
            Step::Up(1),
            Step::Up(2),
            Step::AddAddress(2, wanted().address),
            Step::DefaultRoute(Ipv4Addr::new(10, 77, 0, 1), 2),
        ]
    );
}

#[test]
fn what_is_there_is_not_done_again() {
    let mut present = present();
    for link in &mut present.links {
        link.up = true;
    }
    present.links[1].addresses = vec![wanted().address];
    present.defaults = vec![(Ipv4Addr::new(10, 77, 0, 1), 2)];
    assert!(present.steps_to(&wanted()).is_empty());
    present.defaults = vec![(Ipv4Addr::new(10, 77, 0, 1), 3)];
    assert_eq!(
        present.steps_to(&wanted()),
        [Step::DefaultRoute(Ipv4Addr::new(10, 77, 0, 1), 2)]
    );
}

#[test]
fn nobody_is_its_own_gateway() {
    let mut wanted = wanted();
    wanted.gateway = Some(wanted.address.ip);
    assert!(
        !present()
            .steps_to(&wanted)
            .iter()
            .any(|step| matches!(step, Step::DefaultRoute(..)))
    );
}
