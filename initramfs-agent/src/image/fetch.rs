//! Files over HTTP/1.1: one GET at a time, resumed where it broke off, counted and hashed while they stream.
//!
//! Transport is plain, because trust is not in it: a manifest is signed, a blob has the digest that the manifest names. The target
//! file gets its name only after its digest was right, so whatever has the name can be mounted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, HOST, RANGE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest::{Context, SHA256};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::hex;

/// Time to connect, and to answer a request.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Silence within a body after which the connection is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// Tries in a row without one byte of progress.
const TRIES: u32 = 6;
/// First wait between tries; doubles.
const WAIT: Duration = Duration::from_millis(250);
/// What is hashed in one go when a broken download is taken up again.
const CHUNK: usize = 64 << 10;

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The server does not answer, or breaks off.
    #[error("{path} from {server}: {why}")]
    Broken {
        /// From whom.
        server: SocketAddr,
        /// What.
        path: String,
        /// Why the last try failed.
        why: String,
    },
    /// The server says no.
    #[error("{path} from {server}: the server answers {status}")]
    Status {
        /// From whom.
        server: SocketAddr,
        /// What.
        path: String,
        /// Its answer.
        status: StatusCode,
    },
    /// Larger than it may be.
    #[error("{path} from {server}: it is longer than {limit} bytes")]
    TooLong {
        /// From whom.
        server: SocketAddr,
        /// What.
        path: String,
        /// What was expected.
        limit: u64,
    },
    /// Other bytes than those that were signed.
    #[error(
        "{path} is not what was signed: its sha256 is {found}. Was it tampered with, or damaged on the head's disk?"
    )]
    Digest {
        /// What.
        path: String,
        /// The digest of what came.
        found: String,
    },
    /// No room, most likely.
    #[error("cannot keep the file: {0}")]
    File(#[from] io::Error),
}

/// Gets a small file into memory.
pub(crate) async fn fetch_small(
    server: SocketAddr,
    path: &str,
    limit: usize,
) -> Result<Vec<u8>, FetchError> {
    let mut last = String::new();
    for tries in 0..TRIES {
        sleep(wait(tries)).await;
        match try_small(server, path, limit).await {
            Err(FetchError::Broken { why, .. }) => last = why,
            done => return done,
        }
    }
    Err(broken(server, path, last))
}

async fn try_small(server: SocketAddr, path: &str, limit: usize) -> Result<Vec<u8>, FetchError> {
    let response = get(server, path, 0).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(server, path, response.status()));
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = next(&mut body)
        .await
        .map_err(|why| broken(server, path, why))?
    {
        if bytes.len() + data.len() > limit {
            return Err(FetchError::TooLong {
                server,
                path: path.to_owned(),
                limit: limit as u64,
            });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Gets a file with this digest and size to `target`. What an earlier try, or an earlier agent, left half done is taken up.
pub(crate) async fn fetch_blob(
    server: SocketAddr,
    path: &str,
    target: &Path,
    sha256: &str,
    size: u64,
) -> Result<(), FetchError> {
    if fs::metadata(target).is_ok_and(|found| found.len() == size) {
        return Ok(());
    }
    let draft = target.with_extension("part");
    let mut download = Download::resume(&draft, size).await?;
    let mut tries = 0;
    while download.length < size {
        let before = download.length;
        match download.run(server, path).await {
            Ok(()) => {}
            Err(FetchError::Broken { why, .. }) => {
                tries = if download.length > before {
                    1
                } else {
                    tries + 1
                };
                if tries >= TRIES {
                    return Err(broken(server, path, why));
                }
                sleep(wait(tries)).await;
            }
            Err(other) => {
                let _ = fs::remove_file(&draft);
                return Err(other);
            }
        }
    }
    let found = download.finish();
    if found != sha256 {
        fs::remove_file(&draft)?;
        return Err(FetchError::Digest {
            path: path.to_owned(),
            found,
        });
    }
    fs::rename(&draft, target)?;
    Ok(())
}

/// A file that is being written.
struct Download {
    file: File,
    hash: Context,
    length: u64,
    size: u64,
}

impl Download {
    async fn resume(draft: &Path, size: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(draft)?;
        let mut hash = Context::new(&SHA256);
        let mut length = 0;
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            hash.update(&chunk[..count]);
            length += count as u64;
            // Hellos and heartbeats share this thread.
            tokio::task::yield_now().await;
        }
        Ok(Self {
            file,
            hash,
            length,
            size,
        })
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hash = Context::new(&SHA256);
        self.length = 0;
        Ok(())
    }

    /// One request for what is missing.
    async fn run(&mut self, server: SocketAddr, path: &str) -> Result<(), FetchError> {
        let response = get(server, path, self.length).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(self.length) => {}
            // The server ignores ranges: all over again.
            StatusCode::OK => self.restart()?,
            status => return Err(refused(server, path, status)),
        }
        let mut body = response.into_body();
        while let Some(data) = next(&mut body)
            .await
            .map_err(|why| broken(server, path, why))?
        {
            if self.length + data.len() as u64 > self.size {
                return Err(FetchError::TooLong {
                    server,
                    path: path.to_owned(),
                    limit: self.size,
                });
            }
            self.file.write_all(&data)?;
            self.hash.update(&data);
            self.length += data.len() as u64;
        }
        if self.length < self.size {
            let why = format!("it ends after {} of {} bytes", self.length, self.size);
            return Err(broken(server, path, why));
        }
        Ok(())
    }

    fn finish(self) -> String {
        hex(self.hash.finish().as_ref())
    }
}

/// Sends a request and waits for the head of the answer.
async fn get(server: SocketAddr, path: &str, from: u64) -> Result<Response<Incoming>, FetchError> {
    let failed = |why: String| broken(server, path, why);
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(server))
        .await
        .map_err(|_| failed("it does not answer".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    // Ends with the body, or when that is dropped.
    tokio::spawn(connection);
    let mut request = Request::get(path).header(HOST, server.to_string());
    if from > 0 {
        request = request.header(RANGE, format!("bytes={from}-"));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    timeout(ANSWER_LIMIT, sender.send_request(request))
        .await
        .map_err(|_| failed("it does not answer the request".to_owned()))?
        .map_err(|error| failed(error.to_string()))
}

/// The next piece of a body; `None` at its end.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, String> {
    loop {
        let frame = timeout(SILENCE_LIMIT, body.frame())
            .await
            .map_err(|_| "it fell silent".to_owned())?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// N of `Content-Range: bytes N-M/L` (RFC 9110, 14.4).
fn range_start<B>(response: &Response<B>) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}

fn wait(tries: u32) -> Duration {
    if tries == 0 {
        Duration::ZERO
    } else {
        WAIT.saturating_mul(1 << (tries - 1).min(6))
    }
}

fn broken(server: SocketAddr, path: &str, why: String) -> FetchError {
    FetchError::Broken {
        server,
        path: path.to_owned(),
        why,
    }
}

/// An overloaded server may do better next time; anything else it says is final.
fn refused(server: SocketAddr, path: &str, status: StatusCode) -> FetchError {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return broken(server, path, format!("the server answers {status}"));
    }
    FetchError::Status {
        server,
        path: path.to_owned(),
        status,
    }
}

#[cfg(test)]
mod tests;
