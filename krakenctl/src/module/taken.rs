//! Names that a new module cannot have: those of the head, and, for a program in Python, of what its file would hide.

use std::collections::BTreeSet;

use engine::extension::Schema;

/// Names of the head's own modules, and what has them in urls.
const HEAD: &[&str] = &[
    "core", "power", "pxe", "image", "service", "services", "state",
];

/// Modules of Python's own library (`sys.stdlib_module_names` of 3.9 to 3.14, in lower case), and packages that the glue imports.
const PYTHON: &str = "\
abc aifc annotationlib antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii bisect builtins bz2 calendar cgi cgitb chunk cmath cmd code codecs codeop collections colorsys compileall compression \
concurrent configparser contextlib contextvars copy copyreg crypt csv ctypes curses dataclasses datetime dbm decimal difflib dis distutils doctest email encodings ensurepip enum errno faulthandler fcntl filecmp fileinput fnmatch \
formatter fractions ftplib functools gc genericpath getopt getpass gettext glob google graphlib grp grpc gzip hashlib heapq hmac html http idlelib imaplib imghdr imp importlib inspect io ipaddress itertools json keyword kraken \
kraken_module lib2to3 linecache locale logging lzma mailbox mailcap marshal math mimetypes mmap modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt ntpath nturl2path numbers opcode operator optparse os ossaudiodev parser \
pathlib pdb pickle pickletools pipes pkgutil platform plistlib poplib posix posixpath pprint profile proto pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue quopri random re readline reprlib resource rlcompleter runpy \
sched secrets select selectors shelve shlex shutil signal site smtpd smtplib sndhdr socket socketserver spwd sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string stringprep struct subprocess sunau symtable sys \
sysconfig syslog tabnanny tarfile telnetlib tempfile termios textwrap this threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty turtle turtledemo types typing unicodedata unittest urllib uu uuid venv \
warnings wave weakref webbrowser winreg winsound wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport zlib zoneinfo";

/// Why a module cannot be called so, if it cannot.
pub(super) fn why(name: &str, python: bool) -> Option<String> {
    let schema = Schema::built_in();
    let first = |pattern: &str| pattern.split('/').nth(1).unwrap_or_default().to_owned();
    let built_in: BTreeSet<String> = schema.iter().map(|(pattern, _)| first(pattern)).collect();
    let whose = if HEAD.contains(&name) || built_in.contains(name) {
        "is a name of the head's own".to_owned()
    } else if python && PYTHON.split_whitespace().any(|taken| taken == name) {
        format!("is a package of Python's, which {name}.py would hide from the program")
    } else {
        return None;
    };
    Some(format!(
        "{name} {whose}: choose another name, such as site_{name}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_head_and_of_python_are_refused() {
        for (name, python, words) in [
            ("host", false, Some("the head's own")),
            ("ipv4", true, Some("the head's own")),
            ("services", false, Some("such as site_services")),
            ("state", false, Some("the head's own")),
            ("queue", true, Some("queue.py would hide")),
            ("queue", false, None),
            ("fan", true, None),
        ] {
            let why = why(name, python);
            match words {
                Some(words) => assert!(why.is_some_and(|why| why.contains(words)), "{name}"),
                None => assert_eq!(why, None),
            }
        }
    }
}
