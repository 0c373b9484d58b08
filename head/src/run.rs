//! A head's life: start in order, run until told to stop, end within five seconds.
//!
//! - `start` puts the parts together.
//! - `vital` are the tasks without which a head is none: if one of them ends, the process says so and ends too, and whoever supervises
//!   it starts it again. Requests and connections have tasks of their own, whose panics end them alone.

mod start;
mod vital;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use start::Running;

/// The servers have this long to end; the three times together stay under five seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The store's last transaction.
const STORE_TIMEOUT: Duration = Duration::from_millis(1_200);

/// Time for what is left when everything that matters has ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

const _: () = assert!(
    STOP_TIMEOUT.as_millis() + STORE_TIMEOUT.as_millis() + SHUTDOWN_TIMEOUT.as_millis() < 5_000
);

/// Runs a head until SIGTERM or SIGINT.
pub(crate) fn main(config: Config, file: &Path) -> ExitCode {
    start_log(&config);
    log_panics();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        error!("a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(config, file));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    match result {
        Ok(()) => {
            info!("kraken-head has stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(config: &Config) {
    let mut filter =
        EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // Says as ERROR what the power module says of each BMC, once, with its name.
    if let Ok(quiet) = "rustls_platform_verifier=off".parse() {
        filter = filter.add_directive(quiet);
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second subscriber in one process is a test's; its choice stands.
    let _ = match config.log.json {
        true => log.json().flatten_event(true).try_init(),
        false => log
            .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
            .try_init(),
    };
}

/// The line that a panic leaves; what it ends, `vital` knows.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let payload = panic.payload();
        let text = (payload.downcast_ref::<&str>().copied())
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no text");
        error!(place, text, "panic: this is a bug in kraken-head");
        metrics::counter!("kraken_panics_total").increment(1);
    }));
}

async fn run(config: Config, file: &Path) -> anyhow::Result<()> {
    let mut running = start::start(&config, file).await?;
    let ended = wait(&mut running).await;
    running.stop.cancel();
    // The engine queues what it wants to remember when it ends.
    let (boot_plane, modules) = (&running.boot_plane, &running.modules);
    let engine = running.vital.join("engine");
    let servers = async { tokio::join!(boot_plane.wait(), modules.ended(), engine) };
    if timeout(STOP_TIMEOUT, servers).await.is_err() {
        warn!("the boot plane, a module or the engine does not end in time");
    }
    // What is queued becomes durable first.
    running.store.stop();
    if timeout(STORE_TIMEOUT, running.vital.join("store"))
        .await
        .is_err()
    {
        warn!(
            "the store does not end in time: what it was asked for last may be lost, and was not acknowledged"
        );
    }
    // A socket without a server behind it would make clients wait.
    let _ = std::fs::remove_file(config.run_dir.join("api.sock"));
    ended
}

/// Until a signal, or the end of a vital task, which only a bug can bring about.
async fn wait(running: &mut Running) -> anyhow::Result<()> {
    let watch = |kind| signal(kind).context("cannot watch for signals");
    let (mut term, mut int, mut hup) = (
        watch(SignalKind::terminate())?,
        watch(SignalKind::interrupt())?,
        watch(SignalKind::hangup())?,
    );
    loop {
        tokio::select! {
            () = heard(&mut term) => return told("SIGTERM"),
            () = heard(&mut int) => return told("SIGINT"),
            () = heard(&mut hup) => {
                let reloader = running.reloader.clone();
                // It says in the log how it went.
                tokio::spawn(async move { drop(reloader.reload().await) });
            }
            error = running.vital.ended() => return Err(error),
        }
    }
}

fn told(signal: &str) -> anyhow::Result<()> {
    info!(signal, "stopping");
    Ok(())
}

async fn heard(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
