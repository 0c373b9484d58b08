//! A head with one machine: a file is its power plug, a test its firmware and its agent.

use std::net::{SocketAddr, TcpListener};

use engine::state::{NodeId, Values};
use engine::sync::join::{GrantFile, RefuseReason};
use engine::sync::message::{Frame, Hello};

use crate::child::{By, Child, Credentials};
use crate::rig::{Client, Rig, add, eventually, get, list, node};

/// Of the one machine.
const MAC: &str = "52:54:00:4b:00:01";

/// See the module.
pub(crate) struct Plant {
    pub(crate) rig: Rig,
    http: u16,
    pub(crate) sync: SocketAddr,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port()
}

impl Plant {
    /// A head that boots machines from loopback; the plug is a file that says `on` or `off`, and every switching leaves a line.
    pub(crate) fn new() -> Self {
        let (http, sync) = (free_port(), free_port());
        let rig = Rig::new("");
        let path = |name: &str| rig.path(name).display().to_string();
        for (name, text) in [
            ("vmlinuz", "kernel"),
            ("initramfs", "layer0"),
            ("plug", "off\n"),
            ("switched", ""),
        ] {
            std::fs::write(rig.path(name), text).expect("file");
        }
        let switch = |to: &str| {
            format!(
                "[\"sh\", \"-c\", \"echo {to} > {}; echo {to} >> {}\"]",
                path("plug"),
                path("switched")
            )
        };
        rig.configure(&format!(
            "[sync]\naddress = \"127.0.0.1\"\nport = {sync}\nhello = \"100ms\"\ndead = \"4s\"\n\
             [boot]\ninterfaces = [\"lo\"]\nhttp_port = {http}\nkernel = {:?}\ninitramfs = {:?}\n\
             [power]\npoll = \"200ms\"\n[power.command]\non = {}\noff = {}\nstatus = [\"cat\", {:?}]\n",
            path("vmlinuz"),
            path("initramfs"),
            switch("on"),
            switch("off"),
            path("plug")
        ));
        Self {
            rig,
            http,
            sync: SocketAddr::from(([127, 0, 0, 1], sync)),
        }
    }

    /// Every switching so far.
    pub(crate) fn switched(&self) -> String {
        std::fs::read_to_string(self.rig.path("switched"))
            .expect("file")
            .replace('\n', " ")
    }

    async fn get(&self, path: &str) -> Vec<u8> {
        let url = format!("http://127.0.0.1:{}{path}", self.http);
        eventually(path, || {
            let url = url.clone();
            async move {
                let response = get(url, None).await.ok()?;
                Some(
                    response
                        .error_for_status()
                        .ok()?
                        .bytes()
                        .await
                        .ok()?
                        .to_vec(),
                )
            }
        })
        .await
    }

    /// Adds the machine's node, which shall be in SYNC.
    pub(crate) async fn enrol(&self, client: &mut Client) -> NodeId {
        let cfg = [
            ("/RunState", "SYNC"),
            ("/power/driver", "COMMAND"),
            ("/ipv4/boot/mac", MAC),
            ("/ipv4/boot/address", "127.0.0.11/8"),
        ];
        add(client, vec![node("n1", &cfg)]).await.expect("added");
        let listed = list(client, "n1").await.expect("listed");
        NodeId::from_slice(&listed[0].id).expect("an id")
    }

    /// Joins as its agent; `Err` is the head's refusal.
    pub(crate) async fn join(
        &self,
        credentials: &Credentials,
        by: By<'_>,
    ) -> Result<Child, (RefuseReason, String)> {
        Child::join(&self.rig.ca, self.sync, credentials, by).await
    }

    /// Boots the machine and joins as its agent.
    pub(crate) async fn boot_and_join(&self) -> Child {
        let grant = self.boot().await;
        let joined = self.join(&Credentials::new(), By::Grant(&grant)).await;
        joined.expect("joined")
    }

    /// Boots as a machine would: the script, and the grant that it names.
    pub(crate) async fn boot(&self) -> GrantFile {
        let script = eventually("a script with a grant", || async {
            let script =
                String::from_utf8(self.get(&format!("/boot/{MAC}/script")).await).expect("text");
            script.contains("/g/").then_some(script)
        })
        .await;
        let at = script.find("/g/").expect("a grant");
        let archive = self.get(&script[at..at + 3 + 36]).await;
        let text = String::from_utf8_lossy(&archive);
        let start = text.find("kraken-grant-v1").expect("a grant file");
        let lines: Vec<&str> = text[start..].lines().take(4).collect();
        // The archive pads behind the last line.
        let secret = &text[text.find("secret ").expect("a secret")..][..7 + 64];
        format!("{}\n{secret}\n", lines.join("\n"))
            .parse()
            .expect("a grant file")
    }
}

/// A page over HTTP/1 on the unix socket, as a scraper on the head would get it.
pub(crate) async fn page(rig: &Rig, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(rig.path("run/api.sock"))
        .await
        .expect("socket");
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nhost: head\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("received");
    text
}

/// A metric's value as it is printed; "0" if nobody has counted yet.
pub(crate) async fn metric(rig: &Rig, name: &str) -> String {
    page(rig, "/metrics")
        .await
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or("0")
        .trim()
        .to_owned()
}

/// A hello that wants an answer.
pub(crate) fn hello(version: u64, have: u64) -> Frame {
    Frame::Hello(Hello {
        version,
        digest: Values::default().digest().short(),
        have,
        probe: true,
    })
}
