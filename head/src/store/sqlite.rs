//! The store on SQLite: write-ahead log, `synchronous=FULL`, one transaction a commit.
//!
//! Readable with `sqlite3 kraken.db`: every value has its canonical bytes (`value`) and what people read (`text`; secrets are not shown there).
//! One process at a time: a lock file keeps the second one out.

use std::fs;
use std::path::Path;
#[cfg(test)]
use std::path::PathBuf;
use std::sync::Arc;

use engine::event::{CommitError, Record, WriteOp};
use engine::extension::Schema;
use engine::memory::Memo;
use engine::mutation::MutationId;
use engine::state::{Change, NodeId, Values};
use nix::fcntl::Flock;
use rusqlite::{Connection, ErrorCode, Transaction, params};

use super::load::meta;
use super::reserve::Reserve;
use super::{Loaded, OpenError, Retention, Store, codec, history, memory, open};

/// Format of the tables.
pub(super) const FORMAT: i64 = 5;

/// Name of the database in the state directory.
pub(crate) const FILE: &str = "kraken.db";

/// What a store holds, beside the tables of `memory`.
pub(super) const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE nodes (
    id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, parent BLOB, frozen INTEGER NOT NULL, cfg_revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE groups (node BLOB NOT NULL REFERENCES nodes ON DELETE CASCADE, name TEXT NOT NULL, PRIMARY KEY (node, name)) WITHOUT ROWID;
CREATE TABLE labels (
    node BLOB NOT NULL REFERENCES nodes ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (node, name)
) WITHOUT ROWID;
CREATE TABLE cfg (
    node BLOB NOT NULL REFERENCES nodes ON DELETE CASCADE, url TEXT NOT NULL, value BLOB NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (node, url)
) WITHOUT ROWID;
CREATE TABLE last_known (
    node BLOB PRIMARY KEY REFERENCES nodes ON DELETE CASCADE, at_ms INTEGER NOT NULL, dsc BLOB NOT NULL, text TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE grants (
    id BLOB PRIMARY KEY, node BLOB NOT NULL, boot BLOB NOT NULL, secret BLOB, expires_ms INTEGER NOT NULL,
    deliveries INTEGER NOT NULL, consumed_by BLOB, consumed_ms INTEGER
) WITHOUT ROWID;
CREATE TABLE intents (node BLOB PRIMARY KEY, mutation TEXT NOT NULL, attempt INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE history (
    revision INTEGER PRIMARY KEY, author TEXT NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL, text TEXT NOT NULL, ops BLOB NOT NULL,
    inverse BLOB, names BLOB, key TEXT, request BLOB
);
CREATE TABLE trials (revision INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL);
CREATE TABLE frozen_groups (name TEXT PRIMARY KEY, author TEXT NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
";

/// See the module.
pub(crate) struct Sqlite {
    db: Connection,
    schema: Arc<Schema>,
    failed: Option<String>,
    reserve: Reserve,
    _lock: Flock<fs::File>,
}

impl Sqlite {
    /// Opens the store in `dir`, makes it if it is not there, and loads everything.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is changed then.
    pub(crate) fn open(dir: &Path, schema: Arc<Schema>) -> Result<(Self, Loaded), OpenError> {
        Self::open_at(dir, schema, engine::driver::wall_ms())
    }

    /// As [`open`](Self::open), at this time (milliseconds since the Unix epoch).
    pub(super) fn open_at(
        dir: &Path,
        schema: Arc<Schema>,
        now_ms: u64,
    ) -> Result<(Self, Loaded), OpenError> {
        open::check_directory(dir)?;
        let lock = open::lock(dir)?;
        let mut reserve = Reserve::find(dir);
        let (db, loaded) = match open::database(dir, now_ms) {
            Err(OpenError::Sqlite { source, .. }) if is_disk_full(&source) && reserve.release() => {
                open::database(dir, now_ms)
            }
            opened => opened,
        }?;
        reserve.make(dir);
        let store = Self {
            db,
            schema,
            failed: None,
            reserve,
            _lock: lock,
        };
        Ok((store, loaded))
    }

    /// Takes the schema by which values are written for people; later ones come in commits.
    pub(crate) fn set_schema(&mut self, schema: Arc<Schema>) {
        self.schema = schema;
    }

    fn apply_all(&mut self, records: &[Record]) -> Result<(), CommitError> {
        let mut schema = Arc::clone(&self.schema);
        self.within(|tx, _| {
            records
                .iter()
                .try_for_each(|record| apply(tx, &mut schema, record))
        })?;
        self.schema = schema;
        Ok(())
    }

    fn within(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &Schema) -> rusqlite::Result<()>,
    ) -> Result<(), CommitError> {
        if let Some(why) = &self.failed {
            return Err(CommitError::Failed(why.clone()));
        }
        let schema = Arc::clone(&self.schema);
        let done = self.db.transaction().and_then(|tx| {
            work(&tx, &schema)?;
            tx.commit()
        });
        done.map_err(|error| {
            if is_disk_full(&error) {
                return CommitError::DiskFull;
            }
            let why = error.to_string();
            // Somebody else's lock passes; nothing else may be hoped away (P6).
            if !matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ) {
                self.failed = Some(why.clone());
            }
            CommitError::Failed(why)
        })
    }
}

impl Store for Sqlite {
    fn commit(&mut self, records: &[Record], own: bool) -> Result<(), CommitError> {
        if !own && !self.reserve.is_whole() {
            return Err(CommitError::DiskFull);
        }
        match self.apply_all(records) {
            Err(CommitError::DiskFull) if own && self.reserve.release() => self.apply_all(records),
            result => result,
        }
    }

    fn probe(&mut self) -> Result<(), CommitError> {
        if !self.reserve.is_whole() {
            return Err(CommitError::DiskFull);
        }
        self.within(|tx, _| set_meta(tx, "probe", 1))
    }

    fn is_on_reserve(&self) -> bool {
        self.reserve.is_used()
    }

    fn note_last_known(
        &mut self,
        known: &[(NodeId, Values)],
        at_ms: u64,
    ) -> Result<(), CommitError> {
        self.within(|tx, schema| {
            let mut note = tx.prepare_cached(
                "INSERT OR REPLACE INTO last_known (node, at_ms, dsc, text) SELECT id, ?2, ?3, ?4 FROM nodes WHERE id = ?1",
            )?;
            for (node, dsc) in known {
                note.execute(params![node.as_bytes(), int(at_ms), codec::encode_values(dsc), codec::readable(schema, dsc)])?;
            }
            Ok(())
        })
    }

    fn remember(&mut self, memos: &[(u64, Memo)]) -> Result<(), CommitError> {
        self.within(|tx, _| {
            let mut memos = memos.iter();
            memos.try_for_each(|(told_ms, memo)| memory::note(tx, *told_ms, memo))
        })
    }

    fn prune(&mut self, keep: &Retention, now_ms: u64) -> Result<(), CommitError> {
        self.within(|tx, _| history::prune(tx, keep, now_ms))
    }

    fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }
}

/// SQLite reports a full disk as `SQLITE_FULL`, and as `SQLITE_IOERR_SHMSIZE` when the index of the log cannot grow.
fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error
            .sqlite_error()
            .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// SQLite has signed integers only; the engine's counters and clocks stay far below the border.
pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn set_meta(tx: &Transaction<'_>, key: &str, value: u64) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![key, int(value)])
        .map(|_| ())
}

fn apply(tx: &Transaction<'_>, schema: &mut Arc<Schema>, record: &Record) -> rusqlite::Result<()> {
    match record {
        Record::Write {
            revision,
            author,
            reason,
            at_ms,
            ops,
            kept,
        } => {
            for op in ops {
                apply_op(tx, schema, op, *revision)?;
            }
            // Values whose fields go were unset by this write; those that come are read by the schema that has them.
            let text = codec::readable_ops(schema, ops);
            let next = ops.iter().rev().find_map(|op| match op {
                WriteOp::Schema { schema, .. } => Some(schema),
                _ => None,
            });
            if let Some(next) = next {
                *schema = Arc::clone(next);
            }
            let ops = codec::encode_ops(ops);
            let (inverse, names) = (
                codec::encode_ops(&kept.inverse),
                codec::encode_names(&kept.names),
            );
            let key = kept.key.as_ref();
            tx.prepare_cached(
                "INSERT INTO history (revision, author, reason, at_ms, text, ops, inverse, names, key, request)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                int(*revision),
                author,
                reason,
                int(*at_ms),
                text,
                ops,
                inverse,
                names,
                key.map(|key| &key.text),
                key.map(|key| &key.request[..]),
            ])?;
            set_meta(tx, "revision", *revision)
        }
        Record::Intent {
            node,
            mutation,
            attempt,
        } => {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO intents (node, mutation, attempt) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![
                node.as_bytes(),
                MutationId::as_str(mutation),
                int(*attempt)
            ])?;
            let last = meta(tx, "attempt")?.unwrap_or(0);
            set_meta(tx, "attempt", last.max(*attempt))
        }
        Record::Grant(grant) => {
            let consumed = grant.consumed_by.as_ref();
            tx.prepare_cached(
                "INSERT OR REPLACE INTO grants VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                grant.id.0.as_bytes(),
                grant.node.as_bytes(),
                grant.boot.as_bytes(),
                grant.secret.as_ref().map(|secret| &secret.0[..]),
                int(grant.expires_ms),
                grant.deliveries,
                consumed.map(|(key, _)| &key[..]),
                consumed.map(|(_, at_ms)| int(*at_ms)),
            ])
            .map(|_| ())
        }
        Record::GrantGone(id) => tx
            .prepare_cached("DELETE FROM grants WHERE id = ?1")?
            .execute([id.0.as_bytes()])
            .map(|_| ()),
    }
}

fn apply_op(
    tx: &Transaction<'_>,
    schema: &Schema,
    op: &WriteOp,
    revision: u64,
) -> rusqlite::Result<()> {
    let touch = |node: NodeId| {
        tx.prepare_cached("UPDATE nodes SET cfg_revision = ?2 WHERE id = ?1")?
            .execute(params![node.as_bytes(), int(revision)])
            .map(|_| ())
    };
    match op {
        WriteOp::Add(node) => {
            tx.prepare_cached("INSERT INTO nodes (id, name, parent, frozen, cfg_revision) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![
                    node.id.as_bytes(),
                    node.name.as_str(),
                    node.parent.as_ref().map(|parent| parent.as_bytes()),
                    node.frozen,
                    int(revision)
                ])?;
            add_groups(tx, node.id, node.groups.iter())?;
            let mut label =
                tx.prepare_cached("INSERT INTO labels (node, name, value) VALUES (?1, ?2, ?3)")?;
            for (name, value) in &node.labels {
                label.execute(params![node.id.as_bytes(), name, value])?;
            }
            set_cfg(tx, schema, node.id, &node.cfg.to_changes())
        }
        WriteOp::Delete(node) => {
            tx.prepare_cached("DELETE FROM nodes WHERE id = ?1")?
                .execute([node.as_bytes()])?;
            tx.prepare_cached("DELETE FROM grants WHERE node = ?1")?
                .execute([node.as_bytes()])?;
            tx.prepare_cached("DELETE FROM intents WHERE node = ?1")?
                .execute([node.as_bytes()])
                .map(|_| ())
        }
        WriteOp::Set { node, changes } => {
            set_cfg(tx, schema, *node, changes)?;
            touch(*node)
        }
        WriteOp::Groups { node, add, remove } => {
            add_groups(tx, *node, add.iter())?;
            let mut gone = tx.prepare_cached("DELETE FROM groups WHERE node = ?1 AND name = ?2")?;
            for name in remove {
                gone.execute(params![node.as_bytes(), name])?;
            }
            touch(*node)
        }
        WriteOp::Freeze { node, frozen } => {
            tx.prepare_cached("UPDATE nodes SET frozen = ?2 WHERE id = ?1")?
                .execute(params![node.as_bytes(), frozen])?;
            touch(*node)
        }
        WriteOp::Move { node, parent } => {
            tx.prepare_cached("UPDATE nodes SET parent = ?2 WHERE id = ?1")?
                .execute(params![node.as_bytes(), parent.as_bytes()])?;
            touch(*node)
        }
        WriteOp::FreezeCluster(frozen) => set_meta(tx, "frozen", u64::from(*frozen)),
        WriteOp::FreezeGroup {
            group,
            by: Some(by),
        } => tx
            .prepare_cached(
                "INSERT OR REPLACE INTO frozen_groups (name, author, reason) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![group, by.by, by.reason])
            .map(|_| ()),
        WriteOp::FreezeGroup { group, by: None } => tx
            .prepare_cached("DELETE FROM frozen_groups WHERE name = ?1")?
            .execute([group])
            .map(|_| ()),
        // The files of extensions are the truth; here is its history.
        WriteOp::Schema { .. } => Ok(()),
        WriteOp::Try { until_ms } => tx
            .prepare_cached("INSERT INTO trials (revision, until_ms) VALUES (?1, ?2)")?
            .execute(params![int(revision), int(*until_ms)])
            .map(|_| ()),
        WriteOp::Settle(tried) => tx
            .prepare_cached("DELETE FROM trials WHERE revision = ?1")?
            .execute([int(*tried)])
            .map(|_| ()),
    }
}

fn add_groups<'a>(
    tx: &Transaction<'_>,
    node: NodeId,
    groups: impl Iterator<Item = &'a String>,
) -> rusqlite::Result<()> {
    let mut add = tx.prepare_cached("INSERT OR IGNORE INTO groups (node, name) VALUES (?1, ?2)")?;
    for name in groups {
        add.execute(params![node.as_bytes(), name])?;
    }
    Ok(())
}

fn set_cfg(
    tx: &Transaction<'_>,
    schema: &Schema,
    node: NodeId,
    changes: &[Change],
) -> rusqlite::Result<()> {
    let mut set = tx.prepare_cached(
        "INSERT OR REPLACE INTO cfg (node, url, value, text) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut unset = tx.prepare_cached("DELETE FROM cfg WHERE node = ?1 AND url = ?2")?;
    for Change { url, value } in changes {
        match value.as_ref().filter(|value| !value.is_zero()) {
            Some(value) => set.execute(params![
                node.as_bytes(),
                url.as_str(),
                codec::encode(value),
                codec::readable_value(schema, url, value)
            ])?,
            None => unset.execute(params![node.as_bytes(), url.as_str()])?,
        };
    }
    Ok(())
}

#[cfg(test)]
impl Sqlite {
    /// Lets the database grow by so many pages and no more: what a full disk does.
    pub(crate) fn limit_pages(&self, more: Option<i64>) {
        let now: i64 = self
            .db
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        let limit = more.map_or(1 << 30, |more| now + more);
        self.db
            .query_row(&format!("PRAGMA max_page_count = {limit}"), [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap();
    }

    /// Makes every later commit fail.
    pub(crate) fn break_tables(&self) {
        self.db.execute_batch("DROP TABLE history").unwrap();
    }

    /// A query by people's tools.
    pub(crate) fn query_texts(&self, query: &str) -> Vec<String> {
        let mut statement = self.db.prepare(query).unwrap();
        statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    }
}

/// Where the database of a state directory lies.
#[cfg(test)]
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}
