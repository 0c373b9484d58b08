use super::*;

#[track_caller]
fn check(text: &str, names: &str) {
    assert_eq!(
        expand(text).map(|all| all.join(" ")),
        Ok(names.to_owned()),
        "{text}"
    );
}

#[test]
fn lists_expand_in_the_order_written() {
    check("n1", "n1");
    check("n[1-3]", "n1 n2 n3");
    check("n2,n[1-3]", "n2 n1 n3");
    check("n[01-03,7]", "n01 n02 n03 n7");
    check("n[098-101]", "n098 n099 n100 n101");
    check("n[0-10/5]", "n0 n5 n10");
    check("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2");
    check(
        "login, n[1-2].cluster gpu1",
        "login n1.cluster n2.cluster gpu1",
    );
}

#[test]
fn what_is_no_list_is_refused() {
    let error = |text| expand(text).expect_err(text);
    assert_eq!(error(""), NamesError::Empty);
    assert_eq!(error(" , "), NamesError::Empty);
    assert!(matches!(error("n[1-"), NamesError::Bracket(_)));
    assert!(matches!(error("n]1"), NamesError::Bracket(_)));
    assert!(matches!(error("n[[1]]"), NamesError::Bracket(_)));
    assert!(matches!(error("n[]"), NamesError::Range(_)));
    assert!(matches!(error("n[4-1]"), NamesError::Range(_)));
    assert!(matches!(error("n[1-4/0]"), NamesError::Range(_)));
    assert!(matches!(error("n[a-b]"), NamesError::Range(_)));
    assert!(matches!(
        error("n[1-99999999999999999999]"),
        NamesError::Range(_)
    ));
    assert!(matches!(error("@rack1"), NamesError::Selector(_)));
    assert!(matches!(error("run=ERROR"), NamesError::Selector(_)));
}

#[test]
fn the_limit_holds_before_memory_is_used() {
    assert_eq!(expand("n[1-999999999]"), Err(NamesError::TooMany));
    assert_eq!(expand("n[1-1000]m[1-1000]"), Err(NamesError::TooMany));
    assert_eq!(expand("n[1-40000],m[1-40000]"), Err(NamesError::TooMany));
    assert_eq!(expand("n[1-65536]").map(|all| all.len()), Ok(MAX_NAMES));
    assert_eq!(expand("n[1-65537]"), Err(NamesError::TooMany));
}

#[track_caller]
fn check_fold(names: &str, folded: &str) {
    assert_eq!(fold(names.split_whitespace()), folded);
}

#[test]
fn names_fold_over_their_last_number() {
    check_fold("", "");
    check_fold("n1", "n1");
    check_fold("n3 n1 n2 n7", "n[1-3,7]");
    check_fold("n9 n10", "n[9-10]");
    check_fold("n09 n10 n11", "n[09-11]");
    check_fold("n1 n01", "n01,n1");
    check_fold("r1n1 r1n2 r2n1", "r1n[1-2],r2n1");
    check_fold("login n1 n2", "login,n[1-2]");
    check_fold("n1.c2.org n2.c2.org", "n[1-2].c2.org");
    check_fold("n1 n1", "n1");
    check_fold("1 2 3", "[1-3]");
}

/// Folding loses nothing: whatever can be expanded comes back as the same set.
#[test]
fn fold_then_expand_is_the_same_set() {
    for text in [
        "n[1-128]",
        "n[001-128]",
        "r[01-04]n[1-16/3],login",
        "a[8-12]b,a[08-12]b",
        "x-1,x-01,x-001",
        "n[99-101],n[099-101]",
    ] {
        let mut names = expand(text).expect(text);
        let mut again = expand(&fold(&names)).expect(text);
        names.sort();
        again.sort();
        assert_eq!(names, again, "{text} became {}", fold(&names));
    }
}

#[test]
fn numbers_of_a_name() {
    assert_eq!(numbers_in("r3n012"), [3, 12]);
    assert!(numbers_in("login").is_empty());
}
