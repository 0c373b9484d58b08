//! Small network tools that the claims run inside a cluster's namespaces, where a machine with bad intent would sit.

use std::{
    net::{SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Subcommand)]
pub enum Probe {
    /// Sends one UDP packet and prints the answer in hexadecimal, if there is one.
    Udp {
        /// Own address; it must be one of this namespace's.
        #[arg(long)]
        from: SocketAddrV4,
        /// Where to.
        #[arg(long)]
        to: SocketAddrV4,
        /// Wait for no answer.
        #[arg(long)]
        silent: bool,
        /// The payload in hexadecimal.
        payload: String,
    },
}

/// Does it.
pub fn run(probe: Probe) -> Result<()> {
    match probe {
        Probe::Udp {
            from,
            to,
            silent,
            payload,
        } => {
            let socket = UdpSocket::bind(from).with_context(|| format!("cannot bind {from}"))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(&unhex(&payload)?, to)?;
            if silent {
                return Ok(());
            }
            let mut bytes = [0; 2048];
            if let Ok((length, _)) = socket.recv_from(&mut bytes) {
                let text: String = bytes[..length]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                println!("{text}");
            }
            Ok(())
        }
    }
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        bail!("{text:?} is not hexadecimal");
    }
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16);
    (0..text.len())
        .step_by(2)
        .map(|at| digits(at).with_context(|| format!("{text:?} is not hexadecimal")))
        .collect()
}
