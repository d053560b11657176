//! Which files are one and the same: an input that is emptied before it is read would be lost, one that is written to
//! while it is read never ends, and a journal, or a key, that is something else besides is none any more.

use std::{
    fs::{self, Metadata},
    path::{Path, PathBuf},
};

use super::failure::Failure;

/// A file that is read or written.
pub(super) struct Used {
    /// What the user calls it.
    name: &'static str,
    path: Option<PathBuf>,
    /// `None` for what several may share: pipes, terminals.
    identity: Option<Identity>,
}

impl Used {
    pub(super) fn named(name: &'static str, path: &Path) -> Self {
        Self { name, path: Some(path.to_owned()), identity: Identity::of(path) }
    }

    pub(super) fn stdin() -> Self {
        Self::stream("stdin", 0)
    }

    pub(super) fn stdout() -> Self {
        Self::stream("stdout", 1)
    }

    pub(super) fn stderr() -> Self {
        Self::stream("stderr", 2)
    }

    fn stream(name: &'static str, number: i32) -> Self {
        Self { name, path: None, identity: Identity::of_stream(number) }
    }
}

/// Makes sure that no two of them are one.
pub(super) fn check_apart(used: &[Used]) -> Result<(), Failure> {
    for (index, one) in used.iter().enumerate() {
        for other in &used[..index] {
            // What is said and what comes out may go into one file: both are only added to it.
            let is_log = (other.name, one.name) == ("stdout", "stderr");
            if one.identity.is_some() && one.identity == other.identity && !is_log {
                return Err(same(other, one));
            }
        }
    }
    Ok(())
}

fn same(one: &Used, other: &Used) -> Failure {
    let path = one.path.as_ref().or(other.path.as_ref());
    let path = path.map(|path| format!(", `{}`", path.display())).unwrap_or_default();
    Failure::own(format_args!("{} and {} are the same file{path}", one.name, other.name))
}

/// What tells a file from all others, whatever leads to it.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    /// Device and inode.
    #[cfg(unix)]
    There(u64, u64),
    /// It is not there yet: its folder's device and inode, and its name.
    #[cfg(unix)]
    New((u64, u64), std::ffi::OsString),
    #[cfg(not(unix))]
    Path(PathBuf),
}

#[cfg(unix)]
impl Identity {
    fn of(path: &Path) -> Option<Self> {
        match fs::metadata(path) {
            Ok(metadata) => Self::of_file(&metadata),
            Err(_) => Self::of_new(path),
        }
    }

    fn of_file(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::FileTypeExt;
        let keeps = metadata.is_file() || metadata.file_type().is_block_device();
        let (device, inode) = numbers(metadata);
        keeps.then_some(Self::There(device, inode))
    }

    /// Follows links that lead to nothing yet: writing makes what they lead to.
    fn of_new(path: &Path) -> Option<Self> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match fs::read_link(&path) {
                Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
                Err(_) => break,
            }
        }
        let name = path.file_name()?.to_owned();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(Self::New(numbers(&fs::metadata(folder).ok()?), name))
    }

    fn of_stream(number: i32) -> Option<Self> {
        use std::os::fd::AsFd;
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let stream = match number {
            0 => stdin.as_fd(),
            1 => stdout.as_fd(),
            _ => stderr.as_fd(),
        };
        // A stream that was closed is no file.
        let file = fs::File::from(stream.try_clone_to_owned().ok()?);
        Self::of_file(&file.metadata().ok()?)
    }
}

#[cfg(unix)]
fn numbers(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let is_file = fs::metadata(path).is_ok_and(|metadata: Metadata| metadata.is_file());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let new = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
        let path = if is_file { path.canonicalize().ok() } else { new() };
        path.map(Self::Path)
    }

    fn of_stream(_: i32) -> Option<Self> {
        None
    }
}

/// As many as the kernel follows.
#[cfg(unix)]
const MAX_LINKS: usize = 40;
