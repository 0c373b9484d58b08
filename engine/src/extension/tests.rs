//! What fits a field, what is said of what does not, and what a changed extension strands.

use super::*;
use crate::state::{Float, MAX_LIST_ITEMS, MAX_VALUE_BYTES};

fn one(field: Field) -> Schema {
    let mut schema = Schema::default();
    assert!(schema.add("/x/y".into(), field));
    schema
}

fn url() -> StateUrl {
    "/x/y".parse().unwrap()
}

#[track_caller]
fn refused(field: Field, value: Value, expect: &str) {
    let error = one(field).check(&url(), value).unwrap_err().to_string();
    assert!(error.contains(expect), "{error:?} lacks {expect:?}");
}

/// F45: values that no field takes are refused by their url, with an example.
#[test]
fn f45_values_beyond_all_bounds_are_refused_by_name() {
    let int = || {
        Field::new(Kind::Int {
            min: 0,
            max: u32::MAX.into(),
        })
    };
    let float = || Field::new(Kind::Float);
    refused(
        float(),
        Value::Float(Float(f64::NAN)),
        "/x/y cannot be \"NaN\": a number is wanted, such as 1.5",
    );
    refused(float(), Value::Float(Float(f64::INFINITY)), "a number");
    refused(float(), Value::Int(i64::MAX), "a number");
    refused(
        int(),
        Value::Int(i64::MAX),
        "a whole number from 0 to 4294967295 is wanted, such as 42",
    );
    refused(int(), Value::Int(-1), "a whole number");
    refused(int(), Value::Float(Float(1.0)), "a whole number");
    let bytes = vec![0; MAX_VALUE_BYTES + 1];
    refused(
        Field::new(Kind::Bytes),
        Value::Bytes(bytes.into()),
        "at most 65536 bytes",
    );
    refused(
        Field::new(Kind::Text),
        Value::text("x".repeat(MAX_VALUE_BYTES + 1)),
        "at most 65536 bytes",
    );
    let list = Field {
        repeated: true,
        ..int()
    };
    refused(
        list.clone(),
        Value::List(vec![Value::Int(1); MAX_LIST_ITEMS + 1]),
        "a list of 1025 items",
    );
    refused(
        list,
        Value::List(vec![Value::List(vec![])]),
        "a whole number",
    );
    let schema = one(int());
    for text in ["99999999999999999999999", "1e9", "NaN", "", "\u{0}"] {
        assert!(schema.parse(&url(), text).is_err(), "{text:?}");
    }
    // A whole number where any number is wanted is no mistake.
    assert_eq!(
        one(float()).check(&url(), Value::Int(3)),
        Ok(Some(Value::Float(Float(3.0))))
    );
}

#[test]
fn a_refused_secret_is_not_repeated() {
    let field = Field {
        secret: true,
        format: Format::Ip,
        ..Field::new(Kind::Text)
    };
    let schema = one(field);
    for error in [
        schema.check(&url(), Value::text("hunter2")).unwrap_err(),
        schema.parse(&url(), "hunter2").unwrap_err(),
        schema.check(&url(), Value::Bool(true)).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(
            !error.contains("hunter2") && !error.contains("true"),
            "{error}"
        );
        assert!(error.contains("such as 10.0.0.1"), "{error}");
    }
}

#[test]
fn secrets_are_found_below_maps_and_taken_out_of_words() {
    let mut schema = Schema::default();
    let secret = Field {
        secret: true,
        ..Field::new(Kind::Text)
    };
    assert!(schema.add("/x/keys/*/value".into(), secret.clone()));
    assert!(schema.add("/x/key".into(), secret));
    let values: Values = [
        ("/x/keys/a/value", "first"),
        ("/x/key", "second"),
        ("/x/other", "third"),
    ]
    .map(|(url, value)| (url.parse().unwrap(), Value::from(value)))
    .into_iter()
    .collect();
    let found: Vec<&str> = schema
        .secrets_of(&values)
        .map(|(url, _)| url.as_str())
        .collect();
    assert_eq!(found, ["/x/key", "/x/keys/a/value"]);
    assert_eq!(
        schema.scrubbed(&[&values], "first, second and third"),
        Some("(secret), (secret) and third".into())
    );
    assert_eq!(schema.scrubbed(&[&values], "third"), None);
    // One in another does not leave the rest of that one.
    assert_eq!(
        without_secrets(["pass", "password9", "ab"], "ab password9 pass"),
        Some("ab (secret) (secret)".into())
    );
    let hidden = |url: &str| schema.hides(&url.parse().unwrap());
    assert!(hidden("/x/key") && hidden("/nobody/knows"));
}

#[test]
fn numbers_keep_their_meaning() {
    let extension = |fields: &[(&str, &[u32])]| Extension {
        name: "x".into(),
        doc: String::new(),
        fields: fields
            .iter()
            .map(|(pattern, numbers)| {
                let declared = Declared {
                    field: Field::new(Kind::Text),
                    numbers: numbers.to_vec(),
                };
                ((*pattern).to_owned(), declared)
            })
            .collect(),
    };
    let old = extension(&[("/x/a", &[1]), ("/x/in/b", &[2, 1])]);
    let words = |new: &Extension| -> Vec<String> {
        old.renumbered(new)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert!(words(&extension(&[("/x/in/b", &[2, 1]), ("/x/c", &[3])])).is_empty());
    assert_eq!(
        words(&extension(&[("/x/a", &[1]), ("/x/in/b", &[2, 7])])),
        ["/x/in/b had field number 2.1 and has 2.7: give it its old number back"]
    );
    assert_eq!(
        words(&extension(&[("/x/aa", &[1])])),
        [
            "field number 1 was /x/a and is /x/aa: give /x/aa a number that was never used (and write `reserved` for the old one)"
        ]
    );
}

/// What a card cannot have is refused where it is wanted; what is reported is what there is.
#[test]
fn a_wanted_link_layer_address_is_that_of_one_card() {
    let schema = Schema::built_in();
    let check = |url: &str, mac: &str| schema.check(&url.parse().unwrap(), Value::from(mac));
    let good = check("/ipv4/boot/mac", "52-54-00-AB-34-56");
    assert_eq!(good, Ok(Some(Value::from("52:54:00:ab:34:56"))));
    for mac in [
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
    ] {
        let error = check("/ipv4/boot/mac", mac).unwrap_err().to_string();
        assert!(error.contains("neither all zeros nor multicast"), "{error}");
        assert!(check("/host/nics/lo/mac", mac).is_ok());
    }
}
