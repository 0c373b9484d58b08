//! The demo image's root: busybox and an init that serves one page on port 80.
//!
//! `/cgi-bin/busy?on` and `?off` stand for a user's job that must not be disturbed; `/cgi-bin/crash` for a service that dies.
//! An image is root on its node's network, so a page that runs commands would be no demo but a hole: these take no argument.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use anyhow::Result;

const INIT: &str = r#"#!/bin/sh
# The image's pid 1: serves a page, and ends when it is told to.
export PATH=/bin:/sbin
[ -e /proc/self ] || mount -t proc proc /proc
node=$(sed -n 's/.*kraken\.node=\([^ ]*\).*/\1/p' /proc/cmdline)
{
    echo "image: $(cat /etc/image-name)"
    echo "node: $node"
    echo "host: $(hostname)"
    echo "started: $(cut -d' ' -f1 /proc/uptime) s after the kernel"
} > /www/index.html
httpd -f -p 80 -h /www &
server=$!
trap 'kill $server; echo "demo image: stopped"; exit 0' TERM INT
echo "demo image: serving on port 80"
wait $server
echo "demo image: httpd ended"
exit 1
"#;

const BUSY: &str = r#"#!/bin/sh
echo "Content-Type: text/plain"
echo
case "$QUERY_STRING" in
on) : > /run/kraken/busy.d/demo-job && echo busy ;;
off) rm -f /run/kraken/busy.d/demo-job && echo idle ;;
*) ls /run/kraken/busy.d ;;
esac
"#;

const CRASH: &str = r#"#!/bin/sh
echo "Content-Type: text/plain"
echo
echo crashing
kill -TERM $(pidof httpd)
"#;

/// Applets that the scripts above and somebody who looks around call.
const APPLETS: [&str; 24] = [
    "sh", "mount", "umount", "cat", "echo", "ls", "sed", "cut", "hostname", "httpd", "kill",
    "pidof", "ps", "rm", "sleep", "uname", "uptime", "wget", "ip", "df", "free", "id", "touch",
    "nc",
];

/// A text that changes whenever the root would.
pub fn recipe() -> String {
    [INIT, BUSY, CRASH, &APPLETS.join(" ")].join("\n")
}

/// Fills `root`.
pub fn make_root(root: &Path, busybox: &Path) -> Result<()> {
    for dir in [
        "bin",
        "sbin",
        "etc",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "www/cgi-bin",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/image-name"), "demo\n")?;
    make_program(&root.join("sbin/init"), INIT)?;
    make_page(root, "busy", BUSY)?;
    make_page(root, "crash", CRASH)
}

/// Adds the page `/cgi-bin/NAME`, made by a script.
pub fn make_page(root: &Path, name: &str, script: &str) -> Result<()> {
    make_program(&root.join("www/cgi-bin").join(name), script)
}

fn make_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Signs and packs a root as the image `demo`.
pub fn pack(root: &Path, image_tool: &Path, keys: &Path, out: &Path) -> Command {
    let mut command = Command::new(image_tool);
    command.args(["image", "--name", "demo", "--init", "/sbin/init"]);
    command.args(["--all-root", "--from"]).arg(root);
    command.arg("--keys").arg(keys).arg("--out").arg(out);
    command
}
