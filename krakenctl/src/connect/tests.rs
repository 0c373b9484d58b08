use super::*;

#[track_caller]
fn check(head: &str, expect: Option<(&str, u16)>) {
    let split = split_host(head).ok();
    assert_eq!(
        split.as_ref().map(|(host, port)| (host.as_str(), *port)),
        expect,
        "{head}"
    );
}

#[test]
fn heads_are_named_by_address_and_port() {
    check("head1", Some(("head1", 3141)));
    check("head1:99", Some(("head1", 99)));
    check("10.0.0.1", Some(("10.0.0.1", 3141)));
    check("10.0.0.1:99", Some(("10.0.0.1", 99)));
    check("::1", Some(("::1", 3141)));
    check("[::1]:99", Some(("::1", 99)));
    for bad in ["", ":99", "head:x", "head:99999", "http://head", "a@b"] {
        check(bad, None);
    }
}

#[test]
fn each_way_to_fail_says_what_to_do() {
    let check = |kind, exit, word: &str| {
        let failure = socket_failure(Path::new("/run/x.sock"), &io::Error::from(kind));
        assert_eq!(failure.exit, exit);
        assert!(failure.text.contains("/run/x.sock"), "{failure}");
        assert!(
            failure
                .hint
                .as_deref()
                .is_some_and(|hint| hint.contains(word)),
            "{failure:?}"
        );
    };
    check(io::ErrorKind::NotFound, Exit::Unreachable, "KRAKEN_SOCKET");
    check(io::ErrorKind::ConnectionRefused, Exit::Unreachable, "start");
    check(io::ErrorKind::PermissionDenied, Exit::NotPermitted, "sudo");
    check(io::ErrorKind::TimedOut, Exit::Unreachable, "--socket");
}

#[test]
fn durations_are_written_with_their_unit() {
    assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
    assert!(parse_duration("10").is_err());
    assert!(parse_duration("0s").is_err());
}
