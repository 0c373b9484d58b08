//! A module in Rust, as small as one can be: it sets `/Platform` of nodes to "tagged" when asked to (proto/kraken/v1/module.proto).
//!
//! The head's tests run it, and with `misbehave` in its configuration it does what modules must not: they check that nobody else is hurt
//! (fault F32). `krakenctl module new NAME --lang rust` writes the like without that part.

use std::pin::Pin;
use std::time::Duration;

use proto::v1::module_server::{Module, ModuleServer};
use proto::v1::{self, FromModule, ToModule, from_module, to_module, value};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

type Answers = Pin<Box<dyn tokio_stream::Stream<Item = Result<FromModule, Status>> + Send>>;

struct Tagger {
    health: HealthReporter,
}

#[tonic::async_trait]
impl Module for Tagger {
    type ServeStream = Answers;

    async fn serve(
        &self,
        request: Request<Streaming<ToModule>>,
    ) -> Result<Response<Answers>, Status> {
        let (out, answers) = mpsc::channel(64);
        tokio::spawn(talk(request.into_inner(), out, self.health.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// Answers the host until it hangs up.
async fn talk(
    mut host: Streaming<ToModule>,
    out: mpsc::Sender<Result<FromModule, Status>>,
    health: HealthReporter,
) {
    let (mut at_ping, mut tag) = (AtPing::Answer, String::new());
    let mut tells = Tells::Nothing;
    let say = |kind| {
        let out = out.clone();
        // The host may be gone.
        async move { drop(out.send(Ok(FromModule { kind: Some(kind) })).await) }
    };
    while let Ok(Some(message)) = host.message().await {
        match message.kind {
            Some(to_module::Kind::Hello(hello)) => {
                let config = Config(hello.config.unwrap_or_default());
                config.tag().clone_into(&mut tag);
                let declaration = v1::Declaration {
                    reads: config.reads(),
                    ..declaration(hello.module, &tag)
                };
                say(from_module::Kind::Declare(declaration)).await;
                if config.misbehaves("tell") {
                    tells = Tells::Once;
                }
                at_ping = misbehave(&config, &out, &health).await;
            }
            Some(to_module::Kind::Mutate(mutate)) if !matches!(tells, Tells::Nothing) => {
                let secret = mutate.cfg.unwrap_or_default().values;
                let secret = secret.iter().find(|value| value.url.ends_with("password"));
                let secret = secret.and_then(|value| value.value.as_ref());
                let text = format!("told {}", secret.map_or("nothing", text_of));
                eprintln!("stderr: {text}");
                if let Tells::All = tells {
                    std::process::exit(1);
                }
                tells = Tells::All;
                for node_id in [Vec::new(), mutate.node_id.clone()] {
                    say(from_module::Kind::Log(v1::ModuleLog {
                        level: v1::module_log::Level::Info.into(),
                        text: text.clone(),
                        node_id,
                    }))
                    .await;
                }
                say(from_module::Kind::Failed(v1::MutationFailed {
                    text,
                    node_id: mutate.node_id,
                    mutation: mutate.mutation,
                    attempt: mutate.attempt,
                }))
                .await;
            }
            Some(to_module::Kind::Mutate(mutate)) => {
                let answer = match mutate.mutation.as_str() {
                    "TAG" => from_module::Kind::Discovery(v1::Discovery {
                        node_id: mutate.node_id,
                        values: vec![change("/Platform", &tag)],
                    }),
                    other => from_module::Kind::Failed(v1::MutationFailed {
                        text: format!("there is no mutation {other}"),
                        node_id: mutate.node_id,
                        mutation: mutate.mutation,
                        attempt: mutate.attempt,
                    }),
                };
                say(answer).await;
            }
            Some(to_module::Kind::Ping(ping)) => match at_ping {
                AtPing::Answer => say(from_module::Kind::Pong(ping)).await,
                AtPing::Ignore => {}
                AtPing::Hang => drop(nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)),
            },
            Some(to_module::Kind::Refused(refused)) => eprintln!("refused: {}", refused.text),
            Some(to_module::Kind::Config(config)) => {
                let text = config.values.get("greeting").map_or("", text_of);
                let line = v1::ModuleLog {
                    level: v1::module_log::Level::Info.into(),
                    text: format!("greeting is {text:?}"),
                    node_id: Vec::new(),
                };
                say(from_module::Kind::Log(line)).await;
            }
            _ => {}
        }
    }
}

/// What the host says in its configuration.
struct Config(v1::ModuleConfig);

impl Config {
    fn get(&self, key: &str) -> &str {
        self.0.values.get(key).map_or("", text_of)
    }

    fn misbehaves(&self, how: &str) -> bool {
        let until = self.get("until");
        self.get("misbehave") == how && !until.is_empty() && !std::path::Path::new(until).exists()
    }

    /// What it wants to see.
    fn reads(&self) -> Vec<String> {
        let reads = self.get("reads");
        reads.split_whitespace().map(str::to_owned).collect()
    }

    /// What nodes are tagged with.
    fn tag(&self) -> &str {
        match self.get("tag") {
            "" => "tagged",
            tag => tag,
        }
    }
}

fn declaration(module: String, tag: &str) -> v1::Declaration {
    v1::Declaration {
        api_version: 1,
        module,
        mutations: vec![v1::Mutation {
            name: "TAG".into(),
            context: v1::MutationContext::Child.into(),
            mutates: vec![v1::UrlChange {
                url: "/Platform".into(),
                from: vec![v1::OptionalValue::default()],
                to: Some(v1::OptionalValue {
                    value: Some(text(tag)),
                }),
            }],
            timeout_ms: 60_000,
            ..v1::Mutation::default()
        }],
        discoverables: vec!["/host".into()],
        version: "example".into(),
        ..v1::Declaration::default()
    }
}

fn text(text: &str) -> v1::Value {
    v1::Value {
        kind: Some(value::Kind::TextValue(text.into())),
    }
}

fn text_of(value: &v1::Value) -> &str {
    match &value.kind {
        Some(value::Kind::TextValue(text)) => text,
        _ => "",
    }
}

fn change(url: &str, value: &str) -> v1::ValueChange {
    v1::ValueChange {
        url: url.into(),
        value: Some(text(value)),
    }
}

/// What it says of the secrets that it was told: at the first mutation everywhere, at the second with its last breath.
enum Tells {
    Nothing,
    Once,
    All,
}

/// What is done when a ping comes.
#[derive(Clone, Copy)]
enum AtPing {
    Answer,
    Ignore,
    Hang,
}

/// What modules must not do. With `until` the name of a file: only as long as there is no such file.
async fn misbehave(
    config: &Config,
    out: &mpsc::Sender<Result<FromModule, Status>>,
    health: &HealthReporter,
) -> AtPing {
    let until = std::path::PathBuf::from(config.get("until"));
    if until.as_os_str().is_empty() || until.exists() {
        return AtPing::Answer;
    }
    let report = |values| {
        from_module::Kind::Discovery(v1::Discovery {
            node_id: Vec::new(),
            values,
        })
    };
    match config.get("misbehave") {
        "mute" => return AtPing::Ignore,
        "unwell" => {
            health
                .set_service_status("", ServingStatus::NotServing)
                .await;
            let health = health.clone();
            tokio::spawn(async move {
                while !until.exists() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                health.set_service_status("", ServingStatus::Serving).await;
            });
        }
        "crash" => std::process::abort(),
        "exit" => std::process::exit(0),
        // Not at once: what it declared has to be on its way.
        "hang" => return AtPing::Hang,
        "eat" => {
            let meal = vec![1_u8; 200 << 20];
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(meal);
        }
        "fork" => {
            // Few, for the limit may not hold: it is what is tested.
            for _ in 0..30 {
                let _ = std::process::Command::new("sleep").arg("300").spawn();
            }
        }
        "garbage" => {
            for _ in 0..200 {
                let kind = Some(report(vec![change("/PhysState", "POWER_OFF")]));
                let _ = out.send(Ok(FromModule { kind })).await;
            }
        }
        "large" => {
            let kind = Some(report(vec![change("/host/kernel", &"x".repeat(2 << 20))]));
            let _ = out.send(Ok(FromModule { kind })).await;
        }
        "flood" => {
            for round in 0..100_000 {
                let kind = Some(report(vec![change("/host/kernel", &round.to_string())]));
                if out.send(Ok(FromModule { kind })).await.is_err() {
                    break;
                }
            }
        }
        _ => {}
    }
    AtPing::Answer
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::var("KRAKEN_MODULE_SOCKET")?;
    let listener = UnixListenerStream::new(UnixListener::bind(path)?);
    let (health, health_service) = tonic_health::server::health_reporter();
    tonic::transport::Server::builder()
        .add_service(health_service)
        .add_service(ModuleServer::new(Tagger { health }))
        .serve_with_incoming(listener)
        .await?;
    Ok(())
}
