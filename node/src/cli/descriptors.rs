//! File descriptors: how many a process may have, and how many it has. Each connection takes one.

use multinodes::diagnosis;

/// Pipes, files, and what the system's libraries open.
const BESIDE_CONNECTIONS: u64 = 64;

/// What a node may come to need, by its own limits.
pub(crate) fn wanted() -> u64 {
    u64::try_from(diagnosis::most_connections()).unwrap_or(u64::MAX).saturating_add(BESIDE_CONNECTIONS)
}

/// How many this process may have; `None` if there is no limit, or it is not known.
#[cfg(unix)]
pub(crate) fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
pub(crate) fn limit() -> Option<u64> {
    None
}

/// That all descriptors of a process of this user are taken, or all but one or two; nothing where that cannot be told.
pub(crate) fn shortage(pid: u32) -> Option<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let limit = open_files(&limits)?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.take(most).count();
    (open.saturating_add(FEW) >= most).then(|| format!("{open} of the {limit} files that it may open are open"))
}

/// To accept a connection takes one, and to look at a file another.
const FEW: usize = 2;

/// Of the line `Max open files            1024                 524288               files`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_what_the_system_says() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             7                    7                    processes \n\
                      Max open files            40                   524288               files     \n";
        assert_eq!(open_files(limits), Some(40));
        assert_eq!(open_files("Max open files            unlimited            unlimited            files"), None);
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn what_is_wanted_by_default_fits_what_systems_allow_by_default() {
        assert!((256..1024).contains(&wanted()), "{}", wanted());
    }
}
