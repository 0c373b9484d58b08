//! Which boot file a request names; pure.
//!
//! Segments of the path become typed names or the request is refused: no text of a request is ever part of a file name.

use std::borrow::Cow;

use uuid::Uuid;

use crate::boot::{BootName, MacAddr, Sha256};

/// A resource of the boot plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/boot/<mac>/script`
    Script(MacAddr),
    /// `/boot/<mac>/kernel`
    Kernel(MacAddr),
    /// `/boot/<mac>/initramfs`
    Initramfs(MacAddr),
    /// `/g/<uuid>`
    Grant(Uuid),
    /// `/images/<name>/manifest`
    Manifest(BootName),
    /// `/blobs/<sha256>`
    Blob(Sha256),
    /// `/loader/<name>`; the name is looked up in memory.
    Loader(BootName),
}

impl Route {
    /// Reads a path; none if it names nothing we have.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix('/')?.split('/');
        let first = segments.next()?;
        let argument = decode(segments.next()?)?;
        let last = segments.next();
        if segments.next().is_some() {
            return None;
        }
        match (first, last) {
            ("boot", Some("script")) => argument.parse().ok().map(Route::Script),
            ("boot", Some("kernel")) => argument.parse().ok().map(Route::Kernel),
            ("boot", Some("initramfs")) => argument.parse().ok().map(Route::Initramfs),
            ("g", None) => hyphenated(&argument).map(Route::Grant),
            ("images", Some("manifest")) => argument.parse().ok().map(Route::Manifest),
            ("blobs", None) => argument.parse().ok().map(Route::Blob),
            ("loader", None) => argument.parse().ok().map(Route::Loader),
            _ => None,
        }
    }
}

fn hyphenated(text: &str) -> Option<Uuid> {
    // `Uuid` also takes braces, URNs and bare digits; one spelling is enough.
    (text.len() == 36).then(|| text.parse().ok()).flatten()
}

/// Resolves `%xx`: some clients encode the colons of a hardware address.
fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut pieces = segment.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_one_path() {
        let mac = MacAddr([0x52, 0x54, 0, 0x4b, 0, 1]);
        let hash = "ab".repeat(32);
        for (path, expect) in [
            ("/boot/52:54:00:4b:00:01/script", Route::Script(mac)),
            ("/boot/52-54-00-4b-00-01/script", Route::Script(mac)),
            (
                "/boot/52%3A54%3a00%3a4b%3a00%3a01/kernel",
                Route::Kernel(mac),
            ),
            ("/boot/52:54:00:4B:00:01/initramfs", Route::Initramfs(mac)),
            (
                "/g/00000000-0000-0000-0000-000000000007",
                Route::Grant(Uuid::from_u128(7)),
            ),
            (
                "/images/demo/manifest",
                Route::Manifest("demo".parse().expect("a name")),
            ),
            (
                &format!("/blobs/{hash}"),
                Route::Blob(hash.parse().expect("a hash")),
            ),
            (
                "/loader/ipxe.efi",
                Route::Loader("ipxe.efi".parse().expect("a name")),
            ),
        ] {
            assert_eq!(Route::parse(path), Some(expect), "{path}");
        }
    }

    #[test]
    fn everything_else_is_nothing() {
        for path in [
            "",
            "/",
            "boot",
            "/boot",
            "/boot/",
            "/boot/52:54:00:4b:00:01",
            "/boot/52:54:00:4b:00:01/",
            "/boot/52:54:00:4b:00:01/script/",
            "/boot/52:54:00:4b:00:01/script/x",
            "/boot/52:54:00:4b:00:01/passwd",
            "/boot/../script",
            "/boot/%2e%2e/script",
            "/images/../manifest",
            "/images/..%2f..%2fetc/manifest",
            "/images/%/manifest",
            "/images/%zz/manifest",
            "/images/%+1/manifest",
            "/images/%ff/manifest",
            "/images/a%00b/manifest",
            "/blobs/../../etc/passwd",
            "/blobs/%2e%2e%2fetc%2fpasswd",
            "/blobs/..",
            "/blobs/",
            "//blobs/x",
            "/loader/..",
            "/loader/../x",
            "/loader/%2e%2e",
            "/g/00000000000000000000000000000007",
            "/g/{00000000-0000-0000-0000-000000000007}",
            "/etc/passwd",
            "/images/demo",
            "/images/é/manifest",
            "/images/%é/manifest",
        ] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_read_without_a_panic(path in ".*") {
            let _ = Route::parse(&path);
            let _ = Route::parse(&format!("/boot/{path}/script"));
            let _ = Route::parse(&format!("/blobs/{path}"));
        }
    }
}
