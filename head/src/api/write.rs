//! Writes on their way to the engine: who, why, on which condition, and once however often they are sent (fault F57).

use std::time::Duration;

use engine::driver::wall_ms;
use engine::event::{Input, Write, WriteDone, WriteError, WriteKey, WriteOp};
use prost::Message;
use proto::v1;
use proto::v1::WriteResponse;
use tokio::time::timeout;
use tonic::{Response, Status};

use super::admin::{Admin, Answer, stopped};
use super::convert;
use crate::store::Span;

/// Time for a write to become durable; a disk that needs longer has its own alarms.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest author or reason in history.
const MAX_REASON_BYTES: usize = 1024;

/// Longest idempotency key: a UUID or a ticket's name fit.
const MAX_KEY_BYTES: usize = 128;

/// Shortest and longest trial: time to look, and not so long that nobody remembers it.
const TRIAL_MS: std::ops::RangeInclusive<u64> = 1_000..=7 * 86_400_000;

/// Everything about a write but what it does.
#[derive(Clone, Debug)]
pub(super) struct By {
    pub(super) author: String,
    pub(super) reason: String,
    pub(super) if_revision: u64,
    pub(super) key: Option<WriteKey>,
    /// Length of its trial; 0: none.
    try_ms: u64,
}

impl By {
    /// In the name of this program.
    pub(super) fn head(reason: String) -> Self {
        Self {
            author: "kraken-head".to_owned(),
            reason,
            if_revision: 0,
            key: None,
            try_ms: 0,
        }
    }

    /// A caller's. `request` is the whole request: its key belongs to it and to no other.
    pub(super) fn new(
        author: String,
        request: &impl Message,
        options: &Option<v1::WriteOptions>,
    ) -> Result<Self, Status> {
        let options = options.clone().unwrap_or_default();
        if options.reason.len() > MAX_REASON_BYTES {
            return Err(Status::invalid_argument(format!(
                "the reason is longer than {MAX_REASON_BYTES} bytes"
            )));
        }
        let key = options.idempotency_key;
        if key.len() > MAX_KEY_BYTES {
            return Err(Status::invalid_argument(format!(
                "the idempotency key is longer than {MAX_KEY_BYTES} bytes"
            )));
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, &request.encode_to_vec());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Ok(Self {
            author,
            reason: options.reason,
            if_revision: options.if_revision,
            key: Some(key)
                .filter(|key| !key.is_empty())
                .map(|text| WriteKey {
                    text,
                    request: bytes,
                }),
            try_ms: options.try_ms,
        })
    }

    /// Refuses a trial where it makes no sense.
    pub(super) fn not_on_trial(self) -> Result<Self, Status> {
        if self.try_ms == 0 {
            return Ok(self);
        }
        Err(Status::invalid_argument(
            "only `node set`, `node unset`, `freeze` and `thaw` can be on trial; `krakenctl undo` takes others back",
        ))
    }

    fn trial(&self, now_ms: u64) -> Result<Option<WriteOp>, Status> {
        match self.try_ms {
            0 => Ok(None),
            ms if TRIAL_MS.contains(&ms) => Ok(Some(WriteOp::Try {
                until_ms: now_ms.saturating_add(ms),
            })),
            _ => Err(Status::invalid_argument(
                "a trial lasts at least 1 s and at most 7 days",
            )),
        }
    }
}

impl Admin {
    /// Makes a write, unless the same one was made before: then its answer is given again. `ops` is not asked in that case, for what it names
    /// may be gone by that very write.
    pub(super) async fn write_once(
        &self,
        by: By,
        ops: impl Future<Output = Result<Vec<WriteOp>, Status>>,
    ) -> Answer<WriteResponse> {
        if let Some(answer) = self.made_before(&by).await? {
            return Ok(answer);
        }
        let ops = ops.await?;
        self.write(by, ops).await
    }

    /// The answer of the same write, if it was made before.
    pub(super) async fn made_before(
        &self,
        by: &By,
    ) -> Result<Option<Response<WriteResponse>>, Status> {
        let Some(key) = by.key.clone() else {
            return Ok(None);
        };
        let asked = self.0.handle.query(move |engine, _| engine.check_key(&key));
        match asked.await.map_err(stopped)? {
            Ok(()) => Ok(None),
            Err(WriteError::Repeated { revision }) => self.again(revision).await.map(Some),
            Err(error) => Err(convert::not_written(&error)),
        }
    }

    /// Makes a write.
    pub(super) async fn write(&self, by: By, mut ops: Vec<WriteOp>) -> Answer<WriteResponse> {
        let now_ms = wall_ms();
        let trial = by.trial(now_ms)?;
        let trial_until_ms = match trial {
            Some(WriteOp::Try { until_ms }) => until_ms,
            _ => 0,
        };
        ops.extend(trial);
        match self.try_write(by, now_ms, ops).await? {
            Ok(done) => Ok(Response::new(response(done, trial_until_ms))),
            Err(WriteError::Repeated { revision }) => self.again(revision).await,
            Err(error) => Err(convert::not_written(&error)),
        }
    }

    /// Makes a write; what the engine says to it.
    pub(super) async fn try_write(
        &self,
        by: By,
        now_ms: u64,
        ops: Vec<WriteOp>,
    ) -> Result<Result<WriteDone, WriteError>, Status> {
        let (request, answer) = self.0.requests.write();
        let write = Write {
            request,
            author: by.author,
            reason: by.reason,
            if_revision: by.if_revision,
            key: by.key,
            now_ms,
            ops,
        };
        let handle = &self.0.handle;
        handle.input(Input::Write(write)).await.map_err(stopped)?;
        let answered = timeout(WRITE_TIMEOUT, answer).await.map_err(|_| {
            Status::deadline_exceeded("the store has not answered yet: the write may still be made")
        })?;
        answered.map_err(stopped)
    }

    /// The answer that a write has got before.
    async fn again(&self, revision: u64) -> Answer<WriteResponse> {
        let span = Span {
            after: revision.saturating_sub(1),
            up_to: revision,
            since_ms: 0,
            limit: 1,
        };
        let entry = self.entries(span).await?.pop();
        let entry = entry.ok_or_else(|| {
            Status::already_exists(format!(
                "this write was made already, as revision {revision}, which history no longer has"
            ))
        })?;
        let until = entry.ops.iter().find_map(|op| match op {
            WriteOp::Try { until_ms } => Some(*until_ms),
            _ => None,
        });
        let done = WriteDone::of(revision, &entry.names);
        Ok(Response::new(response(done, until.unwrap_or(0))))
    }
}

fn response(done: WriteDone, trial_until_ms: u64) -> WriteResponse {
    WriteResponse {
        revision: done.revision,
        nodes: done.nodes.iter().map(ToString::to_string).collect(),
        trial_until_ms,
        ..WriteResponse::default()
    }
}
