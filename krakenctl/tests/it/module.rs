//! `module list` and `module new`: what is written has to work as it stands.

use std::path::Path;

use engine::extension::Schema;
use engine::mutation::file;

use proto::v1;

use crate::fake_head::{FakeHead, text};

fn ctl(folder: &Path, args: &[&str]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_krakenctl"))
        .args(args)
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .output()
        .expect("krakenctl runs")
}

#[test]
fn a_scaffolded_data_file_is_read_and_leads_both_ways() {
    let folder = tempfile::tempdir().expect("folder");
    let done = ctl(
        folder.path(),
        &["module", "new", "fan", "--lang", "file", "."],
    );
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        said.contains("fan.toml") && said.contains("mutations/"),
        "{said}"
    );
    let text = std::fs::read_to_string(folder.path().join("fan.toml")).expect("file");
    let read = file::read("fan.toml", &text, &Schema::built_in()).expect("a good mutation file");
    let names: Vec<&str> = read
        .mutations
        .iter()
        .map(|(_, mutation)| mutation.id.as_str())
        .collect();
    assert_eq!(names, ["fan/START", "fan/STOP"]);
    // What is there is never written over.
    let again = ctl(
        folder.path(),
        &["module", "new", "fan", "--lang", "file", "."],
    );
    assert_eq!(again.status.code(), Some(2), "{again:?}");
}

#[test]
fn a_scaffold_in_python_is_whole() {
    let folder = tempfile::tempdir().expect("folder");
    let done = ctl(
        folder.path(),
        &["module", "new", "fan_room", "--lang", "python"],
    );
    assert!(done.status.success(), "{done:?}");
    let read = |name: &str| {
        std::fs::read_to_string(folder.path().join("fan_room").join(name)).expect(name)
    };
    let program = read("fan_room.py");
    assert!(
        program.contains("Module(\"fan_room\"") && program.contains("\"/fan_room/state\""),
        "{program}"
    );
    assert!(read("fan_room.proto").contains("message FanRoom"));
    for file in [
        "kraken_module.py",
        "proto/kraken/v1/module.proto",
        "proto/kraken/v1/mutation.proto",
        "proto/kraken/v1/state.proto",
    ] {
        assert!(!read(file).contains("@NAME@"), "{file}");
    }
    let checked = std::process::Command::new("python3")
        .args([
            "-m",
            "py_compile",
            "fan_room/fan_room.py",
            "fan_room/kraken_module.py",
        ])
        .current_dir(folder.path())
        .output()
        .expect("python3 (Debian package python3-venv, `cargo lab doctor`)");
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn names_that_do_not_do_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["power", "Fan", "a/b", "1st", ""] {
        let done = ctl(folder.path(), &["module", "new", name]);
        assert_eq!(done.status.code(), Some(2), "{name:?}: {done:?}");
    }
    let done = ctl(
        folder.path(),
        &[
            "module", "new", "fan", "--lang", "rust", "--source", "/no/such",
        ],
    );
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("--source"),
        "{done:?}"
    );
}

#[test]
fn the_list_says_what_is_wrong() {
    let head = FakeHead::start();
    let run = head.run(&["module", "list"]).ends(0);
    assert!(
        run.out.contains("RESTARTING") && run.out.contains("exit status: 1"),
        "{run:?}"
    );
    let module = &head.run(&["module", "list", "-o", "json"]).ends(0).json()[0];
    assert_eq!(
        (
            module["name"].as_str(),
            module["kind"].as_str(),
            module["failures"].as_u64()
        ),
        (Some("fan"), Some("process"), Some(3))
    );
}

#[test]
fn a_reload_says_what_it_did() {
    let head = FakeHead::start();
    let run = head.run(&["module", "reload"]).ends(0);
    assert_eq!(
        run.out,
        "restarted: fan\nat the head's next start: log.level\n"
    );
}

#[test]
fn a_mutation_is_shown_with_who_carries_it_out() {
    let head = FakeHead::start();
    let change = v1::UrlChange {
        url: "/fan/state".into(),
        from: vec![v1::OptionalValue::default()],
        to: Some(v1::OptionalValue {
            value: Some(text("ON")),
        }),
    };
    let mutation = |name: &str| v1::Mutation {
        module: "fan".into(),
        name: name.into(),
        context: v1::MutationContext::Child.into(),
        mutates: vec![change.clone()],
        cost: 1,
        ..v1::Mutation::default()
    };
    head.world().mutations.mutations = vec![mutation("START"), mutation("STOP")];
    head.world().carriers = vec![v1::Carrier {
        mutation: "fan/START".into(),
        kind: v1::module_info::Kind::File.into(),
        file: "fan.toml:3".into(),
        command: "fanctl --host {/fan/host} on".into(),
        env: vec!["FAN_PASSWORD".into()],
        ..v1::Carrier::default()
    }];
    let run = head.run(&["mutation", "show", "fan/START"]).ends(0);
    for part in [
        "carried out by  file fan.toml:3\n",
        "command         fanctl --host {/fan/host} on\n",
        "variables       FAN_PASSWORD\n",
        "done            when it is discovered\n",
    ] {
        assert!(run.out.contains(part), "{part:?} in {run:?}");
    }
    let both = head
        .run(&["mutation", "show", "fan", "-o", "json"])
        .ends(0)
        .json();
    assert_eq!(
        both[1]["carried_out"]["by"],
        "nobody: no module fan runs here"
    );
    let wide = head.run(&["mutation", "list", "-o", "wide"]).ends(0);
    assert!(wide.out.contains("fanctl --host"), "{wide:?}");
    let run = head.run(&["mutation", "show", "fan/STAR"]).ends(4);
    assert!(run.err.contains("did you mean fan/START?"), "{run:?}");
}
