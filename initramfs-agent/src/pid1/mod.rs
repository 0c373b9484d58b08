//! PID 1: mounts, reaps, restarts the agent, pets the watchdog, ends the machine. Never exits, and reads nothing that came
//! over a network.
//!
//! Everything that can go wrong in interesting ways (networks, parsers, images) is the agent's, a child that may die at any time
//! without touching what runs on the node (DESIGN 6). One thread, one poll(2) loop, no memory that grows.

pub(crate) mod agent;
mod console;
mod mounts;
mod reap;
mod reboot;
pub(crate) mod signals;

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use self::agent::{Action, AgentPolicy};
use self::console::Console;
use self::reboot::{Ending, Shutdown, Stage};
use self::signals::Notice;
use crate::kmsg::{Kmsg, Level};
use crate::sys::Linux;
use crate::sys::linux::{Exit, Watchdog};

/// Where the agent and PID 1 keep what must outlive an agent; root only (threat S4).
pub(crate) const RUN_DIR: &str = "/run/kraken";
/// Where exit statuses are left for the agent, see [`reap`].
pub(crate) const EXITS: &str = "exits";
/// Where jobs leave their marks.
pub(crate) const BUSY: &str = "busy.d";
/// Directory of the sockets of modules on this node; shows in the image as well.
pub(crate) const MODULES: &str = "modules.d";
/// The hardware watchdog's time: several times the longest pause of the loop.
const WATCHDOG_S: i32 = 60;
/// Time between two pets.
const PET: Duration = Duration::from_secs(5);
/// Time until the loop looks around even if nothing happened.
const TICK: Duration = Duration::from_secs(5);
/// Wait before the kernel is asked once more to end the machine.
const END_AGAIN: Duration = Duration::from_secs(10);

/// Runs the machine.
pub(crate) fn run() -> ! {
    let begun = Instant::now();
    let failed_mounts = mounts::mount_all(&Linux);
    // The kernel drops lines of chatty writers otherwise, and a quiet console would hide ours.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    raise_console_level();
    let kmsg = Kmsg::open();
    kmsg.line(
        Level::Info,
        &format!("PID 1 is up, kraken-agent {}", env!("CARGO_PKG_VERSION")),
    );
    for line in failed_mounts {
        kmsg.line(Level::Error, &line);
    }
    prepare(&kmsg);
    let mut supervisor = Supervisor::new(begun, kmsg);
    loop {
        supervisor.turn();
    }
}

/// Lets level 5, which the agent's own lines have, through to the console, if the command line silenced it.
fn raise_console_level() {
    let path = "/proc/sys/kernel/printk";
    let level = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u32>().ok());
    if level.is_some_and(|level| level < 6) {
        let _ = fs::write(path, "6\n");
    }
}

/// Settings of the kernel and directories that the agent relies on.
fn prepare(kmsg: &Kmsg) {
    // A node whose kernel is broken comes back by itself instead of standing still.
    for (path, value) in [
        ("/proc/sys/kernel/panic", "10"),
        ("/proc/sys/kernel/panic_on_oops", "1"),
    ] {
        if let Err(error) = fs::write(path, value) {
            kmsg.line(Level::Warn, &format!("cannot set {path}: {error}"));
        }
    }
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    // Ctrl-alt-del becomes SIGINT for us instead of a reset.
    let _ = nix::sys::reboot::set_cad_enabled(false);
    let run = Path::new(RUN_DIR);
    for dir in [
        run.to_path_buf(),
        run.join(EXITS),
        run.join(BUSY),
        run.join(MODULES),
    ] {
        if let Err(error) = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
        {
            kmsg.line(
                Level::Error,
                &format!("cannot make {}: {error}", dir.display()),
            );
        }
    }
}

struct Supervisor {
    begun: Instant,
    kmsg: Kmsg,
    signals: Option<SignalFd>,
    policy: AgentPolicy,
    agent: Option<Child>,
    heart: Option<std::io::PipeReader>,
    watchdog: Option<Watchdog>,
    petted: Duration,
    shutdown: Option<Shutdown>,
    console: Option<Console>,
}

impl Supervisor {
    fn new(begun: Instant, kmsg: Kmsg) -> Self {
        let signals = signals::open()
            .map_err(|error| kmsg.line(Level::Error, &format!("no signals: {error}")))
            .ok();
        let debug = fs::read_to_string("/proc/cmdline")
            .is_ok_and(|line| line.split_whitespace().any(|w| w == "kraken.debug=1"));
        let console = debug.then(Console::open).and_then(|opened| {
            opened
                .map_err(|error| kmsg.line(Level::Warn, &format!("no debug console: {error}")))
                .ok()
        });
        if console.is_some() {
            kmsg.line(
                Level::Warn,
                "kraken.debug=1: this console takes commands from anybody",
            );
        }
        Self {
            begun,
            kmsg,
            signals,
            policy: AgentPolicy::new(),
            agent: None,
            heart: None,
            watchdog: None,
            petted: Duration::ZERO,
            shutdown: None,
            console,
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits for something to happen, then deals with all that has.
    fn turn(&mut self) {
        self.wait();
        while let Some(notice) = self.signals.as_ref().and_then(signals::read) {
            if let Notice::End(ending) = notice {
                self.begin_end(ending);
            }
        }
        self.reap();
        self.listen();
        self.obey_console();
        match self.shutdown {
            None => self.tend_agent(),
            Some(_) => self.tend_end(),
        }
        self.tend_watchdog();
    }

    fn wait(&self) {
        let now = self.now();
        let deadline = match &self.shutdown {
            Some(shutdown) => Some(shutdown.deadline),
            None => self.policy.poll_timeout(),
        };
        let limit = deadline.map_or(TICK, |at| at.saturating_sub(now).min(TICK));
        // Rounded up, or the loop would spin through the last millisecond.
        let timeout = PollTimeout::try_from(limit.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let signals = self.signals.as_ref().map(AsFd::as_fd);
        let heart = self.heart.as_ref().map(AsFd::as_fd);
        let console = self.console.as_ref().map(|console| console.file().as_fd());
        let mut fds: Vec<PollFd<'_>> = [signals, heart, console]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        if let Err(error) = poll(&mut fds, timeout)
            && error != nix::Error::EINTR
        {
            // Never a busy loop, whatever is wrong.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }

    fn reap(&mut self) {
        let Some(exit) = reap::reap(self.agent_pid(), &Path::new(RUN_DIR).join(EXITS)) else {
            return;
        };
        self.agent = None;
        self.heart = None;
        let wait = self.policy.ended(self.now());
        if self.shutdown.is_none() {
            let text = match exit {
                Exit::Code(code) => format!("the agent ended with status {code}"),
                Exit::Signal(signal) => format!("the agent was ended by signal {signal}"),
            };
            self.kmsg.line(
                Level::Error,
                &format!("{text}; what runs on this node goes on; next start in {wait:?}"),
            );
        }
    }

    /// Reads heartbeats.
    fn listen(&mut self) {
        let Some(heart) = &mut self.heart else { return };
        let mut beats = [0; 64];
        match heart.read(&mut beats) {
            // The agent closed its end: its death follows, or its silence does.
            Ok(0) => self.heart = None,
            Ok(_) => {
                let now = self.now();
                self.policy.heartbeat(now);
            }
            Err(_) => {}
        }
    }

    fn tend_agent(&mut self) {
        let now = self.now();
        match self.policy.poll(now) {
            Some(Action::Start) => match start_agent(self.policy.starts() + 1) {
                Ok((child, heart)) => {
                    self.policy.started(now);
                    self.agent = Some(child);
                    self.heart = Some(heart);
                }
                Err(error) => {
                    let wait = self.policy.ended(now);
                    self.kmsg.line(
                        Level::Error,
                        &format!("cannot start the agent: {error}; next try in {wait:?}"),
                    );
                }
            },
            Some(Action::Kill) => {
                self.kmsg.line(
                    Level::Error,
                    &format!(
                        "the agent hangs: no heartbeat for {:?}; it is killed",
                        agent::HEARTBEAT_LIMIT
                    ),
                );
                self.signal_agent(Signal::SIGKILL);
            }
            None => {}
        }
    }

    fn signal_agent(&self, signal: Signal) -> bool {
        let pid = self.agent_pid().and_then(|pid| i32::try_from(pid).ok());
        pid.is_some_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
    }

    fn begin_end(&mut self, ending: Ending) {
        if self.shutdown.is_some() {
            return;
        }
        self.kmsg.line(
            Level::Warn,
            &format!("told to end this machine: {ending:?}"),
        );
        let has_agent = self.signal_agent(Signal::SIGTERM);
        self.shutdown = Some(Shutdown::new(ending, has_agent, self.now()));
        if !has_agent {
            signal_everybody(Signal::SIGTERM);
        }
    }

    fn tend_end(&mut self) {
        let (now, has_agent) = (self.now(), self.agent.is_some());
        let Some(shutdown) = &mut self.shutdown else {
            return;
        };
        while let Some(stage) = shutdown.advance(has_agent, has_children(), now) {
            match stage {
                Stage::Agent => {}
                Stage::Term => signal_everybody(Signal::SIGTERM),
                Stage::Kill => signal_everybody(Signal::SIGKILL),
                Stage::Gone => {
                    let ending = shutdown.ending;
                    self.kmsg
                        .line(Level::Warn, &format!("all processes are gone: {ending:?}"));
                    let refused = reboot::end(ending);
                    self.kmsg.line(Level::Error, &refused);
                    shutdown.deadline = now + END_AGAIN;
                    return;
                }
            }
        }
    }

    /// The watchdog's driver may come with the agent's module phase, so it is looked for again and again.
    fn tend_watchdog(&mut self) {
        let now = self.now();
        if now.saturating_sub(self.petted) < PET {
            return;
        }
        self.petted = now;
        match &self.watchdog {
            Some(watchdog) if self.policy.is_healthy(now) => {
                if let Err(error) = watchdog.pet() {
                    self.kmsg.line(
                        Level::Warn,
                        &format!("the hardware watchdog does not listen: {error}"),
                    );
                }
            }
            Some(_) => {}
            None => {
                if let Ok(watchdog) = Watchdog::open(Path::new("/dev/watchdog"), WATCHDOG_S) {
                    self.kmsg.line(
                        Level::Info,
                        &format!("hardware watchdog is on, {WATCHDOG_S} s"),
                    );
                    self.watchdog = Some(watchdog);
                }
            }
        }
    }

    fn obey_console(&mut self) {
        let Some(console) = &mut self.console else {
            return;
        };
        let Some(lines) = console.read_lines() else {
            self.console = None;
            return;
        };
        for line in lines {
            let answer = match console::parse(&line) {
                Ok(command) => self.obey(&command),
                Err(usage) => usage,
            };
            if let Some(console) = &mut self.console {
                console.answer(&answer);
            }
        }
    }

    fn obey(&mut self, command: &console::Command) -> String {
        let busy_dir = Path::new(RUN_DIR).join(BUSY);
        match command {
            console::Command::KillAgent => match self.agent_pid() {
                Some(pid) if self.signal_agent(Signal::SIGKILL) => format!("killed agent {pid}"),
                _ => "no agent runs".to_owned(),
            },
            console::Command::Ps => console::processes(),
            console::Command::Busy(name) => console::mark(&busy_dir, name, true),
            console::Command::Free(name) => console::mark(&busy_dir, name, false),
            console::Command::End(ending) => {
                self.begin_end(*ending);
                format!("{ending:?}")
            }
        }
    }
}

/// Starts the agent with its heartbeat pipe as standard output.
fn start_agent(start: u32) -> std::io::Result<(Child, std::io::PipeReader)> {
    let (heart, beat) = std::io::pipe()?;
    fcntl(&heart, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let child = Command::new(own_program())
        .arg("--agent")
        .arg("--starts")
        .arg(start.to_string())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/")
        .stdin(Stdio::null())
        .stdout(beat)
        .spawn()?;
    Ok((child, heart))
}

/// This program, by whatever name it was started.
pub(crate) fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/init"))
}

/// All processes but PID 1 itself.
fn signal_everybody(signal: Signal) {
    let _ = kill(Pid::from_raw(-1), signal);
}

/// Whether there are children, ended or not.
fn has_children() -> bool {
    crate::sys::linux::peek_ended_child().is_ok()
}
