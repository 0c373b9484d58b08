use super::*;
use crate::boot::table::tests::armed_node;
use crate::boot::{BootNode, BootTable, EventSender, StageLog};
use std::net::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A listener on loopback with one node, whose kernel is larger than any socket buffer.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

const KERNEL_BYTES: u64 = 64 << 20;

const SHORT: Limits = Limits {
    connections: 16,
    connections_of_client: 8,
    header_time: Duration::from_millis(300),
    stall_time: Duration::from_millis(300),
};

impl Server {
    async fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let kernel = dir.path().join("vmlinuz");
        std::fs::File::create(&kernel)
            .expect("create")
            .set_len(KERNEL_BYTES)
            .expect("sparse file");
        let table = Arc::new(BootTable::default());
        table.replace_node(BootNode {
            kernel,
            ..armed_node(1)
        });
        let (events, _) = EventSender::channel();
        let answers = Answers {
            table,
            loaders: Arc::default(),
            events: events.clone(),
            stages: Arc::new(StageLog::new(events)),
            http_port: 8080,
            sync_port: 31415,
        };
        let listener = listen(Ipv4Addr::LOCALHOST, 0).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let stop = CancellationToken::new();
        let (connections, stopped) = (Connections::new(limits), stop.clone());
        tokio::spawn(async move {
            let answers = Arc::new(answers);
            tokio::select! {
                () = stopped.cancelled() => {}
                () = accept(&listener, &answers, &connections, &stopped) => {}
            }
        });
        Server {
            address,
            stop,
            _dir: dir,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("a connection")
    }

    /// Sends bytes and reads until the other side closes.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may refuse and close while we still send.
        let _ = stream.write_all(request).await;
        read_to_end(&mut stream).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut reply = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut reply)).await;
    // A reset is one way of closing.
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&reply).into_owned()
}

const SCRIPT: &str = "GET /boot/52:54:00:4b:00:01/script HTTP/1.1\r\nHost: head\r\n";

#[tokio::test]
async fn old_clients_and_kept_connections_are_served() {
    let server = Server::start(SHORT).await;
    let reply = server
        .exchange(b"GET /boot/52:54:00:4b:00:01/script HTTP/1.0\r\n\r\n")
        .await;
    assert!(
        reply.starts_with("HTTP/1.0 200") && reply.contains("#!ipxe"),
        "{reply}"
    );
    let two = format!("{SCRIPT}\r\n{SCRIPT}Connection: close\r\n\r\n");
    let reply = server.exchange(two.as_bytes()).await;
    assert_eq!(reply.matches("HTTP/1.1 200 OK").count(), 2, "{reply}");
    assert!(
        reply.contains("kraken.http=127.0.0.1:8080"),
        "the address the client reached us at: {reply}"
    );
}

#[tokio::test]
async fn floods_of_headers_are_refused() {
    let server = Server::start(SHORT).await;
    let megabyte = format!("{SCRIPT}X: {}\r\n\r\n", "a".repeat(1 << 20));
    let many: String = (0..10_000).map(|i| format!("X{i}: 1\r\n")).collect();
    let many = format!("{SCRIPT}{many}\r\n");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    for (what, request) in [
        ("one of a megabyte", megabyte),
        ("ten thousand", many),
        ("a long path", long),
    ] {
        let reply = server.exchange(request.as_bytes()).await;
        let refused = reply.is_empty() || reply.starts_with("HTTP/1.1 4");
        assert!(
            refused,
            "{what}: {}",
            reply.lines().next().unwrap_or_default()
        );
    }
    // It still serves.
    let reply = server
        .exchange(format!("{SCRIPT}Connection: close\r\n\r\n").as_bytes())
        .await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

#[tokio::test]
async fn nonsense_and_smuggling_are_refused() {
    let server = Server::start(SHORT).await;
    for request in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET /../../etc/passwd HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        let reply = server.exchange(request.as_bytes()).await;
        let refused = reply.is_empty() || reply.starts_with("HTTP/1.1 4");
        assert!(refused && !reply.contains(" 200 "), "{request:?}: {reply}");
    }
    // Both lengths: whatever counts, the second request in the body must not be answered as one of its own.
    let smuggled = format!(
        "POST /x HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5c\r\n{SCRIPT}\r\n0\r\n\r\n"
    );
    assert!(
        !server
            .exchange(smuggled.as_bytes())
            .await
            .contains("#!ipxe")
    );
}

#[tokio::test]
async fn slow_headers_and_idle_connections_are_closed() {
    let server = Server::start(SHORT).await;
    assert_eq!(server.exchange(b"").await, "");
    assert_eq!(server.exchange(b"GET /boot").await, "");
    let mut drip = server.connect().await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        if drip.write_all(b"a").await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a byte now and then kept the connection open");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_dropped() {
    let server = Server::start(SHORT).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /boot/52:54:00:4b:00:01/kernel HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("sent");
    tokio::time::sleep(SHORT.stall_time * 4).await;
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer))
            .await
            .expect("an end")
        {
            Ok(0) | Err(_) => break,
            Ok(read) => total += read as u64,
        }
    }
    assert!(total < KERNEL_BYTES, "the download went on after the stall");
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let limits = Limits {
        header_time: Duration::from_secs(60),
        ..SHORT
    };
    let server = Server::start(limits).await;
    let mut open = Vec::new();
    for _ in 0..limits.connections_of_client {
        let mut stream = server.connect().await;
        stream
            .write_all(format!("{SCRIPT}\r\n").as_bytes())
            .await
            .expect("sent");
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("an answer");
        open.push(stream);
    }
    assert_eq!(server.exchange(SCRIPT.as_bytes()).await, "", "one too many");
    // Another address of loopback is another client.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.2:0".parse().expect("an address"))
        .expect("bound");
    let mut other = socket.connect(server.address).await.expect("a connection");
    other
        .write_all(format!("{SCRIPT}Connection: close\r\n\r\n").as_bytes())
        .await
        .expect("sent");
    assert!(read_to_end(&mut other).await.starts_with("HTTP/1.1 200"));
    // A closed one makes room.
    let closed = open.pop().expect("one").into_std().expect("a socket");
    closed.shutdown(Shutdown::Both).expect("closed");
    let deadline = Instant::now() + Duration::from_secs(10);
    let request = format!("{SCRIPT}Connection: close\r\n\r\n");
    while !server
        .exchange(request.as_bytes())
        .await
        .starts_with("HTTP/1.1 200")
    {
        assert!(
            Instant::now() < deadline,
            "no room after a connection closed"
        );
    }
}
