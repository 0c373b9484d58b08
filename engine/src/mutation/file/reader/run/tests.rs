//! What the reader makes of commands and polls, and what it says about wrong ones.

use std::time::Duration;

use crate::extension::{Field, Kind, Schema};
use crate::mutation::MutationId;
use crate::mutation::file::output::{Found, Pattern};
use crate::mutation::file::program::{Outcome, POLL_TIMEOUT};
use crate::mutation::file::{MutationFile, read};
use crate::state::Change;

fn schema() -> Schema {
    let field = |kind, secret| Field {
        secret,
        ..Field::new(kind)
    };
    let mut schema = Schema::default();
    let names = ["PHYS_UNKNOWN", "POWER_OFF", "POWER_ON", "PHYS_HANG"];
    let power = Kind::Enum(names.map(str::to_owned).to_vec());
    schema.add("/PhysState".into(), field(power, false));
    schema.add("/power/target".into(), field(Kind::Text, false));
    schema.add("/power/password".into(), field(Kind::Text, true));
    schema
}

/// A file with one mutation that changes `/PhysState`, and this in it.
fn file(mutation: &str, more: &str) -> Result<MutationFile, Vec<String>> {
    let text = format!(
        "module = \"m\"\ndiscoverables = [\"/m/error\", \"/m/heat\"]\n[[mutation]]\nname = \"ON\"\ncontext = \"CHILD\"\ntimeout = \"5s\"\n\
         mutates = {{ \"/PhysState\" = {{ from = \"POWER_OFF\", to = \"POWER_ON\" }} }}\n{mutation}\n{more}\n"
    );
    read("m.toml", &text, &schema()).map_err(|error| {
        let problems = error.problems.into_iter();
        problems.map(|problem| problem.text).collect()
    })
}

fn problems(mutation: &str, more: &str) -> Vec<String> {
    file(mutation, more).expect_err(mutation)
}

const POLL: &str = "[[poll]]\nname = \"status\"\nevery = \"10s\"\ncommand = [\"ask\"]\n";

#[test]
fn a_command_with_everything() {
    let file = file(
        r#"command = ["tool", "-H", "{/power/target}", "on"]
env = { PASSWORD = "{/power/password}", MODE = "x" }
stdin = "{/power/password}"
exit = { 0 = "ok", 1 = "retry", 3 = { "/PhysState" = "PHYS_HANG" }, other = "failed" }
ask = "status""#,
        r#"[[poll]]
name = "status"
every = "10s"
timeout = "20s"
requires = { "/power/target" = ["a", "b"] }
command = ["tool", "{node}", "status"]
map = [
  { line = "on", discover = { "/PhysState" = "POWER_ON" }, unless = { "/PhysState" = "PHYS_HANG" } },
  { contains = "off", discover = { "/PhysState" = "POWER_OFF" } },
  { regex = 'heat (\d+)', discover = { "/m/heat" = "$1" } },
]
error = "/m/error""#,
    )
    .unwrap();
    let program = file.program;
    assert_eq!(program.module, "m");
    let run = &program.runs[&MutationId::new("m", "ON")];
    let command = run.command.as_ref().unwrap();
    assert_eq!(command.to_string(), "tool -H {/power/target} on");
    let names: Vec<&str> = command.env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["MODE", "PASSWORD"]);
    assert_eq!(*command.exit.outcome(Some(1)), Outcome::Retry);
    let hang = Change::set("/PhysState".parse().unwrap(), "PHYS_HANG".into());
    assert_eq!(
        *command.exit.outcome(Some(3)),
        Outcome::Discover(vec![hang])
    );
    assert_eq!((run.ask, run.trust), (Some(0), false));
    assert_eq!(run.timeout, Some(Duration::from_secs(5)));
    let on = Change::set("/PhysState".parse().unwrap(), "POWER_ON".into());
    assert_eq!(run.to, [on]);

    let poll = &program.polls[0];
    assert_eq!(
        (poll.every, poll.timeout),
        (Duration::from_secs(10), Duration::from_secs(20))
    );
    assert_eq!(poll.requires[0].values().len(), 2);
    assert_eq!(poll.readings.len(), 3);
    assert_eq!(poll.readings[0].pattern, Pattern::Line("on".into()));
    assert_eq!(poll.readings[0].unless.len(), 1);
    assert_eq!(poll.readings[2].discover[0].1, Found::Group(1));
    assert_eq!(poll.error.as_ref().unwrap().as_str(), "/m/error");
}

#[test]
fn a_shell_has_to_be_asked_for_and_gets_no_fields() {
    let file = file(
        "command = \"echo ${X} ${node} | { cat; }\"\nshell = true\nenv = { X = \"{node}\" }\ndiscover = \"to\"",
        "",
    )
    .unwrap();
    let run = &file.program.runs[&MutationId::new("m", "ON")];
    let command = run.command.as_ref().unwrap();
    assert_eq!(
        command.to_string(),
        "/bin/sh -c 'echo ${X} ${node} | { cat; }'"
    );
    assert!(
        run.trust
            && command
                .argv
                .iter()
                .all(|word| word.fields().next().is_none())
    );
    for field in ["{node}", "{dsc:/PhysState}", "{/power/port|7}"] {
        let command = format!("command = \"awk '{{print}}' ${{X}} {field}\"\nshell = true");
        let filled = problems(&command, "");
        let why = format!("{field} is not filled in within a shell's text: give it a name in env");
        assert!(filled[0].contains(&why), "{filled:?}");
    }
    let one = problems("command = \"echo\"", "");
    assert!(one[0].ends_with("one text needs shell = true"), "{one:?}");
    let list = problems("command = [\"a\"]\nshell = true", "");
    assert!(list[0].contains("go through env"), "{list:?}");
}

#[test]
fn fields_are_allow_listed_when_the_file_is_read() {
    for (mutation, expect) in [
        (
            "command = [\"t\", \"{/power/targt}\"]",
            "no extension has /power/targt; did you mean /power/target?",
        ),
        (
            "command = [\"t\", \"{/power/password}\"]",
            "{/power/password} is secret, and every user of the machine can read arguments: put it into env or stdin, or write {secret:...}",
        ),
        (
            "command = [\"{node}\"]",
            "the program itself cannot have fields",
        ),
        ("command = [\"\"]", "the program has no name"),
        ("command = []", "command is empty"),
        (
            "command = [\"t\"]\nenv = { \"A-B\" = \"x\" }",
            "\"A-B\" is no name of a variable",
        ),
        (
            "command = [\"t\"]\nexit = { 256 = \"ok\" }",
            "\"256\" is no exit code: use 0 to 255, or `other`",
        ),
        (
            "command = [\"t\"]\nexit = { 1 = \"fail\" }",
            "an exit code means \"ok\", \"failed\", \"retry\" or a table of what it discovers; did you mean `failed`?",
        ),
        (
            "command = [\"t\"]\nexit = { 1 = { \"/m/other\" = 1 } }",
            "/m/other is not declared in this file: mutate it, or list it in `discoverables`",
        ),
        ("env = { A = \"x\" }", "m/ON has no `command` for this"),
        (
            "ask = \"state\"",
            "the file has no [[poll]] of the name \"state\"; did you mean `status`?",
        ),
        (
            "ask = \"status\"\ndiscover = \"to\"",
            "discover = \"to\" goes with a `command` and without `ask`, which looks for itself",
        ),
    ] {
        assert_eq!(problems(mutation, POLL), [expect], "{mutation}");
    }
    assert!(
        file(
            "command = [\"t\", \"{secret:/power/password}\", \"{/m/heat}\"]",
            ""
        )
        .is_ok()
    );
}

#[test]
fn polls_that_cannot_be() {
    let poll = |more: &str| problems("", &format!("{POLL}{more}"));
    assert_eq!(
        problems("", "[[poll]]\n"),
        [
            "a poll has no `name`",
            "a poll has no `every`, such as every = \"10s\"",
            "a poll has no `command`",
        ]
    );
    assert_eq!(
        poll("maps = []"),
        ["a poll has no key `maps`; did you mean `map`?"]
    );
    assert_eq!(
        poll("timeout = \"1h\""),
        ["timeout \"1h\" is no duration of 1ms to 600s; write it like \"10s\" or \"1m30s\""]
    );
    assert_eq!(
        poll("map = [{ line = \"a\", contains = \"b\", discover = {} }]"),
        ["an entry of map has exactly one of `line`, `contains` and `regex`"]
    );
    assert_eq!(
        poll("map = [{ regex = \"a\", discover = { \"/m/heat\" = \"$1\" } }]"),
        ["/m/heat: the pattern has no group 1"]
    );
    assert_eq!(poll("map = [{ regex = \"(\", discover = {} }]").len(), 1);
    assert_eq!(
        poll("error = \"/PhysStat\""),
        ["/PhysStat is not declared in this file: mutate it, or list it in `discoverables`"]
    );
    assert_eq!(
        poll("env = { A = \"{attempt}\" }"),
        ["a poll has no {attempt}"]
    );
    assert_eq!(poll(POLL), ["poll status is declared already"]);
}

#[test]
fn what_a_file_leaves_out() {
    let file = file("", POLL).unwrap();
    assert!(file.program.runs.is_empty());
    let poll = &file.program.polls[0];
    assert_eq!(poll.timeout, POLL_TIMEOUT);
    assert!(poll.readings.is_empty() && poll.error.is_none() && poll.requires.is_empty());
    let all = problems(
        "command = [\"t\"]",
        "[[mutation]]\nname = \"X\"\ncontext = \"ALL\"\nmutates = { \"/m/heat\" = { to = 1 } }\ncommand = [\"t\"]",
    );
    assert!(
        all[0].starts_with("m/X has a command, which the head runs"),
        "{all:?}"
    );
}
