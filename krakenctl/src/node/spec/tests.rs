use super::*;

fn made(args: &SpecArgs, names: &str) -> Result<Vec<v1::Node>, Failure> {
    let names = crate::names::expand(names).expect("names");
    args.spec()?.nodes(&Schema::built_in(), &names)
}

fn text(node: &v1::Node, url: &str) -> String {
    crate::value::Shown::default().text(url, crate::view::get(crate::view::cfg(node), url))
}

#[test]
fn each_node_fills_its_places() {
    let args = SpecArgs {
        groups: vec!["@rack1".into(), "gpu".into()],
        labels: vec!["row=b".into()],
        address: Some("10.77.0.{i+10}/24".into()),
        values: vec![
            "/ipv4/boot/mac=52:54:00:4B:00:{i:02x}".into(),
            "/image/name=a".into(),
            "/image/name=b".into(),
            "/Busy=FREE".into(),
        ],
    };
    let nodes = made(&args, "n[9-10]").expect("nodes");
    assert_eq!(nodes[1].name, "n10");
    assert_eq!(nodes[1].groups, ["rack1", "gpu"]);
    assert_eq!(nodes[1].labels["row"], "b");
    assert_eq!(text(&nodes[1], MAC), "52:54:00:4b:00:0a");
    assert_eq!(text(&nodes[0], ADDRESS), "10.77.0.19/24");
    assert_eq!(text(&nodes[0], "/image/name"), "b", "the last one wins");
    assert_eq!(crate::view::cfg(&nodes[0]).len(), 3, "zeros are not sent");
}

#[test]
fn a_wrong_value_names_its_node() {
    let args = SpecArgs {
        address: Some("10.77.0.{i+10}/24".into()),
        ..SpecArgs::default()
    };
    let failure = made(&args, "n[240-250]").expect_err("above 255");
    assert!(failure.text.starts_with("n246: "), "{failure}");
    let bad_label = SpecArgs {
        labels: vec!["x".into()],
        ..SpecArgs::default()
    };
    assert!(made(&bad_label, "n1").is_err());
}

#[test]
fn counted_values_go_by_position() {
    let mut spec = Spec::default();
    spec.count_macs("52:54:00:4b:00:ff", 2).expect("macs");
    spec.count_addresses("10.0.0.1/24", 2).expect("addresses");
    let nodes = spec
        .nodes(&Schema::built_in(), &["a".into(), "b".into()])
        .expect("nodes");
    assert_eq!(text(&nodes[1], MAC), "52:54:00:4b:01:00");
    assert_eq!(text(&nodes[1], ADDRESS), "10.0.0.2/24");
    assert!(spec.count_addresses("10.0.0.250/24", 9).is_err());
}
