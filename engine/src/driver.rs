//! The tokio loop that head and agent share: it feeds one [`Engine`] and hands its outputs on.
//!
//! wait for a command or the engine's timer → feed → flush. The loop owns the engine, so everybody else talks to it through a [`Handle`].
//! Nothing here decides anything.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as TokioInstant, sleep_until};

use crate::Engine;
use crate::event::{Input, Output};
use crate::time::Instant;

/// Commands that may wait for the engine. A burst of frames from 10,000 children fits; beyond it senders wait, datagrams are dropped.
pub const MAX_WAITING: usize = 32_768;
/// Commands taken before the outputs are flushed, so that a flood cannot hold back what has to go out.
const BATCH: usize = 256;

type Read = Box<dyn FnOnce(&Engine, Instant) + Send>;

enum Command {
    Input(Box<Input>),
    Read(Read),
}

/// How everybody talks to the engine.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Command>);

/// The engine's end of a [`Handle`].
pub struct Inbox(mpsc::Receiver<Command>);

/// The engine's loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// A pair of ends.
pub fn channel() -> (Handle, Inbox) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (Handle(sender), Inbox(receiver))
}

impl Handle {
    /// Tells the engine something; waits while it is flooded.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn input(&self, input: Input) -> Result<(), Stopped> {
        self.0
            .send(Command::Input(Box::new(input)))
            .await
            .map_err(|_| Stopped)
    }

    /// Tells the engine something if it is not flooded; for what may be lost. Returns whether it was taken.
    pub fn try_input(&self, input: Input) -> bool {
        self.0.try_send(Command::Input(Box::new(input))).is_ok()
    }

    /// Reads from the engine, between two inputs.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine, Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Read(Box::new(move |engine, now| {
            // The asker may be gone; then nobody wants the answer.
            let _ = reply.send(read(engine, now));
        }));
        self.0.send(command).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// How long the origin of the engine's time lies before the start of the process, so that what an earlier run did has a time: longer than anybody
/// asks how long ago it was.
const BEFORE: Duration = Duration::from_secs(366 * 86_400);

/// The clocks of one process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(TokioInstant);

impl Clock {
    /// A clock that starts at this moment; its origin lies a year before.
    pub fn start() -> Self {
        Self(TokioInstant::now())
    }

    /// Now, for the engine.
    pub fn now(&self) -> Instant {
        Instant::from_origin(BEFORE + self.0.elapsed())
    }

    fn tokio(&self, at: Instant) -> TokioInstant {
        self.0 + at.since_origin().saturating_sub(BEFORE)
    }
}

/// The wall clock, milliseconds since the Unix epoch; 0 before it.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver is where time comes from"
)]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Runs the engine until `shutdown` ends or every [`Handle`] is gone, and gives it back.
///
/// `perform` gets each output in order and must not block: it passes work on to tasks.
pub async fn run(
    mut engine: Engine,
    clock: Clock,
    Inbox(mut inbox): Inbox,
    mut perform: impl FnMut(Output),
    shutdown: impl Future<Output = ()>,
) -> Engine {
    tokio::pin!(shutdown);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        while let Some(output) = engine.poll_output() {
            perform(output);
        }
        let due = engine.poll_timeout();
        tokio::select! {
            biased;
            () = &mut shutdown => return engine,
            () = sleep_until(due.map_or_else(TokioInstant::now, |at| clock.tokio(at))), if due.is_some() => {
                engine.handle_timeout(clock.now());
            }
            taken = inbox.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    return engine;
                }
                for command in batch.drain(..) {
                    match command {
                        Command::Input(input) => engine.handle_input(*input, clock.now()),
                        Command::Read(read) => read(&engine, clock.now()),
                    }
                }
            }
        }
    }
}
