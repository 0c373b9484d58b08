//! Runs of small shell scripts.

use engine::mutation::file::program::{Command, ExitCodes};
use engine::mutation::file::template::{Subject, Template};
use engine::state::{NodeId, Values};

use super::*;

/// Long enough for any of these scripts on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn sh(script: &str, stdin: Option<&str>) -> Filled {
    let words = ["/bin/sh", "-c", script];
    let command = Command {
        argv: words.map(Template::plain).to_vec(),
        env: vec![("WORD".into(), Template::plain("a b"))],
        stdin: stdin.map(Template::plain),
        exit: ExitCodes::default(),
    };
    let none = Values::default();
    let subject = Subject {
        name: &"n1".parse().unwrap(),
        id: NodeId::from_bytes([1; 16]),
        attempt: None,
        cfg: &none,
        dsc: &none,
    };
    command.fill(&subject).unwrap()
}

async fn ran(script: &str, stdin: Option<&str>) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let deadline = Instant::now() + PATIENCE;
    run(&sh(script, stdin), home.path(), deadline)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_program_gets_a_clean_environment_its_input_and_a_group_of_its_own() {
    let names = "env | cut -d= -f1 | sort | tr '\\n' ' '";
    // PWD, SHLVL and _ are the shell's own.
    let ran_with = ran(names, None).await;
    let ours: Vec<&str> = (ran_with.stdout.split_whitespace())
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
        .collect();
    assert_eq!(ours, ["HOME", "LANG", "PATH", "WORD"]);
    assert_eq!(ran("printf %s \"$WORD\"", None).await.stdout, "a b");
    assert_eq!(ran("cat", Some("secret\n")).await.stdout, "secret\n");
    assert_eq!(ran("cat", None).await.stdout, "");
    // Fields of /proc/self/stat behind the name: state, parent, group.
    let group = ran("set -- $(cut -d')' -f2 /proc/$$/stat); echo $3 $$", None).await;
    let (group, pid) = group.stdout.trim().split_once(' ').unwrap();
    assert_eq!(group, pid);
}

#[tokio::test]
async fn codes_signals_and_last_words() {
    let failed = ran("echo out; echo no route >&2; exit 7", None).await;
    assert_eq!(failed.code, Some(7));
    assert_eq!(
        failed.words(&sh("", None)),
        "/bin/sh ended with code 7: no route"
    );
    let killed = ran("kill -9 $$", None).await;
    assert_eq!(killed.code, None);
    assert_eq!(killed.words(&sh("", None)), "/bin/sh was ended by a signal");
    // An input that nobody reads is no trouble.
    assert_eq!(ran("exit 0", Some(&"x".repeat(16_000))).await.code, Some(0));
}

#[tokio::test]
async fn what_a_program_says_is_bounded() {
    let flood = ran("head -c 1000000 /dev/zero; echo end >&2", None).await;
    assert_eq!(flood.stdout.len(), MAX_OUTPUT_BYTES);
    assert_eq!((flood.code, flood.stderr.as_str()), (Some(0), "end\n"));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let mut filled = sh("", None);
    filled.argv = vec!["/no/such/program".into()];
    let home = tempfile::tempdir().unwrap();
    let error = run(&filled, home.path(), Instant::now() + PATIENCE)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot run /no/such/program"), "{text}");
    assert!(
        text.ends_with("; install it, or write its full path"),
        "{text}"
    );
}

fn is_alive(pid: &str) -> bool {
    // A process that has ended and waits to be reaped is gone for all that matters here.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

async fn gone(pid: &str) {
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} still lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes its own pid and its child's into files, and hangs.
const HANGS: &str = "sleep 1000 & echo $! > child; echo $$ > pid; mv pid me; wait";

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_all_that_it_started() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap();
    // At its deadline.
    let deadline = Instant::now() + Duration::from_secs(2);
    let late = run(&sh(HANGS, None), home.path(), deadline).await;
    assert!(matches!(late, Err(RunError::Late { .. })), "{late:?}");
    if home.path().join("me").exists() {
        gone(&file("me")).await;
        gone(&file("child")).await;
        std::fs::remove_file(home.path().join("me")).unwrap();
    }
    // When nobody waits any more.
    let folder = home.path().to_owned();
    let task = tokio::spawn(async move {
        let deadline = Instant::now() + PATIENCE;
        run(&sh(HANGS, None), &folder, deadline).await
    });
    while !home.path().join("me").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (me, child) = (file("me"), file("child"));
    assert!(is_alive(&me) && is_alive(&child));
    task.abort();
    gone(&me).await;
    gone(&child).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_holds_up_nobody() {
    let home = tempfile::tempdir().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let script = "sleep 1000 & echo $! > child; echo done";
    let ran = run(&sh(script, None), home.path(), deadline).await.unwrap();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "done\n"));
    gone(&std::fs::read_to_string(home.path().join("child")).unwrap()).await;
}
