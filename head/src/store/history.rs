//! Reading history, beside the thread that writes: SQLite's log lets readers in without holding a writer up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::event::{SchemaEdit, WriteOp};
use engine::state::{NodeId, NodeName};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::Retention;
use super::codec;
use super::load::uint;
use super::sqlite::{FILE, int};

/// One write as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Revision after it.
    pub(crate) revision: u64,
    /// Who.
    pub(crate) author: String,
    /// Why.
    pub(crate) reason: String,
    /// When, milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// What.
    pub(crate) ops: Vec<WriteOp>,
    /// What it did beyond nodes, in words.
    pub(crate) notes: Vec<String>,
    /// Files of extensions that it changed.
    pub(crate) edits: Vec<SchemaEdit>,
    /// What takes it back; `None`: an earlier release did not keep it.
    pub(crate) inverse: Option<Vec<WriteOp>>,
    /// Names of the nodes that it is about, at that time.
    pub(crate) names: BTreeMap<NodeId, NodeName>,
}

/// Which entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Later ones than this revision.
    pub(crate) after: u64,
    /// Up to this one.
    pub(crate) up_to: u64,
    /// Not older than this, milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// So many of the newest.
    pub(crate) limit: usize,
}

/// History cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// The database says so.
    #[error("history cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Something stored makes no sense.
    #[error("revision {revision} of history cannot be read: {why}")]
    Value {
        /// Where.
        revision: u64,
        /// Why.
        why: String,
    },
}

/// History on disk. Calls block for as long as the disk takes.
#[derive(Clone, Debug)]
pub(crate) struct History {
    file: PathBuf,
}

impl History {
    /// The history of the store in this state directory.
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self {
            file: state_dir.join(FILE),
        }
    }

    fn open(&self) -> Result<Connection, HistoryError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.file, flags)?;
        db.busy_timeout(Duration::from_secs(5))?;
        Ok(db)
    }

    /// Entries, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn entries(&self, span: Span) -> Result<Vec<Entry>, HistoryError> {
        let db = self.open()?;
        let mut read = db.prepare(
            "SELECT revision, author, reason, at_ms, ops, inverse, names FROM history
             WHERE revision > ?1 AND revision <= ?2 AND at_ms >= ?3 ORDER BY revision DESC LIMIT ?4",
        )?;
        let limit = i64::try_from(span.limit).unwrap_or(i64::MAX);
        let mut rows = read.query(params![
            int(span.after),
            int(span.up_to),
            int(span.since_ms),
            limit
        ])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let revision = uint(row, 0)?;
            let bad = |why| HistoryError::Value { revision, why };
            let inverse = row.get::<_, Option<Vec<u8>>>(5)?;
            let names = row.get::<_, Option<Vec<u8>>>(6)?.unwrap_or_default();
            let ops = row.get::<_, Vec<u8>>(4)?;
            entries.push(Entry {
                revision,
                author: row.get(1)?,
                reason: row.get(2)?,
                at_ms: uint(row, 3)?,
                notes: codec::decode_notes(&ops).map_err(bad)?,
                edits: codec::decode_edits(&ops).map_err(bad)?,
                ops: codec::decode_ops(&ops).map_err(bad)?,
                inverse: inverse
                    .map(|bytes| codec::decode_ops(&bytes))
                    .transpose()
                    .map_err(bad)?,
                names: codec::decode_names(&names).map_err(bad)?,
            });
        }
        Ok(entries)
    }

    /// The oldest revision from which on none is missing; `None` while there is none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn oldest(&self) -> Result<Option<u64>, HistoryError> {
        let db = self.open()?;
        let oldest = db
            .query_row(
                "SELECT max(revision) FROM history AS h WHERE NOT EXISTS (SELECT 1 FROM history WHERE revision = h.revision - 1)",
                [],
                |row| row.get::<_, Option<i64>>(0),
            )
            .optional()?;
        Ok(oldest
            .flatten()
            .and_then(|revision| u64::try_from(revision).ok()))
    }
}

/// Deletes what breaks a limit.
pub(super) fn prune(tx: &Transaction<'_>, keep: &Retention, now_ms: u64) -> rusqlite::Result<()> {
    let newest: Option<i64> =
        tx.query_row("SELECT max(revision) FROM history", [], |row| row.get(0))?;
    let Some(newest) = newest else {
        return Ok(());
    };
    let age_ms = u64::try_from(keep.age.as_millis()).unwrap_or(u64::MAX);
    let too_old: Option<i64> = tx.query_row(
        "SELECT max(revision) FROM history WHERE at_ms < ?1",
        [int(now_ms.saturating_sub(age_ms))],
        |row| row.get(0),
    )?;
    let too_many = newest.saturating_sub(int(keep.revisions));
    let mut sizes = tx.prepare(
        "SELECT revision, 100 + length(text) + length(ops) + ifnull(length(inverse), 0) + ifnull(length(names), 0) FROM history ORDER BY revision DESC",
    )?;
    let mut rows = sizes.query([])?;
    let (mut sum, mut too_large) = (0_u64, 0);
    while let Some(row) = rows.next()? {
        sum = sum.saturating_add(uint(row, 1)?);
        if sum > keep.bytes {
            too_large = row.get(0)?;
            break;
        }
    }
    let last = too_old
        .unwrap_or(0)
        .max(too_many)
        .max(too_large)
        .min(newest - 1);
    tx.execute(
        "DELETE FROM history WHERE revision <= ?1 AND revision NOT IN (SELECT revision FROM trials)",
        [last],
    )
    .map(|_| ())
}
