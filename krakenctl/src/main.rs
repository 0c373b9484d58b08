//! krakenctl: the command line of Kraken (DESIGN 7).
//!
//! ```text
//! arguments ─▶ cli ─▶ node/* pending image module extension freeze mutation version ─▶ Admin API of a head
//!                     plan (--offline needs no head)                          ◀─ output: tables, JSON, YAML, CSV, names
//! ```
//! Pure: `names` `template` `sequence` `value` `view` `explain` `what_if` `mirror` `wait` `document`. Shells: `connect`, `output`, `node/*`.

mod cli;
mod complete;
mod connect;
mod document;
mod exit;
mod explain;
mod extension;
mod freeze;
mod history;
mod image;
mod mirror;
mod module;
mod mutation;
mod names;
mod node;
mod output;
mod pending;
mod plan;
mod scenario;
mod sequence;
mod template;
mod value;
mod version;
mod view;
mod wait;
mod what_if;
mod write;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::connect::{ConnectArgs, Head};
use crate::exit::{Exit, Failure};
use crate::output::{Screen, Tone, printable};
use crate::value::Shown;

/// What every command needs.
pub(crate) struct Context {
    connect: ConnectArgs,
    screen: Screen,
    shown: Shown,
}

impl Context {
    /// A connection to the head.
    async fn head(&self) -> Result<Head, Failure> {
        let mut head = self.connect.connect().await?;
        // An older head has no extensions beyond the built-in ones; what else is wrong, the command itself will meet.
        let request = proto::v1::ListExtensionsRequest::default();
        if let Ok(extensions) = head.list_extensions(request).await {
            self.shown
                .learn(extension::schema(&extensions.into_inner().extensions));
        }
        Ok(head)
    }

    /// Tells the operator something that is no result.
    fn note(&self, text: &str) {
        use std::io::Write;
        // Nothing is left to do when standard error is gone.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

fn main() -> ExitCode {
    complete::answer_shell();
    let cli = Cli::parse();
    let screen = Screen::detect(cli.no_color);
    let context = Context {
        connect: cli.connect,
        screen,
        shown: Shown::new(engine::extension::Schema::built_in()),
    };
    let result = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let result = runtime.block_on(until_interrupted(run(cli.command, &context)));
            // A question that nobody answers must not keep the process.
            runtime.shutdown_timeout(Duration::ZERO);
            result
        }
        Err(error) => Err(Failure::new(
            Exit::Failure,
            format!("cannot start: {error}"),
        )),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.silent {
                let label = screen.error_paint.text("krakenctl:", Tone::Bad);
                context.note(&format!("{label} {}", printable(&failure.text)));
                if let Some(hint) = &failure.hint {
                    context.note(&format!("  hint: {}", printable(hint)));
                }
            }
            failure.exit.into()
        }
    }
}

/// Runs to the end or to Ctrl-C; a command that has its own answer to Ctrl-C goes first.
async fn until_interrupted(
    command: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    tokio::select! {
        biased;
        result = command => result,
        Ok(()) = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Node(command) => node::run(command, context).await,
        Command::Freeze(args) => freeze::freeze(args, context).await,
        Command::Thaw(args) => freeze::thaw(args, context).await,
        Command::Pending(command) => pending::run(command, context).await,
        Command::Image(command) => image::run(command, context).await,
        Command::Module(command) => module::run(command, context).await,
        Command::Extension(command) => extension::run(command, context).await,
        Command::Mutation(command) => mutation::run(command, context).await,
        Command::History(args) => history::history(args, context).await,
        Command::Diff(args) => history::diff(args, context).await,
        Command::Undo(args) => history::undo(args, context).await,
        Command::Confirm(args) => history::confirm(args, context).await,
        Command::Plan(args) => plan::run(args, context).await,
        Command::Version(args) => version::run(args, context).await,
        Command::Completion { shell } => {
            context.screen.print(&complete::registration(shell)?)?;
            Ok(Exit::Ok)
        }
    }
}
