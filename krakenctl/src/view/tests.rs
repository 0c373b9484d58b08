use super::*;
use engine::extension::Schema;

fn change(url: &str, text: &str) -> v1::ValueChange {
    let kind = Some(v1::value::Kind::TextValue(text.to_owned()));
    v1::ValueChange {
        url: url.to_owned(),
        value: Some(v1::Value { kind }),
    }
}

fn node() -> v1::Node {
    v1::Node {
        id: vec![0x11; 16],
        name: "n1".into(),
        groups: vec!["rack1".into()],
        cfg: Some(v1::Values {
            values: vec![
                change("/PhysState", "POWER_ON"),
                change("/power/password", "hunter2"),
            ],
        }),
        dsc: Some(v1::Values {
            values: vec![
                change("/PhysState", "POWER_OFF"),
                change("/RunState", "ERROR"),
            ],
        }),
        cfg_revision: 7,
        ..Default::default()
    }
}

/// The field names are what scripts rely on.
#[test]
fn json_has_stable_names_and_no_secrets() {
    let view = NodeView::new(&node(), &Shown::new(Schema::built_in()));
    let expect = concat!(
        r#"{"name":"n1","id":"11111111-1111-1111-1111-111111111111","parent_id":null,"#,
        r#""groups":["rack1"],"labels":{},"frozen":false,"is_head":false,"cfg_revision":7,"last_seen_ms":null,"cfg":{"/PhysState":"POWER_ON","/power/password":"(secret)"}"#,
        r#","dsc":{"/PhysState":"POWER_OFF","/RunState":"ERROR"}}"#,
    );
    assert_eq!(serde_json::to_string(&view).expect("json"), expect);
}

#[test]
fn a_cell_shows_what_is_wanted_where_it_differs() {
    let shown = Shown::default();
    let cell = |url| known_and_wanted(&node(), url, &shown);
    assert_eq!(
        cell("/PhysState"),
        Cell::new("POWER_OFF -> POWER_ON", Tone::Warn)
    );
    assert_eq!(cell("/RunState"), Cell::new("ERROR", Tone::Bad));
    assert_eq!(cell("/Busy"), Cell::new("", Tone::Plain));
    let mut unknown = node();
    unknown.dsc = None;
    assert_eq!(
        known_and_wanted(&unknown, "/PhysState", &shown).text,
        "unknown -> POWER_ON"
    );
}

#[test]
fn ages() {
    assert_eq!(ago(0, 5_000), "");
    assert_eq!(ago(2_000, 5_000), "3s ago");
    assert_eq!(ago(9_000, 5_000), "0s ago");
}
