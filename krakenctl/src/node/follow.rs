//! The stream of changes of some nodes, kept up across lost connections and heads that restart.
//!
//! After a loss it resumes behind the last event it took in. When those events are gone, or another run of the head answers, whose
//! events are numbered afresh, it asks for a snapshot; the mirror turns that into the differences.

use std::time::Duration;

use proto::v1;
use proto::v1::watch_event::Kind;
use tokio::time::Instant;
use tonic::{Code, Streaming};

use crate::Context;
use crate::connect::Head;
use crate::exit::Failure;
use crate::mirror::{Line, Mirror};

/// First pause after a loss; a head restarts within seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause: a head that comes back is noticed within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What came.
#[derive(Debug)]
pub(crate) enum Step {
    /// Something to show.
    Lines(Vec<Line>),
    /// The connection is lost; it is tried again until it works.
    Lost(String),
    /// It works again.
    Back,
}

/// See the module.
pub(crate) struct Follow {
    head: Head,
    nodes: String,
    pub(crate) mirror: Mirror,
    /// Of the run of the head whose events are numbered as ours.
    epoch: u64,
    stream: Option<Streaming<v1::WatchEvent>>,
    retry_at: Option<Instant>,
    pause: Duration,
}

impl Follow {
    /// Opens the stream; it starts with a snapshot. The first connection must work.
    pub(crate) async fn start(head: Head, nodes: String) -> Result<Self, Failure> {
        let mut follow = Self {
            head,
            nodes,
            mirror: Mirror::default(),
            epoch: 0,
            stream: None,
            retry_at: None,
            pause: FIRST_PAUSE,
        };
        follow.mirror.restart();
        follow.open().await.map_err(Failure::from)?;
        Ok(follow)
    }

    /// The next thing that came. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// Only what waiting does not mend: a node set that is not understood, no permission.
    pub(crate) async fn next(&mut self, context: &Context) -> Result<Step, Failure> {
        loop {
            let Some(stream) = &mut self.stream else {
                if let Some(retry_at) = self.retry_at {
                    tokio::time::sleep_until(retry_at).await;
                }
                match self.open().await {
                    Ok(()) => return Ok(Step::Back),
                    Err(status) if is_permanent(&status) => return Err(status.into()),
                    Err(_) => self.pause(),
                }
                continue;
            };
            let event = match stream.message().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(self.lost("the head ended the stream")),
                Err(status) if is_permanent(&status) => return Err(status.into()),
                Err(status) => {
                    let failure = Failure::from(status);
                    return Ok(self.lost(&failure.text));
                }
            };
            self.pause = FIRST_PAUSE;
            if let Some(Kind::Resync(_)) = event.kind {
                self.mirror.restart();
                self.stream = None;
                self.pause();
                continue;
            }
            let lines = self.mirror.handle_event(&event, &context.shown);
            return Ok(Step::Lines(lines));
        }
    }

    fn lost(&mut self, why: &str) -> Step {
        self.stream = None;
        self.pause();
        Step::Lost(why.to_owned())
    }

    fn pause(&mut self) {
        self.retry_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    async fn open(&mut self) -> Result<(), tonic::Status> {
        let epoch = self
            .head
            .get_version(v1::GetVersionRequest {})
            .await?
            .into_inner()
            .epoch;
        if epoch != self.epoch {
            self.mirror.restart();
            self.epoch = epoch;
        }
        let request = v1::WatchRequest {
            nodes: self.nodes.clone(),
            after: self.mirror.resume_after(),
        };
        if request.after == 0 {
            // A snapshot that broke off is told again from its start.
            self.mirror.restart();
        }
        self.stream = Some(self.head.watch(request).await?.into_inner());
        Ok(())
    }
}

/// True for an answer that asking again will not change.
fn is_permanent(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}
