//! Modules that are data files: their mutations are commands, and polls look at nodes (`engine/docs/mutation-file.md`).
//!
//! - this file: which commands there are, and attempts to carry mutations out;
//! - `process`: one run of a command;
//! - `poll`: looking at nodes again and again;
//! - `carrier`: the commands, for people;
//! - `watch`: files that change while the head runs.
//!
//! What a command says goes to the engine as discoveries, as from every module. A command that does not answer, or whose answer has no
//! meaning, leaves what is known as it is: nothing is ever discovered from silence (reliability F33).

mod carrier;
mod poll;
mod process;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::driver::Handle;
use engine::event::Fire;
use engine::extension::Schema;
use engine::mutation::MutationId;
use engine::mutation::file::Program;
use engine::mutation::file::output::discover_lines;
use engine::mutation::file::program::{Command, Filled, MAX_RUN, Outcome, Poll, Run};
use engine::mutation::file::template::Subject;
use engine::state::{Change, NodeId, NodeName, StateUrl, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use super::Reports;
use process::{Ran, RunError};
pub(crate) use watch::watch_files;

/// Commands of one file under way at once, so that a file whose commands hang holds up no other: as many BMCs as a few racks have.
const MAX_RUNNING: usize = 128;

/// Polls of one file under way at once; their own, so that they hold up no mutation.
const MAX_POLLING: usize = 64;

/// Commands of all files under way at once. A process takes a megabyte or two.
const MAX_PROCESSES: usize = 512;

/// First pause between two looks while a mutation waits for what it brings about; doubles.
const LOOK: Duration = Duration::from_millis(250);

/// Longest such pause.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// First pause before a command that asked for it is run again; doubles.
const RETRY: Duration = Duration::from_secs(1);

/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// An attempt that comes to nothing says why so long before the engine's own deadline, which knows less; a tenth of shorter timeouts.
const SAY_BEFORE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone)]
pub(crate) struct DataFiles(Arc<Shared>);

struct Shared {
    reports: Reports,
    /// Where commands run.
    home: PathBuf,
    processes: Arc<Semaphore>,
    table: Mutex<Table>,
}

/// What there is to run, and what runs.
#[derive(Default)]
struct Table {
    files: Vec<Arc<DataFile>>,
    /// By which their values are typed.
    schema: Arc<Schema>,
    nodes: HashMap<NodeId, Work>,
    pollers: Vec<AbortHandle>,
    /// Where pollers ask for nodes; none before the engine runs.
    engine: Option<Handle>,
}

/// One file as it was loaded.
struct DataFile {
    program: Program,
    running: Arc<Semaphore>,
    polling: Arc<Semaphore>,
}

/// What goes on with one node.
#[derive(Default)]
struct Work {
    /// Attempts under way, by number: steps that depend on nothing may run side by side.
    firing: BTreeMap<u64, Firing>,
    /// Polls under way, by module and poll.
    polling: BTreeMap<(String, String), AbortHandle>,
    /// Rises with each start and end of an attempt: what was asked before says nothing.
    generation: u64,
    /// By module and poll: failures in a row, and when to look again.
    unanswered: BTreeMap<(String, String), (u32, Instant)>,
    /// What was last said about trouble, by url.
    errors: BTreeMap<StateUrl, String>,
}

struct Firing {
    module: String,
    task: AbortHandle,
}

/// How an attempt ended.
enum End {
    /// What was found out, or a command was accepted: the rest is for the engine to see.
    Told,
    /// It could not be done.
    Failed(String),
}

/// What an attempt has come to, for the day on which its time is over.
#[derive(Default)]
struct SoFar {
    /// The command has been accepted.
    told: bool,
    /// Why the last question or command came to nothing.
    trouble: Option<String>,
}

impl DataFiles {
    /// No files yet. Commands run in `home`.
    pub(crate) fn new(reports: Reports, home: PathBuf) -> Self {
        Self(Arc::new(Shared {
            reports,
            home,
            processes: Arc::new(Semaphore::new(MAX_PROCESSES)),
            table: Mutex::default(),
        }))
    }

    /// Takes these, which were read by this schema, in place of what there was. Attempts under way end as they began.
    pub(crate) fn put(&self, programs: Vec<Program>, schema: Arc<Schema>) {
        let mut table = self.0.table();
        table.schema = schema;
        let old = std::mem::take(&mut table.files);
        // Looks of old files would wait for their places in the period.
        for work in table.nodes.values_mut() {
            for (_, task) in std::mem::take(&mut work.polling) {
                task.abort();
            }
        }
        table.files = programs
            .into_iter()
            .map(|program| {
                // A file that did not change keeps its places, so that a reload cannot double what runs.
                let same = old.iter().find(|old| old.program == program);
                same.map_or_else(|| Arc::new(DataFile::new(program)), Arc::clone)
            })
            .collect();
        self.0.restart_pollers(&mut table);
    }

    /// Begins to poll.
    pub(crate) fn start(&self, engine: Handle) {
        let mut table = self.0.table();
        table.engine = Some(engine);
        self.0.restart_pollers(&mut table);
    }

    /// Whether a mutation is one of theirs.
    pub(crate) fn carries_out(&self, mutation: &MutationId) -> bool {
        self.0.table().run(mutation).is_some()
    }

    /// Starts to carry out a mutation. Does not wait.
    pub(crate) fn fire(&self, fire: Fire) {
        // The table is locked until the entry is in, so that the attempt cannot end before it is known.
        let mut table = self.0.table();
        let Some((file, run)) = table.run(&fire.mutation) else {
            // The file changed between the look and now; the engine plans with the new set.
            warn!(node = %fire.name, mutation = %fire.mutation, "no file has this mutation any more");
            return;
        };
        let (node, attempt, module) = (fire.node, fire.attempt, file.program.module.clone());
        let shared = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            shared.carry_out(&fire, &file, &run).await;
            let mut table = shared.table();
            if let Some(work) = table.nodes.get_mut(&node)
                && work.firing.remove(&attempt).is_some()
            {
                work.generation += 1;
            }
        });
        let work = table.nodes.entry(node).or_default();
        work.generation += 1;
        // A device is not asked two things at once, and what a poll finds now is out of date.
        work.polling.retain(|(polled, _), task| {
            if *polled == module {
                task.abort();
            }
            *polled != module
        });
        let firing = Firing {
            module,
            task: task.abort_handle(),
        };
        if let Some(earlier) = work.firing.insert(attempt, firing) {
            earlier.task.abort();
        }
    }

    /// Stops an attempt; the processes that it started are killed. Says whether it was one of theirs.
    pub(crate) fn interrupt(&self, node: NodeId, attempt: u64) -> bool {
        let mut table = self.0.table();
        let Some(work) = table.nodes.get_mut(&node) else {
            return false;
        };
        let Some(firing) = work.firing.remove(&attempt) else {
            return false;
        };
        work.generation += 1;
        firing.task.abort();
        true
    }
}

impl DataFile {
    fn new(program: Program) -> Self {
        Self {
            program,
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            polling: Arc::new(Semaphore::new(MAX_POLLING)),
        }
    }
}

impl Table {
    fn run(&self, mutation: &MutationId) -> Option<(Arc<DataFile>, Run)> {
        self.files.iter().find_map(|file| {
            let run = file.program.runs.get(mutation)?;
            Some((Arc::clone(file), run.clone()))
        })
    }
}

impl Shared {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.table().schema)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt, from its firing to what it has to say.
    async fn carry_out(&self, fire: &Fire, file: &DataFile, run: &Run) {
        let limit = run.timeout.unwrap_or(MAX_RUN);
        let speak_at = Instant::now() + limit - SAY_BEFORE.min(limit / 10);
        let mut so_far = SoFar::default();
        let work = self.attempt(fire, file, run, speak_at, &mut so_far);
        let end = match timeout_at(speak_at, work).await {
            Ok(end) => end,
            // A device that answers and does nothing is for the engine's deadline, which knows what that means.
            Err(_) if so_far.told && so_far.trouble.is_none() => End::Told,
            Err(_) => {
                let silent = || "it did not end in time and was killed".to_owned();
                End::Failed(so_far.trouble.take().unwrap_or_else(silent))
            }
        };
        let outcome = match end {
            End::Told => "ok",
            End::Failed(text) => {
                self.reports.fail(fire, text).await;
                "failed"
            }
        };
        metrics::counter!("kraken_file_attempts_total", "module" => file.program.module.clone(), "outcome" => outcome)
            .increment(1);
    }

    /// Asks, tells, and asks until it is so. What the device has done already is not asked of it again.
    async fn attempt(
        &self,
        fire: &Fire,
        file: &DataFile,
        run: &Run,
        deadline: Instant,
        so_far: &mut SoFar,
    ) -> End {
        let program = &file.program;
        let poll = run.ask.and_then(|at| program.polls.get(at));
        let subject = subject_of(fire);
        let (mut look, mut retry) = (LOOK, RETRY);
        loop {
            if let Some(poll) = poll {
                let deadline = deadline.min(Instant::now() + poll.timeout);
                match self.ask(file, poll, &subject, deadline).await {
                    Ok(found) => {
                        so_far.trouble = None;
                        self.note_error(fire.node, &fire.name, program, poll, "")
                            .await;
                        // A mutation without a command takes what there is, the others what they brought about.
                        let is_answer = match run.command {
                            None => run
                                .to
                                .iter()
                                .any(|to| found.iter().any(|f| f.url == to.url)),
                            Some(_) => run.to.iter().all(|to| found.contains(to)),
                        };
                        if is_answer {
                            self.discover(fire.node, program, found).await;
                            return End::Told;
                        }
                        if run.command.is_none() {
                            so_far.trouble = Some(format!("poll {} says nothing of it", poll.name));
                        }
                    }
                    Err(RunFailed { text, for_good }) => {
                        self.note_error(fire.node, &fire.name, program, poll, &text)
                            .await;
                        if for_good {
                            return End::Failed(text);
                        }
                        debug!(node = %fire.name, mutation = %fire.mutation, why = text, "no answer");
                        so_far.trouble = Some(text);
                        sleep(retry).await;
                        retry = (retry * 2).min(RETRY_MAX);
                        continue;
                    }
                }
            }
            if let (Some(command), false) = (&run.command, so_far.told) {
                info!(node = %fire.name, mutation = %fire.mutation, command = %command, "command");
                match self.tell(fire, file, run, command, deadline).await {
                    Told::Accepted if poll.is_none() => return End::Told,
                    Told::Accepted => so_far.told = true,
                    Told::End(end) => return end,
                    Told::Again(text) => {
                        debug!(node = %fire.name, mutation = %fire.mutation, why = text, "again");
                        so_far.trouble = Some(text);
                        sleep(retry).await;
                        retry = (retry * 2).min(RETRY_MAX);
                        continue;
                    }
                }
            }
            sleep(look).await;
            look = (look * 2).min(LOOK_MAX);
        }
    }

    /// Runs the command of a mutation once.
    async fn tell(
        &self,
        fire: &Fire,
        file: &DataFile,
        run: &Run,
        command: &Command,
        deadline: Instant,
    ) -> Told {
        let program = &file.program;
        let subject = subject_of(fire);
        let done = match self
            .run(file, &file.running, command, &subject, deadline)
            .await
        {
            Ok(done) => done,
            Err(failed) => return Told::End(End::Failed(failed.text)),
        };
        let outcome = command.exit.outcome(done.ran.code);
        debug!(node = %fire.name, mutation = %fire.mutation, code = done.ran.code, ?outcome, "command ended");
        if *outcome == Outcome::Retry {
            return Told::Again(done.words());
        }
        let words = done.words();
        if !done.said.is_empty() {
            self.discover(fire.node, program, done.said).await;
        }
        match outcome {
            Outcome::Ok => {
                if run.trust {
                    self.discover(fire.node, program, run.to.clone()).await;
                }
                Told::Accepted
            }
            Outcome::Discover(changes) => {
                self.discover(fire.node, program, changes.clone()).await;
                Told::End(End::Told)
            }
            Outcome::Failed | Outcome::Retry => Told::End(End::Failed(words)),
        }
    }

    /// Runs a poll once, for what it finds. Nothing is discovered by this.
    async fn ask(
        &self,
        file: &DataFile,
        poll: &Poll,
        subject: &Subject<'_>,
        deadline: Instant,
    ) -> Result<Vec<Change>, RunFailed> {
        let done = self
            .answer(file, &file.running, poll, subject, deadline)
            .await?;
        poll.read(&done.ran.stdout, done.said, |_| false, &self.schema())
            .map_err(|why| RunFailed::passing(done.filled.redacted(&why)))
    }

    /// The output of a poll that ended well.
    async fn answer(
        &self,
        file: &DataFile,
        places: &Arc<Semaphore>,
        poll: &Poll,
        subject: &Subject<'_>,
        deadline: Instant,
    ) -> Result<Done, RunFailed> {
        let mut done = self
            .run(file, places, &poll.command, subject, deadline)
            .await?;
        match poll.command.exit.outcome(done.ran.code) {
            Outcome::Ok => Ok(done),
            Outcome::Discover(changes) => {
                done.said.extend_from_slice(changes);
                Ok(done)
            }
            Outcome::Failed | Outcome::Retry => Err(RunFailed::passing(done.words())),
        }
    }

    /// Runs a command for a node.
    async fn run(
        &self,
        file: &DataFile,
        places: &Arc<Semaphore>,
        command: &Command,
        subject: &Subject<'_>,
        deadline: Instant,
    ) -> Result<Done, RunFailed> {
        let filled = command.fill(subject).map_err(|error| RunFailed {
            text: error.to_string(),
            for_good: true,
        })?;
        let ran = {
            let busy = || RunFailed::passing("too many commands are under way".to_owned());
            let places = timeout_at(deadline, self.places(places)).await;
            let _places = places.ok().flatten().ok_or_else(busy)?;
            let run = process::run(&filled, &self.home, deadline);
            run.await.map_err(|error| RunFailed {
                for_good: matches!(error, RunError::Start { .. }),
                text: error.to_string(),
            })?
        };
        let may = |url: &StateUrl| file.program.may_discover.contains(url);
        let said = discover_lines(&ran.stdout, may, &self.schema());
        for why in said.refused {
            let why = filled.redacted(&why);
            debug!(node = %subject.name, module = file.program.module, why, "a line is not accepted");
        }
        Ok(Done {
            ran,
            said: said.changes,
            filled,
        })
    }

    async fn places(
        &self,
        of_file: &Arc<Semaphore>,
    ) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let of_file = Arc::clone(of_file).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.processes).acquire_owned().await.ok()?;
        Some((of_file, of_all))
    }

    async fn discover(&self, node: NodeId, program: &Program, changes: Vec<Change>) {
        let source = program.module.clone();
        self.reports.discover(node, source, changes).await;
    }

    /// Reports trouble with a poll, or its end, once.
    async fn note_error(
        &self,
        node: NodeId,
        name: &NodeName,
        program: &Program,
        poll: &Poll,
        text: &str,
    ) {
        let Some(url) = &poll.error else {
            if !text.is_empty() {
                debug!(node = %name, module = program.module, poll = poll.name, why = text, "no answer");
            }
            return;
        };
        let changed = {
            let mut table = self.table();
            let errors = &mut table.nodes.entry(node).or_default().errors;
            let known = errors.get(url).map_or("", String::as_str);
            let changed = known != text;
            if changed {
                errors.insert(url.clone(), text.to_owned());
            }
            changed
        };
        if changed {
            if !text.is_empty() {
                warn!(node = %name, module = program.module, poll = poll.name, why = text, "no answer");
            }
            let value = (!text.is_empty()).then(|| Value::from(text));
            let change = Change {
                url: url.clone(),
                value,
            };
            self.discover(node, program, vec![change]).await;
        }
    }
}

/// What a command of a mutation did.
enum Told {
    /// It was accepted.
    Accepted,
    /// It shall be run again.
    Again(String),
    /// The attempt is over.
    End(End),
}

/// A command that has ended.
struct Done {
    ran: Ran,
    /// What its lines discover.
    said: Vec<Change>,
    filled: Filled,
}

impl Done {
    /// Why it failed, if it did.
    fn words(&self) -> String {
        self.ran.words(&self.filled)
    }
}

/// A command came to nothing.
struct RunFailed {
    text: String,
    /// It will be no better the next time.
    for_good: bool,
}

impl RunFailed {
    fn passing(text: String) -> Self {
        Self {
            text,
            for_good: false,
        }
    }
}

fn subject_of(fire: &Fire) -> Subject<'_> {
    Subject {
        name: &fire.name,
        id: fire.node,
        attempt: Some((&fire.mutation, fire.attempt)),
        cfg: &fire.cfg,
        dsc: &fire.dsc,
    }
}
