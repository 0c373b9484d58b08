//! The iPXE script of a node, rendered on each request; pure.
//!
//! Every value in it has a type that cannot hold script syntax (`BootName`, `Append`, addresses, UUIDs), so nothing is escaped.
//! The script has nothing secret: the grant is only fetched by its id, and never is on the kernel command line.
//! On UEFI the kernel finds its initramfs by the `initrd=` words, on BIOS iPXE hands it over.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::boot::{ArmedBoot, BootNode};

use super::urls;

/// Seconds a node waits before it asks again: long enough that 10,000 waiting nodes are 2,000 requests a second, short
/// enough that a node that was armed late loses little.
const RETRY_SECONDS: u32 = 5;

/// Under which address and ports the node reaches this head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Our address on the node's link.
    pub(crate) server: Ipv4Addr,
    /// Boot files.
    pub(crate) http_port: u16,
    /// Join and sync.
    pub(crate) sync_port: u16,
}

/// The script for a node, in the state it is in.
pub(crate) fn render(node: &BootNode, place: Place) -> String {
    match node.armed {
        Some(boot) => armed(node, boot, place),
        None => waiting(node, place),
    }
}

fn armed(node: &BootNode, boot: ArmedBoot, place: Place) -> String {
    let Place {
        server, http_port, ..
    } = place;
    let name = &node.name;
    let kernel = urls::kernel(server, http_port, node.mac);
    let initramfs = urls::initramfs(server, http_port, node.mac);
    let grant = urls::grant(server, http_port, boot.grant_id);
    let arguments = arguments(node, boot, place);
    let again = again(node, place);
    format!(
        "#!ipxe\n\
         imgfree\n\
         echo Kraken: {name} boots, boot {boot_id}\n\
         kernel --name kernel {kernel} initrd=initramfs initrd=grant {arguments} || goto failed\n\
         initrd --name initramfs {initramfs} || goto failed\n\
         initrd --name grant {grant} || goto failed\n\
         boot || goto failed\n\
         :failed\n\
         echo Kraken: boot of {name} failed, asking again in {RETRY_SECONDS} s\n\
         {again}",
        boot_id = boot.boot_id,
    )
}

fn waiting(node: &BootNode, place: Place) -> String {
    let (name, again) = (&node.name, again(node, place));
    format!(
        "#!ipxe\n\
         imgfree\n\
         echo Kraken: {name} is not to boot yet (not armed), asking again in {RETRY_SECONDS} s\n\
         {again}"
    )
}

fn again(node: &BootNode, place: Place) -> String {
    let script = urls::script(place.server, place.http_port, node.mac);
    format!(":again\nsleep {RETRY_SECONDS}\nchain --replace {script} || goto again\n")
}

/// The kernel command line; everybody on the node can read it.
fn arguments(node: &BootNode, boot: ArmedBoot, place: Place) -> String {
    let Place {
        server,
        http_port,
        sync_port,
    } = place;
    let mut line = format!(
        "kraken.node={} kraken.id={} kraken.parent={server}:{sync_port} kraken.http={server}:{http_port} kraken.ip={}",
        node.name, node.id, node.address,
    );
    if let Some(gateway) = node.gateway {
        // Writing to a String cannot fail.
        let _ = write!(line, " kraken.gw={gateway}");
    }
    let _ = write!(
        line,
        " kraken.mac={} kraken.boot={}",
        node.mac, boot.boot_id
    );
    if !node.append.as_str().is_empty() {
        let _ = write!(line, " {}", node.append.as_str());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::table::tests::{armed_node, node};

    const PLACE: Place = Place {
        server: Ipv4Addr::new(10, 77, 0, 1),
        http_port: 8080,
        sync_port: 31415,
    };

    fn check(node: &BootNode, expect: &str) {
        assert_eq!(render(node, PLACE), expect);
    }

    #[test]
    fn an_armed_node_gets_kernel_initramfs_and_grant() {
        check(
            &armed_node(1),
            "#!ipxe\n\
             imgfree\n\
             echo Kraken: n1 boots, boot 00000000-0000-0000-0000-000000001001\n\
             kernel --name kernel http://10.77.0.1:8080/boot/52:54:00:4b:00:01/kernel initrd=initramfs initrd=grant \
             kraken.node=n1 kraken.id=00000000-0000-0000-0000-000000000001 kraken.parent=10.77.0.1:31415 \
             kraken.http=10.77.0.1:8080 kraken.ip=10.77.0.11/24 kraken.gw=10.77.0.1 kraken.mac=52:54:00:4b:00:01 \
             kraken.boot=00000000-0000-0000-0000-000000001001 console=ttyS0 || goto failed\n\
             initrd --name initramfs http://10.77.0.1:8080/boot/52:54:00:4b:00:01/initramfs || goto failed\n\
             initrd --name grant http://10.77.0.1:8080/g/00000000-0000-0000-0000-000000002001 || goto failed\n\
             boot || goto failed\n\
             :failed\n\
             echo Kraken: boot of n1 failed, asking again in 5 s\n\
             :again\n\
             sleep 5\n\
             chain --replace http://10.77.0.1:8080/boot/52:54:00:4b:00:01/script || goto again\n",
        );
    }

    #[test]
    fn a_node_that_is_not_armed_waits_and_learns_no_grant() {
        check(
            &node(2),
            "#!ipxe\n\
             imgfree\n\
             echo Kraken: n2 is not to boot yet (not armed), asking again in 5 s\n\
             :again\n\
             sleep 5\n\
             chain --replace http://10.77.0.1:8080/boot/52:54:00:4b:00:02/script || goto again\n",
        );
    }

    #[test]
    fn gateway_and_arguments_may_be_missing() {
        let bare = BootNode {
            gateway: None,
            append: "".parse().expect("none"),
            ..armed_node(1)
        };
        let script = render(&bare, PLACE);
        assert!(!script.contains("kraken.gw="), "{script}");
        assert!(
            script.contains("kraken.boot=00000000-0000-0000-0000-000000001001 || goto failed\n"),
            "{script}"
        );
    }

    #[test]
    fn the_longest_command_line_fits_the_kernel() {
        let longest = BootNode {
            name: "n".repeat(63).parse().expect("a name"),
            address: "255.255.255.255/32".parse().expect("an address"),
            gateway: Some(Ipv4Addr::BROADCAST),
            append: "a"
                .repeat(crate::boot::table::MAX_APPEND_BYTES)
                .parse()
                .expect("arguments"),
            ..armed_node(1)
        };
        let boot = longest.armed.expect("armed");
        let place = Place {
            server: Ipv4Addr::BROADCAST,
            http_port: u16::MAX,
            sync_port: u16::MAX,
        };
        let line = arguments(&longest, boot, place);
        // COMMAND_LINE_SIZE of x86 is 2,048 with the NUL; iPXE's own `initrd=` words count too.
        assert!(
            line.len() + "initrd=initramfs initrd=grant ".len() < 2048,
            "{} bytes",
            line.len()
        );
    }
}
