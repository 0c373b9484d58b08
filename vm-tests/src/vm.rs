//! One machine: a QEMU process while it has power, nothing at all while it has none.
//!
//! The machine has one virtio network card with iPXE's ROM, no disk, and a serial console that goes to a file and to a unix
//! socket. Its BMC ([`bmc`](crate::bmc)) switches it; [`supervisor`](crate::supervisor) owns both. Leaves out firmware other than BIOS.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::Command,
};

use crate::{network, timeline::Timeline};

/// What a machine is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Also the name of its system in Redfish, and of its files.
    pub name: String,
    /// Number from 1: address, MAC and tap follow from it.
    pub index: u8,
    /// QEMU's accelerator: `tcg` or `kvm`.
    pub accel: String,
    /// Memory in MiB.
    pub memory_mib: u32,
}

impl MachineSpec {
    /// The SMBIOS UUID: fixed, so that a machine is the same one after every start.
    pub fn uuid(&self) -> String {
        format!("4b4c4142-0000-4000-8000-0000000000{:02x}", self.index)
    }

    /// The SMBIOS serial number.
    pub fn serial(&self) -> String {
        format!("KLAB-{:04}", self.index)
    }

    /// The console's log of all boots.
    pub fn console_log(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.console.log", self.name))
    }

    /// The console's socket, there while the machine has power.
    pub fn console_socket(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.tty", self.name))
    }

    fn qmp_socket(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.qmp", self.name))
    }

    /// QEMU's arguments.
    pub fn arguments(&self, dir: &Path) -> Vec<String> {
        let tap = network::tap(self.index);
        let mac = network::node_mac(self.index);
        let console = self.console_socket(dir);
        let log = self.console_log(dir);
        let qmp = self.qmp_socket(dir);
        let line = format!(
            "-name {name} -machine pc,accel={accel} -smp 1 -m {memory} -nodefaults -no-user-config -nographic -monitor none \
             -netdev tap,id=net0,ifname={tap},script=no,downscript=no \
             -device virtio-net-pci,netdev=net0,mac={mac},bootindex=1 \
             -device virtio-rng-pci \
             -chardev socket,id=tty0,path={console},server=on,wait=off,logfile={log},logappend=on -serial chardev:tty0 \
             -qmp unix:{qmp},server=on,wait=off \
             -smbios type=1,manufacturer=Kraken,product=Lab,serial={serial},uuid={uuid} \
             -boot order=n,reboot-timeout=3000",
            name = self.name,
            accel = self.accel,
            memory = self.memory_mib,
            console = console.display(),
            log = log.display(),
            qmp = qmp.display(),
            serial = self.serial(),
            uuid = self.uuid(),
        );
        line.split_whitespace().map(str::to_owned).collect()
    }
}

/// A running or powered-off machine; clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    spec: Arc<MachineSpec>,
    dir: Arc<PathBuf>,
    timeline: Timeline,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    pid: Option<Pid>,
    resets: BTreeMap<String, u64>,
}

impl Machine {
    /// A machine without power, whose files go to `dir`.
    pub fn new(spec: MachineSpec, dir: &Path, timeline: Timeline) -> Self {
        Self {
            spec: Arc::new(spec),
            dir: Arc::new(dir.to_owned()),
            timeline,
            state: Arc::default(),
        }
    }

    /// What it is made of.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// The pid of its QEMU process inside the cluster's pid namespace; none: it is off.
    pub fn pid(&self) -> Option<i32> {
        self.state().pid.map(Pid::as_raw)
    }

    /// Requests that its BMC was sent, by Redfish's `ResetType`.
    pub fn resets(&self) -> BTreeMap<String, u64> {
        self.state().resets.clone()
    }

    /// Counts a request of the BMC.
    pub fn count_reset(&self, kind: &str) {
        *self.state().resets.entry(kind.to_owned()).or_default() += 1;
    }

    /// Gives it power. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When it has power already or QEMU cannot be started.
    pub fn power_on(&self) -> Result<()> {
        let mut state = self.state();
        if state.pid.is_some() {
            bail!("{} has power already", self.spec.name);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("{}.qemu.log", self.spec.name)))?;
        let mut child = Command::new("qemu-system-x86_64")
            .args(self.spec.arguments(&self.dir))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        let pid = child.id().context("QEMU ended at once")?;
        state.pid = Some(Pid::from_raw(i32::try_from(pid)?));
        drop(state);
        self.timeline.power_on(&self.spec.name);

        let machine = self.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            machine.state().pid = None;
            eprintln!(
                "supervisor: machine {} is off: {status:?}",
                machine.spec.name
            );
        });
        Ok(())
    }

    /// Takes its power away, as if the plug were pulled. Returns whether there was any.
    pub fn power_off(&self) -> bool {
        match self.state().pid {
            Some(pid) => kill(pid, Signal::SIGKILL).is_ok(),
            None => false,
        }
    }

    /// Waits until no QEMU process is left.
    pub async fn wait_off(&self) {
        while self.pid().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Presses the power button for a moment (ACPI); what comes of it is up to the system that runs.
    pub async fn press_button(&self) -> Result<()> {
        let stream = UnixStream::connect(self.spec.qmp_socket(&self.dir)).await?;
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        lines.next_line().await?.context("QMP sent no greeting")?;
        for command in ["qmp_capabilities", "system_powerdown"] {
            writer
                .write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes())
                .await?;
            lines.next_line().await?.context("QMP closed")?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_network_card_and_no_disk() {
        let spec = MachineSpec {
            name: "n2".into(),
            index: 2,
            accel: "tcg".into(),
            memory_mib: 512,
        };
        let arguments = spec.arguments(Path::new("/run/lab")).join(" ");
        assert!(arguments.contains("mac=52:54:00:4b:00:02"), "{arguments}");
        assert!(arguments.contains("ifname=tap2"), "{arguments}");
        assert!(
            arguments.contains("uuid=4b4c4142-0000-4000-8000-000000000002"),
            "{arguments}"
        );
        for disk in ["-drive", "-hda", "-cdrom", "-blockdev", "-fda"] {
            assert!(!arguments.contains(disk), "{arguments}");
        }
    }
}
