//! Claim: a mutation file alone, the shipped one for ipmitool, switches a node off and on again whose BMC is OpenIPMI's simulator.

use std::{fs, time::Duration};

use vm_tests::{bmc, cluster::Cluster, network, paths};

use crate::lab::{self, BOOT_TIME, SOON};

/// A program that starts, or copies a file.
const SHORT: Duration = Duration::from_secs(20);

/// The simulator's chassis: what it is told goes to the machine's plug, which is the lab's own BMC.
fn chassis(system: &str) -> String {
    let curl = format!("curl -s -u {}:{}", bmc::USER, bmc::PASSWORD);
    format!(
        "#!/bin/sh\nop=$1\nshift\ncase $op in\n\
         get) for name; do case $name in\n\
         power) {curl} {system} | grep -q '\"PowerState\":\"On\"' && echo power:1 || echo power:0;;\n\
         *) echo \"$name:0\";;\nesac; done;;\n\
         set) while [ $# -gt 1 ]; do\n\
         [ \"$1\" = power ] && case $2 in 1) kind=On;; *) kind=ForceOff;; esac && \
         {curl} -H 'content-type: application/json' -d \"{{\\\"ResetType\\\":\\\"$kind\\\"}}\" {system}/Actions/ComputerSystem.Reset\n\
         shift 2\ndone;;\nesac\nexit 0\n"
    )
}

/// Starts the simulator at the address of a machine's BMC; it ends with the cluster, or by the pid.
fn start_sim(cluster: &Cluster, node: &str) -> String {
    let machine = cluster.machine(node).expect("a machine");
    let address = network::bmc_address(machine.index);
    let folder = cluster.files.0.join("ipmi");
    fs::create_dir_all(folder.join("state")).expect("a folder");
    let script = folder.join("chassis");
    let system = format!("http://{address}/redfish/v1/Systems/{node}");
    lab::write_program(&script, &chassis(&system));
    let lan = format!(
        "name \"bmc\"\nset_working_mc 0x20\nstartlan 1\naddr {address} 623\npriv_limit admin\n\
         allowed_auths_callback md5\nallowed_auths_user md5\nallowed_auths_operator md5\nallowed_auths_admin md5\n\
         guid a123456789abcdefa123456789abcdef\nendlan\nchassis_control \"{}\"\nuser 2 true \"admin\" \"password\" admin 10 md5\n",
        script.display()
    );
    fs::write(folder.join("lan.conf"), lan).expect("a file");
    let mc = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n";
    fs::write(folder.join("sim.emu"), mc).expect("a file");
    let start = format!(
        "cd {} && exec setsid ipmi_sim -c lan.conf -f sim.emu -s state -n </dev/null >sim.log 2>&1 & echo $!",
        folder.display()
    );
    let started = cluster.run(&["sh", "-c", &start], SHORT).expect("started");
    started.stdout.trim().to_owned()
}

#[test]
fn ipmitool_file_switches_power() {
    lab::claim("ipmitool_file_switches_power", |cluster, _| {
        let sim = start_sim(cluster, "n2");
        let shipped = paths::workspace().join("head/mutations/ipmitool.toml");
        let folder = cluster.files.head_state().join("mutations");
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("ipmitool.toml");
        fs::copy(shipped, &file).expect("a copy");
        let declared = || {
            let list = cluster.ctl(&["mutation", "list", "-o", "name"])?;
            Ok(list.contains("ipmitool/OFFtoON"))
        };
        cluster
            .wait(SOON, "the running head takes the file", declared)
            .expect("its mutations");
        let resets = |kind: &str| cluster.resets("n2", kind).expect("a count");
        let (ons, offs) = (resets("On"), resets("ForceOff"));
        let machine = cluster.machine("n2").expect("a machine");
        let target = format!("/power/target={}", network::bmc_address(machine.index));
        cluster
            .ctl(&[
                "node",
                "set",
                "n2",
                "/power/driver=IPMITOOL",
                &target,
                "/power/username=admin",
                "/power/password=password",
            ])
            .expect("an order");

        lab::order_off(cluster, "n2");
        cluster
            .wait(BOOT_TIME, "n2 is off", || {
                Ok(cluster.known("n2", "/PhysState")? == "POWER_OFF")
            })
            .expect("off");
        let status = cluster.status().expect("status");
        let is_off = |name: &str| {
            let mut machines = status.machines.iter();
            machines.any(|machine| machine.name == name && machine.pid.is_none())
        };
        assert!(is_off("n2"), "no QEMU process");
        assert_eq!((resets("On"), resets("ForceOff")), (ons, offs + 1));

        lab::order_on(cluster, "n2");
        lab::wait_up(cluster, &["n2"]);
        assert_eq!((resets("On"), resets("ForceOff")), (ons + 1, offs + 1));
        let log = cluster.head_log();
        let done = |name: &str| {
            log.iter()
                .any(|line| line["node"] == "n2" && line["mutation"] == name)
        };
        assert!(done("ipmitool/ONtoOFF") && done("ipmitool/OFFtoON"));

        // As the next claim wants to find it.
        let system = format!(
            "/power/target=http://{}/redfish/v1/Systems/n2",
            network::bmc_address(machine.index)
        );
        let user = format!("/power/username={}", bmc::USER);
        let password = format!("/power/password={}", bmc::PASSWORD);
        let driver = "/power/driver=REDFISH";
        cluster
            .ctl(&["node", "set", "n2", driver, &system, &user, &password])
            .expect("an order");
        cluster.run(&["kill", &sim], SHORT).expect("the end");
        fs::remove_file(&file).expect("no file");
        let gone = || Ok(!declared()?);
        cluster
            .wait(SOON, "the running head forgets the file", gone)
            .expect("no such mutations");
    });
}
