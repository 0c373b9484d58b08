//! What a file name in a TFTP request means; pure.
//!
//! There are no folders behind it: a name is a loader's or a node's boot script, or nothing (threat S19).

use crate::boot::MacAddr;

/// Longest name that is looked at; DHCP's boot file field has 128 bytes.
pub(crate) const MAX_NAME_BYTES: usize = 128;

/// Something that TFTP serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// A first-stage loader, by name; looked up in memory.
    Loader(&'a str),
    /// `boot/<mac>/script`
    Script(MacAddr),
}

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadName {
    /// Longer than [`MAX_NAME_BYTES`], empty, or not printable ASCII.
    #[error("not_a_name")]
    NotAName,
    /// It tries to walk through folders.
    #[error("traversal")]
    Traversal,
    /// A name of nothing we have.
    #[error("unknown_name")]
    Unknown,
}

/// Reads a name. Some firmware puts a slash before it.
pub(crate) fn read(name: &str) -> Result<Wanted<'_>, BadName> {
    let printable = name.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !printable {
        return Err(BadName::NotAName);
    }
    if name
        .split(['/', '\\'])
        .any(|part| part == ".." || part == ".")
    {
        return Err(BadName::Traversal);
    }
    let name = name.strip_prefix('/').unwrap_or(name);
    if let Some(script) = name.strip_prefix("boot/") {
        let mac = script.strip_suffix("/script").ok_or(BadName::Unknown)?;
        return mac
            .parse()
            .map(Wanted::Script)
            .map_err(|_| BadName::Unknown);
    }
    if name.contains(['/', '\\']) {
        return Err(BadName::Unknown);
    }
    Ok(Wanted::Loader(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_loaders_or_scripts() {
        let mac = MacAddr([0x52, 0x54, 0, 0x4b, 0, 1]);
        assert_eq!(read("undionly.kpxe"), Ok(Wanted::Loader("undionly.kpxe")));
        assert_eq!(read("/ipxe.efi"), Ok(Wanted::Loader("ipxe.efi")));
        assert_eq!(
            read("boot/52:54:00:4b:00:01/script"),
            Ok(Wanted::Script(mac))
        );
        assert_eq!(
            read("/boot/52-54-00-4b-00-01/script"),
            Ok(Wanted::Script(mac))
        );
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        let kilobyte = "../".repeat(342);
        for (name, expect) in [
            ("", BadName::NotAName),
            (&long, BadName::NotAName),
            (&kilobyte, BadName::NotAName),
            ("ipxe\u{7f}.efi", BadName::NotAName),
            ("ipxe.efi\n", BadName::NotAName),
            ("é", BadName::NotAName),
            ("..", BadName::Traversal),
            ("../etc/passwd", BadName::Traversal),
            ("/../../etc/passwd", BadName::Traversal),
            ("boot/../../etc/passwd", BadName::Traversal),
            ("..\\..\\windows", BadName::Traversal),
            ("./ipxe.efi", BadName::Traversal),
            ("etc/passwd", BadName::Unknown),
            ("//etc/passwd", BadName::Unknown),
            ("boot/52:54:00:4b:00:01", BadName::Unknown),
            ("boot/52:54:00:4b:00:01/grant", BadName::Unknown),
            ("boot/x/script", BadName::Unknown),
        ] {
            assert_eq!(read(name), Err(expect), "{name:?}");
        }
        assert!(read(&"a".repeat(MAX_NAME_BYTES)).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_read_without_a_panic(name in ".*") {
            let _ = read(&name);
        }
    }
}
