//! An image with a module in Python: the demo image, this machine's own Python as far as grpcio needs it, and `tuner.py` of
//! `proto/examples/python` with its glue.
//!
//! Only the claim about it makes it, for it needs PyPI; it is kept under `target/lab` like the other artifacts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    Artifacts, demo, file_digest,
    libraries::{self, inside},
    once,
};
use crate::{doctor, paths};

/// The worked example of a module on a node, and the glue.
const PROGRAMS: [&str; 2] = ["kraken_module.py", "tuner.py"];

/// Shows the kernel's swappiness, and turns it back as an administrator might who knows nothing of the module.
const SWAPPINESS: &str = r#"#!/bin/sh
echo "Content-Type: text/plain"
echo
[ "$QUERY_STRING" = 60 ] && echo 60 > /proc/sys/vm/swappiness
cat /proc/sys/vm/swappiness
"#;

/// Parts of the standard library that no module here needs and that are large.
const LEFT_OUT: [&str; 10] = [
    "test",
    "idlelib",
    "tkinter",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "pydoc_data",
    "turtledemo",
    "unittest",
    "distutils",
];

/// Says where Python, its library and its extension modules are.
const WHERE: &str = "import os, sys, sysconfig\n\
    print(os.path.realpath(sys.executable), sysconfig.get_paths()['stdlib'], sys.base_prefix, sep='\\n')";

/// Where the worked examples are.
pub fn examples() -> PathBuf {
    paths::workspace().join("proto/examples/python")
}

/// The folder of the signed image, made once.
pub fn image(artifacts: &Artifacts) -> Result<PathBuf> {
    let programs = PROGRAMS.map(|name| examples().join(name));
    let key = [
        file_digest(&programs[0])?,
        file_digest(&programs[1])?,
        file_digest(&examples().join("requirements.txt"))?,
        file_digest(&artifacts.image_tool)?,
        file_digest(&artifacts.keys.join("cluster.pub"))?,
        demo::recipe(),
        SWAPPINESS.to_owned(),
    ]
    .join("\n");
    once("python", "image with Python", &key, |out, stage, log| {
        let lab = paths::lab();
        let (venv, root) = (tempfile::tempdir_in(&lab)?, tempfile::tempdir_in(&lab)?);
        let python = venv.path().join("bin/python");
        let mut make = Command::new(examples().join("make-venv"));
        stage.run(make.arg(venv.path()), log)?;
        let busybox =
            doctor::static_busybox().context("no static busybox (package busybox-static)")?;
        demo::make_root(root.path(), &busybox)?;
        let app = root.path().join("opt/tuner");
        fs::create_dir_all(&app)?;
        let proto = paths::workspace().join("proto");
        let mut stubs = Command::new(&python);
        stubs.args(["-m", "grpc_tools.protoc", "-I"]).arg(&proto);
        stubs
            .arg("--python_out")
            .arg(&app)
            .arg("--grpc_python_out")
            .arg(&app);
        stubs.args(
            ["state", "mutation", "module"]
                .map(|name| proto.join(format!("kraken/v1/{name}.proto"))),
        );
        stage.run(&mut stubs, log)?;
        for program in &programs {
            fs::copy(program, app.join(program.file_name().context("a name")?))?;
        }
        demo::make_page(root.path(), "swappiness", SWAPPINESS)?;
        let prefix = copy_python(&python, venv.path(), root.path(), &app)?;
        start_with_init(root.path(), &prefix)?;
        let mut command = demo::pack(root.path(), &artifacts.image_tool, &artifacts.keys, out);
        stage.run(&mut command, log)
    })
}

/// Copies the interpreter, its library, grpcio and every shared library that these name. Returns its prefix.
fn copy_python(python: &Path, venv: &Path, root: &Path, app: &Path) -> Result<String> {
    let said = Command::new(python).args(["-c", WHERE]).output()?;
    let said = String::from_utf8(said.stdout)?;
    let mut lines = said.lines().map(PathBuf::from);
    let (Some(program), Some(library), Some(prefix)) = (lines.next(), lines.next(), lines.next())
    else {
        anyhow::bail!("{} does not say where its library is", python.display());
    };
    let mut native = vec![program.clone()];
    copy_tree(&library, &inside(root, &library), &mut native)?;
    let version = library.file_name().context("a library")?;
    let site = venv.join("lib").join(version).join("site-packages");
    for package in ["grpc", "google"] {
        copy_tree(&site.join(package), &app.join(package), &mut native)?;
    }
    fs::copy(
        site.join("typing_extensions.py"),
        app.join("typing_extensions.py"),
    )?;
    fs::create_dir_all(root.join("usr/bin"))?;
    fs::copy(&program, root.join("usr/bin/python3"))?;
    libraries::copy(&native, root)?;
    Ok(prefix.display().to_string())
}

/// Copies a folder without what is left out; notes the native libraries in it.
fn copy_tree(from: &Path, to: &Path, native: &mut Vec<PathBuf>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let left_out = LEFT_OUT.contains(&name.as_str())
            || name == "__pycache__"
            || name.starts_with("config-")
            || name.ends_with(".a");
        if left_out {
            continue;
        }
        if path.is_dir() {
            copy_tree(&path, &to.join(&name), native)?;
        } else {
            fs::copy(&path, to.join(&name))?;
            if name.ends_with(".so") {
                native.push(path);
            }
        }
    }
    Ok(())
}

/// The module starts before the image's service.
fn start_with_init(root: &Path, prefix: &str) -> Result<()> {
    let path = root.join("sbin/init");
    let text = fs::read_to_string(&path)?;
    let library = format!("{prefix}/lib");
    let start = format!(
        "PYTHONHOME={prefix} LD_LIBRARY_PATH={library} PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 /opt/tuner/tuner.py > /dev/console 2>&1 &\nhttpd -f"
    );
    ensure!(
        text.contains("httpd -f"),
        "the demo image's init has changed"
    );
    fs::write(&path, text.replacen("httpd -f", &start, 1))?;
    Ok(())
}
