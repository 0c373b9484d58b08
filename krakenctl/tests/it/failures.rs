//! What cannot work ends with the right exit code and says what to do next.

use std::io::Read;

use tonic::Status;

use crate::fake_head::{FakeHead, Run, krakenctl};

#[test]
fn a_head_that_is_not_there() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("api.sock");
    let path = socket.to_str().expect("path");
    let run = Run::of(krakenctl(&["--socket", path, "node", "list"]), "").ends(6);
    assert!(
        run.err.contains(path)
            && run.err.contains("KRAKEN_SOCKET")
            && run.err.contains("is kraken-head running"),
        "{run:?}"
    );

    drop(std::os::unix::net::UnixListener::bind(&socket).expect("socket"));
    let run = Run::of(krakenctl(&["node", "list", "--socket", path]), "").ends(6);
    assert!(run.err.contains("has stopped"), "{run:?}");

    let run = Run::of(
        krakenctl(&["--head", "127.0.0.1:1", "--token", "x", "node", "list"]),
        "",
    )
    .ends(6);
    assert!(
        run.err.contains("127.0.0.1:1") && run.err.contains("[api]"),
        "{run:?}"
    );
    Run::of(krakenctl(&["--head", "http://x", "version"]), "").ends(2);
}

#[test]
fn each_refusal_has_its_exit_code() {
    let head = FakeHead::start();
    for (status, code) in [
        (Status::permission_denied("uid 1000 is no operator"), 5),
        (Status::not_found("there is no node n9"), 4),
        (Status::aborted("at revision 4"), 7),
        (Status::invalid_argument("n[ is no node set"), 2),
        (Status::resource_exhausted("the disk is full"), 1),
        (Status::unavailable("the store failed"), 1),
        (Status::internal("bug"), 1),
    ] {
        let message = status.message().to_owned();
        head.world().refuse = Some(status);
        let run = head.run(&["node", "list"]).ends(code);
        assert!(run.out.is_empty() && run.err.contains(&message), "{run:?}");
    }
}

#[test]
fn a_write_at_another_revision_is_a_conflict() {
    let head = FakeHead::start();
    head.add("n1");
    head.run(&["node", "set", "n1", "/RunState=SYNC", "--if-revision", "7"])
        .ends(7);
    assert!(head.world().nodes["n1"].cfg.is_none());
    head.run(&["node", "set", "n1", "/RunState=SYNC", "--if-revision", "1"])
        .ends(0);
}

/// `krakenctl node delete "$UNSET"` must not mean every node.
#[test]
fn an_empty_node_set_reaches_no_head() {
    let head = FakeHead::start();
    head.add("n1");
    for args in [
        &["node", "delete", ""][..],
        &["freeze", " "],
        &["node", "set", "", "/RunState=SYNC"],
        &["node", "list", ""],
    ] {
        let run = head.run(args).ends(2);
        assert!(run.err.contains("empty"), "{run:?}");
    }
    assert!(head.world().calls.is_empty());
}

#[test]
fn tcp_wants_a_token_and_keeps_it_on_this_machine() {
    let head = FakeHead::start();
    head.world().token = Some("s3cret".into());
    let address = head.serve_tcp();
    let run = Run::of(krakenctl(&["--head", &address, "version"]), "").ends(5);
    assert!(run.err.contains("--token-file"), "{run:?}");
    Run::of(
        krakenctl(&["--head", &address, "--token", "wrong", "node", "list"]),
        "",
    )
    .ends(5);
    Run::of(
        krakenctl(&["--head", &address, "--token", "s3cret", "node", "list"]),
        "",
    )
    .ends(0);
    let file = head.folder.path().join("token");
    std::fs::write(&file, "s3cret\n").expect("file");
    let mut command = krakenctl(&["node", "list"]);
    command
        .env("KRAKEN_HEAD", &address)
        .env("KRAKEN_TOKEN_FILE", &file);
    Run::of(command, "").ends(0);

    let run = Run::of(
        krakenctl(&["--head", "192.0.2.1", "--token", "s3cret", "node", "list"]),
        "",
    )
    .ends(2);
    assert!(
        run.err.contains("unencrypted")
            && run.err.contains("ssh -L")
            && !run.err.contains("s3cret"),
        "{run:?}"
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let head = FakeHead::start();
    head.run(&["node", "add", "n[1-3000]"]).ends(0);
    let mut child = head.spawn(&["node", "list", "-o", "json"]);
    let mut out = child.stdout.take().expect("pipe");
    let mut first = [0];
    out.read_exact(&mut first).expect("some output");
    drop(out);
    let run = Run::from(child.wait_with_output().expect("it ends"));
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn usage_errors_are_told_from_failures() {
    for args in [
        &["nodes"][..],
        &["node", "list", "-o", "xml"],
        &["node", "set", "n1", "/a=b", "--timeout", "10"],
        &[],
    ] {
        Run::of(krakenctl(args), "").ends(2);
    }
    let help = Run::of(krakenctl(&["node", "add", "--help"]), "").ends(0);
    assert!(
        help.out.contains("{i:02x}") && help.out.contains("Examples:"),
        "{}",
        help.out
    );
}

#[test]
fn pipes_get_no_color() {
    let head = FakeHead::start();
    head.add("n1");
    head.discover("n1", "/RunState", "ERROR");
    let mut command = head.command(&["node", "list"]);
    command
        .env("CLICOLOR_FORCE", "1")
        .env("TERM", "xterm-256color");
    assert!(!Run::of(command, "").ends(0).out.contains('\x1b'));
}
