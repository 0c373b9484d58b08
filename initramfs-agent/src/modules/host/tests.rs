use std::os::unix::fs::symlink;

use super::*;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let cpu = |n: u32, socket: u32| {
        format!("processor\t: {n}\nmodel name\t: Fast CPU\nphysical id\t: {socket}\n\n")
    };
    write(
        root,
        "proc/cpuinfo",
        &[cpu(0, 0), cpu(1, 0), cpu(2, 1), cpu(3, 1)].concat(),
    );
    write(
        root,
        "proc/meminfo",
        "MemTotal:         502140 kB\nMemFree: 1 kB\n",
    );
    write(root, "proc/sys/kernel/osrelease", "6.1.0-40-cloud-amd64\n");
    write(root, "sys/class/dmi/id/product_serial", "  SN\u{7}-1 \n");
    write(root, "sys/class/dmi/id/sys_vendor", "QEMU\n");
    write(root, "sys/class/net/lo/address", "00:00:00:00:00:00\n");
    write(root, "sys/class/net/eth0/address", "52:54:00:4B:00:01\n");
    write(root, "sys/class/net/eth0/speed", "-1\n");
    write(root, "sys/class/net/eth0/carrier", "1\n");
    fs::create_dir_all(root.join("sys/class/net/eth0/device")).unwrap();
    symlink(
        "../../bus/virtio/drivers/virtio_net",
        root.join("sys/class/net/eth0/device/driver"),
    )
    .unwrap();
    write(root, "sys/block/loop0/size", "8\n");
    write(root, "sys/block/vda/size", "2048\n");
    write(root, "sys/block/vda/device/model", "disk\n");
    write(root, "sys/block/vda/queue/rotational", "1\n");
    write(root, "sys/block/sr0/size", "0\n");
    write(root, "sys/block/sr0/device/model", "empty drive\n");
    dir
}

#[test]
fn a_machine_is_described() {
    let machine = machine();
    let facts = Facts {
        boot: "b0".into(),
        starts: 2,
    };
    let found = inventory(machine.path(), &facts);
    let lines: Vec<String> = found
        .iter()
        .map(|(url, value)| format!("{url}={value}"))
        .collect();
    assert_eq!(
        lines,
        [
            &format!("/host/agent_version={}", env!("CARGO_PKG_VERSION")),
            "/host/agent_starts=2",
            "/host/boot_id=b0",
            "/host/cpu_model=Fast CPU",
            "/host/cpus=4",
            "/host/disks/vda/model=disk",
            "/host/disks/vda/rotational=true",
            "/host/disks/vda/size=1048576",
            "/host/kernel=6.1.0-40-cloud-amd64",
            "/host/memory=514191360",
            "/host/nics/eth0/driver=virtio_net",
            "/host/nics/eth0/link=true",
            "/host/nics/eth0/mac=52:54:00:4b:00:01",
            "/host/serial=SN-1",
            "/host/sockets=2",
            "/host/vendor=QEMU",
        ]
        .map(str::to_owned)
        .into_iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    );
}

#[test]
fn an_empty_machine_is_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let found = inventory(dir.path(), &Facts::default());
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn all_that_is_reported_is_in_the_schema() {
    let schema = crate::modules::schema::schema();
    let machine = machine();
    let facts = Facts {
        boot: "b0".into(),
        starts: 1,
    };
    for (url, value) in inventory(machine.path(), &facts).iter() {
        assert!(schema.check(url, value.clone()).is_ok(), "{url}");
    }
}

#[test]
fn names_that_no_url_can_hold_are_left_out() {
    let machine = machine();
    write(
        machine.path(),
        "sys/class/net/a b/address",
        "52:54:00:4b:00:02",
    );
    fs::create_dir_all(machine.path().join("sys/class/net/a b/device")).unwrap();
    let found = inventory(machine.path(), &Facts::default());
    assert!(!found.iter().any(|(url, _)| url.as_str().contains("a b")));
}
