//! Looks at a write-ahead log before SQLite does (fileformat2.html, section 4, "The Write-Ahead Log").
//!
//! Power loss can tear the last transaction, which was not acknowledged: SQLite cuts it off, rightly. A page that rots in the middle looks
//! the same to SQLite, and it would drop every later transaction without a word. Every commit flushes the log before the next one begins, so
//! whatever lies before the last transaction was whole once.
//!
//! ```text
//! | magic 4 | version 4 | page size 4 | sequence 4 | salts 8 | checksum 8 |   header, big endian
//! | page number 4 | size after commit, or 0, 4 | salts 8 | checksum 8 | page |   frame, again and again
//! ```
//!
//! Each checksum goes on from the one before. Frames of an earlier round have other salts and count for nothing.

/// Length of the header.
const HEADER: usize = 32;
/// Length of a frame's own header.
const FRAME: usize = 24;
/// The magic number; its last bit says whether checksums read words as big endian.
const MAGIC: u32 = 0x377f_0682;

/// Where the log is damaged although a whole transaction follows; `None` if it is good or merely torn at its end.
pub(super) fn damage(log: &[u8]) -> Option<usize> {
    let header = log.get(..HEADER)?;
    let page = usize::try_from(word(header, 8)).ok()?;
    let is_header =
        word(header, 0) & !1 == MAGIC && (512..=65_536).contains(&page) && page.is_power_of_two();
    if header.iter().all(|byte| *byte == 0) {
        // Its first sector was never written: the first transaction of a round is torn.
        return None;
    }
    if !is_header {
        // Without it nothing can be told about the rest; a log that was just begun is this short.
        return (log.len() > HEADER + 2 * (FRAME + 512)).then_some(0);
    }
    let big = word(header, 0) & 1 == 1;
    let mut sum = checksum(big, (0, 0), &header[..24]);
    let mut good = sum == (word(header, 24), word(header, 28));
    let mut bad_at = (!good).then_some(0);
    let mut commits_after = 0;
    for (number, frame) in log[HEADER..].chunks_exact(FRAME + page).enumerate() {
        if frame[8..16] != header[16..24] && (good || bad_at.is_some_and(|bad| bad > 0)) {
            // The end of this round, unless just this frame's salts rotted: then the next ones tell.
            bad_at.get_or_insert(HEADER + number * (FRAME + page));
            good = false;
            continue;
        }
        if good {
            sum = checksum(big, checksum(big, sum, &frame[..8]), &frame[FRAME..]);
            if sum == (word(frame, 16), word(frame, 20)) {
                continue;
            }
            good = false;
            bad_at.get_or_insert(HEADER + number * (FRAME + page));
        }
        if word(frame, 4) != 0 {
            commits_after += 1;
        }
    }
    // The first may be the torn transaction's own.
    bad_at.filter(|_| commits_after >= 2)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

fn checksum(big: bool, mut sum: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |at: &[u8]| {
        let at: [u8; 4] = at.try_into().unwrap_or_default();
        match big {
            true => u32::from_be_bytes(at),
            false => u32::from_le_bytes(at),
        }
    };
    for pair in bytes.chunks_exact(8) {
        sum.0 = sum.0.wrapping_add(word(&pair[..4])).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(word(&pair[4..])).wrapping_add(sum.0);
    }
    sum
}
