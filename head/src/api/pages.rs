//! Pages for monitoring: `/metrics` (Prometheus), `/healthz` (the process works), `/readyz` (it can do its job).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::driver::Handle;
use engine::engine::RailsReport;
use engine::state::core;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::timeout;

use crate::store::StoreHealth;

/// An engine that does not answer within this time does not do its job: it works in milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Run states that are always shown, so that graphs start at zero.
const RUN_STATES: [&str; 4] = ["UNKNOWN", core::INIT, core::SYNC, core::ERROR];

/// What the pages show.
#[derive(Clone)]
pub(crate) struct Pages {
    /// The engine.
    pub(crate) handle: Handle,
    /// The store.
    pub(crate) store: StoreHealth,
    /// All metrics.
    pub(crate) metrics: PrometheusHandle,
    /// The gauges of guard rails.
    pub(crate) shown: RailGauges,
}

/// A gauge that was shown once goes back to 0 instead of away, so that graphs and alerts see the end.
#[derive(Clone, Default)]
pub(crate) struct RailGauges(Arc<Mutex<BTreeMap<Series, f64>>>);

/// A gauge's name, its label, and the label's value.
type Series = (&'static str, &'static str, String);

impl RailGauges {
    fn guard_rails(&self, rails: RailsReport) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.values_mut().for_each(|value| *value = 0.0);
        let mut set = |name, label, of: String, value: usize| {
            // Counts of nodes: exact in a float.
            shown.insert((name, label, of), value as f64);
        };
        for (kind, count) in rails.holds {
            set("kraken_holds", "kind", kind.to_owned(), count);
        }
        for (limit, count) in rails.slots {
            set("kraken_governor_slots", "limit", limit, count);
        }
        for (gate, count) in rails.waiting {
            set("kraken_governor_waiting", "at", gate, count);
        }
        for mutation in rails.open_breakers {
            set("kraken_breaker_open", "mutation", mutation.to_string(), 1);
        }
        for ((name, label, of), value) in &*shown {
            metrics::gauge!(*name, *label => of.clone()).set(*value);
        }
        metrics::gauge!("kraken_parked").set(rails.parked as f64);
        metrics::gauge!("kraken_mass_failure").set(if rails.mass_failure { 1.0 } else { 0.0 });
    }
}

impl Pages {
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(show_metrics))
            .route("/healthz", get(show_health))
            .route("/readyz", get(show_ready))
            .with_state(self)
    }

    async fn engine_answers(&self) -> bool {
        matches!(
            timeout(
                ANSWER_TIMEOUT,
                self.handle.query(|engine, _| engine.revision())
            )
            .await,
            Ok(Ok(_))
        )
    }
}

async fn show_metrics(State(pages): State<Pages>) -> Response {
    let counted = pages.handle.query(|engine, _| {
        let mut by_state: BTreeMap<String, u32> = RUN_STATES
            .iter()
            .map(|state| ((*state).to_owned(), 0))
            .collect();
        for node in engine.tree().iter() {
            let state = node.dsc.text(core::RUN_STATE).unwrap_or(RUN_STATES[0]);
            *by_state.entry(state.to_owned()).or_default() += 1;
        }
        let rails = engine.rails_report();
        let frozen = (engine.frozen(), engine.freezes().groups.len());
        (by_state, engine.revision(), frozen, rails)
    });
    if let Ok(Ok((by_state, revision, frozen, rails))) = timeout(ANSWER_TIMEOUT, counted).await {
        pages.shown.guard_rails(rails);
        for (state, count) in by_state {
            metrics::gauge!("kraken_nodes", "run_state" => state).set(count);
        }
        // A float holds every revision that a cluster reaches in its life.
        metrics::gauge!("kraken_revision").set(revision as f64);
        metrics::gauge!("kraken_frozen").set(if frozen.0 { 1.0 } else { 0.0 });
        metrics::gauge!("kraken_frozen_groups").set(frozen.1 as f64);
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, pages.metrics.render()).into_response()
}

async fn show_health(State(pages): State<Pages>) -> Response {
    match pages.engine_answers().await {
        true => (StatusCode::OK, "ok\n").into_response(),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the engine does not answer\n",
        )
            .into_response(),
    }
}

async fn show_ready(State(pages): State<Pages>) -> Response {
    if !pages.engine_answers().await {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the engine does not answer\n",
        )
            .into_response();
    }
    match pages.store.trouble() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("writes are refused: {why}\n"),
        )
            .into_response(),
    }
}
