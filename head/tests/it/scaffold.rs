//! What `krakenctl module new` writes works as it stands: in Rust, in Python and as a data file, each followed step by step as it says
//! itself, against a real head.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proto::v1;

use crate::modules::wait_module;
use crate::python;
use crate::rig::{self, Client, Rig, change, set, wait_dsc};

/// A program of this workspace, which cargo builds with the tests.
fn krakenctl(rig: &Rig, args: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_kraken-head")).with_file_name("krakenctl");
    assert!(
        program.exists(),
        "{} is not there: `cargo test --workspace` builds it, `-p head` alone does not; run `cargo build -p krakenctl`",
        program.display()
    );
    let output = Command::new(program)
        .args(args)
        .current_dir(rig.path(""))
        .env("KRAKEN_SOCKET", rig.path("run/api.sock"))
        .env("NO_COLOR", "1")
        .output()
        .expect("krakenctl");
    assert!(output.status.success(), "krakenctl {args:?}: {output:?}");
    output
}

/// What `module new` wrote, and what it says to do next.
struct Scaffold {
    folder: PathBuf,
    said: String,
}

impl Scaffold {
    /// In a folder of the rig.
    fn new(rig: &Rig, lang: &str) -> Self {
        let source = python::workspace().display().to_string();
        let mut args = vec!["module", "new", "fan", "--lang", lang];
        if lang == "rust" {
            args.extend(["--source", &source]);
        }
        let output = krakenctl(rig, &args);
        Self {
            folder: rig.path("fan"),
            said: String::from_utf8_lossy(&output.stdout).into_owned(),
        }
    }

    /// The command of a step, as it is printed.
    fn step(&self, number: usize) -> &str {
        let mut lines = self.said.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{number}. ")));
        let (_, command) = line.and_then(|line| line.split_once(": ")).expect("a step");
        command.trim()
    }

    /// Carries a step out from another folder; only the head's own folder is where this one has it.
    fn follow(&self, rig: &Rig, number: usize) -> String {
        let state = rig.path("state").display().to_string();
        let command = self.step(number).replace("/var/lib/kraken", &state);
        let programs = Path::new(env!("CARGO_BIN_EXE_kraken-head")).with_file_name("");
        let path = std::env::var("PATH").expect("PATH");
        let output = Command::new("sh")
            .args(["-ec", &command])
            .current_dir("/")
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("KRAKEN_SOCKET", rig.path("run/api.sock"))
            .env("NO_COLOR", "1")
            .output()
            .expect("a shell");
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What goes into the configuration, as it is printed.
    fn section(&self) -> &str {
        let start = self.said.find("[modules.fan]").expect("a section");
        let end = self.said.find("4. ").expect("the step after it");
        &self.said[start..end]
    }
}

/// The steps of a program, from what it adds to nodes to asking for something; how it is built or gets its libraries is the caller's.
async fn follow_program(rig: &Rig, scaffold: &Scaffold) {
    let (_head, mut client) = rig.start().await;
    scaffold.follow(rig, 1);
    rig::add(&mut client, vec![rig::node("n1", &[])])
        .await
        .expect("added");
    rig.configure(scaffold.section());
    let output = krakenctl(rig, &["module", "reload"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "added: fan\n");
    let module = wait_module(&client, "fan", "runs", |module| module.up).await;
    assert_eq!(module.mutations, 2);
    ask(rig, scaffold, &mut client).await;
    wait_module(&client, "fan", "tells its health", |module| {
        module.health == "serving"
    })
    .await;
}

/// The last step, and back.
async fn ask(rig: &Rig, scaffold: &Scaffold, client: &mut Client) {
    let list = scaffold.follow(rig, 4);
    let is_fan = |line: &str| line.starts_with("fan ");
    assert!(list.lines().any(is_fan), "{list}");
    wait_dsc(client, "n1", "/fan/state", Some("ON")).await;
    let off = vec![set("/fan/state", "OFF")];
    change(client, "n1", off).await.expect("set");
    wait_dsc(client, "n1", "/fan/state", Some("OFF")).await;
}

/// Its second step, without a network: the crates are those of the workspace, and so are most of what they were compiled to.
fn build(folder: &Path) {
    let workspace = python::workspace();
    fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).expect("lock file");
    let head = Path::new(env!("CARGO_BIN_EXE_kraken-head"));
    let target = head.ancestors().nth(2).expect("target");
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--offline"])
        .current_dir(folder)
        // What this test's own cargo left behind would have crates built anew.
        .env_clear()
        .env("CARGO_TARGET_DIR", target)
        // Cargo's own compiler, not rustup's stand-in for it, which may fetch another one.
        .env("RUSTC", Path::new(env!("CARGO")).with_file_name("rustc"))
        .env("RUSTUP_AUTO_INSTALL", "0")
        // The workspace's profile; another one would share nothing.
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    for name in [
        "PATH",
        "HOME",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "RUSTFLAGS",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let output = command.output().expect("cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let release = folder.join("target/release");
    fs::create_dir_all(&release).expect("folder");
    fs::copy(target.join("debug/fan"), release.join("fan")).expect("what was built");
}

#[tokio::test]
async fn a_scaffold_in_rust_compiles_and_runs() {
    let rig = Rig::new("");
    let scaffold = Scaffold::new(&rig, "rust");
    let folder = scaffold.folder.clone();
    let wanted = format!("cd {} && cargo build --release", folder.display());
    assert_eq!(scaffold.step(2), wanted);
    let built = tokio::task::spawn_blocking(move || build(&folder));
    built.await.expect("built");
    follow_program(&rig, &scaffold).await;
}

#[tokio::test]
async fn a_scaffold_in_python_runs() {
    let rig = Rig::new("");
    let scaffold = Scaffold::new(&rig, "python");
    let venv = scaffold.folder.join("venv");
    let wanted = format!("python3 -m venv {}", venv.display());
    assert!(scaffold.step(2).starts_with(&wanted), "{}", scaffold.said);
    // The environment of all tests, which takes a network to make.
    let made = python::python().ancestors().nth(2).expect("its folder");
    std::os::unix::fs::symlink(made, &venv).expect("link");
    follow_program(&rig, &scaffold).await;
}

#[tokio::test]
async fn a_scaffolded_data_file_is_without_warnings_and_runs() {
    let rig = Rig::new("");
    let scaffold = Scaffold::new(&rig, "file");
    let output = krakenctl(&rig, &["mutation", "lint", "--offline", "fan/fan.toml"]);
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("warn"),
        "{output:?}"
    );
    let (_head, mut client) = rig.start().await;
    assert!(rig.path("state/mutations").is_dir(), "the head makes it");
    rig::add(&mut client, vec![rig::node("n1", &[])])
        .await
        .expect("added");
    scaffold.follow(&rig, 1);
    scaffold.follow(&rig, 2);
    rig::eventually("its mutations", async || {
        let request = v1::ListMutationsRequest {};
        let set = client.clone().list_mutations(request).await.ok()?;
        let mut all = set.into_inner().mutations.into_iter();
        all.any(|mutation| mutation.module == "fan").then_some(())
    })
    .await;
    assert!(scaffold.follow(&rig, 3).contains("fan/START"));
    // `discover = "to"`: a command that ends well is proof enough.
    ask(&rig, &scaffold, &mut client).await;
}
