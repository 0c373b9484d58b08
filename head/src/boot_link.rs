//! Between the engine and the boot plane: what may boot, and what machines ask for.
//!
//! [`BootBook`] keeps the boot table as the tree and the grants say. [`listen`] turns the boot plane's events into inputs of the engine. Whatever
//! machines say here is a hint: only a fetched grant moves a node's state, and the engine decides whether it is given.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use engine::driver::{Handle, wall_ms};
use engine::event::{Discovery, Event, Input};
use engine::state::{Change, Node, NodeId, Value, core};
use engine::sync::join::{GrantFile, GrantId};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::boot::{
    Append, ArmedBoot, BootEvent, BootName, BootNode, BootTable, GrantArchive, GrantRefused,
    MacAddr,
};
use crate::http::grant;
use crate::pending::HoldingList;
use crate::requests::Requests;

/// Time for the delivery of a grant to become durable.
const GRANT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest value that is repeated in a log line.
const MAX_QUOTE: usize = 64;

/// Keeps the boot table.
pub(crate) struct BootBook {
    table: Arc<BootTable>,
    kernel: PathBuf,
    initramfs: PathBuf,
    append: String,
    /// Under which name each node is in the table.
    names: HashMap<NodeId, BootName>,
}

impl BootBook {
    /// A book over `table`; nodes boot this kernel and initramfs with these arguments.
    pub(crate) fn new(table: Arc<BootTable>, config: &crate::config::Boot) -> Self {
        Self {
            table,
            kernel: config.kernel.clone(),
            initramfs: config.initramfs.clone(),
            append: config.append.clone(),
            names: HashMap::new(),
        }
    }

    /// Takes over all nodes of the engine.
    pub(crate) async fn fill(&mut self, handle: &Handle) {
        let read =
            handle.query(|engine, _| engine.tree().iter().map(|node| node.id).collect::<Vec<_>>());
        for node in read.await.unwrap_or_default() {
            self.refresh(node, handle).await;
        }
    }

    /// Follows what an event means for a node's boot.
    pub(crate) async fn follow(&mut self, event: &Event, handle: &Handle) {
        let touches = |changes: &[Change]| {
            changes.iter().any(|change| {
                matches!(
                    change.url.as_str(),
                    "/pxe/state" | core::RUN_STATE | core::PHYS_STATE
                )
            })
        };
        match event {
            Event::Node { node }
            | Event::Cfg { node, .. }
            | Event::Join {
                node: Some(node), ..
            } => {
                self.refresh(*node, handle).await;
            }
            Event::Dsc { node, changes } if touches(changes) => self.refresh(*node, handle).await,
            Event::Deleted { node, .. } => self.remove(*node),
            _ => {}
        }
    }

    async fn refresh(&mut self, id: NodeId, handle: &Handle) {
        let read = handle.query(move |engine, _| {
            let node = engine
                .tree()
                .get(id)
                .filter(|node| node.id != engine.me())?;
            Some((node.clone(), armed(engine, id)))
        });
        let Ok(Some((node, armed))) = read.await else {
            return self.remove(id);
        };
        match self.entry(&node, armed) {
            Ok(Some(entry)) => {
                let old = self.names.insert(id, entry.name.clone());
                if let Some(old) = old.filter(|old| *old != entry.name) {
                    self.table.remove_node(&old);
                }
                self.table.replace_node(entry);
            }
            Ok(None) => self.remove(id),
            Err(why) => {
                warn!(node = %node.name, why, "node cannot be booted");
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: NodeId) {
        if let Some(name) = self.names.remove(&id) {
            self.table.remove_node(&name);
        }
    }

    /// What the table says of a node; `None` if it has no address to boot with.
    fn entry(&self, node: &Node, armed: Option<ArmedBoot>) -> Result<Option<BootNode>, String> {
        let cfg = |url: &str| node.cfg.text(url);
        let (Some(mac), Some(address)) = (cfg("/ipv4/boot/mac"), cfg("/ipv4/boot/address")) else {
            return Ok(None);
        };
        let say = |url: &str, text: &str, error: &dyn std::fmt::Display| {
            format!(
                "{url} is {:?}: {error}",
                text.chars().take(MAX_QUOTE).collect::<String>()
            )
        };
        let mac: MacAddr = mac
            .parse()
            .map_err(|error| say("/ipv4/boot/mac", mac, &error))?;
        let address = address
            .parse()
            .map_err(|error| say("/ipv4/boot/address", address, &error))?;
        let gateway = cfg("/ipv4/boot/gateway")
            .map(|text| {
                text.parse()
                    .map_err(|error| say("/ipv4/boot/gateway", text, &error))
            })
            .transpose()?;
        let dns = match node.cfg.get("/ipv4/dns") {
            Some(Value::List(servers)) => servers
                .iter()
                .filter_map(|server| server.as_text()?.parse().ok())
                .collect(),
            _ => Vec::new(),
        };
        let arguments = format!("{} {}", self.append, cfg("/pxe/append").unwrap_or_default());
        let append: Append = arguments
            .trim()
            .parse()
            .map_err(|error| say("/pxe/append", &arguments, &error))?;
        Ok(Some(BootNode {
            name: node
                .name
                .as_str()
                .parse()
                .map_err(|error| say("the name", node.name.as_str(), &error))?,
            id: Uuid::from_bytes(*node.id.as_bytes()),
            mac,
            address,
            gateway,
            dns,
            loader: None,
            armed,
            kernel: self.kernel.clone(),
            initramfs: self.initramfs.clone(),
            append,
        }))
    }
}

/// The boot that a node is armed for: it has a grant, and has not joined with it.
fn armed(engine: &Engine, id: NodeId) -> Option<ArmedBoot> {
    let grant = engine.armed(id)?;
    Some(ArmedBoot {
        boot_id: grant.boot,
        grant_id: grant.id.0,
    })
}

/// Carries the boot plane's events to the engine, until the boot plane ends.
pub(crate) async fn listen(
    mut events: mpsc::Receiver<BootEvent>,
    table: Arc<BootTable>,
    handle: Handle,
    requests: Requests,
    pending: HoldingList,
) {
    while let Some(event) = events.recv().await {
        match event {
            BootEvent::PendingMachine(machine) => pending.heard(machine, wall_ms()),
            BootEvent::Seen { mac } => {
                if let Some(node) = table.by_mac(mac) {
                    seen(NodeId::from(node.id), &handle).await;
                }
            }
            BootEvent::GrantFetch {
                grant_id,
                client,
                reply,
            } => {
                debug!(grant = %grant_id, %client, "grant fetch");
                let (handle, requests) = (handle.clone(), requests.clone());
                tokio::spawn(async move {
                    let answer = fetch(GrantId(grant_id), &handle, &requests).await;
                    let result = if answer.is_ok() { "ok" } else { "refused" };
                    metrics::counter!("kraken_grants_fetched_total", "result" => result)
                        .increment(1);
                    // The machine may have hung up; it fetches again.
                    let _ = reply.send(answer);
                });
            }
        }
    }
}

/// A machine without power control that talks is switched on: nobody else can say so.
async fn seen(id: NodeId, handle: &Handle) {
    let read = handle.query(move |engine, _| {
        engine.tree().get(id).is_some_and(|node| {
            node.cfg.text("/power/driver").is_none() && node.dsc.text(core::PHYS_STATE).is_none()
        })
    });
    if let (Ok(true), Ok(url)) = (read.await, core::PHYS_STATE.parse()) {
        let discovery = Discovery {
            node: id,
            source: "boot".into(),
            changes: vec![Change::set(url, Value::from(core::POWER_ON))],
        };
        // The engine ends only with the process.
        let _ = handle.input(Input::Discover(discovery)).await;
    }
}

async fn fetch(
    grant: GrantId,
    handle: &Handle,
    requests: &Requests,
) -> Result<GrantArchive, GrantRefused> {
    let failed = |why: &str| GrantRefused::Failed(why.to_owned());
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| failed("no random numbers"))?;
    let (request, answer) = requests.grant();
    let input = Input::FetchGrant {
        request,
        grant,
        secret,
        now_ms: wall_ms(),
    };
    handle
        .input(input)
        .await
        .map_err(|_| failed("the head is stopping"))?;
    let answered = timeout(GRANT_TIMEOUT, answer)
        .await
        .map_err(|_| failed("the store does not answer"))?;
    let text = answered
        .map_err(|_| failed("the head is stopping"))?
        .map_err(|why| {
            info!(%grant, why, "the engine refuses a grant");
            GrantRefused::Unknown
        })?;
    let file: GrantFile = text
        .parse()
        .map_err(|_| failed("the engine's grant cannot be read"))?;
    let archive = grant::GrantFile {
        grant: file.grant.0,
        node: Uuid::from_bytes(*file.node.as_bytes()),
        boot: file.boot,
        secret: &file.secret.0,
    };
    Ok(archive.archive())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> BootBook {
        let config = crate::config::Boot {
            interfaces: Vec::new(),
            http_port: 8080,
            kernel: "/k/vmlinuz".into(),
            initramfs: "/k/initramfs".into(),
            append: "console=ttyS0".into(),
            loaders: Vec::new(),
            window: Duration::from_secs(600),
        };
        BootBook::new(Arc::default(), &config)
    }

    fn node(cfg: &[(&str, &str)]) -> Node {
        let mut node = Node::new(NodeId::from_bytes([1; 16]), "n1".parse().unwrap(), None);
        node.cfg = cfg
            .iter()
            .map(|(url, value)| (url.parse().unwrap(), Value::from(*value)))
            .collect();
        node
    }

    const MAC: (&str, &str) = ("/ipv4/boot/mac", "52:54:00:4b:00:01");
    const ADDRESS: (&str, &str) = ("/ipv4/boot/address", "10.77.0.11/24");

    #[test]
    fn a_node_with_its_addresses_is_in_the_table() {
        let more = [
            MAC,
            ADDRESS,
            ("/ipv4/boot/gateway", "10.77.0.1"),
            ("/pxe/append", "quiet"),
        ];
        let mut node = node(&more);
        let servers = vec![Value::from("10.0.0.1"), Value::from("10.0.0.2")];
        node.cfg
            .set("/ipv4/dns".parse().unwrap(), Some(Value::List(servers)));
        let entry = book().entry(&node, None).unwrap().unwrap();
        assert_eq!(
            (entry.name.as_str(), entry.mac.to_string().as_str()),
            ("n1", MAC.1)
        );
        assert_eq!(
            (entry.address.to_string().as_str(), entry.dns.len()),
            (ADDRESS.1, 2)
        );
        assert_eq!(entry.append.as_str(), "console=ttyS0 quiet");
        assert_eq!(entry.id.as_bytes(), &[1; 16]);
    }

    #[test]
    fn a_node_that_cannot_boot_is_left_out() {
        assert_eq!(book().entry(&node(&[MAC]), None), Ok(None));
        assert_eq!(book().entry(&node(&[ADDRESS]), None), Ok(None));
        for (url, value) in [
            ("/ipv4/boot/address", "fe80::1/64"),
            ("/ipv4/boot/gateway", "fe80::1"),
            ("/pxe/append", "a;b"),
            ("/pxe/append", "kraken.node=evil"),
        ] {
            let error = book()
                .entry(&node(&[MAC, ADDRESS, (url, value)]), None)
                .unwrap_err();
            assert!(error.contains(url), "{error}");
        }
    }
}
