//! From older formats of the tables to the present one, in the transaction of the start: all of it or nothing.
//!
//! - 1 to 2: history keeps what takes a write back and the names of its nodes. Format 1 never forgot a revision, so both are found by doing
//!   everything again from the first one on; where revisions are missing, those writes stay without, and cannot be undone.
//! - 2 to 3: groups can be frozen.
//! - 3 to 4: tables for what is remembered lazily (`memory`), empty.

use std::collections::BTreeMap;

use engine::history;
use engine::state::{Frozen, NodeId, NodeName, Tree};
use rusqlite::{Transaction, params};

use super::load::{LoadError, uint};
use super::sqlite::{FORMAT, int, set_meta};
use super::{codec, memory};

const TO_2: &str = "
ALTER TABLE history ADD COLUMN inverse BLOB;
ALTER TABLE history ADD COLUMN names BLOB;
ALTER TABLE history ADD COLUMN key TEXT;
ALTER TABLE history ADD COLUMN request BLOB;
CREATE TABLE trials (revision INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL);
";

const TO_3: &str = "
CREATE TABLE frozen_groups (name TEXT PRIMARY KEY, author TEXT NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
";

/// Brings tables of `format` up to date.
pub(super) fn to_present(tx: &Transaction<'_>, format: i64) -> Result<(), LoadError> {
    if format < 2 {
        tx.execute_batch(TO_2)?;
        replay(tx)?;
    }
    if format < 3 {
        tx.execute_batch(TO_3)?;
    }
    match format {
        ..4 => tx.execute_batch(memory::TABLES)?,
        4 => tx.execute_batch(memory::TO_5)?,
        _ => {}
    }
    if format != FORMAT {
        set_meta(tx, "format", FORMAT as u64)?;
    }
    Ok(())
}

/// Finds out what takes each write back, as far as all writes before it are there.
fn replay(tx: &Transaction<'_>) -> Result<(), LoadError> {
    let mut read = tx.prepare("SELECT revision, ops FROM history ORDER BY revision")?;
    let mut rows = read.query([])?;
    let mut note = tx.prepare("UPDATE history SET inverse = ?2, names = ?3 WHERE revision = ?1")?;
    let (mut tree, mut frozen, mut names) = (Tree::default(), Frozen::default(), BTreeMap::new());
    let mut next = 1;
    while let Some(row) = rows.next()? {
        let revision = uint(row, 0)?;
        if revision != next {
            return Ok(());
        }
        next += 1;
        let ops = codec::decode_ops(&row.get::<_, Vec<u8>>(1)?).map_err(LoadError::Value)?;
        let mut back = Vec::new();
        let mut touched: BTreeMap<NodeId, NodeName> = BTreeMap::new();
        for op in &ops {
            let node = history::node_of(op);
            back.extend(history::inverse(
                op,
                node.and_then(|node| tree.get(node)),
                &frozen,
            ));
            if !history::apply(&mut tree, &mut frozen, op) {
                return Err(LoadError::Value(format!(
                    "history revision {revision} does not follow from those before it"
                )));
            }
            if let Some(node) = node {
                if let Some(node) = tree.get(node) {
                    names.insert(node.id, node.name.clone());
                }
                touched.extend(names.get(&node).map(|name| (node, name.clone())));
            }
        }
        back.reverse();
        note.execute(params![
            int(revision),
            codec::encode_ops(&back),
            codec::encode_names(&touched)
        ])?;
    }
    Ok(())
}
