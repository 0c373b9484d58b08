//! Starts the boot plane: for each interface a DHCP server, for each of its addresses TFTP and HTTP.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use ipnet::Ipv4Net;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dhcp::socket::Notes;
use crate::http::server::{Connections, Limits};
use crate::{dhcp, http, tftp};

use super::{BootEvent, BootTable, EventSender, FactsReceiver, Loaders, StageLog, interfaces};

/// What the boot plane serves on.
#[derive(Debug, Clone)]
pub(crate) struct BootPlaneConfig {
    /// Interfaces; one that is missing is waited for.
    pub(crate) interfaces: Vec<Arc<str>>,
    /// Port of the boot files.
    pub(crate) http_port: u16,
    /// Port of join and sync, as nodes are told.
    pub(crate) sync_port: u16,
    /// First-stage loaders.
    pub(crate) loaders: Loaders,
}

/// Serves until `stop` is cancelled; the tracker is closed and ends when all servers have.
pub(crate) fn start(
    config: &BootPlaneConfig,
    table: Arc<BootTable>,
    stop: &CancellationToken,
) -> (mpsc::Receiver<BootEvent>, TaskTracker) {
    let (events, receiver) = EventSender::channel();
    let stages = Arc::new(StageLog::new(events.clone()));
    let loaders = Arc::new(config.loaders.clone());
    let responder =
        dhcp::Responder::new(Arc::clone(&table), Arc::clone(&loaders), config.http_port);
    let responder = Arc::new(Mutex::new(responder));
    let files = Arc::new(FileServers {
        answers: Arc::new(http::Answers {
            table,
            loaders,
            events: events.clone(),
            stages: Arc::clone(&stages),
            http_port: config.http_port,
            sync_port: config.sync_port,
        }),
        connections: Connections::new(Limits::BOOT),
        sessions: Arc::default(),
    });
    let tasks = TaskTracker::new();
    for facts in interfaces::follow(&config.interfaces, stop.clone()) {
        let notes = Notes {
            events: events.clone(),
            stages: Arc::clone(&stages),
        };
        let responder = Arc::clone(&responder);
        tasks.spawn(dhcp::socket::serve(
            facts.clone(),
            responder,
            notes,
            stop.clone(),
        ));
        tasks.spawn(Arc::clone(&files).follow(facts, tasks.clone(), stop.clone()));
    }
    tasks.close();
    (receiver, tasks)
}

struct FileServers {
    answers: Arc<http::Answers>,
    connections: Arc<Connections>,
    sessions: Arc<tftp::Sessions>,
}

impl FileServers {
    /// Keeps one TFTP and one HTTP server for each address that the interface has.
    async fn follow(
        self: Arc<Self>,
        mut facts: FactsReceiver,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let mut running: HashMap<Ipv4Net, CancellationToken> = HashMap::new();
        loop {
            let addresses = facts
                .borrow_and_update()
                .as_ref()
                .map(|facts| facts.addresses.clone());
            let addresses = addresses.unwrap_or_default();
            running.retain(|address, stop| {
                let keep = addresses.contains(address);
                if !keep {
                    stop.cancel();
                }
                keep
            });
            for address in addresses {
                running.entry(address).or_insert_with(|| {
                    let stop = stop.child_token();
                    self.serve(address, &tasks, &stop);
                    stop
                });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = facts.changed() => if changed.is_err() { return },
            }
        }
    }

    fn serve(&self, address: Ipv4Net, tasks: &TaskTracker, stop: &CancellationToken) {
        let answers = &self.answers;
        let served = tftp::Served {
            table: Arc::clone(&answers.table),
            loaders: Arc::clone(&answers.loaders),
            stages: Arc::clone(&answers.stages),
            sessions: Arc::clone(&self.sessions),
            address,
            http_port: answers.http_port,
            sync_port: answers.sync_port,
        };
        tasks.spawn(tftp::socket::serve(
            served,
            tftp::socket::TFTP_PORT,
            stop.clone(),
        ));
        let ip: Ipv4Addr = address.addr();
        let (answers, connections) = (Arc::clone(answers), Arc::clone(&self.connections));
        tasks.spawn(http::server::serve(
            ip,
            answers.http_port,
            answers,
            connections,
            stop.clone(),
        ));
    }
}

#[cfg(test)]
mod tests;
