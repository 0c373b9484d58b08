//! The head's configuration: one TOML file, overridden by `KRAKEN_*`, read once into checked types (DESIGN 7).
//!
//! Everything that can be wrong is reported at once, with file and line. What the values mean for the machine (does the interface exist,
//! can the folder be written) is checked by whoever uses them.

mod document;
mod governor;
mod modules;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::engine::{CostSource, Guards};
use engine::state::NodeName;
use engine::sync::SyncConfig;

use crate::boot::ClientArch;
use crate::store::Retention;
use document::{Document, MAX_CONFIG_BYTES, Raw};
pub(crate) use document::{Origin, Problem, Shown};
pub(crate) use modules::{Limits, ModuleConfig, is_name};

/// Where the file lies when nobody says so.
pub(crate) const DEFAULT_FILE: &str = "/etc/kraken/head.toml";

/// Most interfaces that one head serves.
const MAX_INTERFACES: usize = 64;

/// The checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Name of the cluster, for people.
    pub(crate) cluster: String,
    /// This head's node name.
    pub(crate) name: NodeName,
    /// What must survive.
    pub(crate) state_dir: PathBuf,
    /// Sockets.
    pub(crate) run_dir: PathBuf,
    /// Cluster keys, made by `kraken-image keys`.
    pub(crate) keys_dir: PathBuf,
    /// Logs.
    pub(crate) log: Log,
    /// The admin API beside the unix socket.
    pub(crate) api: Api,
    /// The boot plane.
    pub(crate) boot: Boot,
    /// Sync with agents.
    pub(crate) sync: Sync,
    /// Planner and healing.
    pub(crate) engine: Healing,
    /// How much may be disrupted.
    pub(crate) guards: Guards,
    /// Power control.
    pub(crate) power: Power,
    /// Modules out of process.
    pub(crate) modules: Vec<ModuleConfig>,
    /// How much history is kept.
    pub(crate) history: Retention,
    /// What was read, for `config show`.
    pub(crate) shown: Vec<Shown>,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// JSON lines instead of text.
    pub(crate) json: bool,
    /// Filter, such as `info` or `info,head::modules=debug`.
    pub(crate) level: String,
}

/// `[api]`.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    /// TCP address, with tokens.
    pub(crate) listen: Option<SocketAddr>,
}

/// `[boot]`.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    /// Interfaces on which machines boot; none: no boot plane.
    pub(crate) interfaces: Vec<String>,
    /// Port of the boot HTTP server.
    pub(crate) http_port: u16,
    /// Kernel image.
    pub(crate) kernel: PathBuf,
    /// Layer 0.
    pub(crate) initramfs: PathBuf,
    /// Kernel arguments for every node.
    pub(crate) append: String,
    /// First-stage loaders.
    pub(crate) loaders: Vec<(ClientArch, PathBuf)>,
    /// How long a grant is valid.
    pub(crate) window: Duration,
}

/// `[sync]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sync {
    /// Address to listen on.
    pub(crate) address: IpAddr,
    /// TCP and UDP port; 0: any.
    pub(crate) port: u16,
    /// Timers.
    pub(crate) timers: SyncConfig,
}

/// `[engine]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Healing {
    /// How long a silent node is left alone before anything disruptive happens to it.
    pub(crate) silent_hold: Duration,
    /// Attempts of one step before the node is parked.
    pub(crate) attempts: u32,
    /// Independent steps of one node run side by side.
    pub(crate) parallel: bool,
    /// Where the costs of mutations come from.
    pub(crate) costs: CostSource,
}

/// `[power]`.
#[derive(Clone, Debug)]
pub(crate) struct Power {
    /// Time between two looks at the power state of one node.
    pub(crate) poll: Duration,
    /// Programs of the COMMAND driver.
    pub(crate) command: Option<PowerCommand>,
}

/// Argument vectors with `{node}` and `{target}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PowerCommand {
    /// Switches on.
    pub(crate) on: Vec<String>,
    /// Switches off.
    pub(crate) off: Vec<String>,
    /// Prints `on` or `off`.
    pub(crate) status: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is far too large.
    #[error("the configuration {} is larger than {MAX_CONFIG_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// What it says does not do.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
}

impl Config {
    /// Reads and checks a file, with the process's environment over it.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLarge {
                path: path.to_path_buf(),
            });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(path, &text, &|name| std::env::var(name).ok())
    }

    /// Checks a text.
    pub(crate) fn parse(
        path: &Path,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut doc = Document::parse(path, text, env).map_err(ConfigError::Problems)?;
        let cluster = doc.get("cluster", |raw| raw.text().map(str::to_owned));
        if cluster.is_none() {
            doc.missing(
                "cluster",
                "give the cluster a name, such as cluster = \"lab\"",
            );
        }
        let name = doc.get_or("name", default_name(), "\"head\"", |raw| {
            raw.text()?
                .parse::<NodeName>()
                .map_err(|error| error.to_string())
        });
        let state_dir = path_or(&mut doc, "state_dir", Path::new("/var/lib/kraken"));
        let run_dir = path_or(&mut doc, "run_dir", Path::new("/run/kraken"));
        let keys_dir = path_or(&mut doc, "keys_dir", &state_dir.join("keys"));
        let mut config = Self {
            cluster: cluster.unwrap_or_default(),
            name,
            state_dir,
            run_dir,
            keys_dir,
            log: log(&mut doc),
            api: Api {
                listen: doc.get("api.listen", |raw| {
                    raw.text()?.parse().map_err(|_| {
                        "an address and port are wanted, such as \"127.0.0.1:3141\"".to_owned()
                    })
                }),
            },
            boot: boot(&mut doc),
            sync: sync(&mut doc),
            engine: healing(&mut doc),
            guards: governor::guards(&mut doc),
            power: power(&mut doc),
            modules: modules::read(&mut doc),
            history: history(&mut doc),
            shown: Vec::new(),
        };
        let (shown, problems) = doc.finish();
        config.shown = shown;
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Problems(problems))
        }
    }

    /// Files and folders that a start would miss. No error: the configuration may be meant for another machine.
    pub(crate) fn missing_files(&self) -> Vec<String> {
        let loaders = self.boot.loaders.iter();
        let boot = [
            ("boot.kernel", &self.boot.kernel),
            ("boot.initramfs", &self.boot.initramfs),
        ];
        let boot = boot
            .into_iter()
            .filter(|_| !self.boot.interfaces.is_empty());
        std::iter::once(("keys_dir", &self.keys_dir))
            .chain(boot)
            .chain(loaders.map(|(_, path)| ("boot.loaders", path)))
            .filter(|(_, path)| !path.exists())
            .map(|(key, path)| format!("{key}: {} is not there", path.display()))
            .collect()
    }

    /// The effective values as TOML, each with where it came from.
    pub(crate) fn show(&self, file: &Path) -> String {
        let mut out = String::new();
        for Shown { key, value, origin } in &self.shown {
            let origin = match origin {
                Origin::Line(line) => format!("{}:{line}", file.display()),
                Origin::Env(name) => name.clone(),
                Origin::Default => "default".into(),
            };
            out.push_str(&format!("{key} = {value}  # {origin}\n"));
        }
        out
    }
}

fn default_name() -> NodeName {
    // A constant that the type's own rules accept; see `tests::the_default_name_is_a_name`.
    "head"
        .parse()
        .unwrap_or_else(|_| unreachable!("\"head\" is a host name"))
}

fn path_or(doc: &mut Document<'_>, key: &str, default: &Path) -> PathBuf {
    doc.get_or(
        key,
        default.to_path_buf(),
        format!("{:?}", default.display().to_string()),
        read_path,
    )
}

fn read_path(raw: &Raw) -> Result<PathBuf, String> {
    let path = PathBuf::from(raw.text()?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("an absolute path is wanted".into())
    }
}

fn log(doc: &mut Document<'_>) -> Log {
    let json = doc.get_or("log.format", false, "\"text\"", |raw| match raw.text()? {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err("\"text\" or \"json\" is wanted".into()),
    });
    let level = doc.get_or("log.level", "info".to_owned(), "\"info\"", |raw| {
        let text = raw.text()?;
        tracing_subscriber::EnvFilter::try_new(text)
            .map(|_| text.to_owned())
            .map_err(|_| "error, warn, info, debug or trace is wanted".into())
    });
    Log { json, level }
}

fn boot(doc: &mut Document<'_>) -> Boot {
    let interfaces = doc.get_or("boot.interfaces", Vec::new(), "[]", |raw| {
        let names = raw.list()?;
        let fits = |name: &String| (1..=15).contains(&name.len()) && !name.contains(['/', ' ']);
        if names.len() > MAX_INTERFACES || !names.iter().all(fits) {
            return Err(format!(
                "at most {MAX_INTERFACES} names of interfaces are wanted"
            ));
        }
        Ok(names)
    });
    let http_port = doc.get_or("boot.http_port", 8080, 8080, |raw| port(raw, 1));
    let kernel = doc.get("boot.kernel", read_path);
    let initramfs = doc.get("boot.initramfs", read_path);
    if !interfaces.is_empty() {
        for (key, value) in [("boot.kernel", &kernel), ("boot.initramfs", &initramfs)] {
            if value.is_none() {
                doc.missing(
                    key,
                    "nodes that boot from boot.interfaces need it; see `kraken-image --help`",
                );
            }
        }
    }
    let append = doc.get_or("boot.append", String::new(), "\"\"", |raw| match raw {
        Raw::Text(text) => text
            .parse::<crate::boot::Append>()
            .map(|append| append.as_str().to_owned())
            .map_err(|error| error.to_string()),
        _ => Err("a text is wanted".into()),
    });
    let mut loaders = Vec::new();
    for name in doc.names_below("boot.loaders") {
        let key = format!("boot.loaders.{name}");
        match name.parse::<ClientArch>() {
            Ok(arch) => loaders.extend(doc.get(&key, read_path).map(|path| (arch, path))),
            Err(error) => {
                let _ = doc.get(&key, |_| Ok(()));
                doc.refuse(&key, &error.to_string());
            }
        }
    }
    let window = doc.get_or("boot.window", Duration::from_secs(600), "\"10m\"", |raw| {
        raw.duration(Duration::from_secs(10), Duration::from_secs(86_400))
    });
    Boot {
        interfaces,
        http_port,
        kernel: kernel.unwrap_or_default(),
        initramfs: initramfs.unwrap_or_default(),
        append,
        loaders,
        window,
    }
}

fn sync(doc: &mut Document<'_>) -> Sync {
    let defaults = SyncConfig::default();
    let address = doc.get_or(
        "sync.address",
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "\"0.0.0.0\"",
        |raw| {
            raw.text()?
                .parse()
                .map_err(|_| "an IP address is wanted".to_owned())
        },
    );
    let port = doc.get_or("sync.port", 31415, 31415, |raw| port(raw, 0));
    let bounds = (Duration::from_millis(50), Duration::from_secs(3600));
    let hello = doc.get_or("sync.hello", defaults.hello, "\"2s\"", |raw| {
        raw.duration(bounds.0, bounds.1)
    });
    let dead = doc.get_or("sync.dead", defaults.dead, "\"10s\"", |raw| {
        raw.duration(bounds.0, bounds.1)
    });
    if dead < hello * 4 {
        doc.refuse(
            "sync.dead",
            "must be at least four times sync.hello, or one lost packet counts as death",
        );
    }
    let timers = SyncConfig {
        hello,
        suspect: hello * 3,
        dead,
        ..defaults
    };
    Sync {
        address,
        port,
        timers,
    }
}

fn healing(doc: &mut Document<'_>) -> Healing {
    let silent_hold = doc.get_or(
        "engine.silent_hold",
        Duration::from_secs(600),
        "\"10m\"",
        |raw| raw.duration(Duration::ZERO, Duration::from_secs(7 * 86_400)),
    );
    let attempts = doc.get_or("engine.attempts", 3, 3, |raw| Ok(raw.int(1, 1000)? as u32));
    let parallel = doc.get_or("engine.parallel", true, true, Raw::bool);
    let costs = doc.get_or(
        "engine.costs",
        CostSource::Declared,
        "\"declared\"",
        |raw| match raw.text()? {
            "declared" => Ok(CostSource::Declared),
            "learned" => Ok(CostSource::Learned),
            _ => Err("\"declared\" or \"learned\" is wanted".into()),
        },
    );
    Healing {
        silent_hold,
        attempts,
        parallel,
        costs,
    }
}

fn power(doc: &mut Document<'_>) -> Power {
    let poll = doc.get_or("power.poll", Duration::from_secs(5), "\"5s\"", |raw| {
        raw.duration(Duration::from_millis(100), Duration::from_secs(3600))
    });
    let mut argv = |key: &str| {
        doc.get(key, |raw| match raw {
            Raw::List(words) if words.first().is_some_and(|program| !program.is_empty()) => {
                crate::modules::check_template(words).map(|()| words.clone())
            }
            _ => Err("a program and its arguments are wanted, such as [\"powerman\", \"--on\", \"{node}\"]".into()),
        })
    };
    let verbs = [
        argv("power.command.on"),
        argv("power.command.off"),
        argv("power.command.status"),
    ];
    let command = match verbs {
        [None, None, None] => None,
        [Some(on), Some(off), Some(status)] => Some(PowerCommand { on, off, status }),
        _ => {
            doc.missing("power.command", "on, off and status are wanted, all three");
            None
        }
    };
    Power { poll, command }
}

fn history(doc: &mut Document<'_>) -> Retention {
    let defaults = Retention::default();
    let revisions = doc.get_or("history.revisions", defaults.revisions, 10_000, |raw| {
        Ok(raw.int(1, 10_000_000)?.unsigned_abs())
    });
    let age = doc.get_or("history.keep", defaults.age, "\"365d\"", |raw| {
        raw.duration(
            Duration::from_secs(60),
            Duration::from_secs(100 * 365 * 86_400),
        )
    });
    let mib = doc.get_or("history.mib", defaults.bytes >> 20, 256, |raw| {
        Ok(raw.int(1, 1 << 20)?.unsigned_abs())
    });
    Retention {
        revisions,
        age,
        bytes: mib << 20,
    }
}

fn port(raw: &Raw, min: i64) -> Result<u16, String> {
    Ok(raw.int(min, 65_535)? as u16)
}
