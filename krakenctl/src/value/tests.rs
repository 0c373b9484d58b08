use super::*;

fn schema() -> Schema {
    Schema::built_in()
}

#[track_caller]
fn check(text: &str, expect: Option<Kind>) {
    let (url, value) = split_assignment(text).expect(text);
    let change = change(&schema(), &url, value).expect(text);
    assert_eq!(change.value.and_then(|value| value.kind), expect, "{text}");
}

fn text(text: &str) -> Option<Kind> {
    Some(Kind::TextValue(text.to_owned()))
}

#[test]
fn values_take_the_type_of_their_schema() {
    check("/PhysState=POWER_ON", text("POWER_ON"));
    check("RunState=SYNC", text("SYNC"));
    check(
        "/ipv4/boot/mac=52-54-00-4B-00-01",
        text("52:54:00:4b:00:01"),
    );
    check("/ipv4/boot/mtu=9000", Some(Kind::IntValue(9000)));
    check("/power/insecure=yes", Some(Kind::BoolValue(true)));
    check("/host/memory=4GiB", Some(Kind::IntValue(4 << 30)));
    let items = ["10.0.0.1", "10.0.0.2"]
        .map(|ip| v1::Value { kind: text(ip) })
        .to_vec();
    check(
        "/ipv4/dns=10.0.0.1,10.0.0.2",
        Some(Kind::ListValue(v1::ValueList { items })),
    );
}

#[test]
fn zeros_and_empty_texts_unset() {
    check("/Busy=FREE", None);
    check("/PhysState=", None);
    check("/ipv4/boot/mtu=0", None);
    check("/image/name=", None);
}

#[test]
fn an_unknown_url_goes_to_the_head_as_text() {
    check("/site/rack=7", text("7"));
    check("/site/note=a=b", text("a=b"));
}

#[test]
fn wrong_values_say_what_fits() {
    let error = |text| {
        let (url, value) = split_assignment(text).expect(text);
        change(&schema(), &url, value).expect_err(text)
    };
    assert_eq!(error("/RunState=SINC").exit, crate::exit::Exit::Usage);
    assert!(
        error("/RunState=SINC").text.contains("SYNC"),
        "{}",
        error("/RunState=SINC")
    );
    assert!(
        error("/ipv4/boot/address=10.0.0.1")
            .text
            .contains("10.0.0.1/24")
    );
    assert!(split_assignment("/RunState").is_err());
    assert!(split_assignment("=x").is_err());
    assert!(split_assignment("/a b=x").is_err());
}

#[test]
fn secrets_are_not_shown_in_any_form() {
    let shown = Shown::new(schema());
    let secret = v1::Value {
        kind: text("hunter2"),
    };
    assert_eq!(shown.text("/power/password", Some(&secret)), REDACTED);
    assert_eq!(
        shown.json("/power/password", &secret),
        serde_json::Value::from(REDACTED)
    );
    assert_eq!(shown.text("/image/name", Some(&secret)), "hunter2");
    let long = "x".repeat(engine::state::MAX_VALUE_BYTES + 1);
    let url = "/power/password".parse().expect("url");
    assert!(
        !change(&schema(), &url, &long)
            .expect_err("too long")
            .text
            .contains("xx")
    );
}

#[test]
fn numbers_are_shown_with_their_units() {
    let shown = Shown::new(schema());
    let int = |n| v1::Value {
        kind: Some(Kind::IntValue(n)),
    };
    assert_eq!(shown.text("/host/memory", Some(&int(4 << 30))), "4 GiB");
    assert_eq!(shown.text("/host/memory", None), "");
    for (bytes, expect) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (5 << 50, "5120 TiB"),
        (-1, "-1 B"),
    ] {
        assert_eq!(size(bytes), expect);
    }
    for (millis, expect) in [
        (0, "0s"),
        (250, "250ms"),
        (4_200, "4.2s"),
        (42_900, "42s"),
        (90_000, "1m30s"),
        (3_600_000, "1h"),
        (100_000_000, "1d3h"),
    ] {
        assert_eq!(duration(Duration::from_millis(millis)), expect);
    }
}
