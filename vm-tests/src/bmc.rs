//! A virtual BMC: the part of Redfish (DMTF DSP0266, ComputerSystem 1.x) that switches one machine, with basic auth and sessions.
//!
//! One listener per machine, as in a rack. `On` starts a QEMU process, `ForceOff` kills it; every request is counted by type
//! before it is judged, so a test can prove that none was sent. `GET /lab/resets` shows the counts and is no part of Redfish.
//! Leaves out TLS, events, and all that does not switch power.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::vm::Machine;

/// Who may switch machines in the lab.
pub const USER: &str = "operator";
/// The lab's password: machines that exist only inside a namespace need no better one.
pub const PASSWORD: &str = "lab-only";

/// A BMC answers before the machine has changed; small, but enough that a client must read the state again.
const SWITCH_DELAY: Duration = Duration::from_millis(300);

const TOKEN: &str = "lab-session-token";

const RESET_TYPES: [&str; 5] = [
    "On",
    "ForceOff",
    "GracefulShutdown",
    "ForceRestart",
    "PushPowerButton",
];

/// The BMC's HTTP service for `machine`.
pub fn router(machine: Machine) -> Router {
    Router::new()
        .route("/redfish/v1", get(root))
        .route("/redfish/v1/", get(root))
        .route("/redfish/v1/SessionService/Sessions", post(login))
        .route(
            "/redfish/v1/SessionService/Sessions/{id}",
            axum::routing::delete(|| async { StatusCode::NO_CONTENT }),
        )
        .route("/redfish/v1/Systems", get(systems))
        .route("/redfish/v1/Systems/{name}", get(system))
        .route(
            "/redfish/v1/Systems/{name}/Actions/ComputerSystem.Reset",
            post(reset),
        )
        .route("/lab/resets", get(resets))
        .with_state(Arc::new(machine))
}

type Bmc = State<Arc<Machine>>;

async fn root() -> Json<Value> {
    Json(json!({
        "@odata.id": "/redfish/v1/",
        "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot",
        "Id": "RootService",
        "Name": "Kraken lab BMC",
        "RedfishVersion": "1.6.0",
        "Systems": { "@odata.id": "/redfish/v1/Systems" },
        "Links": { "Sessions": { "@odata.id": "/redfish/v1/SessionService/Sessions" } },
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Login {
    user_name: String,
    password: String,
}

async fn login(Json(login): Json<Login>) -> Response {
    if login.user_name != USER || login.password != PASSWORD {
        return problem(
            StatusCode::UNAUTHORIZED,
            "NoValidSession",
            "wrong user or password",
        );
    }
    let place = "/redfish/v1/SessionService/Sessions/1";
    (
        StatusCode::CREATED,
        [("X-Auth-Token", TOKEN), ("Location", place)],
        Json(json!({ "@odata.id": place, "Id": "1", "UserName": USER })),
    )
        .into_response()
}

async fn systems(State(machine): Bmc, headers: HeaderMap) -> Response {
    if let Some(refusal) = refuse(&headers) {
        return refusal;
    }
    let id = format!("/redfish/v1/Systems/{}", machine.spec().name);
    Json(json!({
        "@odata.id": "/redfish/v1/Systems",
        "Members": [{ "@odata.id": id }],
        "Members@odata.count": 1,
    }))
    .into_response()
}

async fn system(State(machine): Bmc, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refuse(&headers).or_else(|| unknown(&machine, &name)) {
        return refusal;
    }
    let id = format!("/redfish/v1/Systems/{name}");
    let power = if machine.pid().is_some() { "On" } else { "Off" };
    Json(json!({
        "@odata.id": id,
        "@odata.type": "#ComputerSystem.v1_5_0.ComputerSystem",
        "Id": name,
        "Name": name,
        "UUID": machine.spec().uuid(),
        "SerialNumber": machine.spec().serial(),
        "Manufacturer": "Kraken",
        "Model": "Lab",
        "PowerState": power,
        "Status": { "State": if power == "On" { "Enabled" } else { "Disabled" }, "Health": "OK" },
        "Actions": { "#ComputerSystem.Reset": {
            "target": format!("{id}/Actions/ComputerSystem.Reset"),
            "ResetType@Redfish.AllowableValues": RESET_TYPES,
        } },
    }))
    .into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reset {
    reset_type: String,
}

async fn reset(
    State(machine): Bmc,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(reset): Json<Reset>,
) -> Response {
    if let Some(refusal) = refuse(&headers).or_else(|| unknown(&machine, &name)) {
        return refusal;
    }
    let kind = reset.reset_type.as_str();
    if !RESET_TYPES.contains(&kind) {
        return problem(
            StatusCode::BAD_REQUEST,
            "ActionParameterNotSupported",
            "unknown ResetType",
        );
    }
    machine.count_reset(kind);
    eprintln!("supervisor: BMC of {name}: {kind}");
    let is_on = machine.pid().is_some();
    if is_on == (kind == "On") && kind != "ForceRestart" {
        return problem(
            StatusCode::CONFLICT,
            "ResourceInUse",
            "the machine is in that power state already",
        );
    }
    let kind = kind.to_owned();
    let machine = Arc::clone(&machine);
    tokio::spawn(async move {
        tokio::time::sleep(SWITCH_DELAY).await;
        if let Err(error) = switch(&machine, &kind).await {
            eprintln!(
                "supervisor: BMC of {}: {kind}: {error:#}",
                machine.spec().name
            );
        }
    });
    StatusCode::NO_CONTENT.into_response()
}

async fn switch(machine: &Machine, kind: &str) -> anyhow::Result<()> {
    match kind {
        "On" => machine.power_on(),
        "ForceOff" => {
            machine.power_off();
            Ok(())
        }
        "ForceRestart" => {
            machine.power_off();
            machine.wait_off().await;
            machine.power_on()
        }
        _ => machine.press_button().await,
    }
}

async fn resets(State(machine): Bmc) -> Json<Value> {
    Json(json!(machine.resets()))
}

/// A response for callers without credentials; none: they may go on.
fn refuse(headers: &HeaderMap) -> Option<Response> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let by_session = text("x-auth-token") == Some(TOKEN);
    let by_password = text("authorization")
        .and_then(|value| value.strip_prefix("Basic "))
        .is_some_and(|given| given == base64(format!("{USER}:{PASSWORD}").as_bytes()));
    if by_session || by_password {
        return None;
    }
    let mut response = problem(StatusCode::UNAUTHORIZED, "NoValidSession", "log in first");
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        header::HeaderValue::from_static("Basic realm=\"lab\""),
    );
    Some(response)
}

fn unknown(machine: &Machine, name: &str) -> Option<Response> {
    (machine.spec().name != name).then(|| {
        problem(
            StatusCode::NOT_FOUND,
            "ResourceMissingAtURI",
            "this BMC has no such system",
        )
    })
}

fn problem(status: StatusCode, id: &str, text: &str) -> Response {
    let body = json!({ "error": {
        "code": format!("Base.1.8.{id}"),
        "message": text,
        "@Message.ExtendedInfo": [{ "MessageId": format!("Base.1.8.{id}"), "Message": text }],
    } });
    (status, Json(body)).into_response()
}

/// RFC 4648, section 4; only for the one header that is compared.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (group >> (18 - 6 * digit)) & 0x3f;
            let known = digit <= chunk.len();
            out.push(if known {
                char::from(DIGITS[index as usize])
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648_section_10() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn callers_need_a_session_or_the_password() {
        let with = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            refuse(&headers).is_none()
        };
        assert!(refuse(&HeaderMap::new()).is_some());
        assert!(with("x-auth-token", TOKEN));
        assert!(!with("x-auth-token", "other"));
        assert!(with(
            "authorization",
            &format!("Basic {}", base64(b"operator:lab-only"))
        ));
        assert!(!with("authorization", "Basic b3BlcmF0b3I6"));
    }
}
