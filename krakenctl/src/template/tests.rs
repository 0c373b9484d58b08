use super::*;

#[track_caller]
fn check(template: &str, name: &str, position: usize, expect: &str) {
    let filled = Template::parse(template).and_then(|t| t.fill(Filler { name, position }));
    assert_eq!(filled.as_deref(), Ok(expect), "{template} for {name}");
}

#[test]
fn places_are_filled() {
    check("plain", "n1", 0, "plain");
    check("", "n1", 0, "");
    check("52:54:00:4b:00:{i:02x}", "n12", 0, "52:54:00:4b:00:0c");
    check("10.77.0.{i+10}/24", "n4", 0, "10.77.0.14/24");
    check("10.{i1}.{i2*2-1}.1", "r3n12", 0, "10.3.23.1");
    check("{n}-{n+1:03}", "login", 4, "4-005");
    check("https://bmc-{name}/", "n1", 0, "https://bmc-n1/");
    check("{i/4}.{i%4}", "n7", 0, "1.3");
    check("{i:X}{i:x}{i:d}", "n10", 0, "Aa10");
    check("{{i}} }}{{", "n1", 0, "{i} }{");
    check("{ i + 1 }", "n1", 0, "2");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for text in ["{", "}", "a{i", "i}"] {
        assert!(
            matches!(Template::parse(text), Err(TemplateError::Brace(_))),
            "{text}"
        );
    }
    for text in [
        "{}", "{x}", "{i0}", "{i+}", "{i+-1}", "{i:q}", "{i:99}", "{i+x}", "{i:}x", "{name+1}",
    ] {
        assert!(
            matches!(Template::parse(text), Err(TemplateError::Place(_))),
            "{text}"
        );
    }
}

#[test]
fn numbers_stay_in_bounds() {
    let fill =
        |text: &str, name| Template::parse(text).and_then(|t| t.fill(Filler { name, position: 0 }));
    assert!(matches!(
        fill("{i}", "login"),
        Err(TemplateError::NoNumber { .. })
    ));
    assert!(matches!(
        fill("{i2}", "n1"),
        Err(TemplateError::NoNumber { .. })
    ));
    for text in ["{i-2}", "{i/0}", "{i%0}", "{i+9223372036854775807}"] {
        assert!(
            matches!(fill(text, "n1"), Err(TemplateError::Bounds { .. })),
            "{text}"
        );
    }
}
