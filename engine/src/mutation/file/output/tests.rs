//! What outputs mean.

use std::time::Duration;

use super::*;
use crate::extension::{Field, Kind};
use crate::mutation::file::program::{Command, ExitCodes};
use crate::mutation::file::template::Template;

fn schema() -> Schema {
    let field = |kind| Field {
        discoverable: true,
        ..Field::new(kind)
    };
    let names = ["PHYS_UNKNOWN", "POWER_OFF", "POWER_ON", "PHYS_HANG"];
    let mut schema = Schema::default();
    let power = Kind::Enum(names.map(str::to_owned).to_vec());
    schema.add("/PhysState".into(), field(power));
    let int = Kind::Int { min: 0, max: 200 };
    schema.add("/host/temperature".into(), field(int));
    schema
}

fn said(stdout: &str) -> (Vec<String>, Vec<String>) {
    let may = |url: &StateUrl| url.as_str() != "/other";
    let said = discover_lines(stdout, may, &schema());
    let shown = |change: &Change| format!("{}={:?}", change.url, change.value);
    (said.changes.iter().map(shown).collect(), said.refused)
}

#[test]
fn lines_of_discoveries() {
    let stdout = "booting\n  discover /PhysState POWER_ON \ndiscover /host/temperature 41\ndiscover /site/rack 3\ndiscover /site/name a b\n\
                  discover /site/text \"3\"\ndiscover /site/x true\ndiscover /site/load 0.5\ndiscover /site/gone\nundiscover /a b\n";
    let (changes, refused) = said(stdout);
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(
        changes,
        [
            "/PhysState=Some(POWER_ON)",
            "/host/temperature=Some(41)",
            "/site/rack=Some(3)",
            "/site/name=Some(a b)",
            "/site/text=Some(3)",
            "/site/x=Some(true)",
            "/site/load=Some(0.5)",
            "/site/gone=None",
        ]
    );
    let typed = |text| typed(&schema(), &"/site/v".parse().unwrap(), text).unwrap();
    assert_eq!(typed("3"), Some(Value::Int(3)));
    assert_eq!(typed("\"3\""), Some(Value::text("3")));
    assert_eq!(typed("inf"), Some(Value::text("inf")));
    assert_eq!(typed("0"), None);
}

#[test]
fn lines_that_are_refused() {
    let (changes, refused) = said(
        "discover\ndiscover /a b/c\ndiscover /other 1\ndiscover /PhysState ON\ndiscover /host/temperature hot\ndiscover a b c\n",
    );
    assert_eq!(changes, ["/a=Some(b/c)", "/a=Some(b c)"]);
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert!(
        refused[1].contains("not declared in the file"),
        "{refused:?}"
    );
    let many = "discover /a 1\n".repeat(MAX_DISCOVERIES + 5);
    let (changes, refused) = said(&many);
    assert_eq!((changes.len(), refused.len()), (MAX_DISCOVERIES, 1));
}

fn poll(readings: Vec<Reading>) -> Poll {
    Poll {
        name: "status".into(),
        every: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        requires: Vec::new(),
        command: Command {
            argv: vec![Template::plain("x")],
            env: Vec::new(),
            stdin: None,
            exit: ExitCodes::default(),
        },
        readings,
        error: None,
    }
}

fn reading(pattern: Pattern, url: &str, found: Found) -> Reading {
    Reading {
        pattern,
        discover: vec![(url.parse().unwrap(), found)],
        unless: Vec::new(),
    }
}

fn power() -> Poll {
    let state = |line: &str, state: &str| {
        let value = Found::Value(Some(state.into()));
        reading(Pattern::Line(line.into()), "/PhysState", value)
    };
    let mut on = state("Chassis Power is on", "POWER_ON");
    on.unless = vec![Condition::is("/PhysState".parse().unwrap(), "PHYS_HANG")];
    poll(vec![on, state("Chassis Power is off", "POWER_OFF")])
}

/// What a poll makes of an output on a node that hangs, or not.
fn read(poll: &Poll, stdout: &str, hangs: bool) -> Result<Vec<String>, String> {
    let changes = poll.read(stdout, Vec::new(), |_| hangs, &schema())?;
    let shown = |change: &Change| format!("{}={:?}", change.url, change.value);
    Ok(changes.iter().map(shown).collect())
}

#[test]
fn f33_an_answer_that_means_nothing_or_two_things_is_none() {
    let power = power();
    let on = vec!["/PhysState=Some(POWER_ON)".to_owned()];
    assert_eq!(read(&power, "Chassis Power is on\n", false), Ok(on));
    let off = vec!["/PhysState=Some(POWER_OFF)".to_owned()];
    assert_eq!(read(&power, " Chassis Power is off\r\n", true), Ok(off));
    for wrong in [
        "",
        "Chassis Power is unknown\n",
        "off\n",
        "Chassis Power is off-line\n",
        "\u{0}\u{1b}[2J",
        "Chassis Power is on\nChassis Power is off\n",
    ] {
        assert!(read(&power, wrong, false).is_err(), "{wrong:?}");
    }
    // Without a map, only lines `discover URL VALUE` mean anything.
    let plain = poll(Vec::new());
    for wrong in ["", "on", "discovr /PhysState POWER_ON"] {
        assert!(read(&plain, wrong, false).is_err(), "{wrong:?}");
    }
    let said = vec![Change::set(
        "/PhysState".parse().unwrap(),
        "POWER_ON".into(),
    )];
    for poll in [&plain, &power] {
        let taken = poll.read(
            "discover /PhysState POWER_ON",
            said.clone(),
            |_| false,
            &schema(),
        );
        assert_eq!(taken.as_ref(), Ok(&said));
    }
    // "On" is no news of a node that hangs, but it still contradicts "off".
    assert_eq!(read(&power, "Chassis Power is on\n", true), Ok(Vec::new()));
    let both = "Chassis Power is off\nChassis Power is on\n";
    let why = read(&power, both, true).unwrap_err();
    assert!(why.starts_with("it says two things of /PhysState"), "{why}");
}

#[test]
fn patterns_take_values_out_of_lines() {
    let regex = Pattern::Regex(Regex::new(r"^Inlet Temp +\| +(\d+)").unwrap());
    let temperature = poll(vec![reading(regex, "/host/temperature", Found::Group(1))]);
    let stdout = "Fan 1      | 4000\nInlet Temp | 23 degrees C\n";
    assert_eq!(
        read(&temperature, stdout, false),
        Ok(vec!["/host/temperature=Some(23)".to_owned()])
    );
    assert!(read(&temperature, "Inlet Temp | 999\n", false).is_err());
    let part = Pattern::Contains("degraded".into());
    let raid = poll(vec![reading(
        part,
        "/raid",
        Found::Value(Some("BAD".into())),
    )]);
    assert_eq!(
        read(&raid, "md0 : active degraded raid1\n", false),
        Ok(vec!["/raid=Some(BAD)".to_owned()])
    );
}

#[test]
fn the_last_words_of_a_program_are_bounded_and_clean() {
    assert_eq!(last_words("a\n\n b \nc\nd\n", "out"), "b; c; d");
    assert_eq!(last_words(" \n", "only\tout\n"), "only out");
    assert_eq!(last_words("", ""), "");
    assert_eq!(last_words(&"ä".repeat(1000), "").len(), MAX_WORDS_BYTES);
}
