//! Opening a store: whose folder it is, who else uses it, whether anything is damaged; then the start's own transaction.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, ErrorCode};

use super::load::{LoadError, load, meta};
use super::sqlite::{FILE, FORMAT, TABLES, set_meta};
use super::{Loaded, OpenError, log_check, memory, migrate};

/// 2026-01-01, from where epochs count minutes.
const EPOCH_ZERO_MS: u64 = 1_767_225_600_000;
/// A clock that is this wrong (two thousand years) is not followed.
const EPOCH_CLOCK_MAX: u64 = 1 << 30;

/// Opens the database, and begins a start in it.
pub(super) fn database(dir: &Path, now_ms: u64) -> Result<(Connection, Loaded), OpenError> {
    let path = dir.join(FILE);
    let sqlite = |source| OpenError::Sqlite {
        path: path.clone(),
        source,
    };
    check_log(dir, &path)?;
    let fresh = !path.exists();
    let mut db = Connection::open(&path).map_err(|error| damaged_or(&path, error))?;
    // Grants and BMC passwords are in there.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|source| {
        OpenError::ReadOnly {
            path: dir.to_path_buf(),
            source,
        }
    })?;
    prepare(&db).map_err(|error| damaged_or(&path, error))?;
    if fresh || is_empty(&db).map_err(|error| damaged_or(&path, error))? {
        create(&mut db).map_err(sqlite)?;
    }
    check_integrity(&db, &path)?;
    empty_log(&db);
    let format: i64 = db
        .query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| {
            row.get(0)
        })
        .map_err(|error| damaged_or(&path, error))?;
    if format > FORMAT {
        return Err(OpenError::TooNew {
            path,
            is: format,
            knows: FORMAT,
        });
    }
    let tx = db.transaction().map_err(sqlite)?;
    let damaged = |error| match error {
        LoadError::Sqlite(error) => damaged_or(&path, error),
        LoadError::Value(what) => OpenError::Damaged {
            path: path.clone(),
            what,
        },
    };
    // In one transaction with the start: a crash in between leaves the old format whole.
    migrate::to_present(&tx, format).map_err(damaged)?;
    let last: u64 = meta(&tx, "epoch").map_err(sqlite)?.unwrap_or(0);
    let epoch = next_epoch(last, now_ms);
    set_meta(&tx, "epoch", epoch).map_err(sqlite)?;
    let starts = meta(&tx, "starts").map_err(sqlite)?.unwrap_or(last) + 1;
    set_meta(&tx, "starts", starts).map_err(sqlite)?;
    let loaded = load(&tx, epoch, starts, now_ms).map_err(damaged)?;
    tx.commit().map_err(sqlite)?;
    Ok((db, loaded))
}

pub(super) fn check_directory(dir: &Path) -> Result<(), OpenError> {
    let directory = |source| OpenError::Directory {
        path: dir.to_path_buf(),
        source,
    };
    if !dir.exists() {
        fs::create_dir_all(dir).map_err(directory)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(directory)?;
    }
    let (owner, me) = (
        fs::metadata(dir).map_err(directory)?.uid(),
        nix::unistd::geteuid().as_raw(),
    );
    if owner == me {
        Ok(())
    } else {
        Err(OpenError::WrongOwner {
            path: dir.to_path_buf(),
            owner,
            me,
        })
    }
}

pub(super) fn lock(dir: &Path) -> Result<Flock<fs::File>, OpenError> {
    let read_only = |source| OpenError::ReadOnly {
        path: dir.to_path_buf(),
        source,
    };
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))
        .map_err(read_only)?;
    let mut lock =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, _)| {
            let mut pid = String::new();
            let _ = (&mut file).take(20).read_to_string(&mut pid);
            let pid = Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty());
            OpenError::Locked {
                path: dir.to_path_buf(),
                pid,
            }
        })?;
    // The number is for people who find the lock held; the lock itself is the kernel's.
    let noted = lock
        .set_len(0)
        .and_then(|()| lock.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(lock, "{}", std::process::id()));
    match noted {
        Err(error) if error.raw_os_error() != Some(nix::libc::ENOSPC) => Err(read_only(error)),
        _ => Ok(lock),
    }
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // Readers with `sqlite3` may hold the database for a moment, for instance during a backup.
    db.busy_timeout(std::time::Duration::from_secs(5))
}

fn is_empty(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT count(*) FROM sqlite_master", [], |row| {
        row.get::<_, i64>(0)
    })
    .map(|tables| tables == 0)
}

fn create(db: &mut Connection) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    tx.execute_batch(TABLES)?;
    tx.execute_batch(memory::TABLES)?;
    set_meta(&tx, "format", FORMAT as u64)?;
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let head = uuid::Builder::from_random_bytes(id).into_uuid();
    tx.execute(
        "INSERT INTO meta (key, value) VALUES ('head', ?1)",
        [head.as_bytes()],
    )?;
    tx.commit()
}

/// The epoch of a start: greater than the last one, and not less than the clock. A store that was restored from an old backup has forgotten
/// epochs that its nodes have seen; time has not (F11). In minutes, so that restarts in a row seldom outrun the clock.
fn next_epoch(last: u64, now_ms: u64) -> u64 {
    let minutes = now_ms.saturating_sub(EPOCH_ZERO_MS) / 60_000;
    (last + 1).max(minutes.min(EPOCH_CLOCK_MAX))
}

/// Refuses a write-ahead log that is damaged before its end: SQLite would take it for torn there and drop what was acknowledged (P8).
fn check_log(dir: &Path, path: &Path) -> Result<(), OpenError> {
    let log = dir.join(format!("{FILE}-wal"));
    let bytes = match fs::read(&log) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(OpenError::Directory {
                path: dir.to_path_buf(),
                source,
            });
        }
    };
    match log_check::damage(&bytes) {
        None => Ok(()),
        Some(offset) => Err(OpenError::Damaged {
            path: path.to_path_buf(),
            what: format!(
                "its log {} does not add up at byte {offset}, and whole transactions follow",
                log.display()
            ),
        }),
    }
}

/// Moves the log's content to the database, so that the log holds the transactions of one run and at most one torn end. A reader may be in
/// the way, or the disk full: the log is as good then.
fn empty_log(db: &Connection) {
    let done = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = done {
        tracing::debug!(%error, "the database's log stays as it is");
    }
}

fn check_integrity(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let check = || -> rusqlite::Result<Vec<String>> {
        let mut statement = db.prepare("PRAGMA quick_check(3)")?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let found = check().map_err(|error| damaged_or(path, error))?;
    if found == ["ok"] {
        return Ok(());
    }
    Err(OpenError::Damaged {
        path: path.to_path_buf(),
        what: found.join("; "),
    })
}

fn damaged_or(path: &Path, error: rusqlite::Error) -> OpenError {
    let damaged = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(error, rusqlite::Error::QueryReturnedNoRows);
    match damaged {
        true => OpenError::Damaged {
            path: path.to_path_buf(),
            what: error.to_string(),
        },
        false => OpenError::Sqlite {
            path: path.to_path_buf(),
            source: error,
        },
    }
}
