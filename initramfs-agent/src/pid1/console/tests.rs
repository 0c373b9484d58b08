use super::*;

fn console() -> Console {
    Console {
        file: File::open("/dev/null").unwrap(),
        line: Vec::new(),
        too_long: false,
    }
}

#[test]
fn commands_are_few_and_exact() {
    assert_eq!(parse("kill-agent"), Ok(Command::KillAgent));
    assert_eq!(parse(" ps "), Ok(Command::Ps));
    assert_eq!(parse("busy job-1"), Ok(Command::Busy("job-1".into())));
    assert_eq!(parse("free job-1"), Ok(Command::Free("job-1".into())));
    assert_eq!(parse("poweroff"), Ok(Command::End(Ending::PowerOff)));
    for bad in [
        "",
        "busy",
        "busy ../x",
        "busy .x",
        "busy a/b",
        "reboot now",
        "sh",
    ] {
        assert!(parse(bad).unwrap_err().starts_with("commands: "), "{bad:?}");
    }
}

#[test]
fn lines_come_whole_in_any_cut() {
    let mut console = console();
    assert!(console.take(b"kill").is_empty());
    assert_eq!(console.take(b"-agent\r\nps\n\nbu"), ["kill-agent", "ps"]);
    assert_eq!(console.take(b"sy x\n"), ["busy x"]);
}

#[test]
fn a_line_at_the_limit_counts_and_a_longer_one_does_not() {
    let mut console = console();
    let fits = "x".repeat(MAX_LINE);
    assert_eq!(
        console.take(format!("{fits}\n").as_bytes()),
        [fits.as_str()]
    );
    assert!(console.take(format!("{fits}y\n").as_bytes()).is_empty());
    assert_eq!(console.take(b"ps\n"), ["ps"]);
}

#[test]
fn marks_are_files() {
    let dir = tempfile::tempdir().unwrap();
    let busy = dir.path().join("busy.d");
    assert_eq!(mark(&busy, "job", true), "busy job");
    assert!(busy.join("job").exists());
    assert_eq!(mark(&busy, "job", false), "free job");
    assert!(mark(&busy, "job", false).contains("No such file"));
}

#[test]
fn we_run() {
    assert!(
        processes().contains(&format!("{}:", std::process::id())) || processes().contains("more")
    );
}
