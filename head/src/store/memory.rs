//! What a head remembers beyond what is durable (`engine::memory`), in tables of its own beside the tree: attempts, parkings, measured times,
//! breakers, slots.
//!
//! Ages become milliseconds since the Unix epoch, and ages again at the next start. Everything is text that people can read with `sqlite3`. A row
//! that makes no sense is left out: none is worth a head that does not start.

use std::time::Duration;

use engine::memory::{Memo, PastAttempt, PastBreaker};
use engine::mutation::MutationId;
use engine::mutation::measured::Times;
use engine::mutation::progress::{Ending, MAX_HISTORY};
use engine::state::NodeId;
use rusqlite::{Row, Transaction, params};

use super::load::uint;
use super::sqlite::int;

/// The tables, of format 5.
pub(super) const TABLES: &str = "
CREATE TABLE attempts (
    node BLOB NOT NULL REFERENCES nodes ON DELETE CASCADE, n INTEGER NOT NULL, at_ms INTEGER NOT NULL, took_ms INTEGER NOT NULL,
    mutation TEXT NOT NULL, attempt INTEGER NOT NULL, result TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (node, n)
) WITHOUT ROWID;
CREATE TABLE parked (node BLOB PRIMARY KEY REFERENCES nodes ON DELETE CASCADE, mutation TEXT NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE times (mutation TEXT PRIMARY KEY, millis TEXT NOT NULL, seconds INTEGER, at_ms INTEGER) WITHOUT ROWID;
CREATE TABLE breakers (mutation TEXT PRIMARY KEY, retry_ms INTEGER, outcomes TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE slots (name TEXT PRIMARY KEY, holders TEXT NOT NULL, passed_ms TEXT NOT NULL) WITHOUT ROWID;
";

/// From format 4: what was measured by then counts as measured at the first start with this one.
pub(super) const TO_5: &str = "ALTER TABLE times ADD COLUMN at_ms INTEGER;";

/// Writes a memo down that was told at this time.
pub(super) fn note(tx: &Transaction<'_>, told_ms: u64, memo: &Memo) -> rusqlite::Result<()> {
    let ago = |age: &Duration| told_ms.saturating_sub(millis(*age));
    match memo {
        Memo::Attempt { node, attempt } => note_attempt(tx, *node, ago(&attempt.age), attempt),
        Memo::Parked { node, parked: None } => tx
            .prepare_cached("DELETE FROM parked WHERE node = ?1")?
            .execute([node.as_bytes()])
            .map(drop),
        Memo::Parked {
            node,
            parked: Some((mutation, reason)),
        } => tx
            .prepare_cached(
                "INSERT OR REPLACE INTO parked SELECT id, ?2, ?3 FROM nodes WHERE id = ?1",
            )?
            .execute(params![node.as_bytes(), mutation.as_str(), reason])
            .map(drop),
        Memo::Times {
            mutation,
            times,
            seconds,
            age,
        } => tx
            .prepare_cached("INSERT OR REPLACE INTO times VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                mutation.as_str(),
                words(times.millis()),
                seconds,
                int(ago(age))
            ])
            .map(drop),
        Memo::Breaker { mutation, breaker } if *breaker == PastBreaker::default() => tx
            .prepare_cached("DELETE FROM breakers WHERE mutation = ?1")?
            .execute([mutation.as_str()])
            .map(drop),
        Memo::Breaker { mutation, breaker } => {
            let retry_ms = breaker.open.map(|open| int(told_ms + millis(open)));
            let outcomes = breaker.outcomes.iter().map(|(node, good, age)| {
                let word = if *good { DONE } else { FAILED };
                format!("{word} {node} {}\n", ago(age))
            });
            tx.prepare_cached("INSERT OR REPLACE INTO breakers VALUES (?1, ?2, ?3)")?
                .execute(params![
                    mutation.as_str(),
                    retry_ms,
                    outcomes.collect::<String>()
                ])
                .map(drop)
        }
        Memo::Limit {
            name,
            holders,
            passed,
        } if holders.is_empty() && passed.is_empty() => tx
            .prepare_cached("DELETE FROM slots WHERE name = ?1")?
            .execute([name])
            .map(drop),
        Memo::Limit {
            name,
            holders,
            passed,
        } => tx
            .prepare_cached("INSERT OR REPLACE INTO slots VALUES (?1, ?2, ?3)")?
            .execute(params![name, words(holders), words(passed.iter().map(ago))])
            .map(drop),
    }
}

fn note_attempt(
    tx: &Transaction<'_>,
    node: NodeId,
    at_ms: u64,
    attempt: &PastAttempt,
) -> rusqlite::Result<()> {
    let text = match &attempt.ending {
        Ending::Failed(text) => text,
        Ending::Done | Ending::Interrupted => "",
    };
    tx.prepare_cached(
        "INSERT INTO attempts SELECT id, 1 + coalesce((SELECT max(n) FROM attempts WHERE node = ?1), 0), ?2, ?3, ?4, ?5, ?6, ?7
         FROM nodes WHERE id = ?1",
    )?
    .execute(params![
        node.as_bytes(),
        int(at_ms),
        int(millis(attempt.took)),
        attempt.mutation.as_str(),
        int(attempt.attempt),
        attempt.ending.as_str(),
        text,
    ])?;
    tx.prepare_cached(
        "DELETE FROM attempts WHERE node = ?1 AND n <= (SELECT max(n) FROM attempts WHERE node = ?1) - ?2",
    )?
    .execute(params![node.as_bytes(), MAX_HISTORY as i64])
    .map(drop)
}

/// Everything that was remembered, as of now, in an order in which the engine takes it back.
pub(super) fn load(tx: &Transaction<'_>, now_ms: u64) -> rusqlite::Result<Vec<Memo>> {
    let mut memos = Vec::new();
    let age = |at_ms: u64| Duration::from_millis(now_ms.saturating_sub(at_ms));
    let mut read = |query: &str,
                    one: &dyn Fn(&Row<'_>) -> rusqlite::Result<Option<Memo>>|
     -> rusqlite::Result<()> {
        let mut rows = tx.prepare(query)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            memos.extend(one(row)?);
        }
        Ok(())
    };
    read(
        "SELECT node, at_ms, took_ms, mutation, attempt, result, text FROM attempts ORDER BY node, n",
        &|row| {
            let ending = match row.get::<_, String>(5)?.as_str() {
                "done" => Ending::Done,
                "interrupted" => Ending::Interrupted,
                _ => Ending::Failed(row.get::<_, String>(6)?.into()),
            };
            let (node, mutation) = (node(row)?, mutation(row, 3)?);
            let (at_ms, took_ms) = (uint(row, 1)?, uint(row, 2)?);
            let attempt = uint(row, 4)?;
            Ok(node.zip(mutation).map(|(node, mutation)| Memo::Attempt {
                node,
                attempt: PastAttempt {
                    mutation,
                    attempt,
                    ending,
                    age: age(at_ms),
                    took: Duration::from_millis(took_ms),
                },
            }))
        },
    )?;
    read("SELECT node, mutation, reason FROM parked", &|row| {
        let reason: Box<str> = row.get::<_, String>(2)?.into();
        let found = node(row)?.zip(mutation(row, 1)?);
        Ok(found.map(|(node, on)| Memo::Parked {
            node,
            parked: Some((on, reason)),
        }))
    })?;
    read(
        "SELECT mutation, millis, seconds, at_ms FROM times",
        &|row| {
            let times: Times = Times::new(parsed(&row.get::<_, String>(1)?));
            let seconds = row.get(2)?;
            let at_ms: Option<i64> = row.get(3)?;
            let age = at_ms.map_or(Duration::ZERO, |at| age(at.unsigned_abs()));
            Ok(mutation(row, 0)?.map(|mutation| Memo::Times {
                mutation,
                times,
                seconds,
                age,
            }))
        },
    )?;
    read(
        "SELECT mutation, retry_ms, outcomes FROM breakers",
        &|row| {
            let retry_ms: Option<i64> = row.get(1)?;
            let retry_ms = retry_ms.map(i64::unsigned_abs);
            let text: String = row.get(2)?;
            let outcome = |line: &str| {
                let mut words = line.split(' ');
                let good = words.next()? == DONE;
                let node = words.next()?.parse().ok()?;
                Some((node, good, age(words.next()?.parse().ok()?)))
            };
            let breaker = PastBreaker {
                open: retry_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms))),
                outcomes: text.lines().filter_map(outcome).collect(),
            };
            Ok(mutation(row, 0)?.map(|mutation| Memo::Breaker { mutation, breaker }))
        },
    )?;
    read("SELECT name, holders, passed_ms FROM slots", &|row| {
        let times = row.get::<_, String>(2)?;
        Ok(Some(Memo::Limit {
            name: row.get(0)?,
            holders: parsed(&row.get::<_, String>(1)?).collect(),
            passed: parsed(&times).map(age).collect(),
        }))
    })?;
    Ok(memos)
}

const DONE: &str = "done";
const FAILED: &str = "failed";

fn node(row: &Row<'_>) -> rusqlite::Result<Option<NodeId>> {
    Ok(NodeId::from_slice(&row.get::<_, Vec<u8>>(0)?))
}

fn mutation(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<MutationId>> {
    let text: String = row.get(at)?;
    let parts = text.split_once('/');
    Ok(parts.map(|(module, name)| MutationId::new(module, name)))
}

fn words<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    words.join(" ")
}

fn parsed<T: std::str::FromStr>(text: &str) -> impl Iterator<Item = T> {
    text.split_whitespace().filter_map(|word| word.parse().ok())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
