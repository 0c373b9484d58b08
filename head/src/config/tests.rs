use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    parse_with(text, &[])
}

fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let env = |name: &str| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    Config::parse(Path::new("head.toml"), text, &env).map_err(|error| error.to_string())
}

#[test]
fn the_default_name_is_a_name() {
    assert_eq!(default_name().as_str(), "head");
}

#[test]
fn a_full_file_is_read() {
    let config = parse(
        r#"
        cluster = "lab"
        state_dir = "/tmp/state"
        run_dir = "/tmp/run"
        name = "h0"
        [log]
        format = "json"
        level = "debug"
        [api]
        listen = "127.0.0.1:3141"
        [boot]
        interfaces = ["br0"]
        http_port = 8081
        kernel = "/k/vmlinuz"
        initramfs = "/k/initramfs"
        append = "console=ttyS0  quiet"
        loaders = { bios = "/l/undionly.kpxe", uefi-x86_64 = "/l/ipxe.efi" }
        window = "5m"
        [sync]
        port = 0
        hello = "200ms"
        dead = "1s"
        [engine]
        silent_hold = "1m"
        attempts = 5
        parallel = false
        costs = "learned"
        [power]
        poll = "1s"
        command = { on = ["pm", "--on", "{node}"], off = ["pm", "--off", "{node}"], status = ["pm", "-q", "{target}"] }
        "#,
    )
    .unwrap();
    assert_eq!(config.keys_dir, Path::new("/tmp/state/keys"));
    assert!(config.log.json);
    assert_eq!(config.boot.append, "console=ttyS0 quiet");
    assert_eq!(config.boot.loaders.len(), 2);
    assert_eq!(config.sync.timers.suspect, Duration::from_millis(600));
    assert_eq!(config.engine.attempts, 5);
    assert!(!config.engine.parallel);
    assert_eq!(config.engine.costs, CostSource::Learned);
    assert_eq!(config.power.command.unwrap().on[2], "{node}");
}

#[test]
fn what_a_module_is_told_keeps_its_type() {
    use engine::state::{Float, Value};
    let text = "cluster = \"lab\"\n[modules.fan]\ncommand = [\"fan\"]\nconfig = { speed = 3, factor = 1_0.5, quiet = true }\n";
    let config = parse(text).unwrap();
    let told = [
        ("factor", Value::Float(Float(10.5))),
        ("quiet", Value::Bool(true)),
        ("speed", Value::Int(3)),
    ];
    let told = told.map(|(key, value)| (key.to_owned(), value));
    assert_eq!(config.modules[0].config, told.into());
}

#[test]
fn the_example_is_good_and_names_every_key() {
    let config = parse(include_str!("../../head.example.toml")).unwrap();
    let left_out: Vec<&str> = config
        .shown
        .iter()
        .filter(|shown| shown.origin == Origin::Default)
        .map(|shown| shown.key.as_str())
        .collect();
    assert!(left_out.is_empty(), "{left_out:?}");
    let defaults = parse("cluster = \"lab\"\n").unwrap();
    for shown in &defaults.shown {
        let example = config
            .shown
            .iter()
            .find(|other| other.key == shown.key)
            .unwrap();
        // Where the example shows something else than the default, it has to be something one has to choose.
        let chosen = ["boot.interfaces", "boot.append"].contains(&shown.key.as_str());
        assert!(
            chosen || example.value == shown.value,
            "{shown:?} {example:?}"
        );
    }
}

#[test]
fn unknown_keys_are_errors_with_line_and_nearest_spelling() {
    let error = parse("cluster = \"lab\"\n[boot]\nhttp_prot = 8080\n").unwrap_err();
    assert_eq!(
        error,
        "head.toml:3: there is no key boot.http_prot; did you mean boot.http_port?"
    );
    let error = parse("cluster = \"lab\"\nzzz = 1\n").unwrap_err();
    assert_eq!(error, "head.toml:2: there is no key zzz");
    let error = parse("cluster = \"lab\"\n[boot.loaders]\nbois = \"/x\"\n").unwrap_err();
    assert!(
        error.contains("head.toml:3") && error.contains("bios"),
        "{error}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let error = parse("[sync]\nport = 70000\nhello = 2\n[log]\nformat = \"xml\"\n").unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert!(error.contains("cluster is missing"));
    assert!(
        error.contains("head.toml:2: sync.port cannot be 70000: a whole number from 0 to 65535")
    );
    assert!(error.contains("head.toml:3: sync.hello cannot be 2: a duration is wanted"));
}

#[test]
fn what_is_no_toml_is_reported_with_its_line() {
    let error = parse("cluster = \"lab\"\n[boot\n").unwrap_err();
    assert!(error.starts_with("head.toml:2: "), "{error}");
    assert!(
        parse("cluster = \"lab\"\nx = 2026-05-27\n")
            .unwrap_err()
            .contains("head.toml:2: x must be a text")
    );
}

#[test]
fn the_environment_overrides_and_show_says_so() {
    let env = [("KRAKEN_SYNC_PORT", "4000"), ("KRAKEN_BOOT_INTERFACES", "")];
    let config = parse_with(
        "cluster = \"lab\"\n[sync]\nport = 1\n[boot]\ninterfaces = [\"eth0\"]\n",
        &env,
    )
    .unwrap();
    assert_eq!(config.sync.port, 4000);
    assert!(config.boot.interfaces.is_empty());
    let shown = config.show(Path::new("head.toml"));
    assert!(
        shown.contains("cluster = \"lab\"  # head.toml:1\n"),
        "{shown}"
    );
    assert!(
        shown.contains("sync.port = \"4000\"  # KRAKEN_SYNC_PORT\n"),
        "{shown}"
    );
    assert!(
        shown.contains("sync.hello = \"2s\"  # default\n"),
        "{shown}"
    );
    let error = parse_with("cluster = \"lab\"\n", &[("KRAKEN_SYNC_PORT", "x")]).unwrap_err();
    assert!(error.starts_with("KRAKEN_SYNC_PORT: "), "{error}");
}

#[test]
fn relations_between_values_are_checked() {
    let error = parse("cluster = \"lab\"\n[sync]\nhello = \"5s\"\ndead = \"10s\"\n").unwrap_err();
    assert!(
        error.starts_with("head.toml:4: sync.dead: must be at least four times"),
        "{error}"
    );
    let error = parse("cluster = \"lab\"\n[boot]\ninterfaces = [\"br0\"]\n").unwrap_err();
    assert!(
        error.contains("boot.kernel is missing") && error.contains("boot.initramfs is missing"),
        "{error}"
    );
    let error = parse("cluster = \"lab\"\n[power.command]\non = [\"a\"]\n").unwrap_err();
    assert!(error.contains("on, off and status are wanted"), "{error}");
    let error = parse("cluster = \"lab\"\n[power.command]\non = [\"a\", \"{host}\"]\noff=[\"a\"]\nstatus=[\"a\"]\n").unwrap_err();
    assert!(error.contains("{host}"), "{error}");
}

#[test]
fn the_governor_has_limits_for_groups_and_mutations() {
    let guards = parse("cluster = \"lab\"").unwrap().guards;
    assert_eq!(guards.limits.cluster.percent_per_minute, Some(25));
    assert_eq!(guards.limits.cluster.at_once, None);
    assert_eq!(guards.limits.power_on_gap, Duration::from_millis(10));
    let text = r#"
        cluster = "lab"
        [governor]
        percent_per_minute = 100
        at_once = 3
        [governor.group."rack.1"]
        at_once = 1
        [governor.group.rack2]
        percent_per_minute = 50
        [governor.mutation."power/OFFtoON"]
        per_minute = 7
    "#;
    let limits = parse(text).unwrap().guards.limits;
    assert_eq!(
        limits.cluster.percent_per_minute, None,
        "100 % are no limit"
    );
    assert_eq!(limits.cluster.at_once, Some(3));
    assert_eq!(limits.groups["rack.1"].at_once, Some(1));
    assert_eq!(limits.groups["rack2"].percent_per_minute, Some(50));
    assert_eq!(limits.mutations["power/OFFtoON"].per_minute, Some(7));
    let wrong =
        |line: &str| parse(&format!("cluster = \"lab\"\n[governor]\n{line}\n")).unwrap_err();
    assert!(wrong("at_once = 0").contains("from 1 to"));
    assert!(wrong("breaker_failures = 11").contains("no breaker would ever open"));
    assert!(wrong("group.r1.at_onc = 1").contains("did you mean governor.group.r1.at_once?"));
}
