//! What power loss and rot leave of a database, one test a row of the fault catalogue (engine/docs/faults.md).

use std::fs;

use super::*;

/// Writes that the log holds.
const WRITES: u8 = 12;

/// Copies of a database and its log as they are while the store is open: what a crash leaves.
struct Copies {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Copies {
    /// One node a commit.
    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path());
        for n in 1..=WRITES {
            store.commit(&[add(u64::from(n), n)], false).unwrap();
        }
        let copies = Self {
            database: fs::read(file(dir.path())).unwrap(),
            log: fs::read(dir.path().join("kraken.db-wal")).unwrap(),
        };
        drop(store);
        copies
    }

    /// Opens a copy with this log.
    fn open(&self, log: &[u8]) -> Result<(Sqlite, Loaded), OpenError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file(dir.path()), &self.database).unwrap();
        fs::write(dir.path().join("kraken.db-wal"), log).unwrap();
        Sqlite::open(dir.path(), schema())
    }

    /// Where the frames begin.
    fn frames(&self) -> impl Iterator<Item = usize> {
        (32..self.log.len()).step_by(24 + 4096)
    }
}

/// Opens, and is as after a whole number of commits: their number.
fn whole_commits(opened: Result<(Sqlite, Loaded), OpenError>) -> u64 {
    let (mut store, loaded) = opened.unwrap();
    assert_eq!(loaded.nodes.len() as u64, loaded.revision, "no half commit");
    for (at, found) in loaded.nodes.iter().enumerate() {
        let mut expect = node(at as u8 + 1);
        expect.cfg_revision = at as u64 + 1;
        assert_eq!(*found, expect);
    }
    // It goes on from there.
    let next = loaded.revision + 1;
    store.commit(&[add(next, 200)], false).unwrap();
    loaded.revision
}

#[test]
fn f02_a_log_that_was_cut_anywhere_holds_whole_commits() {
    let copies = Copies::make();
    let all = copies.log.len();
    assert_eq!(whole_commits(copies.open(&copies.log)), u64::from(WRITES));
    // At the borders of frames, inside their headers, inside pages; the last ones at finer steps.
    let cuts = copies
        .frames()
        .flat_map(|at| [at, at + 11, at + 24 + 2000])
        .chain((all.saturating_sub(4200)..all).step_by(700))
        .chain([0, 1, 31]);
    let mut cuts: Vec<usize> = cuts.filter(|cut| *cut < all).collect();
    cuts.sort_unstable();
    let mut before = 0;
    for cut in cuts {
        let found = whole_commits(copies.open(&copies.log[..cut]));
        assert!(found >= before, "a longer log never holds less");
        before = found;
    }
    assert_eq!(
        before,
        u64::from(WRITES) - 1,
        "only the torn commit is lost"
    );
}

#[test]
fn f02_pages_that_were_never_written_cost_the_last_commit_only() {
    let copies = Copies::make();
    let frames: Vec<usize> = copies.frames().collect();
    let commits: Vec<usize> = frames
        .iter()
        .copied()
        .filter(|at| copies.log[at + 4..at + 8] != [0; 4])
        .collect();
    let [.., last_but_one, last] = commits[..] else {
        panic!("there are many commits")
    };
    // Each page of the last commit is missing in turn: the disk wrote the others first.
    for lost in frames
        .iter()
        .filter(|at| (last_but_one + 1..=last).contains(*at))
    {
        let mut log = copies.log.clone();
        log[*lost..lost + 24 + 4096].fill(0);
        assert_eq!(whole_commits(copies.open(&log)), u64::from(WRITES) - 1);
    }
}

#[test]
fn f03_rot_in_the_middle_of_the_log_is_refused_and_not_cut_off() {
    let copies = Copies::make();
    let frames: Vec<usize> = copies.frames().collect();
    for at in [
        20,
        frames[2] + 2,
        frames[2] + 9,
        frames[3] + 24 + 100,
        frames[4] + 17,
    ] {
        let mut log = copies.log.clone();
        log[at] ^= 0x10;
        let error = copies.open(&log).err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("byte {at} is taken for good"));
        assert!(
            error.contains("is damaged")
                && error.contains("does not add up at byte")
                && error.contains("backup"),
            "{error}"
        );
    }
}

#[test]
fn f11_a_restored_backup_has_a_higher_epoch_than_anybody_has_seen() {
    const NOW: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let start = |now_ms| Sqlite::open_at(dir.path(), schema(), now_ms).unwrap().1;
    start(NOW);
    let backup = fs::read(file(dir.path())).unwrap();
    // The cluster goes on, with restarts in one minute, too.
    let mut seen = start(NOW + HOUR).epoch;
    for _ in 0..3 {
        let next = start(NOW + HOUR).epoch;
        assert!(next > seen);
        seen = next;
    }
    fs::write(file(dir.path()), backup).unwrap();
    let restored = start(NOW + 2 * HOUR);
    assert!(restored.epoch > seen, "{} after {seen}", restored.epoch);
    // A clock that went back lowers nothing.
    assert!(start(0).epoch > restored.epoch);
    assert!(start(u64::MAX).epoch < 1 << 31);
}
