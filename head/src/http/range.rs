//! Which bytes of a file a request wants: ranges and conditions (RFC 9110 sections 13 and 14); pure.
//!
//! One range at a time: a request for several is answered with the whole file, which section 14.2 allows and which leaves
//! nothing to abuse.

/// What of a file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it (200).
    Whole,
    /// These bytes (206).
    Part {
        /// The first byte.
        start: u64,
        /// How many, at least one.
        length: u64,
    },
    /// A range that lies beyond the end (416).
    Unsatisfiable,
}

/// Reads `Range`, given the size of the file; a header that makes no sense counts as absent (section 14.2).
pub(crate) fn select(range: Option<&str>, size: u64) -> Selection {
    let Some(spec) = range.and_then(bytes_unit) else {
        return Selection::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Selection::Whole;
    };
    match (number(first), number(last)) {
        (Some(start), Some(last)) if start > last => Selection::Whole,
        (Some(start), _) if start >= size => Selection::Unsatisfiable,
        (Some(start), Some(last)) => Selection::Part {
            start,
            length: last.min(size - 1) - start + 1,
        },
        (Some(start), None) if last.is_empty() => Selection::Part {
            start,
            length: size - start,
        },
        (None, Some(0)) if first.is_empty() => Selection::Unsatisfiable,
        (None, Some(_)) if first.is_empty() && size == 0 => Selection::Unsatisfiable,
        (None, Some(suffix)) if first.is_empty() => {
            let length = suffix.min(size);
            Selection::Part {
                start: size - length,
                length,
            }
        }
        _ => Selection::Whole,
    }
}

fn bytes_unit(range: &str) -> Option<&str> {
    let (unit, spec) = range.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(spec)
}

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Whether `If-None-Match` says that the client has the file (weak comparison, section 13.1.2).
pub(crate) fn none_match_hits(header: &str, etag: &str) -> bool {
    header.trim() == "*"
        || header
            .split(',')
            .any(|tag| tag.trim().trim_start_matches("W/") == etag)
}

/// Whether `If-Range` allows a part: only by the very tag; dates are not understood and count as changed (section 13.1.5).
pub(crate) fn if_range_allows(header: Option<&str>, etag: &str) -> bool {
    header.is_none_or(|tag| tag.trim() == etag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Selection::{Part, Unsatisfiable, Whole};

    fn check(range: &str, size: u64, expect: Selection) {
        assert_eq!(select(Some(range), size), expect, "{range:?} of {size}");
    }

    #[test]
    fn examples_of_rfc_9110_section_14_1_2() {
        check(
            "bytes=0-499",
            10_000,
            Part {
                start: 0,
                length: 500,
            },
        );
        check(
            "bytes=500-999",
            10_000,
            Part {
                start: 500,
                length: 500,
            },
        );
        check(
            "bytes=-500",
            10_000,
            Part {
                start: 9_500,
                length: 500,
            },
        );
        check(
            "bytes=9500-",
            10_000,
            Part {
                start: 9_500,
                length: 500,
            },
        );
        check("bytes=0-0,-1", 10_000, Whole);
    }

    #[test]
    fn ranges_at_the_edges() {
        assert_eq!(select(None, 10), Whole);
        check(
            "bytes=0-",
            10,
            Part {
                start: 0,
                length: 10,
            },
        );
        check(
            "bytes=9-99",
            10,
            Part {
                start: 9,
                length: 1,
            },
        );
        check(
            "bytes=-99",
            10,
            Part {
                start: 0,
                length: 10,
            },
        );
        check("bytes=10-", 10, Unsatisfiable);
        check("bytes=-0", 10, Unsatisfiable);
        check("bytes=0-", 0, Unsatisfiable);
        check("bytes=-5", 0, Unsatisfiable);
        check(
            "bytes=0-18446744073709551615",
            10,
            Part {
                start: 0,
                length: 10,
            },
        );
        check("bytes=99999999999999999999999-", 10, Unsatisfiable);
    }

    #[test]
    fn nonsense_is_ignored() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=+1-2",
            "lines=0-1",
            "bytes=1--2",
            "bytes=0-1,2-3",
        ] {
            check(range, 10, Whole);
        }
    }

    #[test]
    fn tags_are_compared_as_the_rfc_says() {
        assert!(none_match_hits("\"a\", \"b\"", "\"b\""));
        assert!(none_match_hits("W/\"b\"", "\"b\""));
        assert!(none_match_hits("*", "\"b\""));
        assert!(!none_match_hits("\"c\"", "\"b\""));
        assert!(if_range_allows(None, "\"b\""));
        assert!(if_range_allows(Some("\"b\""), "\"b\""));
        assert!(!if_range_allows(Some("W/\"b\""), "\"b\""));
        assert!(!if_range_allows(
            Some("Wed, 21 Oct 2015 07:28:00 GMT"),
            "\"b\""
        ));
    }

    proptest::proptest! {
        #[test]
        fn a_part_is_never_empty_nor_beyond_the_end(range in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0u64..) {
            if let Part { start, length } = select(Some(&range), size) {
                proptest::prop_assert!(length > 0);
                proptest::prop_assert!(start.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
