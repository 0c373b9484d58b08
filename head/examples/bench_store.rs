//! What keeping costs: `cargo lab bench engine`, or `cargo run --release -p head --example bench_store [FOLDER]`.
//!
//! The head's own store on its own thread, fed by an engine: writes of one value by 1, 16 and 256 writers, each of whom waits for the answer
//! before the next (what waits meanwhile shares a commit); writes of 1,000 nodes; the start with many nodes. The disk's own rate of flushes is
//! measured in the same folder before and after each, for it is not ours alone.

/// The head's sources; a program has no library to take them from.
#[expect(
    dead_code,
    unused_imports,
    reason = "the head uses what this program does not"
)]
#[path = "../src"]
mod head {
    pub(crate) mod store;
}

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use engine::Engine;
use engine::engine::{EngineConfig, Role};
use engine::event::{
    CommitError, CommitId, Input, Kept, Output, Record, RequestId, Write, WriteOp,
};
use engine::extension::Schema;
use engine::mutation::progress::Healing;
use engine::state::{Change, Node, NodeId, Value, Values};
use engine::sync::SyncConfig;
use engine::time;

use crate::head::store::{Retention, Sqlite, Store as _, StoreWorker};

/// Each rate is measured this long, the disk's own in half of it.
const LONG: Duration = Duration::from_secs(3);
/// Size at which SQLite begins its log anew.
const LOG_BYTES: u64 = 4 << 20;
/// Writers at once.
const WRITERS: [u32; 3] = [1, 16, 256];
/// Nodes of one large write.
const LARGE: u32 = 1_000;
/// Sizes of clusters that start.
const STARTS: [u32; 2] = [10_000, 100_000];
/// Nodes of one write while a cluster is filled.
const BATCH: u32 = 10_000;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1);
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("bench-store-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let result = run(&folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn run(folder: &Path) -> Result<()> {
    println!("Store: SQLite, synchronous=FULL, in {}", folder.display());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    println!(
        "  load {load} before; CPU is this program's own, and does not depend on what else runs"
    );
    let probe = folder.join("flushes");
    let mut disk = flushes(&probe)?;
    println!("  the disk itself: 4 KiB in place, flush    {disk:>9.0} /s");
    let mut head = Head::open(&folder.join("rates"))?.head;
    head.write(add(0, LARGE))?;
    for writers in WRITERS {
        let cpu = Cpu::now()?;
        let (written, committed, took) = head.one_value_writes(writers)?;
        let cpu = cpu.ms()? / f64::from(written);
        let (writes, commits) = (f64::from(written) / took, f64::from(committed) / took);
        // Others use the disk, too: its rate is taken on both sides.
        let after = flushes(&probe)?;
        println!(
            "  writes of one value, {writers:>3} writers at once   {writes:>9.0} /s   in {commits:.0} commits/s; the disk's own rate {disk:.0} before, {after:.0} after: {:.2} of their mean; CPU {cpu:.3} ms each",
            commits / ((disk + after) / 2.0)
        );
        disk = after;
    }
    let cpu = Cpu::now()?;
    let (count, took) = head.large_writes()?;
    let large = f64::from(count) / took;
    println!(
        "  writes of one value on {LARGE} nodes       {large:>9.1} /s   {:.0} values/s; CPU {:.1} ms each",
        large * f64::from(LARGE),
        cpu.ms()? / f64::from(count)
    );
    head.close()?;
    for count in STARTS {
        start(&folder.join(format!("start-{count}")), count)?;
    }
    println!();
    Ok(())
}

/// A moment, as CPU time of this process, all threads together.
struct Cpu(Duration);

impl Cpu {
    fn now() -> Result<Self> {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
        let part = |time: nix::sys::time::TimeVal| {
            Duration::from_secs(time.tv_sec().unsigned_abs())
                + Duration::from_micros(time.tv_usec().unsigned_abs())
        };
        Ok(Self(part(usage.user_time()) + part(usage.system_time())))
    }

    /// Milliseconds since then.
    fn ms(&self) -> Result<f64> {
        Ok(Self::now()?.0.saturating_sub(self.0).as_secs_f64() * 1e3)
    }
}

/// Flushes a second of a small write into a file that has its size: what one commit costs at least, for the database's log is written over, too.
fn flushes(path: &Path) -> Result<f64> {
    let mut file = fs::File::create(path)?;
    file.write_all(&vec![0; LOG_BYTES as usize])?;
    file.sync_all()?;
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < LONG / 2 {
        let at = u64::from(count) * 4096 % LOG_BYTES;
        file.write_all_at(&[1; 4096], at)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// An engine and the store's thread, as the head runs them.
struct Head {
    engine: Engine,
    store: StoreWorker,
    thread: JoinHandle<()>,
    committed: Receiver<(CommitId, Result<(), CommitError>)>,
    requests: u64,
}

/// A head that has started, and what of that went to the store.
struct Opened {
    head: Head,
    open: Duration,
    /// Seconds.
    open_cpu: f64,
}

impl Head {
    fn open(folder: &Path) -> Result<Opened> {
        let schema = Schema::built_in();
        let (begin, cpu) = (Instant::now(), Cpu::now()?);
        let (store, loaded) = Sqlite::open(folder, Arc::new(schema.clone()))?;
        let (open, open_cpu) = (begin.elapsed(), cpu.ms()? / 1e3);
        let config = EngineConfig {
            me: loaded.head,
            role: Role::Head {
                epoch: loaded.epoch,
            },
            sync: SyncConfig::default(),
            healing: Healing::default(),
            seed: 1,
        };
        let mut engine = Engine::new(config, schema, time::Instant::ZERO);
        if !loaded.nodes.iter().any(|node| node.id == loaded.head) {
            engine.restore_node(Node::new(loaded.head, "head".parse()?, None));
        }
        for node in loaded.nodes {
            engine.restore_node(node);
        }
        engine.restore_counters(loaded.revision, loaded.last_attempt, loaded.frozen.clone());
        let (told, committed) = channel();
        let heard = move |commit, result| {
            // The receiver ends after the thread does.
            let _ = told.send((commit, result));
        };
        let (store, thread) =
            StoreWorker::start(store, BTreeMap::new(), Retention::default(), || 1, heard)?;
        let head = Self {
            engine,
            store,
            thread,
            committed,
            requests: 0,
        };
        Ok(Opened {
            head,
            open,
            open_cpu,
        })
    }

    fn close(self) -> Result<()> {
        self.store.stop();
        let ended = self.thread.join();
        ensure!(ended.is_ok(), "the store's thread panicked");
        Ok(())
    }

    fn submit(&mut self, ops: Vec<WriteOp>) {
        self.requests += 1;
        let write = Write {
            request: RequestId(self.requests),
            author: "bench".into(),
            reason: "bench".into(),
            if_revision: 0,
            key: None,
            now_ms: 1,
            ops,
        };
        self.engine
            .handle_input(Input::Write(write), time::Instant::ZERO);
    }

    /// Carries out what the engine wants; the number of answered writes, and of commits begun.
    fn drain(&mut self) -> Result<(u32, u32)> {
        let (mut answered, mut commits) = (0, 0);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Commit {
                    commit,
                    records,
                    own,
                } => {
                    commits += 1;
                    self.store.commit(commit, records, own);
                }
                Output::Written { result, .. } => {
                    result?;
                    answered += 1;
                }
                _ => {}
            }
        }
        Ok((answered, commits))
    }

    fn wait(&mut self) -> Result<()> {
        let (commit, result) = self.committed.recv().context("the store's thread ended")?;
        let done = Input::Committed { commit, result };
        self.engine.handle_input(done, time::Instant::ZERO);
        Ok(())
    }

    /// One write from beginning to end.
    fn write(&mut self, ops: Vec<WriteOp>) -> Result<()> {
        self.submit(ops);
        while self.drain()?.0 == 0 {
            self.wait()?;
        }
        Ok(())
    }

    /// Writes, commits and seconds, with so many writers who wait for their answers.
    fn one_value_writes(&mut self, writers: u32) -> Result<(u32, u32, f64)> {
        let (mut written, mut committed, mut number) = (0_u32, 0_u32, 0_u32);
        let mut set = |head: &mut Self| {
            number += 1;
            head.submit(vec![set(number % LARGE, &format!("n={number}"))]);
        };
        (0..writers).for_each(|_| set(self));
        let start = Instant::now();
        let mut under_way = writers;
        while under_way > 0 {
            let (answered, commits) = self.drain()?;
            written += answered;
            committed += commits;
            under_way -= answered;
            if start.elapsed() < LONG {
                (0..answered).for_each(|_| set(self));
                under_way += answered;
                committed += self.drain()?.1;
            }
            if under_way > 0 {
                self.wait()?;
            }
        }
        let took = start.elapsed().as_secs_f64();
        Ok((written, committed, took))
    }

    /// Writes and seconds.
    fn large_writes(&mut self) -> Result<(u32, f64)> {
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < LONG {
            count += 1;
            let value = format!("large={count}");
            self.write((0..LARGE).map(|node| set(node, &value)).collect())?;
        }
        Ok((count, start.elapsed().as_secs_f64()))
    }
}

/// Fills a store, then opens it as a head does when it starts.
fn start(folder: &Path, count: u32) -> Result<()> {
    let schema = Arc::new(Schema::built_in());
    let (mut store, _) = Sqlite::open(folder, Arc::clone(&schema))?;
    let mut nodes: VecDeque<u32> = (0..count).step_by(BATCH as usize).collect();
    let mut revision = 0;
    while let Some(first) = nodes.pop_front() {
        revision += 1;
        store.commit(
            &[Record::Write {
                revision,
                author: "bench".into(),
                reason: "bench".into(),
                at_ms: 1,
                ops: add(first, first + BATCH.min(count)),
                kept: Kept::default(),
            }],
            false,
        )?;
    }
    let known: Values = [("/RunState", "SYNC"), ("/PhysState", "POWER_ON")]
        .into_iter()
        .map(|(url, value)| Ok((url.parse()?, Value::from(value))))
        .collect::<Result<_, engine::state::UrlError>>()?;
    let known: Vec<_> = (0..count).map(|n| (node_id(n), known.clone())).collect();
    store.note_last_known(&known, 1)?;
    drop(store);

    let (begin, cpu) = (Instant::now(), Cpu::now()?);
    let Opened {
        head,
        open,
        open_cpu,
    } = Head::open(folder)?;
    let (whole, whole_cpu) = (begin.elapsed(), cpu.ms()? / 1e3);
    ensure!(
        head.engine.tree().len() == count as usize + 1,
        "every node is there"
    );
    let bytes = fs::metadata(folder.join("kraken.db"))?.len();
    println!(
        "  start with {count:>6} nodes                    {:>9.3} s   of it {:.3} s to check and read {:.0} MiB of database; CPU {whole_cpu:.3} s, of it {open_cpu:.3} s",
        whole.as_secs_f64(),
        open.as_secs_f64(),
        bytes as f64 / f64::from(1 << 20)
    );
    head.close()
}

fn node_id(number: u32) -> NodeId {
    let mut bytes = [0xbb; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn change(url: &str, value: &str) -> Change {
    Change::set(url.parse().expect("a url"), Value::from(value))
}

fn set(number: u32, value: &str) -> WriteOp {
    WriteOp::Set {
        node: node_id(number),
        changes: vec![change("/pxe/append", value)],
    }
}

fn add(from: u32, to: u32) -> Vec<WriteOp> {
    let add = |number: u32| {
        let name = format!("n{number}").parse().expect("a name");
        let mut node = Node::new(node_id(number), name, None);
        let [_, b, c, d] = number.to_be_bytes();
        node.groups.insert(format!("rack{}", number / 40));
        node.cfg.apply([
            change("/Platform", "powerapi"),
            change("/RunState", "SYNC"),
            change(
                "/ipv4/boot/mac",
                &format!("52:54:00:{b:02x}:{c:02x}:{d:02x}"),
            ),
            change("/ipv4/boot/address", &format!("10.{b}.{c}.{d}/8")),
        ]);
        WriteOp::Add(Box::new(node))
    };
    (from..to).map(add).collect()
}
