//! What TFTP serves, for `async-tftp`: files in memory, sessions counted and bounded (threat S20).

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_tftp::packet::Error as TftpError;
use async_tftp::server::Handler;
use bytes::Bytes;
use futures::io::{AsyncRead, Sink};
use ipnet::Ipv4Net;
use tracing::{debug, warn};

use crate::boot::{BootStage, BootTable, Loaders, StageLog};
use crate::http::boot_script::{self, Place};

use super::names::{self, BadName, Wanted};

/// Transfers at one time on all interfaces (S20); each holds one window of packets, about 25 KiB.
pub(crate) const MAX_SESSIONS: usize = 512;

/// Transfers of one client at one time: firmware probes the size, gives up without a word we can hear, and asks again.
pub(crate) const MAX_SESSIONS_PER_CLIENT: usize = 8;

/// A transfer that lasts longer is ended (S20); the largest loaders take a second.
pub(crate) const SESSION_TIME: Duration = Duration::from_secs(60);

/// Counts transfers, in all and by client; shared by all interfaces.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<IpAddr, usize>>);

impl Sessions {
    fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Session> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open: usize = clients.values().sum();
        let own = clients.get(&client).copied().unwrap_or(0);
        if open >= MAX_SESSIONS || own >= MAX_SESSIONS_PER_CLIENT {
            return None;
        }
        clients.insert(client, own + 1);
        Some(Session {
            sessions: Arc::clone(self),
            client,
        })
    }
}

/// The right to one transfer, given back when dropped.
struct Session {
    sessions: Arc<Sessions>,
    client: IpAddr,
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut clients = self
            .sessions
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = clients.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Answers requests on one address.
#[derive(Clone)]
pub(crate) struct Served {
    /// Nodes.
    pub(crate) table: Arc<BootTable>,
    /// Loaders.
    pub(crate) loaders: Arc<Loaders>,
    /// To the log of boots.
    pub(crate) stages: Arc<StageLog>,
    /// All transfers.
    pub(crate) sessions: Arc<Sessions>,
    /// Our address and its subnet.
    pub(crate) address: Ipv4Net,
    /// Port of the boot files, for the scripts.
    pub(crate) http_port: u16,
    /// Port of join and sync, for the scripts.
    pub(crate) sync_port: u16,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The client is neither on this link nor a node: an answer would only serve to hit a third party.
    #[error("stranger")]
    Stranger,
    /// Too many transfers.
    #[error("sessions")]
    Sessions,
    /// The client wants to write.
    #[error("write")]
    Write,
}

impl Refused {
    /// The error of RFC 1350, appendix I.
    fn error(self) -> TftpError {
        match self {
            Refused::Name(BadName::Unknown) => TftpError::FileNotFound,
            Refused::Name(_) | Refused::Stranger | Refused::Write => TftpError::PermissionDenied,
            Refused::Sessions => TftpError::Msg("too many transfers, try again".to_owned()),
        }
    }
}

impl Served {
    /// The file behind a request.
    fn open(&self, client: IpAddr, name: &str) -> Result<MemoryFile, Refused> {
        let IpAddr::V4(address) = client else {
            return Err(Refused::Stranger);
        };
        let node = self.table.by_address(address);
        if node.is_none() && !self.address.contains(&address) {
            return Err(Refused::Stranger);
        }
        let bytes = match names::read(name)? {
            Wanted::Loader(name) => {
                let loader = self.loaders.by_name(name).ok_or(BadName::Unknown)?;
                if let Some(node) = node {
                    self.stages
                        .reached(&node, BootStage::Loader, Instant::now());
                }
                loader.bytes.clone()
            }
            Wanted::Script(mac) => {
                let node = self.table.by_mac(mac).ok_or(BadName::Unknown)?;
                self.stages
                    .reached(&node, BootStage::Script, Instant::now());
                Bytes::from(boot_script::render(&node, self.place()))
            }
        };
        let session = self.sessions.enter(client).ok_or(Refused::Sessions)?;
        Ok(MemoryFile {
            rest: bytes,
            ends: Instant::now() + SESSION_TIME,
            _session: session,
        })
    }

    fn place(&self) -> Place {
        let server: Ipv4Addr = self.address.addr();
        Place {
            server,
            http_port: self.http_port,
            sync_port: self.sync_port,
        }
    }

    fn refuse(&self, client: &SocketAddr, name: &str, refused: Refused) -> TftpError {
        let name = name.get(..64).unwrap_or("?").escape_default();
        match refused {
            Refused::Name(BadName::Traversal) | Refused::Write => {
                warn!(%client, %name, reason = %refused, "TFTP request refused");
            }
            _ => debug!(%client, %name, reason = %refused, "TFTP request refused"),
        }
        count(refused.to_string());
        refused.error()
    }
}

fn count(result: String) {
    metrics::counter!("kraken_tftp_requests_total", "result" => result).increment(1);
}

impl Handler for Served {
    type Reader = MemoryFile;
    type Writer = Sink;

    fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> impl Future<Output = Result<(MemoryFile, Option<u64>), TftpError>> + Send {
        let name = path.to_str().unwrap_or_default();
        let result = match self.open(client.ip(), name) {
            Ok(file) => {
                debug!(%client, %name, "TFTP transfer");
                count("transfer".to_owned());
                let size = file.rest.len() as u64;
                Ok((file, Some(size)))
            }
            Err(refused) => Err(self.refuse(client, name, refused)),
        };
        std::future::ready(result)
    }

    fn write_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
        _size: Option<u64>,
    ) -> impl Future<Output = Result<Sink, TftpError>> + Send {
        let error = self.refuse(client, path.to_str().unwrap_or_default(), Refused::Write);
        std::future::ready(Err(error))
    }
}

/// A file in memory, for one transfer.
pub(crate) struct MemoryFile {
    rest: Bytes,
    ends: Instant,
    _session: Session,
}

impl AsyncRead for MemoryFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if Instant::now() >= self.ends {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(length))
    }
}

#[cfg(test)]
mod tests;
