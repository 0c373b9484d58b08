//! The module against a BMC that does what its script says.

use std::collections::VecDeque;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::event::Input;
use engine::state::Values;
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::target::Password;
use super::*;

pub(super) fn target(name: &str) -> Target {
    Target {
        name: name.parse().unwrap(),
        driver: Driver::Command,
        address: String::new(),
        username: "admin".into(),
        password: Password("secret".into()),
        insecure: false,
    }
}

/// A BMC that does what its script says.
#[derive(Default)]
struct FakeBmc {
    on: bool,
    /// Answers to give before the real one.
    answers: VecDeque<(StatusCode, serde_json::Value)>,
    resets: Vec<String>,
    /// Readings that still show the old state after a reset.
    lag: usize,
    pending: Option<bool>,
    ignores_resets: bool,
    sessions_only: bool,
    logins: usize,
}

type Bmc = Arc<Mutex<FakeBmc>>;

fn allowed(bmc: &FakeBmc, headers: &HeaderMap) -> bool {
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    // "admin:secret", RFC 7617.
    has("x-auth-token", "t0ken")
        || (!bmc.sessions_only && has("authorization", "Basic YWRtaW46c2VjcmV0"))
}

async fn system(State(bmc): State<Bmc>, headers: HeaderMap) -> Response {
    let mut bmc = bmc.lock().unwrap();
    if !allowed(&bmc, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if let Some(answer) = bmc.answers.pop_front() {
        return (answer.0, Json(answer.1)).into_response();
    }
    if let Some(on) = bmc.pending {
        if bmc.lag == 0 {
            (bmc.on, bmc.pending) = (on, None);
        } else {
            bmc.lag -= 1;
        }
    }
    Json(json!({
        "PowerState": if bmc.on { "On" } else { "Off" },
        "Actions": { "#ComputerSystem.Reset": {
            "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
            "ResetType@Redfish.AllowableValues": ["On", "ForceOff"],
        } },
    }))
    .into_response()
}

async fn reset(
    State(bmc): State<Bmc>,
    headers: HeaderMap,
    Json(body): Json<serde_json::Value>,
) -> Response {
    let mut bmc = bmc.lock().unwrap();
    if !allowed(&bmc, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let kind = body["ResetType"].as_str().unwrap().to_owned();
    if !bmc.ignores_resets {
        bmc.pending = Some(kind == "On");
    }
    bmc.resets.push(kind);
    StatusCode::NO_CONTENT.into_response()
}

async fn login(State(bmc): State<Bmc>, Json(body): Json<serde_json::Value>) -> Response {
    bmc.lock().unwrap().logins += 1;
    if body == json!({ "UserName": "admin", "Password": "secret" }) {
        return (StatusCode::CREATED, [("X-Auth-Token", "t0ken")]).into_response();
    }
    StatusCode::UNAUTHORIZED.into_response()
}

struct Rig {
    power: Power,
    heard: Receiver<Input>,
    bmc: Bmc,
    cfg: Values,
}

/// The module, and a BMC that is as `prepare` makes it: off and honest, if nothing else is said.
async fn rig(prepare: impl FnOnce(&mut FakeBmc)) -> Rig {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut bmc = FakeBmc::default();
    prepare(&mut bmc);
    let bmc = Arc::new(Mutex::new(bmc));
    let router = Router::new()
        .route("/redfish/v1/Systems/1", get(system))
        .route(
            "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
            post(reset),
        )
        .route("/redfish/v1/SessionService/Sessions", post(login))
        .with_state(Arc::clone(&bmc));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (reports, heard) = Reports::channel();
    let mut cfg = Values::default();
    for (at, value) in [
        ("/power/driver", "REDFISH"),
        (
            "/power/target",
            &format!("http://{address}/redfish/v1/Systems/1"),
        ),
        ("/power/username", "admin"),
        ("/power/password", "secret"),
    ] {
        cfg.set(at.parse().unwrap(), Some(Value::from(value)));
    }
    let limits = Limits {
        ask: Duration::from_secs(3),
        switch: Duration::from_secs(6),
        say_before: Duration::from_millis(500),
        tell_again: Duration::from_millis(2_500),
    };
    Rig {
        power: Power::with_limits(reports, None, limits).unwrap(),
        heard,
        bmc,
        cfg,
    }
}

impl Rig {
    fn fire(&self, name: &str, attempt: u64, dsc: &[(&str, &str)]) -> Fire {
        Fire {
            node: NodeId::from_bytes([1; 16]),
            name: "n1".parse().unwrap(),
            mutation: MutationId::new("power", name),
            attempt,
            deadline: None,
            cfg: self.cfg.clone(),
            dsc: dsc
                .iter()
                .map(|(at, value)| (at.parse().unwrap(), Value::from(*value)))
                .collect(),
        }
    }

    fn look(&self, phys: Option<&str>) {
        let node = NodeId::from_bytes([1; 16]);
        let target = Target::of(&"n1".parse().unwrap(), &self.cfg).unwrap();
        self.power.look(
            vec![Observed {
                node,
                target,
                phys: phys.map(str::to_owned),
            }],
            Duration::ZERO,
        );
    }

    /// The next report, as text.
    async fn report(&mut self) -> String {
        match tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await {
            Ok(Some(Input::Discover(discovery))) => {
                let Change { url, value } = &discovery.changes[0];
                format!(
                    "{url}={}",
                    value.as_ref().map(ToString::to_string).unwrap_or_default()
                )
            }
            Ok(Some(Input::MutationFailed { attempt, text, .. })) => {
                format!("failed {attempt}: {text}")
            }
            other => format!("{other:?}"),
        }
    }

    fn resets(&self) -> Vec<String> {
        self.bmc.lock().unwrap().resets.clone()
    }
}

#[test]
fn the_declaration_is_as_the_planner_wants_it() {
    let (reports, _heard) = Reports::channel();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let declaration = Power::new(reports, None).unwrap().declaration();
    for mutation in &declaration.mutations {
        let switches_off = mutation.mutates[0].to == Some(Value::from("POWER_OFF"));
        assert_eq!(
            mutation.disruptive,
            switches_off && mutation.id.name() != "UKtoOFF",
            "{}",
            mutation.id
        );
        assert!(mutation.timeout.is_some() && !mutation.fail_to.is_empty());
    }
}

#[test]
fn what_a_look_means() {
    use PowerState::{Off, On};
    for (phys, state, expect) in [
        (None, On, Some("POWER_ON")),
        (None, Off, Some("POWER_OFF")),
        (Some("POWER_ON"), On, None),
        (Some("POWER_ON"), Off, Some("POWER_OFF")),
        (Some("POWER_OFF"), On, Some("POWER_ON")),
        (Some("PHYS_HANG"), On, None),
        (Some("PHYS_HANG"), Off, Some("POWER_OFF")),
        (Some("PHYS_ERROR"), On, Some("POWER_ON")),
        (Some("PHYS_ERROR"), Off, Some("POWER_OFF")),
    ] {
        assert_eq!(news(phys, state), expect, "{phys:?} {state:?}");
    }
}

#[tokio::test]
async fn switching_reads_again_until_the_state_is_there() {
    let mut rig = rig(|bmc| bmc.lag = 2).await;
    rig.power.fire(rig.fire("OFFtoON", 1, &[]));
    assert_eq!(rig.report().await, "/PhysState=POWER_ON");
    assert_eq!(rig.resets(), ["On"]);
    rig.power.fire(rig.fire("ONtoOFF", 2, &[]));
    assert_eq!(rig.report().await, "/PhysState=POWER_OFF");
    assert_eq!(rig.resets(), ["On", "ForceOff"]);
}

#[tokio::test]
async fn a_machine_that_is_there_already_is_not_switched() {
    let mut rig = rig(|bmc| bmc.on = true).await;
    rig.power.fire(rig.fire("OFFtoON", 1, &[]));
    assert_eq!(rig.report().await, "/PhysState=POWER_ON");
    rig.power.fire(rig.fire("UKtoOFF", 2, &[]));
    assert_eq!(rig.report().await, "/PhysState=POWER_ON");
    assert!(rig.resets().is_empty());
}

#[tokio::test]
async fn a_node_in_sync_is_never_healed_by_cutting_its_power() {
    let mut rig = rig(|bmc| bmc.on = true).await;
    rig.power
        .fire(rig.fire("ERRORtoOFF", 1, &[("/RunState", "SYNC")]));
    assert_eq!(rig.report().await, "/PhysState=POWER_ON");
    assert!(rig.resets().is_empty());
}

#[tokio::test]
async fn sessions_serve_bmcs_without_basic_authentication() {
    let mut rig = rig(|bmc| bmc.sessions_only = true).await;
    rig.power.fire(rig.fire("OFFtoON", 1, &[]));
    assert_eq!(rig.report().await, "/PhysState=POWER_ON");
    assert_eq!(
        rig.bmc.lock().unwrap().logins,
        1,
        "one session serves many requests"
    );
}

#[tokio::test]
async fn wrong_credentials_are_said_at_once() {
    let mut rig = rig(|_| {}).await;
    rig.cfg
        .set(url("/power/password"), Some(Value::from("wrong")));
    rig.power.fire(rig.fire("OFFtoON", 7, &[]));
    let text = "the BMC does not accept user \"admin\" with this password";
    assert_eq!(rig.report().await, format!("/power/last_error={text}"));
    assert_eq!(rig.report().await, format!("failed 7: {text}"));
}

#[tokio::test]
async fn a_cfg_that_is_mended_mends_the_attempt() {
    let mut rig = rig(|_| {}).await;
    let good = rig.cfg.clone();
    rig.cfg.set(
        url("/power/target"),
        Some(Value::from("http://127.0.0.1:1/redfish/v1/Systems/1")),
    );
    rig.power.fire(rig.fire("OFFtoON", 1, &[]));
    let error = rig.report().await;
    assert!(
        error.starts_with("/power/last_error=the BMC does not answer"),
        "{error}"
    );
    rig.cfg = good;
    rig.look(None);
    assert_eq!(rig.report().await, "/power/last_error=");
    assert_eq!(rig.report().await, "/PhysState=POWER_ON");
}

#[tokio::test]
async fn f33_an_answer_that_is_no_state_never_means_off() {
    let busy = (
        StatusCode::SERVICE_UNAVAILABLE,
        json!({ "error": { "message": "starting" } }),
    );
    let mut rig = rig(|bmc| {
        bmc.on = true;
        bmc.answers = [busy].into();
    })
    .await;
    rig.look(Some("POWER_ON"));
    let error = rig.report().await;
    assert!(
        error.starts_with("/power/last_error=the BMC answers 503") && error.ends_with(": starting"),
        "{error}"
    );
    // The trouble is over: that is said, and nothing else. A look this soon would be left out.
    while rig
        .power
        .0
        .with(NodeId::from_bytes([1; 16]), |work| work.looking)
        != Some(false)
    {
        tokio::task::yield_now().await;
    }
    rig.look(Some("POWER_ON"));
    assert_eq!(rig.report().await, "/power/last_error=");
    rig.power.fire(rig.fire("UKtoOFF", 1, &[]));
    assert_eq!(rig.report().await, "/PhysState=POWER_ON");
}

#[tokio::test]
async fn looks_find_power_that_changed_by_itself() {
    let mut rig = rig(|_| {}).await;
    rig.look(Some("POWER_ON"));
    assert_eq!(rig.report().await, "/PhysState=POWER_OFF");
}

#[tokio::test]
async fn an_interrupted_attempt_says_nothing_more() {
    let mut rig = rig(|bmc| bmc.ignores_resets = true).await;
    let node = NodeId::from_bytes([1; 16]);
    rig.power.fire(rig.fire("OFFtoON", 1, &[]));
    while rig.resets().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    // A look while the attempt is under way is left out, another attempt's interrupt ignored.
    rig.look(Some("POWER_ON"));
    rig.power
        .interrupt(node, &MutationId::new("power", "OFFtoON"), 9);
    assert!(
        rig.power
            .0
            .with(node, |work| work.firing.is_some() && !work.looking)
            .unwrap()
    );
    rig.power
        .interrupt(node, &MutationId::new("power", "OFFtoON"), 1);
    rig.bmc.lock().unwrap().on = true;
    sleep(REREAD * 3).await;
    assert!(rig.heard.try_recv().is_err());
    assert_eq!(rig.resets(), ["On"]);
}

#[tokio::test]
async fn the_command_driver_needs_its_programs() {
    let mut rig = rig(|_| {}).await;
    rig.cfg
        .set(url("/power/driver"), Some(Value::from("COMMAND")));
    rig.power.fire(rig.fire("OFFtoON", 1, &[]));
    assert!(rig.report().await.contains("has no power.command"));
    rig.cfg.set(url("/power/driver"), None);
    assert!(rig.report().await.starts_with("failed 1: "));
    rig.power.fire(rig.fire("OFFtoON", 2, &[]));
    assert_eq!(
        rig.report().await,
        "failed 2: the node has no /power/driver"
    );
}

#[test]
fn a_bmc_that_does_not_answer_is_left_alone_ever_longer() {
    let poll = Duration::from_secs(5);
    let rest_after = |times| {
        let mut work = Work {
            unanswered: (times, None),
            ..Work::default()
        };
        work.looked(poll);
        work.unanswered
            .1
            .map(|until| until.duration_since(Instant::now()).as_secs_f64().round() as u64)
    };
    assert_eq!(
        [0, 1, 2, 3, 10, u32::MAX].map(rest_after),
        [None, Some(10), Some(20), Some(40), Some(60), Some(60)]
    );
}

#[tokio::test]
async fn a_machine_that_takes_orders_and_does_nothing_is_left_to_the_deadline() {
    let mut rig = rig(|bmc| bmc.ignores_resets = true).await;
    let node = NodeId::from_bytes([1; 16]);
    rig.power.fire(rig.fire("OFFtoON", 1, &[]));
    while rig.power.0.with(node, |work| work.firing.is_some()) == Some(true) {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(
        rig.heard.try_recv().is_err(),
        "no failure is reported: the engine says that it hangs"
    );
    let resets = rig.resets();
    assert!(
        (2..=4).contains(&resets.len()),
        "told again, but not all the time: {resets:?}"
    );
}

#[tokio::test]
async fn f33_a_silent_bmc_is_a_failure_with_a_reason() {
    let mut rig = rig(|_| {}).await;
    rig.cfg.set(
        url("/power/target"),
        Some(Value::from("http://127.0.0.1:1/redfish/v1/Systems/1")),
    );
    rig.power.fire(rig.fire("UKtoOFF", 3, &[]));
    assert!(
        rig.report()
            .await
            .starts_with("/power/last_error=the BMC does not answer")
    );
    let failed = rig.report().await;
    assert!(
        failed.starts_with("failed 3: the BMC does not answer"),
        "{failed}"
    );
}
