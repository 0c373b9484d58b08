//! What each boot file request gets: looks up, opens, asks the engine for grants, builds the response.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::sync::oneshot;
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::boot::{
    BootEvent, BootNode, BootStage, BootTable, EventSender, GrantRefused, Loaders, MacAddr,
    StageLog,
};

use super::boot_script::{self, Place};
use super::files::{self, Links, ServedFile};
use super::range::{self, Selection};
use super::route::Route;

/// How long a request for a grant waits for the engine: it writes the delivery to disk first, and firmware gives up after tens of seconds.
pub(crate) const GRANT_WAIT: Duration = Duration::from_secs(5);

/// All that requests are answered from; shared by all connections.
pub(crate) struct Answers {
    /// Nodes and images.
    pub(crate) table: Arc<BootTable>,
    /// First-stage loaders.
    pub(crate) loaders: Arc<Loaders>,
    /// To the engine loop.
    pub(crate) events: EventSender,
    /// To the log of boots.
    pub(crate) stages: Arc<StageLog>,
    /// Port of the boot files, for the scripts.
    pub(crate) http_port: u16,
    /// Port of join and sync, for the scripts.
    pub(crate) sync_port: u16,
}

/// The ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// Our address, as the client reached it.
    pub(crate) server: Ipv4Addr,
    /// The client's.
    pub(crate) client: IpAddr,
}

/// Status and headers of a file request before its body is known.
struct FileRequest<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
}

impl FileRequest<'_> {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether this fetches the beginning of the file, and so is the start of a download.
    fn is_start(&self) -> bool {
        let beginning = |range: &str| range.trim_start_matches(|c| c != '=').starts_with("=0-");
        self.method == Method::GET && self.header(header::RANGE).is_none_or(beginning)
    }
}

impl Answers {
    /// Answers one request.
    pub(crate) async fn answer<B>(&self, request: &Request<B>, ends: Ends) -> Response<Body> {
        let path = request.uri().path();
        let (resource, response) = match Route::parse(path) {
            _ if request.method() != Method::GET && request.method() != Method::HEAD => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
                response
                    .headers_mut()
                    .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                ("none", response)
            }
            None => ("none", text(StatusCode::NOT_FOUND, "no such boot file\n")),
            Some(route) => (route.name(), self.serve(route, request, ends).await),
        };
        let status = response.status();
        debug!(client = %ends.client, resource, path = cut(path), status = status.as_u16(), "boot file request");
        metrics::counter!("kraken_boot_http_requests_total", "resource" => resource, "status" => status.as_str().to_owned())
            .increment(1);
        response
    }

    async fn serve<B>(&self, route: Route, request: &Request<B>, ends: Ends) -> Response<Body> {
        let request = FileRequest {
            method: request.method(),
            headers: request.headers(),
        };
        match route {
            Route::Script(mac) => self.script(mac, &request, ends),
            Route::Kernel(mac) => {
                self.boot_file(mac, &request, BootStage::Kernel, |node| &node.kernel)
                    .await
            }
            Route::Initramfs(mac) => {
                self.boot_file(mac, &request, BootStage::Initramfs, |node| &node.initramfs)
                    .await
            }
            Route::Grant(grant) => self.grant(grant, &request, ends).await,
            Route::Manifest(name) => match self.table.manifest(&name) {
                Some(path) => stored_file(&request, path, None).await,
                None => text(StatusCode::NOT_FOUND, "no such image\n"),
            },
            Route::Blob(hash) => match self.table.blob(&hash) {
                // The name is the content, so the tag need not depend on the file.
                Some(path) => stored_file(&request, path, Some(format!("\"{hash}\""))).await,
                None => text(StatusCode::NOT_FOUND, "no image has this file\n"),
            },
            Route::Loader(name) => self.loader(name.as_str(), &request, ends),
        }
    }

    fn script(&self, mac: MacAddr, request: &FileRequest<'_>, ends: Ends) -> Response<Body> {
        let Some(node) = self.table.by_mac(mac) else {
            return unknown_machine();
        };
        if request.is_start() {
            self.stages
                .reached(&node, BootStage::Script, Instant::now());
        }
        let Answers {
            http_port,
            sync_port,
            ..
        } = *self;
        let script = boot_script::render(
            &node,
            Place {
                server: ends.server,
                http_port,
                sync_port,
            },
        );
        rendered(request, script.into_bytes(), "text/plain")
    }

    async fn boot_file(
        &self,
        mac: MacAddr,
        request: &FileRequest<'_>,
        stage: BootStage,
        path: impl Fn(&BootNode) -> &Path,
    ) -> Response<Body> {
        let Some(node) = self.table.by_mac(mac) else {
            return unknown_machine();
        };
        if request.is_start() {
            self.stages.reached(&node, stage, Instant::now());
        }
        match files::open(path(&node).into(), Links::Follow).await {
            Ok(file) => respond(request, &file, &file.etag),
            Err(error) => {
                error!(node = %node.name, %stage, path = %path(&node).display(), %error, "cannot serve a boot file");
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the head cannot read this file, see its log\n",
                )
            }
        }
    }

    async fn grant(&self, grant_id: Uuid, request: &FileRequest<'_>, ends: Ends) -> Response<Body> {
        let Some(node) = self.table.by_grant(grant_id) else {
            warn!(client = %ends.client, grant = %grant_id, "a grant that is not armed was asked for");
            return text(StatusCode::NOT_FOUND, "no such grant\n");
        };
        if request.method == Method::HEAD {
            // A delivery counts, so only GET is one.
            return rendered(request, Vec::new(), "application/octet-stream");
        }
        let (reply, answer) = oneshot::channel();
        let event = BootEvent::GrantFetch {
            grant_id,
            client: ends.client,
            reply,
        };
        if self.events.send(event).is_err() {
            return try_later();
        }
        match tokio::time::timeout(GRANT_WAIT, answer).await {
            Ok(Ok(Ok(archive))) => {
                self.stages.reached(&node, BootStage::Grant, Instant::now());
                rendered(request, archive.0, "application/octet-stream")
            }
            Ok(Ok(Err(refused))) => {
                warn!(node = %node.name, grant = %grant_id, client = %ends.client, reason = %refused, "grant refused");
                match refused {
                    GrantRefused::Failed(_) => try_later(),
                    _ => text(StatusCode::FORBIDDEN, "this grant is not given\n"),
                }
            }
            Ok(Err(_)) | Err(_) => {
                warn!(node = %node.name, grant = %grant_id, "the engine did not answer for a grant");
                try_later()
            }
        }
    }

    fn loader(&self, name: &str, request: &FileRequest<'_>, ends: Ends) -> Response<Body> {
        let Some(loader) = self.loaders.by_name(name) else {
            return text(StatusCode::NOT_FOUND, "no such loader\n");
        };
        if let IpAddr::V4(client) = ends.client
            && let Some(node) = self.table.by_address(client)
            && request.is_start()
        {
            self.stages
                .reached(&node, BootStage::Loader, Instant::now());
        }
        let size = loader.bytes.len() as u64;
        let etag = format!("\"{}-{size:x}\"", loader.name);
        let (start, length, response) = match begin(request, size, &etag) {
            Begun::Body {
                start,
                length,
                response,
            } => (start, length, response),
            Begun::Done(response) => return response.map(|()| Body::empty()),
        };
        let (start, length) = (start as usize, length as usize);
        response.map(|()| Body::from(loader.bytes.slice(start..start + length)))
    }
}

impl Route {
    fn name(&self) -> &'static str {
        match self {
            Route::Script(_) => "script",
            Route::Kernel(_) => "kernel",
            Route::Initramfs(_) => "initramfs",
            Route::Grant(_) => "grant",
            Route::Manifest(_) => "manifest",
            Route::Blob(_) => "blob",
            Route::Loader(_) => "loader",
        }
    }
}

async fn stored_file(
    request: &FileRequest<'_>,
    path: Arc<Path>,
    etag: Option<String>,
) -> Response<Body> {
    match files::open(Arc::clone(&path), Links::Refuse).await {
        Ok(file) => respond(request, &file, etag.as_deref().unwrap_or(&file.etag)),
        Err(error) => {
            error!(path = %path.display(), %error, "cannot serve a file of an image");
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the head cannot read this file, see its log\n",
            )
        }
    }
}

fn respond(request: &FileRequest<'_>, file: &ServedFile, etag: &str) -> Response<Body> {
    match begin(request, file.size, etag) {
        Begun::Done(response) => response.map(|()| Body::empty()),
        Begun::Body {
            start,
            length,
            response,
        } => response.map(|()| Body::from_stream(file.stream(start, length))),
    }
}

/// A response up to its body.
enum Begun {
    /// These bytes follow.
    Body {
        start: u64,
        length: u64,
        response: Response<()>,
    },
    /// No body: HEAD, unchanged, or a bad range.
    Done(Response<()>),
}

/// Decides about conditions and ranges in the order of RFC 9110 section 13.2.2.
fn begin(request: &FileRequest<'_>, size: u64, etag: &str) -> Begun {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    if request
        .header(header::IF_NONE_MATCH)
        .is_some_and(|tags| range::none_match_hits(tags, etag))
    {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Begun::Done(response);
    }
    let allowed = request.method == Method::GET
        && range::if_range_allows(request.header(header::IF_RANGE), etag);
    let wanted = if allowed {
        request.header(header::RANGE)
    } else {
        None
    };
    let (start, length) = match range::select(wanted, size) {
        Selection::Whole => (0, size),
        Selection::Part { start, length } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{size}", start + length - 1);
            set(&mut response, header::CONTENT_RANGE, &range);
            (start, length)
        }
        Selection::Unsatisfiable => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            set(&mut response, header::CONTENT_LENGTH, "0");
            return Begun::Done(response);
        }
    };
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    if request.method == Method::HEAD || length == 0 {
        return Begun::Done(response);
    }
    Begun::Body {
        start,
        length,
        response,
    }
}

fn set<B>(response: &mut Response<B>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Something made for this request: not to be kept, and sent as a whole.
fn rendered(request: &FileRequest<'_>, content: Vec<u8>, kind: &'static str) -> Response<Body> {
    let length = content.len().to_string();
    let body = if request.method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(content)
    };
    let mut response = Response::new(body);
    set(&mut response, header::CONTENT_TYPE, kind);
    set(&mut response, header::CACHE_CONTROL, "no-store");
    if request.method != Method::HEAD || length != "0" {
        set(&mut response, header::CONTENT_LENGTH, &length);
    }
    response
}

fn text(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, "text/plain");
    response
}

fn unknown_machine() -> Response<Body> {
    text(
        StatusCode::NOT_FOUND,
        "no node is enrolled for this machine\n",
    )
}

fn try_later() -> Response<Body> {
    let mut response = text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the head is busy, try again\n",
    );
    set(&mut response, header::RETRY_AFTER, "5");
    response
}

/// A stranger's text for the log; `Uri` has no control characters in it.
fn cut(path: &str) -> &str {
    path.get(..128).unwrap_or(path)
}
