use super::*;

#[track_caller]
fn check(status: Status, exit: Exit, hinted: bool) {
    let failure = Failure::from(status);
    assert_eq!(
        (failure.exit, failure.hint.is_some()),
        (exit, hinted),
        "{failure:?}"
    );
    assert!(!failure.text.is_empty());
}

#[test]
fn every_code_of_the_api_has_its_exit_code() {
    check(Status::not_found("no node n9"), Exit::NotFound, false);
    check(Status::already_exists("n1 is there"), Exit::Conflict, false);
    check(
        Status::aborted("at revision 4, not 3"),
        Exit::Conflict,
        false,
    );
    check(Status::invalid_argument("bad set"), Exit::Usage, false);
    check(
        Status::permission_denied("uid 1000"),
        Exit::NotPermitted,
        true,
    );
    check(
        Status::unauthenticated("no token"),
        Exit::NotPermitted,
        true,
    );
    check(Status::resource_exhausted("disk full"), Exit::Failure, true);
    check(Status::deadline_exceeded(""), Exit::Timeout, true);
    check(Status::cancelled("Timeout expired"), Exit::Timeout, true);
    let own = Failure::from(Status::deadline_exceeded("the write may still be made"));
    assert_eq!(
        (own.exit, own.text.as_str()),
        (Exit::Timeout, "the write may still be made")
    );
    check(Status::unimplemented("Watch"), Exit::Failure, true);
    check(Status::internal("x"), Exit::Failure, false);
}

/// The head says UNAVAILABLE too, when its store has failed: it was reached, so that is a plain failure.
#[test]
fn only_a_broken_connection_is_unreachable() {
    check(
        Status::unavailable("the store failed"),
        Exit::Failure,
        false,
    );
    let mut lost = Status::unavailable("transport error");
    lost.set_source(std::sync::Arc::new(io::Error::from(
        io::ErrorKind::ConnectionReset,
    )));
    check(lost, Exit::Unreachable, true);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
    assert!(failure.silent && failure.exit == Exit::Ok);
    assert_eq!(Failure::from(io::Error::other("disk")).exit, Exit::Failure);
}

#[test]
fn a_failure_inside_anyhow_keeps_its_code() {
    let failure = Failure::from(anyhow::Error::new(Failure::usage("x")).context("while planning"));
    assert_eq!(failure.exit, Exit::Usage);
}
