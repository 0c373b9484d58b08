use super::*;

const FILES: DepmodFiles<'static> = DepmodFiles {
    dep: "\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/lib/libcrc32c.ko:
kernel/arch/x86/crypto/crc32c-intel.ko.xz:
kernel/crypto/crc32c_generic.ko:
kernel/fs/ext4/ext4.ko.xz: kernel/lib/libcrc32c.ko
kernel/drivers/a.ko: kernel/drivers/b.ko
kernel/drivers/b.ko: kernel/drivers/a.ko
",
    alias: "\
# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias fs-ext4 ext4
alias crc32c crc32c_intel
alias crc32c crc32c_generic
alias crypto-crc32c crc32c_generic
",
    softdep: "softdep libcrc32c pre: crc32c\nsoftdep ext4 post: no_such_module\n",
    builtin: "kernel/net/packet/af_packet.ko\n",
};

fn names(names: &[&str]) -> Vec<ModuleName> {
    names.iter().copied().map(ModuleName::new).collect()
}

fn select(required: &[&str], optional: &[&str]) -> Result<Selection, ModulesError> {
    ModuleTable::parse(FILES)
        .unwrap()
        .select(&names(required), &names(optional))
}

#[test]
fn closure_follows_dependencies_and_describes_only_itself() {
    let selection = select(&["virtio-net"], &[]).unwrap();
    assert_eq!(
        selection.paths,
        [
            "kernel/drivers/net/net_failover.ko",
            "kernel/drivers/net/virtio_net.ko",
            "kernel/drivers/virtio/virtio.ko",
            "kernel/drivers/virtio/virtio_ring.ko",
            "kernel/net/core/failover.ko",
        ]
    );
    assert_eq!(selection.alias, "alias virtio:d00000001v* virtio_net\n");
    assert_eq!(selection.softdep, "");
    assert_eq!(selection.dep.lines().count(), 5);
    assert!(selection.dep.contains("kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko"));
}

#[test]
fn soft_dependencies_come_along_by_alias_and_only_if_present() {
    let selection = select(&["ext4"], &[]).unwrap();
    assert_eq!(
        selection.paths,
        [
            "kernel/arch/x86/crypto/crc32c-intel.ko.xz",
            "kernel/crypto/crc32c_generic.ko",
            "kernel/fs/ext4/ext4.ko.xz",
            "kernel/lib/libcrc32c.ko",
        ]
    );
    assert!(
        selection
            .dep
            .contains("kernel/fs/ext4/ext4.ko: kernel/lib/libcrc32c.ko\n"),
        "{}",
        selection.dep
    );
    assert_eq!(
        selection.softdep,
        "softdep libcrc32c pre: crc32c\nsoftdep ext4 post: no_such_module\n"
    );
}

#[test]
fn a_circle_of_dependencies_ends() {
    assert_eq!(
        select(&["a"], &[]).unwrap().paths,
        ["kernel/drivers/a.ko", "kernel/drivers/b.ko"]
    );
}

#[test]
fn what_is_missing_is_an_error_or_listed() {
    let selection = select(
        &["af_packet"],
        &["mlx5_core", "af_packet", "mlx5-core", "virtio"],
    )
    .unwrap();
    assert_eq!(selection.missing, names(&["mlx5_core"]));
    assert_eq!(selection.paths, ["kernel/drivers/virtio/virtio.ko"]);
    assert_eq!(
        select(&["virtio_nett"], &[]).unwrap_err().to_string(),
        "the kernel has no module virtio_nett; similar names: virtio_net, virtio, virtio_ring"
    );
    assert_eq!(
        select(&["zfs"], &[]).unwrap_err().to_string(),
        "the kernel has no module zfs"
    );
}

#[test]
fn bad_tables_are_errors() {
    let parse = |dep| {
        ModuleTable::parse(DepmodFiles {
            dep,
            ..DepmodFiles::default()
        })
    };
    for bad in [
        "kernel/a.ko\n",
        "kernel/a: b\n",
        "/kernel/a.ko:\n",
        "../a.ko:\n",
    ] {
        assert!(
            matches!(parse(bad), Err(ModulesError::Dep { line: 1, .. })),
            "{bad}"
        );
    }
    let table = parse("kernel/a.ko: kernel/gone.ko\n").unwrap();
    let error = table.select(&names(&["a"]), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "modules.dep says that a needs gone, but does not list that file"
    );
}

#[test]
fn the_default_list_repeats_nothing() {
    let list = names(DEFAULT_MODULES);
    assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
}
