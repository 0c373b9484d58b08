//! One child's stream: hello, challenge, proof, accept, then frames that fit no datagram, until either side ends it.

use std::net::SocketAddr;
use std::time::Duration;

use engine::driver::wall_ms;
use engine::event::{ConnId, Input};
use engine::sync::SessionId;
use engine::sync::join::{Accepted, ChallengeMessage, Channel, JoinOutcome, RefuseReason};
use engine::wire::convert::{self, Issued};
use proto::v1::sync_server::Sync;
use proto::v1::{self, ToChild, ToParent, to_child, to_parent};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::{Keys, SyncHub, ToConn};

/// Time from the first message to the session; the store's commit is in it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages to a child that may wait in its stream.
const MAX_STREAM_WAITING: usize = 16;

/// Log lines of a child a second; what is more is dropped and counted.
const MAX_LINES: u32 = 20;

/// Longest line of a child's log that we repeat.
const MAX_LINE: usize = 256;

/// The service on one TLS connection.
pub(super) struct Attach {
    hub: SyncHub,
    channel: Channel,
    from: SocketAddr,
    attached: CancellationToken,
    done: CancellationToken,
}

impl Attach {
    /// `attached` is cancelled when the child calls, `done` when its stream has ended.
    pub(super) fn new(
        hub: SyncHub,
        channel: Channel,
        from: SocketAddr,
        attached: CancellationToken,
        done: CancellationToken,
    ) -> Self {
        Self {
            hub,
            channel,
            from,
            attached,
            done,
        }
    }
}

#[tonic::async_trait]
impl Sync for Attach {
    type AttachStream = ReceiverStream<Result<ToChild, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<ToParent>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        if self.attached.is_cancelled() {
            return Err(Status::failed_precondition(
                "one stream a connection: open another one",
            ));
        }
        self.attached.cancel();
        let (out, messages) = mpsc::channel(MAX_STREAM_WAITING);
        let (conn, told) = self.hub.open();
        let child = Child {
            hub: self.hub.clone(),
            conn,
            channel: self.channel.clone(),
            from: self.from,
            out,
            session: None,
            name: String::new(),
            lines: (Instant::now(), 0),
        };
        let done = self.done.clone().drop_guard();
        tokio::spawn(async move {
            child.run(request.into_inner(), told).await;
            drop(done);
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

struct Child {
    hub: SyncHub,
    conn: ConnId,
    channel: Channel,
    from: SocketAddr,
    out: mpsc::Sender<Result<ToChild, Status>>,
    session: Option<SessionId>,
    name: String,
    /// Start of the current second, and lines in it.
    lines: (Instant, u32),
}

impl Child {
    async fn run(mut self, mut stream: Streaming<ToParent>, mut told: mpsc::Receiver<ToConn>) {
        let deadline = Instant::now() + JOIN_TIMEOUT;
        let joined = timeout_at(deadline, self.join(&mut stream, &mut told)).await;
        let why = match joined {
            Ok(Ok(())) => self.session(&mut stream, &mut told).await,
            Ok(Err(why)) => why,
            Err(_) => Status::deadline_exceeded("the join took too long"),
        };
        debug!(conn = ?self.conn, from = %self.from, node = self.name, why = why.message(), "stream ends");
        // A child that is gone does not need to be told.
        let _ = self.out.try_send(Err(why));
        self.hub.close(self.conn).await;
    }

    /// From hello to accept. `Err` says why the stream ends.
    async fn join(
        &mut self,
        stream: &mut Streaming<ToParent>,
        told: &mut mpsc::Receiver<ToConn>,
    ) -> Result<(), Status> {
        let Some(to_parent::Kind::JoinHello(hello)) = next(stream).await? else {
            return Err(Status::failed_precondition(
                "the first message must be join_hello",
            ));
        };
        let hello = convert::join_hello_from_proto(hello)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !Keys::accepts(&hello.public_key) {
            return Err(Status::invalid_argument(
                "public_key is no SubjectPublicKeyInfo of a known kind",
            ));
        }
        debug!(conn = ?self.conn, node = %hello.node, from = %self.from, grant = hello.grant.is_some(), "join hello");
        let mut chance = [0; 40];
        getrandom::fill(&mut chance).map_err(|_| Status::unavailable("no random numbers"))?;
        let (conn, channel, now_ms) = (self.conn, self.channel.clone(), wall_ms());
        self.tell_engine(Input::JoinHello {
            conn,
            hello,
            channel,
            chance,
            now_ms,
        })
        .await?;
        loop {
            match self.outcome(told).await? {
                JoinOutcome::Challenge {
                    nonce,
                    head_time_ms,
                    version,
                } => {
                    let challenge = ChallengeMessage {
                        nonce,
                        head_time_ms,
                        version,
                    };
                    self.say(to_child::Kind::JoinChallenge(convert::challenge_to_proto(
                        &challenge,
                    )))
                    .await?;
                    let Some(to_parent::Kind::JoinProof(proof)) = next(stream).await? else {
                        return Err(Status::failed_precondition(
                            "the second message must be join_proof",
                        ));
                    };
                    let proof = convert::proof_from_proto(proof)
                        .map_err(|error| Status::invalid_argument(error.to_string()))?;
                    self.tell_engine(Input::JoinProof {
                        conn,
                        proof,
                        now_ms: wall_ms(),
                    })
                    .await?;
                }
                JoinOutcome::Accept(accepted) => return self.accept(&accepted).await,
                JoinOutcome::Refuse {
                    reason,
                    text,
                    retry_after_ms,
                } => {
                    debug!(from = %self.from, ?reason, text, "join refused");
                    metrics::counter!("kraken_joins_total", "result" => "refused").increment(1);
                    let refused = convert::refused_to_proto(reason, &text, retry_after_ms);
                    self.say(to_child::Kind::JoinRefused(refused)).await?;
                    return Err(Status::permission_denied(text));
                }
            }
        }
    }

    async fn accept(&mut self, accepted: &Accepted) -> Result<(), Status> {
        let inner = &self.hub.0;
        let certificate = match inner
            .keys
            .node_certificate(accepted.node, &accepted.public_key)
        {
            Ok(certificate) => certificate,
            Err(error) => {
                warn!(node = %accepted.name, %error, "no certificate for a node that joined");
                let refused = convert::refused_to_proto(
                    RefuseReason::BadProof,
                    "no certificate can be made for this key",
                    0,
                );
                self.say(to_child::Kind::JoinRefused(refused)).await?;
                return Err(Status::internal("no certificate"));
            }
        };
        let issued = Issued {
            certificate,
            parent_address: String::new(),
            sync: inner.timers,
        };
        self.session = Some(accepted.session);
        self.name = accepted.name.to_string();
        metrics::counter!("kraken_joins_total", "result" => "accepted").increment(1);
        self.say(to_child::Kind::JoinAccept(convert::accept_to_proto(
            accepted, issued,
        )))
        .await
    }

    /// The session, until somebody ends it.
    async fn session(
        &mut self,
        stream: &mut Streaming<ToParent>,
        told: &mut mpsc::Receiver<ToConn>,
    ) -> Status {
        loop {
            let done = tokio::select! {
                message = next(stream) => match message {
                    Ok(Some(kind)) => self.heard(kind).await,
                    Ok(None) => return Status::ok("the child closed the stream"),
                    Err(status) => Err(status),
                },
                told = told.recv() => match told {
                    Some(ToConn::Frame(frame)) => self.say(to_child::Kind::Frame(convert::frame_to_proto(&frame))).await,
                    Some(ToConn::Mutations(set)) => self.say(to_child::Kind::Mutations(v1::MutationSet::clone(&set))).await,
                    Some(ToConn::End(why)) => Err(Status::aborted(why)),
                    Some(ToConn::Outcome(_)) => Ok(()),
                    None => Err(Status::resource_exhausted("the stream does not keep up")),
                },
            };
            if let Err(status) = done {
                return status;
            }
        }
    }

    async fn heard(&mut self, kind: to_parent::Kind) -> Result<(), Status> {
        match kind {
            to_parent::Kind::Frame(frame) => {
                let frame = convert::frame_from_proto(frame)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
                let Some(session) = self.session else {
                    return Err(Status::internal("no session"));
                };
                super::count("received", "stream");
                self.tell_engine(Input::Frame { session, frame }).await
            }
            to_parent::Kind::Log(line) => {
                self.log(&line);
                Ok(())
            }
            to_parent::Kind::JoinHello(_) | to_parent::Kind::JoinProof(_) => Err(
                Status::failed_precondition("this stream has joined: open another connection"),
            ),
        }
    }

    /// Repeats a line of the child's log, cut and free of control characters, not too many a second.
    fn log(&mut self, line: &v1::LogLine) {
        if self.lines.0.elapsed() >= Duration::from_secs(1) {
            self.lines = (Instant::now(), 0);
        }
        self.lines.1 += 1;
        if self.lines.1 > MAX_LINES {
            metrics::counter!("kraken_agent_lines_dropped_total").increment(1);
            return;
        }
        let clean = |text: &str| -> String {
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(MAX_LINE)
                .collect()
        };
        info!(
            node = self.name,
            level = clean(&line.level),
            age_ms = line.age_ms,
            text = clean(&line.text),
            "agent log"
        );
    }

    async fn outcome(&self, told: &mut mpsc::Receiver<ToConn>) -> Result<JoinOutcome, Status> {
        match told.recv().await {
            Some(ToConn::Outcome(outcome)) => Ok(outcome),
            Some(ToConn::End(why)) => Err(Status::aborted(why)),
            Some(ToConn::Frame(_) | ToConn::Mutations(_)) | None => {
                Err(Status::aborted("the join was cut"))
            }
        }
    }

    async fn tell_engine(&self, input: Input) -> Result<(), Status> {
        self.hub
            .0
            .handle
            .input(input)
            .await
            .map_err(|_| Status::unavailable("the head stops"))
    }

    async fn say(&self, kind: to_child::Kind) -> Result<(), Status> {
        let message = ToChild { kind: Some(kind) };
        self.out
            .send(Ok(message))
            .await
            .map_err(|_| Status::cancelled("the child is gone"))
    }
}

async fn next(stream: &mut Streaming<ToParent>) -> Result<Option<to_parent::Kind>, Status> {
    match stream.message().await? {
        None => Ok(None),
        Some(ToParent { kind: Some(kind) }) => Ok(Some(kind)),
        Some(ToParent { kind: None }) => Err(Status::invalid_argument("a message without content")),
    }
}
