//! What runs on this machine, out of /proc: by session, for a module and all that it started, and by user.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// What a session uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Processes and threads.
    pub(super) tasks: u64,
    /// Resident memory, bytes; shared pages count for each process.
    pub(super) resident: u64,
}

/// The parts of `/proc/PID/stat` that matter here.
struct Stat {
    session: i32,
    is_zombie: bool,
    tasks: u64,
    resident_pages: u64,
}

/// What the processes of this session use together.
pub(super) fn of_session(session: i32) -> Used {
    let page = page_size();
    let mut used = Used::default();
    for (_, stat) in all().filter(|(_, stat)| stat.session == session && !stat.is_zombie) {
        used.tasks += stat.tasks;
        used.resident += stat.resident_pages * page;
    }
    used
}

/// The processes of this session.
pub(super) fn members(session: i32) -> Vec<i32> {
    let members = all().filter(|(_, stat)| stat.session == session && !stat.is_zombie);
    members.map(|(pid, _)| pid).collect()
}

/// Processes and threads of this user.
pub(super) fn tasks_of(uid: u32) -> u64 {
    let own = all().filter(|(pid, _)| {
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == uid)
    });
    own.map(|(_, stat)| stat.tasks).sum()
}

fn all() -> impl Iterator<Item = (i32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parse(&text)?))
    })
}

/// proc(5): the name in parentheses may hold anything, so fields count from its end.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        session: fields.get(3)?.parse().ok()?,
        tasks: fields.get(17)?.parse().ok()?,
        resident_pages: fields.get(21)?.parse().ok()?,
    })
}

fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat =
            parse("7 (a) R (b) S 1 7 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 100 1000 25 1")
                .unwrap();
        assert_eq!(
            (
                stat.session,
                stat.tasks,
                stat.resident_pages,
                stat.is_zombie
            ),
            (42, 3, 25, false)
        );
        assert!(parse("7 (a").is_none());
    }

    #[test]
    fn this_process_is_found() {
        let me = nix::unistd::getsid(None).unwrap().as_raw();
        let used = of_session(me);
        assert!(used.tasks >= 1 && used.resident > 1 << 20, "{used:?}");
        assert!(members(me).contains(&i32::try_from(std::process::id()).unwrap()));
        assert!(tasks_of(nix::unistd::Uid::effective().as_raw()) >= used.tasks.min(2));
    }
}
