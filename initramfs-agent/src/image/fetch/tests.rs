use std::sync::{Arc, Mutex};

use ring::digest::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server that plays one prepared answer per connection and writes down the requests. A connection beyond the last is closed at once.
async fn server(answers: Vec<Vec<u8>>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            seen.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&request).into_owned());
            if let Some(answer) = answers.next() {
                let _ = stream.write_all(&answer).await;
            }
        }
    });
    (address, requests)
}

fn whole(body: &[u8]) -> Vec<u8> {
    [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(),
        body,
    ]
    .concat()
}

fn part(from: usize, body: &[u8]) -> Vec<u8> {
    let (last, total, length) = (body.len() - 1, body.len(), body.len() - from);
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{last}/{total}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &body[from..]].concat()
}

/// Runs a download of `body`'s digest from a server with these answers; gives the outcome, the requests, and the target's content.
fn check(
    body: &[u8],
    answers: Vec<Vec<u8>>,
    left: Option<&[u8]>,
) -> (Result<(), FetchError>, Vec<String>, Option<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("blob");
    if let Some(left) = left {
        fs::write(target.with_extension("part"), left).unwrap();
    }
    let sha256 = hex(digest(&SHA256, body).as_ref());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (result, requests) = runtime.block_on(async {
        let (address, requests) = server(answers).await;
        let result = fetch_blob(address, "/blobs/x", &target, &sha256, body.len() as u64).await;
        let requests = requests.lock().unwrap().clone();
        (result, requests)
    });
    (result, requests, fs::read(&target).ok())
}

fn body() -> Vec<u8> {
    (0..200_000_u32).map(|n| (n * 7 % 251) as u8).collect()
}

#[test]
fn in_one_piece() {
    let body = body();
    let (result, requests, content) = check(&body, vec![whole(&body)], None);
    result.unwrap();
    assert_eq!(content.unwrap(), body);
    assert!(
        requests[0].starts_with("GET /blobs/x HTTP/1.1\r\n"),
        "{requests:?}"
    );
    assert!(!requests[0].contains("range:"));
}

#[test]
fn broken_off_and_resumed() {
    let body = body();
    let mut cut = whole(&body);
    cut.truncate(cut.len() - 50_000);
    let (result, requests, content) = check(&body, vec![cut, part(150_000, &body)], None);
    result.unwrap();
    assert_eq!(content.unwrap(), body);
    assert!(
        requests[1].contains("range: bytes=150000-\r\n"),
        "{requests:?}"
    );
}

#[test]
fn what_an_earlier_agent_left_is_taken_up() {
    let body = body();
    let (result, requests, content) =
        check(&body, vec![part(70_000, &body)], Some(&body[..70_000]));
    result.unwrap();
    assert_eq!(content.unwrap(), body);
    assert_eq!(requests.len(), 1);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let body = body();
    let (result, _, content) = check(&body, vec![whole(&body)], Some(b"rubbish"));
    result.unwrap();
    assert_eq!(content.unwrap(), body);
}

#[test]
fn one_flipped_byte_is_refused_and_nothing_is_left() {
    let body = body();
    let mut bad = body.clone();
    bad[100_000] ^= 1;
    let (result, requests, content) = check(&body, vec![whole(&bad), whole(&body)], None);
    assert!(
        matches!(result, Err(FetchError::Digest { .. })),
        "{result:?}"
    );
    assert_eq!((requests.len(), content), (1, None));
}

#[test]
fn a_longer_file_is_cut_off_early() {
    let body = body();
    let longer = [body.clone(), body.clone()].concat();
    let (result, _, content) = check(&body, vec![whole(&longer)], None);
    assert!(
        matches!(result, Err(FetchError::TooLong { limit: 200_000, .. })),
        "{result:?}"
    );
    assert_eq!(content, None);
}

#[test]
fn no_is_final_and_busy_is_not() {
    let body = body();
    let no = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
    let (result, requests, _) = check(&body, vec![no, whole(&body)], None);
    assert!(
        matches!(
            result,
            Err(FetchError::Status {
                status: StatusCode::NOT_FOUND,
                ..
            })
        ),
        "{result:?}"
    );
    assert_eq!(requests.len(), 1);
    let busy = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec();
    check(&body, vec![busy, whole(&body)], None).0.unwrap();
}

#[test]
fn a_range_from_elsewhere_is_not_taken() {
    let body = body();
    let (result, ..) = check(&body, vec![part(60_000, &body)], Some(&body[..70_000]));
    assert!(
        matches!(
            result,
            Err(FetchError::Status {
                status: StatusCode::PARTIAL_CONTENT,
                ..
            })
        ),
        "{result:?}"
    );
}

#[test]
fn small_files_are_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (address, _) = server(vec![whole(&[7; 10]), whole(&[7; 11])]).await;
        assert_eq!(fetch_small(address, "/m", 10).await.unwrap(), [7; 10]);
        assert!(matches!(
            fetch_small(address, "/m", 10).await,
            Err(FetchError::TooLong { limit: 10, .. })
        ));
    });
}

#[test]
fn an_absent_server_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = try_small(address, "/m", 10).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("/m from {address}: ")),
            "{error}"
        );
    });
}
