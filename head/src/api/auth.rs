//! Who may call: decided once a request, before anything else. Deny by default.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context as _, bail};
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;

/// Pages that say nothing but "I work".
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// On the unix socket, as the kernel says.
    Local { uid: u32 },
    /// On TCP.
    Remote { from: SocketAddr },
}

/// Who made a request, as history shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller(pub(super) String);

/// The administrator's token: 256 random bits, in a file that only the head's user can read.
pub(crate) struct Token(String);

impl Token {
    /// Reads the token, or makes one at the first start.
    ///
    /// # Errors
    /// The file cannot be read or made, is open to others, or holds no token.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if !path.exists() {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).context("no random numbers for a token")?;
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let made = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            made.and_then(|mut file| writeln!(file, "{text}").and_then(|()| file.sync_all()))
                .with_context(|| format!("cannot make the token file {shown}"))?;
            return Ok(Self(text));
        }
        let read = || format!("cannot read the token file {shown}");
        if fs::metadata(path).with_context(read)?.mode() & 0o077 != 0 {
            bail!(
                "the token file {shown} can be read by other users: delete it, and the next start makes a new one"
            );
        }
        let text = fs::read_to_string(path)
            .with_context(read)?
            .trim()
            .to_owned();
        if text.len() < 32 {
            bail!(
                "the token file {shown} holds no token: delete it, and the next start makes a new one"
            );
        }
        Ok(Self(text))
    }

    /// Takes the same time whatever is wrong: digests are compared, not texts.
    fn is(&self, given: &str) -> bool {
        let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        digest(&self.0).as_ref() == digest(given).as_ref()
    }
}

/// Why a request is not served.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// No token.
    Unauthenticated,
    /// Known, and not allowed.
    Forbidden(String),
}

/// Decides whether a request is served, and in whose name.
pub(super) fn authorize(
    peer: &Peer,
    token: &Token,
    path: &str,
    headers: &HeaderMap,
) -> Result<Caller, Denied> {
    match peer {
        Peer::Local { uid } => {
            let me = nix::unistd::geteuid().as_raw();
            if *uid == 0 || *uid == me {
                return Ok(Caller(format!("uid {uid}")));
            }
            if OPEN_PATHS.contains(&path) {
                return Ok(Caller(format!("uid {uid}")));
            }
            Err(Denied::Forbidden(format!(
                "uid {uid} may not use this socket: run as root or as the user of kraken-head"
            )))
        }
        Peer::Remote { from } => {
            let bearer = headers
                .get(header::AUTHORIZATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, given)| given.trim());
            match bearer {
                Some(given) if token.is(given) => Ok(Caller(format!("token from {}", from.ip()))),
                Some(_) => Err(Denied::Forbidden(
                    "the token is not valid: see admin.token in the head's state directory".into(),
                )),
                None if OPEN_PATHS.contains(&path) => Ok(Caller(from.to_string())),
                None => Err(Denied::Unauthenticated),
            }
        }
    }
}

impl Denied {
    /// The answer, in the language of the request.
    pub(super) fn response(self, headers: &HeaderMap) -> Response<Body> {
        let is_grpc = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/grpc"));
        let (code, status, text) = match self {
            Self::Unauthenticated => {
                let text = "a token is wanted: authorization: Bearer TOKEN".to_owned();
                (tonic::Code::Unauthenticated, StatusCode::UNAUTHORIZED, text)
            }
            Self::Forbidden(text) => (tonic::Code::PermissionDenied, StatusCode::FORBIDDEN, text),
        };
        if is_grpc {
            return tonic::Status::new(code, text).into_http::<Body>();
        }
        (status, text + "\n").into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token("ab".repeat(32))
    }

    fn decide(peer: &Peer, path: &str, authorization: Option<&str>) -> Result<String, Denied> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        authorize(peer, &token(), path, &headers).map(|caller| caller.0)
    }

    #[test]
    fn a_local_caller_is_root_or_ourselves() {
        let me = nix::unistd::geteuid().as_raw();
        let call = "/kraken.v1.Admin/ListNodes";
        for uid in [0, me] {
            assert_eq!(
                decide(&Peer::Local { uid }, call, None),
                Ok(format!("uid {uid}"))
            );
        }
        let stranger = Peer::Local { uid: me + 4711 };
        for path in [call, "/metrics", "/", "/healthz/../metrics"] {
            assert!(
                matches!(decide(&stranger, path, None), Err(Denied::Forbidden(_))),
                "{path}"
            );
        }
        // A token is for TCP; it makes nobody an administrator here.
        let good = format!("Bearer {}", "ab".repeat(32));
        assert!(matches!(
            decide(&stranger, call, Some(&good)),
            Err(Denied::Forbidden(_))
        ));
        assert!(decide(&stranger, "/healthz", None).is_ok());
    }

    #[test]
    fn a_remote_caller_has_the_token() {
        let remote = Peer::Remote {
            from: "10.1.2.3:4".parse().unwrap(),
        };
        let good = format!("bearer {}", "ab".repeat(32));
        let path = "/kraken.v1.Admin/ListNodes";
        assert_eq!(
            decide(&remote, path, Some(&good)),
            Ok("token from 10.1.2.3".into())
        );
        assert_eq!(decide(&remote, path, None), Err(Denied::Unauthenticated));
        assert_eq!(
            decide(&remote, "/metrics", None),
            Err(Denied::Unauthenticated)
        );
        for wrong in ["Bearer", "Bearer ", "Basic abab", "Bearer abab", "ab"] {
            assert!(decide(&remote, path, Some(wrong)).is_err(), "{wrong}");
        }
        assert!(decide(&remote, "/readyz", None).is_ok());
    }

    #[test]
    fn the_token_is_made_once_and_kept_to_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        let first = Token::open(&path).unwrap();
        assert_eq!(first.0.len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Token::open(&path).unwrap().0, first.0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Token::open(&path).is_err());
        fs::remove_file(&path).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        assert!(Token::open(&path).is_err(), "an empty file is no token");
    }
}
