//! The image module's actor: carries out `image/*` mutations on this node, and watches what runs.
//!
//! ```text
//!            UKtoIDLE             IDLEtoACTIVE, ERRORtoACTIVE
//!  unknown ───────────▶  IDLE  ────────────────────────────▶  ACTIVE
//!     │                   ▲  ▲          ACTIVEtoIDLE             │
//!     │ left by an        │  └───────────────────────────────────┤
//!     │ earlier agent     │ ERRORtoIDLE                          │ dies untold
//!     └──────────▶ ACTIVE └───────────  ERROR  ◀─────────────────┘
//! ```
//!
//! One thing at a time. Fetching can be interrupted; starting and stopping cannot, they are short and leave no half image behind.

mod work;

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use engine::event::Fire;
use engine::mutation::MutationId;
use engine::state::{Change, Value};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::{Attached, Reporter, change};
use crate::image::process::{Process, Record, exit_file, last_words};

/// Mutations and interrupts that may wait. The engine has one of each under way.
pub(crate) const MAILBOX: usize = 16;
const STATE: &str = "/image/state";
/// Longest error that is reported.
const MAX_ERROR: usize = 512;

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Carry out a mutation.
    Fire(Box<Fire>),
    /// Stop carrying out this attempt.
    Interrupt(MutationId, u64),
    /// The machine ends: stop the image, then say so.
    Shutdown(oneshot::Sender<()>),
}

/// What the module must know of its node.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Where images are.
    pub(crate) http: Option<SocketAddr>,
    /// The agent's directory.
    pub(crate) run_dir: PathBuf,
    /// Who signs images.
    pub(crate) cluster_key: [u8; 32],
}

/// What there is.
#[derive(Debug)]
enum State {
    /// Nobody has looked yet.
    Unknown,
    /// No image runs.
    Idle,
    /// An image runs.
    Active(Process),
    /// The last thing that was tried went wrong; see `last_error`.
    Error,
}

/// Why a mutation was not carried out.
enum Failure {
    /// Nobody wants it any more; the node is idle.
    Interrupted,
    /// It went wrong.
    Because(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Because(why)
    }
}

/// See the module.
pub(crate) struct ImageModule {
    setup: Setup,
    reporter: Reporter,
    state: State,
    deaths: u32,
    last_error: String,
    later: VecDeque<Message>,
}

impl ImageModule {
    /// Finds out what an earlier agent left running. Needs the runtime.
    pub(crate) async fn new(setup: Setup, reporter: Reporter) -> Self {
        let mut module = Self {
            deaths: read_deaths(&setup),
            setup,
            reporter,
            state: State::Unknown,
            last_error: String::new(),
            later: VecDeque::new(),
        };
        module.adopt().await;
        module
    }

    async fn adopt(&mut self) {
        let Some(record) = Record::load(&self.setup.run_dir) else {
            return;
        };
        let (name, pid) = (record.name.clone(), record.pid);
        self.state = match Process::adopt(record, &self.setup.run_dir) {
            Some(process) => {
                info!(
                    image = name,
                    pid, "the image that an earlier agent started still runs"
                );
                State::Active(process)
            }
            None => {
                let words = last_words(&exit_file(&self.setup.run_dir, pid)).await;
                self.note_death(&format!("while no agent ran: {words}"));
                State::Error
            }
        };
    }

    /// Runs for ever.
    pub(crate) async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Message>,
        mut attached: Attached,
    ) {
        loop {
            if let Some(message) = self.later.pop_front() {
                self.obey(message, &mut mailbox).await;
                continue;
            }
            tokio::select! {
                message = mailbox.recv() => match message {
                    Some(message) => self.obey(message, &mut mailbox).await,
                    None => return,
                },
                () = ended(&self.state) => self.ended_untold().await,
                () = attached.again() => self.report_if_known().await,
            }
        }
    }

    async fn obey(&mut self, message: Message, mailbox: &mut mpsc::Receiver<Message>) {
        match message {
            Message::Fire(fire) => self.carry_out(*fire, mailbox).await,
            // Too late: that attempt is over.
            Message::Interrupt(..) => {}
            Message::Shutdown(done) => {
                if let State::Active(process) = &self.state {
                    info!(
                        image = process.record().name,
                        "the image is stopped, for the machine ends"
                    );
                    if let Err(why) = process.stop().await {
                        error!("{why}");
                    }
                }
                // Nobody waits any more if the machine ended meanwhile.
                let _ = done.send(());
            }
        }
    }

    async fn carry_out(&mut self, fire: Fire, mailbox: &mut mpsc::Receiver<Message>) {
        info!(mutation = %fire.mutation, attempt = fire.attempt, "begins");
        let result = match fire.mutation.name() {
            "UKtoIDLE" => {
                if matches!(self.state, State::Unknown) {
                    self.state = State::Idle;
                }
                Ok(())
            }
            "IDLEtoACTIVE" | "ERRORtoACTIVE" => self.activate(&fire, mailbox).await,
            "ACTIVEtoIDLE" | "ERRORtoIDLE" => self.deactivate().await,
            name => Err(Failure::Because(format!(
                "this agent knows no mutation image/{name}"
            ))),
        };
        if let Err(Failure::Because(text)) = result {
            let text: String = text.chars().take(MAX_ERROR).collect();
            error!(mutation = %fire.mutation, attempt = fire.attempt, "failed: {text}");
            self.last_error.clone_from(&text);
            self.state = match std::mem::replace(&mut self.state, State::Unknown) {
                // It runs on, whatever went wrong with it.
                State::Active(process) => State::Active(process),
                _ => State::Error,
            };
            self.reporter
                .failed(fire.mutation, fire.attempt, text)
                .await;
        }
        self.report().await;
    }

    /// Prepares, which an interrupt ends, then starts, which it does not.
    async fn activate(
        &mut self,
        fire: &Fire,
        mailbox: &mut mpsc::Receiver<Message>,
    ) -> Result<(), Failure> {
        self.deactivate().await?;
        let prepared = tokio::select! {
            prepared = work::prepare(&self.setup, fire) => prepared.map_err(|error| format!("{error:#}"))?,
            () = interrupted(mailbox, &mut self.later, fire) => {
                info!(mutation = %fire.mutation, attempt = fire.attempt, "interrupted");
                return Err(Failure::Interrupted);
            }
        };
        let record = work::launch(&self.setup, prepared, fire, self.deaths)
            .await
            .map_err(|error| format!("{error:#}"))?;
        info!(
            image = record.name,
            pid = record.pid,
            digest = record.digest,
            "the image runs"
        );
        let pid = record.pid;
        self.last_error.clear();
        match Process::adopt(record, &self.setup.run_dir) {
            Some(process) => {
                self.state = State::Active(process);
                Ok(())
            }
            None => {
                let words = last_words(&exit_file(&self.setup.run_dir, pid)).await;
                self.note_death(&format!("right after its start: {words}"));
                Err(Failure::Because(self.last_error.clone()))
            }
        }
    }

    async fn deactivate(&mut self) -> Result<(), Failure> {
        if let State::Active(process) = &self.state {
            info!(
                image = process.record().name,
                pid = process.record().pid,
                "the image is stopped"
            );
            process.stop().await?;
            let words = process.last_words().await;
            info!(image = process.record().name, "the image is gone: {words}");
        }
        let _ = fs::remove_file(self.setup.run_dir.join(Record::FILE));
        self.state = State::Idle;
        Ok(())
    }

    async fn ended_untold(&mut self) {
        if let State::Active(process) = &self.state {
            let words = process.last_words().await;
            self.note_death(&words);
            self.state = State::Error;
            self.report().await;
        }
    }

    fn note_death(&mut self, words: &str) {
        self.deaths = self.deaths.saturating_add(1);
        let _ = fs::write(self.setup.run_dir.join(DEATHS), self.deaths.to_string());
        let _ = fs::remove_file(self.setup.run_dir.join(Record::FILE));
        let text = format!("the image's init ended by itself: {words}");
        error!(deaths = self.deaths, "{text}");
        self.last_error = text;
    }

    /// A new session brought what the parent believed: say what is so.
    async fn report_if_known(&mut self) {
        if matches!(self.state, State::Unknown) {
            match self.reporter.believed().await.text(STATE) {
                // The mutation UKtoIDLE asks, when it is time.
                None => return,
                Some(believed) => {
                    warn!(believed, "the parent believes in an image that is not here");
                    self.state = State::Idle;
                }
            }
        }
        self.report().await;
    }

    async fn report(&self) {
        let (state, record) = match &self.state {
            State::Unknown => return,
            State::Idle => ("IDLE", None),
            State::Active(process) => ("ACTIVE", Some(process.record())),
            State::Error => ("ERROR", None),
        };
        let text = |text: &str| (!text.is_empty()).then(|| Value::text(text));
        let values = [
            (
                "/image/name",
                record.map(|record| Value::text(record.name.as_str())),
            ),
            (
                "/image/digest",
                record.map(|record| Value::text(record.digest.as_str())),
            ),
            ("/image/last_error", text(&self.last_error)),
            ("/image/deaths", Some(Value::Int(i64::from(self.deaths)))),
            (STATE, Some(Value::text(state))),
        ];
        let changes: Vec<Change> = values
            .into_iter()
            .filter_map(|(url, value)| change(url, value))
            .collect();
        self.reporter.report("image", changes).await;
    }
}

/// Deaths so far, beside the record, which is gone after a death.
const DEATHS: &str = "image.deaths";

fn read_deaths(setup: &Setup) -> u32 {
    let text = fs::read_to_string(setup.run_dir.join(DEATHS)).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

async fn ended(state: &State) {
    match state {
        State::Active(process) => process.ended().await,
        _ => std::future::pending().await,
    }
}

/// Waits for the interrupt of this attempt; keeps what else comes for later.
async fn interrupted(
    mailbox: &mut mpsc::Receiver<Message>,
    later: &mut VecDeque<Message>,
    fire: &Fire,
) {
    while let Some(message) = mailbox.recv().await {
        match message {
            Message::Interrupt(mutation, attempt)
                if mutation == fire.mutation && attempt == fire.attempt =>
            {
                return;
            }
            shutdown @ Message::Shutdown(_) => {
                later.push_front(shutdown);
                return;
            }
            other if later.len() < MAILBOX => later.push_back(other),
            other => warn!(?other, "too much to do: dropped"),
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
