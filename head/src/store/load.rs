//! Reading everything back at the start.

use std::collections::BTreeMap;

use engine::engine::{MAX_KEYS, Trial};
use engine::event::WriteKey;
use engine::state::{Freezer, Frozen, LastKnown, Node, NodeId};
use engine::sync::join::{Grant, GrantId, Secret};
use rusqlite::{OptionalExtension, Transaction};
use uuid::Uuid;

use super::{Loaded, codec, memory};

/// Why something stored cannot be read.
pub(super) enum LoadError {
    /// The database says so.
    Sqlite(rusqlite::Error),
    /// A value makes no sense.
    Value(String),
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Everything, within one transaction.
pub(super) fn load(
    tx: &Transaction<'_>,
    epoch: u64,
    starts: u64,
    now_ms: u64,
) -> Result<Loaded, LoadError> {
    let bad = |what: &str| LoadError::Value(format!("{what} cannot be read"));
    let head: Vec<u8> = tx.query_row("SELECT value FROM meta WHERE key = 'head'", [], |row| {
        row.get(0)
    })?;
    let mut nodes: BTreeMap<NodeId, Node> = BTreeMap::new();
    let mut rows = tx.prepare("SELECT id, name, parent, frozen, cfg_revision FROM nodes")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let id =
            NodeId::from_slice(&row.get::<_, Vec<u8>>(0)?).ok_or_else(|| bad("a node's id"))?;
        let name = row
            .get::<_, String>(1)?
            .parse()
            .map_err(|_| bad("a node's name"))?;
        let parent = row.get::<_, Option<Vec<u8>>>(2)?;
        let parent = parent
            .map(|id| NodeId::from_slice(&id).ok_or_else(|| bad("a parent's id")))
            .transpose()?;
        let mut node = Node::new(id, name, parent);
        node.frozen = row.get(3)?;
        node.cfg_revision = uint(row, 4)?;
        nodes.insert(id, node);
    }
    for_each_of_node(
        tx,
        "SELECT node, name FROM groups",
        &mut nodes,
        |node, row| {
            node.groups.insert(row.get(1)?);
            Ok(())
        },
    )?;
    for_each_of_node(
        tx,
        "SELECT node, name, value FROM labels",
        &mut nodes,
        |node, row| {
            node.labels.insert(row.get(1)?, row.get(2)?);
            Ok(())
        },
    )?;
    for_each_of_node(
        tx,
        "SELECT node, url, value FROM cfg",
        &mut nodes,
        |node, row| {
            let url = row.get::<_, String>(1)?.parse().map_err(|_| bad("a url"))?;
            let value = codec::decode(&row.get::<_, Vec<u8>>(2)?).map_err(LoadError::Value)?;
            node.cfg.set(url, Some(value));
            Ok(())
        },
    )?;
    for_each_of_node(
        tx,
        "SELECT node, at_ms, dsc FROM last_known",
        &mut nodes,
        |node, row| {
            let dsc = codec::decode_values(&row.get::<_, Vec<u8>>(2)?).map_err(LoadError::Value)?;
            node.last_known = LastKnown {
                dsc,
                at_ms: uint(row, 1)?,
            };
            Ok(())
        },
    )?;
    Ok(Loaded {
        nodes: nodes.into_values().collect(),
        grants: load_grants(tx)?,
        trials: load_trials(tx)?,
        keys: load_keys(tx)?,
        memos: memory::load(tx, now_ms)?,
        revision: meta(tx, "revision")?.unwrap_or(0),
        last_attempt: meta(tx, "attempt")?.unwrap_or(0),
        frozen: Frozen {
            cluster: meta(tx, "frozen")?.unwrap_or(0) != 0,
            groups: load_frozen_groups(tx)?,
        },
        epoch,
        starts,
        head: NodeId::from_slice(&head).ok_or_else(|| bad("the head's id"))?,
    })
}

fn for_each_of_node(
    tx: &Transaction<'_>,
    query: &str,
    nodes: &mut BTreeMap<NodeId, Node>,
    mut take: impl FnMut(&mut Node, &rusqlite::Row<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut rows = tx.prepare(query)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let id = NodeId::from_slice(&row.get::<_, Vec<u8>>(0)?);
        if let Some(node) = id.and_then(|id| nodes.get_mut(&id)) {
            take(node, row)?;
        }
    }
    Ok(())
}

fn load_grants(tx: &Transaction<'_>) -> Result<Vec<Grant>, LoadError> {
    let bad = || LoadError::Value("a grant cannot be read".into());
    let uuid = |bytes: Vec<u8>| Uuid::from_slice(&bytes).map_err(|_| bad());
    let key = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map_err(|_| bad());
    let mut rows = tx.prepare("SELECT id, node, boot, secret, expires_ms, deliveries, consumed_by, consumed_ms FROM grants")?;
    let mut rows = rows.query([])?;
    let mut grants = Vec::new();
    while let Some(row) = rows.next()? {
        let consumed_by = row.get::<_, Option<Vec<u8>>>(6)?.map(key).transpose()?;
        grants.push(Grant {
            id: GrantId(uuid(row.get(0)?)?),
            node: NodeId::from_slice(&row.get::<_, Vec<u8>>(1)?).ok_or_else(bad)?,
            boot: uuid(row.get(2)?)?,
            secret: row
                .get::<_, Option<Vec<u8>>>(3)?
                .map(key)
                .transpose()?
                .map(Secret),
            expires_ms: uint(row, 4)?,
            deliveries: row.get(5)?,
            consumed_by: consumed_by.zip(row.get::<_, Option<i64>>(7)?.map(i64::unsigned_abs)),
        });
    }
    Ok(grants)
}

fn load_trials(tx: &Transaction<'_>) -> Result<Vec<(u64, Trial)>, LoadError> {
    let mut rows =
        tx.prepare("SELECT revision, until_ms, names FROM trials JOIN history USING (revision)")?;
    let mut rows = rows.query([])?;
    let mut trials = Vec::new();
    while let Some(row) = rows.next()? {
        let names = codec::decode_names(&row.get::<_, Vec<u8>>(2)?).map_err(LoadError::Value)?;
        let trial = Trial {
            until_ms: uint(row, 1)?,
            nodes: names.into_keys().collect(),
        };
        trials.push((uint(row, 0)?, trial));
    }
    Ok(trials)
}

fn load_frozen_groups(tx: &Transaction<'_>) -> rusqlite::Result<BTreeMap<String, Freezer>> {
    let mut rows = tx.prepare("SELECT name, author, reason FROM frozen_groups")?;
    let rows = rows.query_map([], |row| {
        let (by, reason) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, Freezer { by, reason }))
    })?;
    rows.collect()
}

/// Keys, oldest first.
fn load_keys(tx: &Transaction<'_>) -> Result<Vec<(WriteKey, u64)>, LoadError> {
    let bad = || LoadError::Value("the key of a write cannot be read".into());
    let mut rows = tx.prepare("SELECT key, request, revision FROM history WHERE key IS NOT NULL ORDER BY revision DESC LIMIT ?1")?;
    let mut rows = rows.query([MAX_KEYS as i64])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let key = WriteKey {
            text: row.get(0)?,
            request: row.get::<_, Vec<u8>>(1)?.try_into().map_err(|_| bad())?,
        };
        keys.push((key, uint(row, 2)?));
    }
    keys.reverse();
    Ok(keys)
}

/// A number of the table `meta`.
pub(super) fn meta(tx: &Transaction<'_>, key: &str) -> rusqlite::Result<Option<u64>> {
    tx.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
        uint(row, 0)
    })
    .optional()
}

pub(super) fn uint(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let n: i64 = row.get(at)?;
    u64::try_from(n).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, n))
}
