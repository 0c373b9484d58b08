use super::*;

const DEP: &str = "\
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/virtio/virtio_pci.ko:
kernel/fs/overlayfs/overlay.ko:
kernel/crypto/crc32c-intel.ko.xz:
kernel/fs/ext4/ext4.ko:
";
const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias fs-overlay overlay
alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel
";

fn index() -> Index {
    Index::parse(DEP, ALIAS, "softdep ext4 pre: crc32c-intel post: overlay\n")
}

#[test]
fn devices_find_their_drivers() {
    let index = index();
    assert_eq!(index.for_alias("virtio:d00000001v00001AF4"), ["virtio_net"]);
    assert_eq!(
        index.for_alias("pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00"),
        ["virtio_pci"]
    );
    assert!(index.for_alias("virtio:d00000002v00001AF4").is_empty());
    assert!(index.for_alias("").is_empty());
}

#[test]
fn needs_come_first_and_once() {
    let index = index();
    assert_eq!(
        index.load_order(["virtio_net", "failover"]),
        [
            "kernel/net/core/failover.ko",
            "kernel/drivers/net/net_failover.ko",
            "kernel/drivers/net/virtio_net.ko",
        ]
    );
    assert_eq!(
        index.load_order(["ext4"]),
        ["kernel/crypto/crc32c-intel.ko.xz", "kernel/fs/ext4/ext4.ko"]
    );
    assert_eq!(
        index.load_order(["crc32c-intel"]),
        ["kernel/crypto/crc32c-intel.ko.xz"]
    );
    assert!(index.load_order(["built_in"]).is_empty());
}

#[test]
fn a_circle_of_needs_ends() {
    let index = Index::parse("a.ko: b.ko\nb.ko: a.ko\n", "", "");
    assert_eq!(index.load_order(["a"]), ["b.ko", "a.ko"]);
}

#[test]
fn patterns() {
    for (pattern, text, fits) in [
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("a*c", "abbbc", true),
        ("a*c", "abbbd", false),
        ("*", "", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("i[0-3]x", "i2x", true),
        ("i[0-3]x", "i4x", false),
        ("i[ab]x", "ibx", true),
        ("i[", "i[", false),
        ("*a*b*", "xxaxxbxx", true),
        ("of:N*T*Cfoo", "of:NethT(null)Cfoo", true),
        ("of:N*T*Cfoo", "of:NethT(null)Cfoobar", false),
    ] {
        assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
    }
}

#[test]
fn a_pattern_of_stars_costs_little() {
    let pattern = format!("{}b", "*a".repeat(40));
    assert!(!matches(&pattern, &"a".repeat(4000)));
}

#[test]
fn depmod_of_any_shape_is_survived() {
    for text in [
        "",
        ":",
        "a",
        "alias",
        "alias x",
        "softdep",
        "softdep a pre:",
        "\u{0}:\u{0} \u{0}",
    ] {
        let index = Index::parse(text, text, text);
        let _ = index.load_order(["a", "x"]);
        let _ = index.for_alias("x");
    }
}
