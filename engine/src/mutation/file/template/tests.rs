//! What comes out of templates, and what is refused.

use super::*;
use crate::extension::{Field as Known, Kind};
use crate::mutation::file::program::{Command, ExitCodes, Outcome};
use crate::state::Change;

fn schema() -> Schema {
    let field = |kind, format, secret| Known {
        format,
        secret,
        discoverable: true,
        ..Known::new(kind)
    };
    let int = Kind::Int {
        min: 0,
        max: i64::MAX,
    };
    let mut schema = Schema::default();
    let text = || Kind::Text;
    schema.add("/bmc/host".into(), field(text(), Format::Plain, false));
    schema.add("/bmc/password".into(), field(text(), Format::Plain, true));
    schema.add("/bmc/wait".into(), field(int, Format::Duration, false));
    schema
}

/// Fills a template as an argument on a node whose `/bmc/host` is `host`.
fn argument(text: &str, host: &str) -> Result<String, String> {
    let template = Template::parse(text, &schema()).map_err(|why| format!("parse: {why}"))?;
    let values = |values: &[(&str, Value)]| {
        let mut all = Values::default();
        all.apply(
            values
                .iter()
                .map(|(url, value)| Change::set(url.parse().unwrap(), value.clone())),
        );
        all
    };
    let cfg = values(&[
        ("/bmc/host", Value::text(host)),
        ("/bmc/wait", Value::Int(1_500_000_000)),
        ("/bmc/password", Value::text("hush")),
    ]);
    let subject = Subject {
        name: &"n1".parse().unwrap(),
        id: NodeId::from_bytes([1; 16]),
        attempt: Some((&MutationId::new("m", "A"), 7)),
        cfg: &cfg,
        dsc: &values(&[("/bmc/host", Value::text("known"))]),
    };
    let fill = template.fill(Place::Argument, &subject, &mut Vec::new());
    fill.map_err(|error| error.to_string())
}

#[test]
fn fields_are_filled_in_once_and_never_split() {
    for (text, expect) in [
        ("", ""),
        ("plain", "plain"),
        ("{node}", "n1"),
        ("{id}", "01010101-0101-0101-0101-010101010101"),
        ("{mutation}#{attempt}", "m/A#7"),
        ("-H{/bmc/host}", "-Ha b;{node} $(x)"),
        ("{/bmc/host}.{node}", "a b;{node} $(x).n1"),
        ("{dsc:/bmc/host}", "known"),
        ("{/bmc/port|623}", "623"),
        ("{dsc:/bmc/port|}", ""),
        ("{/bmc/wait}s", "1.5s"),
        ("{{node}} {{{node}}}", "{node} {n1}"),
    ] {
        assert_eq!(argument(text, "a b;{node} $(x)").unwrap(), expect, "{text}");
    }
}

#[test]
fn what_cannot_go_in_is_said() {
    for (text, host, expect) in [
        (
            "{/bmc/host}",
            "-oProxyCommand=x",
            "{/bmc/host} begins with '-' and would be taken for an option",
        ),
        ("{/bmc/host}", "a\0b", "{/bmc/host} holds a zero byte"),
        (
            "{/bmc/port}",
            "h",
            "n1 has no /bmc/port: set it with krakenctl node set n1 /bmc/port=VALUE",
        ),
        ("{dsc:/bmc/wait}", "h", "/bmc/wait of n1 is not known yet"),
        (
            "{nod}",
            "h",
            "parse: {nod} is no field: use node, id, mutation, attempt or a url that begins with a slash",
        ),
        (
            "{env:/bmc/host}",
            "h",
            "parse: {env:/bmc/host}: \"env\" is none of dsc, dash and secret",
        ),
        (
            "{/bmc host}",
            "h",
            "parse: {/bmc host}: \"/bmc host\" is not a state url: parts hold letters, digits and ._-:@+ only",
        ),
        (
            "{node",
            "h",
            "parse: \"{node\" has a { without its }; a plain one is written {{",
        ),
        (
            "node}",
            "h",
            "parse: \"node}\" has a } without its {; a plain one is written }}",
        ),
    ] {
        assert_eq!(argument(text, host).unwrap_err(), expect, "{text}");
    }
    // Behind other text a minus sign makes no option, and a field may say that it is meant.
    assert_eq!(argument("{node}{/bmc/host}", "-x").unwrap(), "n1-x");
    assert_eq!(argument("{dash:/bmc/host}", "-x").unwrap(), "-x");
    assert_eq!(argument("{/bmc/host}", "x-").unwrap(), "x-");
    let long = "x".repeat(MAX_ARGUMENT_BYTES);
    assert_eq!(argument("{/bmc/host}", &long).unwrap().len(), long.len());
    assert!(argument("{/bmc/host}x{/bmc/host}", &long).is_err());
}

#[test]
fn secrets_are_known_and_never_printed() {
    let schema = schema();
    let parse = |text: &str| Template::parse(text, &schema).unwrap();
    let command = Command {
        argv: vec![parse("prog"), parse("{secret:/bmc/password}")],
        env: vec![("P".into(), parse("{/bmc/password}"))],
        stdin: Some(parse("{/bmc/password}\n")),
        exit: ExitCodes::default(),
    };
    let mut cfg = Values::default();
    cfg.set("/bmc/password".parse().unwrap(), Some("hush".into()));
    let subject = Subject {
        name: &"n1".parse().unwrap(),
        id: NodeId::from_bytes([1; 16]),
        attempt: None,
        cfg: &cfg,
        dsc: &Values::default(),
    };
    let filled = command.fill(&subject).unwrap();
    assert_eq!(filled.argv, ["prog", "hush"]);
    assert_eq!(filled.env, [("P".to_owned(), "hush".to_owned())]);
    assert_eq!(filled.stdin.as_deref(), Some("hush\n"));
    assert_eq!(format!("{filled:?}"), "prog (secret)");
    assert_eq!(
        filled.redacted("bad password hush!"),
        "bad password (secret)!"
    );
    assert_eq!(command.to_string(), "prog {/bmc/password}");
}

#[test]
fn exit_codes_have_outcomes() {
    let mut exit = ExitCodes::default();
    for (code, expect) in [
        (Some(0), Outcome::Ok),
        (Some(75), Outcome::Retry),
        (Some(1), Outcome::Failed),
        (None, Outcome::Failed),
    ] {
        assert_eq!(*exit.outcome(code), expect, "{code:?}");
    }
    exit.codes.insert(1, Outcome::Ok);
    exit.other = Outcome::Retry;
    assert_eq!(*exit.outcome(Some(1)), Outcome::Ok);
    assert_eq!(*exit.outcome(Some(2)), Outcome::Retry);
    // What a signal ended has never done its work.
    assert_eq!(*exit.outcome(None), Outcome::Failed);
}
