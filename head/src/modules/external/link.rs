//! The connection with a module: a unix socket whose other end's owner is checked, one gRPC stream over it, and the health check.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::v1::module_client::ModuleClient;
use proto::v1::{FromModule, ToModule};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::health::{self, Answer};

/// Messages that a module has not read yet; a mutation of every node of the largest cluster we promise. One that reads no more is cut.
const MAX_WAITING: usize = 16_384;
/// Longest message of a module (module.proto).
const MAX_MESSAGE: usize = engine::wire::convert::MAX_MESSAGE_BYTES;
/// Time for a listening module to take the connection and the call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// An open connection.
pub(super) struct Link {
    /// To the module.
    pub(super) to: mpsc::Sender<ToModule>,
    /// From the module; the call opens with its first message.
    pub(super) from: Streaming<FromModule>,
    /// What it says about its health; ends with the last answer there will be.
    pub(super) health: mpsc::Receiver<Answer>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// Nobody listens yet.
    #[error("nobody listens on {path}: {source}")]
    Absent {
        /// The socket.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Somebody listens who must not.
    #[error(
        "the program that listens on {path} runs as user {uid}, which may not speak for a module: run it as root, as this head's user, or set `user` in [modules]"
    )]
    Owner {
        /// The socket.
        path: String,
        /// Its owner.
        uid: u32,
    },
    /// No gRPC.
    #[error("the program that listens does not speak the module API: {0}")]
    Speech(String),
}

/// Connects and makes the call, with `first` as the first messages, for a module may answer only once it is greeted.
pub(super) async fn dial(
    path: &Path,
    allowed: &[u32],
    first: Vec<ToModule>,
) -> Result<Link, DialError> {
    let shown = path.display().to_string();
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| DialError::Absent {
            path: shown.clone(),
            source,
        })?;
    let owner = stream.peer_cred().map_err(|source| DialError::Absent {
        path: shown.clone(),
        source,
    })?;
    if !allowed.contains(&owner.uid()) {
        return Err(DialError::Owner {
            path: shown,
            uid: owner.uid(),
        });
    }
    let (to, messages) = mpsc::channel(MAX_WAITING);
    for message in first {
        // An empty queue takes them.
        let _ = to.try_send(message);
    }
    let slot = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = slot.lock().ok().and_then(|mut slot| slot.take());
        async move {
            stream
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("the connection is gone"))
        }
    });
    let call = async {
        let endpoint = Endpoint::from_static("http://module");
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| DialError::Speech(error.to_string()))?;
        let mut client = ModuleClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let answer = client.serve(ReceiverStream::new(messages)).await;
        answer
            .map(|answer| (answer.into_inner(), channel))
            .map_err(|status| DialError::Speech(words(&status)))
    };
    match timeout(CALL_TIMEOUT, call).await {
        Ok(called) => {
            let (from, channel) = called?;
            let (answers, health) = mpsc::channel(1);
            tokio::spawn(health::ask(channel, answers));
            Ok(Link { to, from, health })
        }
        Err(_) => Err(DialError::Speech(format!(
            "no answer within {CALL_TIMEOUT:?}"
        ))),
    }
}

/// A status in words.
pub(super) fn words(status: &tonic::Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => format!(
            "{}: {}",
            status.code(),
            message.chars().take(512).collect::<String>()
        ),
    }
}
