//! Redfish: what switching one machine needs (DMTF DSP0266, ComputerSystem).
//!
//! Basic authentication first; a BMC that wants a session gets one, which is kept until it is refused. Answers are bounded, redirects are not
//! followed, and credentials go to the configured host only.
//!
//! CA certificates of the machine are needed for https alone, and there only where a BMC's certificate is checked: without any, the head starts
//! and says so once, and those BMCs count as silent, with what to do as the reason. They are looked for anew until there are some.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde_json::{Value, json};
use tracing::warn;

use super::{DriverError, PowerState, Target};

/// BMCs are slow, and some answer a reset only when it is done.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A ComputerSystem resource has 2 to 30 KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Longest text of a BMC that gets into our messages.
const MAX_QUOTE: usize = 200;

/// Sessions that are kept: one a BMC.
const MAX_SESSIONS: usize = 65_536;

/// What to do where no CA certificate is found.
const NO_CA: &str = "install the package ca-certificates, or name a file of CA certificates in SSL_CERT_FILE, or set /power/insecure of nodes whose BMCs need no check";

/// A client for any number of BMCs.
pub(super) struct Redfish {
    /// For BMCs whose certificates are checked; made once there is a CA certificate to check them with.
    verifying: OnceLock<Client>,
    /// For the others, and for those without TLS.
    trusting: Client,
    sessions: Mutex<HashMap<(String, String), String>>,
}

impl Redfish {
    /// A client; `rustls` must have its provider.
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let redfish = Self {
            verifying: OnceLock::new(),
            trusting: client(true)?,
            sessions: Mutex::default(),
        };
        if let Err(error) = redfish.verifying() {
            warn!(error = error.text(), "BMCs under https cannot be reached");
        }
        Ok(redfish)
    }

    /// The client that checks certificates.
    fn verifying(&self) -> Result<&Client, DriverError> {
        if let Some(client) = self.verifying.get() {
            return Ok(client);
        }
        let made = client(false).map_err(|error| {
            let why = causes(&error);
            DriverError::Unreachable(format!(
                "no certificate of a BMC can be checked{why}: {NO_CA}"
            ))
        })?;
        Ok(self.verifying.get_or_init(|| made))
    }

    /// The client for a url of this target.
    fn client(&self, target: &Target, url: &Url) -> Result<&Client, DriverError> {
        match target.insecure || url.scheme() == "http" {
            true => Ok(&self.trusting),
            false => self.verifying(),
        }
    }

    /// The power state; `None` while it changes.
    pub(super) async fn read(&self, target: &Target) -> Result<Option<PowerState>, DriverError> {
        let system = self.get(target, system_url(target)?).await?;
        power_state(&system)
    }

    /// Asks for a power state. The answer of the BMC only means that it has understood.
    pub(super) async fn switch(
        &self,
        target: &Target,
        want: PowerState,
    ) -> Result<(), DriverError> {
        let url = system_url(target)?;
        let system = self.get(target, url.clone()).await?;
        let (path, kind) = reset_action(&system, want)?;
        let action = same_host(&url, &path)?;
        let body = json!({ "ResetType": kind });
        self.send(target, Method::POST, action, Some(&body))
            .await
            .map(|_| ())
    }

    async fn get(&self, target: &Target, url: Url) -> Result<Value, DriverError> {
        let answer = self.send(target, Method::GET, url, None).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| DriverError::Refused(format!("the BMC's answer is no JSON: {error}")))
    }

    async fn send(
        &self,
        target: &Target,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, DriverError> {
        let client = self.client(target, &url)?;
        let request = || {
            let request = client.request(method.clone(), url.clone());
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        let key = (url.origin().ascii_serialization(), target.username.clone());
        let session = self.session(&key);
        let first = match &session {
            Some(token) => request().header("X-Auth-Token", token),
            None if target.username.is_empty() => request(),
            None => request().basic_auth(&target.username, Some(&target.password.0)),
        };
        let response = answer(first).await?;
        if response.status() != StatusCode::UNAUTHORIZED || target.username.is_empty() {
            return finish(response).await;
        }
        let token = self.login(client, target, &url).await?;
        self.keep(key, token.clone());
        finish(answer(request().header("X-Auth-Token", token)).await?).await
    }

    async fn login(
        &self,
        client: &Client,
        target: &Target,
        url: &Url,
    ) -> Result<String, DriverError> {
        let sessions = same_host(url, "/redfish/v1/SessionService/Sessions")?;
        let body = json!({ "UserName": target.username, "Password": target.password.0 });
        let response = answer(client.post(sessions).json(&body)).await?;
        let token = response
            .headers()
            .get("X-Auth-Token")
            .and_then(|token| token.to_str().ok())
            .map(str::to_owned);
        match (response.status().is_success(), token) {
            (true, Some(token)) => Ok(token),
            _ => Err(DriverError::Refused(format!(
                "the BMC does not accept user {:?} with this password",
                target.username
            ))),
        }
    }

    fn session(&self, key: &(String, String)) -> Option<String> {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn keep(&self, key: (String, String), token: String) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS {
            sessions.clear();
        }
        sessions.insert(key, token);
    }
}

fn client(insecure: bool) -> Result<Client, reqwest::Error> {
    Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .danger_accept_invalid_certs(insecure)
        .build()
}

fn system_url(target: &Target) -> Result<Url, DriverError> {
    let refuse =
        |why: &str| DriverError::Refused(format!("/power/target is {:?}: {why}", target.address));
    let url = Url::parse(&target.address).map_err(|_| {
        refuse("the url of a ComputerSystem is wanted, such as https://bmc1/redfish/v1/Systems/1")
    })?;
    match url.scheme() {
        "http" | "https" if url.username().is_empty() && url.password().is_none() => Ok(url),
        "http" | "https" => Err(refuse(
            "credentials belong in /power/username and /power/password",
        )),
        _ => Err(refuse("http or https is wanted")),
    }
}

/// A resource of the same BMC; anything else would send it our credentials.
fn same_host(base: &Url, path: &str) -> Result<Url, DriverError> {
    base.join(path)
        .ok()
        .filter(|url| url.origin() == base.origin())
        .ok_or_else(|| {
            DriverError::Refused(format!(
                "the BMC names a resource on another host: {:?}",
                quote(path)
            ))
        })
}

async fn answer(request: RequestBuilder) -> Result<Response, DriverError> {
    request
        .send()
        .await
        .map_err(|error| DriverError::Unreachable(chain(&error)))
}

async fn finish(mut response: Response) -> Result<Vec<u8>, DriverError> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| DriverError::Unreachable(chain(&error)))?
    {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(DriverError::Refused(format!(
                "the BMC's answer has more than {MAX_ANSWER_BYTES} bytes"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(body);
    }
    let text = format!("the BMC answers {status}{}", message(&body));
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        );
    Err(if passes {
        DriverError::Unreachable(text)
    } else {
        DriverError::Refused(text)
    })
}

/// What the BMC says in its error, if it says something.
fn message(body: &[u8]) -> String {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = error["error"]["@Message.ExtendedInfo"][0]["Message"].as_str();
    match detail.or_else(|| error["error"]["message"].as_str()) {
        Some(text) => format!(": {}", quote(text)),
        None => String::new(),
    }
}

fn quote(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_QUOTE)
        .collect()
}

fn chain(error: &reqwest::Error) -> String {
    format!("the BMC does not answer{}", causes(error))
}

/// What is behind an error of the client, which by itself says little.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn power_state(system: &Value) -> Result<Option<PowerState>, DriverError> {
    match system["PowerState"].as_str() {
        Some("On") => Ok(Some(PowerState::On)),
        Some("Off") => Ok(Some(PowerState::Off)),
        Some("PoweringOn" | "PoweringOff" | "Paused") => Ok(None),
        other => Err(DriverError::Refused(format!(
            "the BMC tells no PowerState but {:?}",
            other.map(quote)
        ))),
    }
}

/// Where to post, and the first of our reset types that the BMC allows.
fn reset_action(system: &Value, want: PowerState) -> Result<(String, &'static str), DriverError> {
    let action = &system["Actions"]["#ComputerSystem.Reset"];
    let Some(target) = action["target"].as_str() else {
        return Err(DriverError::Refused(
            "the resource has no ComputerSystem.Reset action: is it a ComputerSystem?".into(),
        ));
    };
    let kinds: &[&'static str] = match want {
        PowerState::On => &["On", "ForceOn", "PushPowerButton"],
        PowerState::Off => &["ForceOff", "PowerOff", "PushPowerButton"],
    };
    let allowed = action["ResetType@Redfish.AllowableValues"].as_array();
    let fits = |kind: &str| {
        allowed.is_none_or(|allowed| allowed.iter().any(|value| value.as_str() == Some(kind)))
    };
    match kinds.iter().find(|kind| fits(kind)) {
        Some(kind) => Ok((target.to_owned(), kind)),
        None => Err(DriverError::Refused(format!(
            "the BMC allows none of the reset types {}",
            kinds.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_are_none_are_never_off() {
        let read = |state: Value| power_state(&json!({ "PowerState": state }));
        assert_eq!(read(json!("On")), Ok(Some(PowerState::On)));
        assert_eq!(read(json!("Off")), Ok(Some(PowerState::Off)));
        assert_eq!(read(json!("PoweringOff")), Ok(None));
        assert!(matches!(read(json!(null)), Err(DriverError::Refused(_))));
        assert!(matches!(read(json!("off")), Err(DriverError::Refused(_))));
    }

    #[test]
    fn reset_types_follow_what_the_bmc_allows() {
        let system = |allowed: Value| json!({ "Actions": { "#ComputerSystem.Reset": { "target": "/x", "ResetType@Redfish.AllowableValues": allowed } } });
        let kind =
            |allowed: Value, want| reset_action(&system(allowed), want).map(|(_, kind)| kind);
        assert_eq!(kind(json!(null), PowerState::Off), Ok("ForceOff"));
        assert_eq!(
            kind(json!(["On", "PushPowerButton"]), PowerState::Off),
            Ok("PushPowerButton")
        );
        assert_eq!(
            kind(json!(["ForceOn", "ForceOff"]), PowerState::On),
            Ok("ForceOn")
        );
        assert!(kind(json!([]), PowerState::On).is_err());
        assert!(reset_action(&json!({}), PowerState::On).is_err());
    }

    #[test]
    fn credentials_stay_with_their_host() {
        let base: Url = "https://bmc1/redfish/v1/Systems/1".parse().unwrap();
        assert_eq!(
            same_host(&base, "/a/b").unwrap().as_str(),
            "https://bmc1/a/b"
        );
        for path in [
            "https://evil/a",
            "//evil/a",
            "http://bmc1/a",
            "https://bmc1:444/a",
        ] {
            assert!(same_host(&base, path).is_err(), "{path}");
        }
    }
}
