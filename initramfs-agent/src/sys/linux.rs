//! The real kernel. The only module of Kraken with `unsafe`: system calls that neither `std` nor `nix` wraps.

#![expect(
    unsafe_code,
    reason = "loop devices, pidfds and the watchdog have no safe wrapper"
)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Mount, Sys};

/// The running kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Linux;

/// `LOOP_CTL_GET_FREE`, `LOOP_CONFIGURE` (linux/loop.h).
const LOOP_CTL_GET_FREE: u32 = 0x4C82;
const LOOP_CONFIGURE: u32 = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Tries to get a free loop device: another process may take the one that the kernel named.
const LOOP_TRIES: u32 = 16;

/// `WDIOC_KEEPALIVE`, `WDIOC_SETTIMEOUT` (linux/watchdog.h): `_IOR('W', 5, int)`, `_IOWR('W', 6, int)`.
const WDIOC_KEEPALIVE: u32 = 0x8004_5705;
const WDIOC_SETTIMEOUT: u32 = 0xC004_5706;

/// `struct loop_info64` (linux/loop.h).
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` (linux/loop.h).
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232, "loop_info64 has 232 bytes");
const _: () = assert!(size_of::<LoopConfig>() == 304, "loop_config has 304 bytes");

impl Sys for Linux {
    fn mount(&self, wanted: &Mount) -> io::Result<()> {
        fs::create_dir_all(&wanted.target)?;
        let mut flags = MsFlags::empty();
        if wanted.flags.inert {
            flags |= MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        }
        if wanted.flags.nosuid {
            flags |= MsFlags::MS_NOSUID;
        }
        if wanted.flags.nodev {
            flags |= MsFlags::MS_NODEV;
        }
        if wanted.flags.read_only {
            flags |= MsFlags::MS_RDONLY;
        }
        if wanted.flags.bind {
            flags |= MsFlags::MS_BIND;
        }
        let kind = (!wanted.kind.is_empty()).then_some(wanted.kind);
        let data = (!wanted.data.is_empty()).then_some(wanted.data.as_str());
        match mount(Some(&wanted.source), &wanted.target, kind, flags, data) {
            // The kernel itself mounts devtmpfs when told to.
            Err(nix::Error::EBUSY) if wanted.kind == "devtmpfs" => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }

    fn make_private(&self) -> io::Result<()> {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(io::Error::from)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn symlink(&self, target: &str, link: &Path) -> io::Result<()> {
        match symlink(target, link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn attach_loop(&self, file: &Path) -> io::Result<PathBuf> {
        let backing = File::open(file)?;
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        for _ in 0..LOOP_TRIES {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours; the descriptor is open.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_CLOEXEC)
                .open(&path)?;
            match configure_loop(&device, &backing) {
                Ok(()) => {
                    // Auto-clear counts openers: the device must stay open until the mount holds it, that is, for this
                    // short-lived process.
                    std::mem::forget(device);
                    return Ok(path);
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!(
            "no free loop device in {LOOP_TRIES} tries"
        )))
    }

    fn enter_root(&self, root: &Path) -> io::Result<()> {
        std::env::set_current_dir(root)?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
        nix::unistd::chroot(".")?;
        std::env::set_current_dir("/")
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        nix::unistd::sethostname(name).map_err(io::Error::from)
    }
}

fn configure_loop(device: &File, backing: &File) -> io::Result<()> {
    let config = LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?,
        block_size: 0,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` has the layout of struct loop_config (sizes asserted above), lives through the call, and the kernel
    // only reads it. Both descriptors are open.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A descriptor that becomes readable when the process ends, and that signals exactly this process, whatever becomes of its number.
///
/// # Errors
/// There is no such process.
pub(crate) fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal, by number, to the process behind a pidfd.
///
/// # Errors
/// The process is gone, or is not ours to signal.
pub(crate) fn signal_pidfd(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; a null siginfo means "as kill(2)"; the kernel reads no memory of ours.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Lets tasks wait until a descriptor becomes readable. Needs the runtime.
///
/// # Errors
/// The kernel cannot watch it.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, stays the same descriptor, and is closed only when the AsyncFd drops it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(|refused| refused.into_parts().1)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal. A number: `nix` refuses real-time signals, and one of those must not stop PID 1 from reaping.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A child that has ended, left as it is, so that whoever owns it can still collect its status.
///
/// # Errors
/// There are no children at all (`ECHILD`).
pub(crate) fn peek_ended_child() -> io::Result<Option<u32>> {
    wait_child(libc::P_ALL, 0, libc::WNOHANG | libc::WNOWAIT).map(|found| found.map(|(pid, _)| pid))
}

/// Collects a child that has ended.
///
/// # Errors
/// It is no child of ours, or is collected already.
pub(crate) fn collect_child(pid: u32) -> io::Result<Option<Exit>> {
    wait_child(libc::P_PID, pid, libc::WNOHANG).map(|found| found.map(|(_, exit)| exit))
}

fn wait_child(kind: libc::idtype_t, id: u32, flags: i32) -> io::Result<Option<(u32, Exit)>> {
    // SAFETY: siginfo_t is plain data for which all zeros is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: waitid fills in `info`, which lives through the call.
    let done = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | flags) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: after waitid succeeds these fields are those of a child's siginfo, or zero where no child has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let exit = if info.si_code == libc::CLD_EXITED {
        Exit::Code(status)
    } else {
        Exit::Signal(status)
    };
    Ok(u32::try_from(pid)
        .ok()
        .filter(|pid| *pid != 0)
        .map(|pid| (pid, exit)))
}

/// The machine's watchdog timer: resets it unless petted.
#[derive(Debug)]
pub(crate) struct Watchdog(File);

impl Watchdog {
    /// Starts the timer. A driver that cannot be set to `timeout_s` keeps its own time.
    ///
    /// # Errors
    /// The machine has none, or somebody else holds it.
    pub(crate) fn open(path: &Path, timeout_s: i32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path)?;
        let mut timeout = timeout_s;
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int, which lives through the call. Failure leaves the driver's own time.
        let _ = unsafe { libc::ioctl(file.as_raw_fd(), WDIOC_SETTIMEOUT as _, &raw mut timeout) };
        Ok(Self(file))
    }

    /// Starts the time anew.
    pub(crate) fn pet(&self) -> io::Result<()> {
        let mut nothing = 0_i32;
        // SAFETY: WDIOC_KEEPALIVE takes a pointer to an int that the driver may write, and it lives through the call.
        let done =
            unsafe { libc::ioctl(self.0.as_raw_fd(), WDIOC_KEEPALIVE as _, &raw mut nothing) };
        if done < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}
