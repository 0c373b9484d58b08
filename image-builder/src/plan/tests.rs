use super::*;
use crate::cpio;

fn contents(version: &str) -> Contents {
    Contents {
        agent: b"agent".to_vec(),
        ca_pem: b"ca".to_vec(),
        cluster_pub: b"pub".to_vec(),
        build: Build {
            time: 1_700_000_000,
            agent: "0.1.0".to_owned(),
        },
        kernel_version: version.to_owned(),
        modules: vec![("kernel/fs/squashfs/squashfs.ko".to_owned(), b"ko".to_vec())],
        modules_dep: "kernel/fs/squashfs/squashfs.ko:\n".to_owned(),
        modules_alias: "alias fs-squashfs squashfs\n".to_owned(),
        modules_softdep: String::new(),
    }
}

#[test]
fn layout_is_the_agents() {
    let mut bytes = Vec::new();
    layout(contents("6.1.0"))
        .unwrap()
        .write_to(&mut bytes)
        .unwrap();
    let (members, _) = cpio::read(&bytes).unwrap();
    let lines: Vec<_> = members
        .iter()
        .map(|member| format!("{} {}", member.mode_text(), member.name))
        .collect();
    assert_eq!(
        lines,
        [
            "drwxr-xr-x dev",
            "crw------- dev/console",
            "crw-rw-rw- dev/null",
            "drwxr-xr-x etc",
            "drwxr-xr-x etc/kraken",
            "-rw-r--r-- etc/kraken/build",
            "-rw-r--r-- etc/kraken/ca.pem",
            "-rw-r--r-- etc/kraken/cluster.pub",
            "-rwxr-xr-x init",
            "drwxr-xr-x lib",
            "drwxr-xr-x lib/modules",
            "drwxr-xr-x lib/modules/6.1.0",
            "drwxr-xr-x lib/modules/6.1.0/kernel",
            "drwxr-xr-x lib/modules/6.1.0/kernel/fs",
            "drwxr-xr-x lib/modules/6.1.0/kernel/fs/squashfs",
            "-rw-r--r-- lib/modules/6.1.0/kernel/fs/squashfs/squashfs.ko",
            "-rw-r--r-- lib/modules/6.1.0/modules.alias",
            "-rw-r--r-- lib/modules/6.1.0/modules.dep",
            "-rw-r--r-- lib/modules/6.1.0/modules.softdep",
            "drwxr-xr-x mnt",
            "drwxr-xr-x newroot",
            "dr-xr-xr-x proc",
            "drwxr-xr-x run",
            "dr-xr-xr-x sys",
            "drwxrwxrwt tmp",
        ]
    );
    let build = members
        .iter()
        .find(|member| member.name == "etc/kraken/build")
        .unwrap();
    let expect = Build {
        time: 1_700_000_000,
        agent: "0.1.0".to_owned(),
    };
    assert_eq!(serde_json::from_slice::<Build>(build.data).unwrap(), expect);
}

#[test]
fn a_hostile_kernel_version_stays_inside() {
    assert!(matches!(
        layout(contents("../../etc")),
        Err(BuildError::Name(_))
    ));
}
