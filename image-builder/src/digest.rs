//! SHA-256 digests and their spelling: 64 lower-case hex digits, as in manifests and blob names.
//!
//! Upper-case digits are refused on reading, so that one digest has one spelling and a blob one file name.

use std::io::Read;

use ring::digest::{Context, SHA256, digest};

/// Bytes read at a time while hashing a file; large enough that the system calls do not show.
const CHUNK_BYTES: usize = 256 * 1024;

/// The SHA-256 of `bytes` in hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    encode(digest(&SHA256, bytes).as_ref())
}

/// The SHA-256 in hex and the length of everything `reader` yields.
pub(crate) fn sha256_reader(mut reader: impl Read) -> std::io::Result<(String, u64)> {
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut length = 0;
    loop {
        let n = match reader.read(&mut chunk) {
            Ok(0) => return Ok((encode(context.finish().as_ref()), length)),
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(&chunk[..n]);
        length += n as u64;
    }
}

/// Lower-case hex of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a text of lower-case hex digits, or `None` if it is anything else.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digests_agree_with_the_standard_and_each_other() {
        assert_eq!(sha256_hex(b"abc"), ABC);
        assert_eq!(sha256_reader(&b"abc"[..]).unwrap(), (ABC.to_owned(), 3));
        let large = vec![7; CHUNK_BYTES + 1];
        assert_eq!(
            sha256_reader(&large[..]).unwrap(),
            (sha256_hex(&large), large.len() as u64)
        );
    }

    #[test]
    fn hex_has_one_spelling() {
        assert_eq!(decode("00ff1a"), Some(vec![0, 255, 0x1a]));
        assert_eq!(
            decode(&encode(b"\x00\x7f\x80\xff")),
            Some(vec![0, 127, 128, 255])
        );
        for bad in ["0", "0F", "0g", "é0", "+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
