//! Any program as a power driver: ipmitool, powerman, a script of the site.
//!
//! Arguments are templates without a shell: `{node}` and `{target}` become one argument's text each. Credentials go through the environment
//! (`KRAKEN_POWER_USERNAME`, `KRAKEN_POWER_PASSWORD`, and `IPMI_PASSWORD` for `ipmitool -E`), where other users cannot read them.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{DriverError, PowerState, Target};
use crate::config::PowerCommand;

/// ipmitool gives up on a dead BMC after about 20 s.
const RUN_TIMEOUT: Duration = Duration::from_secs(30);

/// A status is a line or two.
const MAX_OUTPUT_BYTES: u64 = 16 << 10;

/// Longest output that gets into our messages.
const MAX_QUOTE: usize = 200;

/// Says what is wrong with an argument template.
pub(crate) fn check_template(words: &[String]) -> Result<(), String> {
    for word in words {
        let mut rest = word.as_str();
        while let Some(open) = rest.find('{') {
            let name = rest[open + 1..].split_once('}').map(|(name, _)| name);
            match name {
                Some("node" | "target") => rest = &rest[open + 1..],
                _ => {
                    return Err(format!(
                        "{word:?}: only {{node}} and {{target}} can be filled in"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn fill(words: &[String], target: &Target) -> Vec<String> {
    let address = if target.address.is_empty() {
        target.name.as_str()
    } else {
        &target.address
    };
    let filled = |word: &String| {
        // One pass, so that a value with braces in it is never filled in again.
        let mut out = String::new();
        let mut rest = word.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let (name, tail) = after.split_once('}').unwrap_or(("", after));
            out.push_str(if name == "node" {
                target.name.as_str()
            } else {
                address
            });
            rest = tail;
        }
        out + rest
    };
    words.iter().map(filled).collect()
}

/// Asks the status program.
pub(super) async fn read(
    command: &PowerCommand,
    target: &Target,
) -> Result<Option<PowerState>, DriverError> {
    let output = run(&command.status, target).await?;
    power_state(&output).map(Some)
}

/// Runs the program for a power state.
pub(super) async fn switch(
    command: &PowerCommand,
    target: &Target,
    want: PowerState,
) -> Result<(), DriverError> {
    let words = match want {
        PowerState::On => &command.on,
        PowerState::Off => &command.off,
    };
    run(words, target).await.map(|_| ())
}

async fn run(words: &[String], target: &Target) -> Result<String, DriverError> {
    let argv = fill(words, target);
    let Some((program, arguments)) = argv.split_first() else {
        return Err(DriverError::Refused("the command is empty".into()));
    };
    if target.address.starts_with('-') {
        return Err(DriverError::Refused(format!(
            "/power/target is {:?}: it would be read as an option",
            target.address
        )));
    }
    let mut child = Command::new(program)
        .args(arguments)
        .env("KRAKEN_POWER_USERNAME", &target.username)
        .env("KRAKEN_POWER_PASSWORD", &target.password.0)
        .env("IPMI_PASSWORD", &target.password.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| DriverError::Refused(format!("cannot run {program}: {error}")))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, err) = tokio::join!(text_of(stdout), text_of(stderr));
        child.wait().await.map(|status| (status, out, err))
    };
    match tokio::time::timeout(RUN_TIMEOUT, work).await {
        Err(_) => Err(DriverError::Unreachable(format!(
            "{program} did not end within {RUN_TIMEOUT:?}"
        ))),
        Ok(Err(error)) => Err(DriverError::Unreachable(format!("{program}: {error}"))),
        Ok(Ok((status, out, _))) if status.success() => Ok(out),
        Ok(Ok((status, out, err))) => {
            let said = if err.trim().is_empty() { out } else { err };
            Err(DriverError::Unreachable(format!(
                "{program}: {status}: {}",
                quote(&said)
            )))
        }
    }
}

async fn text_of(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What a program says beyond the limit is read and forgotten, so that it does not block.
        let _ = (&mut pipe)
            .take(MAX_OUTPUT_BYTES)
            .read_to_end(&mut bytes)
            .await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn quote(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_QUOTE)
        .collect()
}

/// The one of the words "on" and "off" that a program printed; both or none is no answer, and never means off.
fn power_state(output: &str) -> Result<PowerState, DriverError> {
    let lower = output.to_ascii_lowercase();
    let has = |word: &str| {
        lower
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|part| part == word)
    };
    match (has("on"), has("off")) {
        (true, false) => Ok(PowerState::On),
        (false, true) => Ok(PowerState::Off),
        _ => Err(DriverError::Unreachable(format!(
            "the status program says neither on nor off: {:?}",
            quote(output)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        Target {
            address: address.into(),
            ..super::super::tests::target("n1")
        }
    }

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script, "sh", "{node}", "{target}"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn statuses_of_known_programs() {
        assert_eq!(power_state("Chassis Power is on\n"), Ok(PowerState::On));
        assert_eq!(power_state("off: n1\n"), Ok(PowerState::Off));
        assert_eq!(power_state("OFF"), Ok(PowerState::Off));
        for unclear in ["", "unknown", "on: n1\noff: n2\n", "offline", "Connection"] {
            assert!(power_state(unclear).is_err(), "{unclear:?}");
        }
    }

    #[test]
    fn values_never_become_more_than_one_argument() {
        let words = ["-H", "{target}", "{node}:{target}", "plain"].map(str::to_owned);
        assert_eq!(
            fill(&words, &target("a b;{node}")),
            ["-H", "a b;{node}", "n1:a b;{node}", "plain"]
        );
        assert_eq!(fill(&words, &target(""))[1], "n1");
        assert!(check_template(&words).is_ok());
        assert!(check_template(&["{password}".into()]).is_err());
        assert!(check_template(&["{".into()]).is_err());
    }

    #[tokio::test]
    async fn programs_are_run_without_a_shell() {
        let command = PowerCommand {
            on: sh("exit 3"),
            off: sh("echo \"no such plug $2\" >&2; exit 1"),
            status: sh(
                "[ \"$1\" = n1 ] && [ \"$2\" = 'p1; x' ] && [ \"$KRAKEN_POWER_PASSWORD\" = secret ] && echo on",
            ),
        };
        let plug = target("p1; x");
        assert_eq!(read(&command, &plug).await, Ok(Some(PowerState::On)));
        let Err(DriverError::Unreachable(why)) = switch(&command, &plug, PowerState::Off).await
        else {
            panic!()
        };
        assert!(why.contains("no such plug p1; x"), "{why}");
        assert!(switch(&command, &plug, PowerState::On).await.is_err());
        let missing = PowerCommand {
            status: vec!["/no/such/program".into()],
            ..command
        };
        assert!(matches!(
            read(&missing, &plug).await,
            Err(DriverError::Refused(_))
        ));
        assert!(matches!(
            read(&missing, &target("--help")).await,
            Err(DriverError::Refused(_))
        ));
    }
}
