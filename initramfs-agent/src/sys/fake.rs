//! A kernel that writes down what it is asked, and fails where it is told to.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use super::{Mount, Sys};

/// Stand-in for [`super::Linux`].
#[derive(Debug, Default)]
pub(crate) struct FakeSys {
    calls: RefCell<Vec<String>>,
    fail_on: Option<&'static str>,
}

impl FakeSys {
    /// One that refuses the first call whose line contains `word`, and every such one after it.
    pub(crate) fn failing_on(word: &'static str) -> Self {
        Self {
            fail_on: Some(word),
            ..Self::default()
        }
    }

    /// A line for each call so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }

    fn call(&self, line: String) -> io::Result<()> {
        let refused = self.fail_on.is_some_and(|word| line.contains(word));
        self.calls.borrow_mut().push(line);
        if refused {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        } else {
            Ok(())
        }
    }
}

impl Sys for FakeSys {
    fn mount(&self, mount: &Mount) -> io::Result<()> {
        let how = if mount.flags.bind { "bind" } else { mount.kind };
        let (source, target) = (mount.source.display(), mount.target.display());
        self.call(
            format!("mount {how} {source} {target} {}", mount.data)
                .trim_end()
                .to_owned(),
        )
    }

    fn make_private(&self) -> io::Result<()> {
        self.call("private".to_owned())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.call(format!("mkdir {}", path.display()))
    }

    fn symlink(&self, target: &str, link: &Path) -> io::Result<()> {
        self.call(format!("symlink {target} {}", link.display()))
    }

    fn attach_loop(&self, file: &Path) -> io::Result<PathBuf> {
        self.call(format!("loop {}", file.display()))?;
        let number = self
            .calls
            .borrow()
            .iter()
            .filter(|line| line.starts_with("loop "))
            .count()
            - 1;
        Ok(PathBuf::from(format!("/dev/loop{number}")))
    }

    fn enter_root(&self, root: &Path) -> io::Result<()> {
        self.call(format!("root {}", root.display()))
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.call(format!("hostname {name}"))
    }
}
