use super::*;

#[test]
fn the_last_item_of_a_node_set_is_completed() {
    let node = |name: &str| v1::Node {
        name: name.to_owned(),
        groups: vec!["rack1".into(), "gpu".into()],
        ..Default::default()
    };
    let nodes = [node("n1"), node("n2"), node("login")];
    let check = |current, expect: &[&str]| {
        let found = node_candidates(current, &nodes);
        let found: Vec<&str> = found
            .iter()
            .filter_map(|one| one.get_value().to_str())
            .collect();
        assert_eq!(found, expect, "{current}");
    };
    check("n", &["n1", "n2"]);
    check("", &["login", "n1", "n2"]);
    check("@rack9,n1", &["@rack9,n1"]);
    check("n1!@r", &["n1!@rack1"]);
    check("x", &[]);
}

#[test]
fn urls_and_values_come_from_the_schema() {
    let schema = Schema::built_in();
    assert_eq!(url_candidates("/RunS", &schema), ["/RunState"]);
    assert_eq!(url_candidates("RunS", &schema), ["/RunState"]);
    assert_eq!(url_candidates("/host/nic", &schema), ["/host/nics/"]);
    assert_eq!(assignment_candidates("/PhysS", &schema), ["/PhysState="]);
    assert_eq!(
        assignment_candidates("/RunState=S", &schema),
        ["/RunState=SYNC"]
    );
    assert_eq!(assignment_candidates("/power/insecure=", &schema).len(), 2);
    assert!(assignment_candidates("/image/name=", &schema).is_empty());
}
