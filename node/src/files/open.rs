//! Files that are there: opened without waiting for anybody, and read up to a limit.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    path::Path,
};

/// Reads a file that somebody has named: a regular one, or a pipe that this process was given (`/dev/stdin`, `/dev/fd/N`).
///
/// # Errors
///
/// It cannot be read, is a named pipe, a folder or a device, or has more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bounded(&open_named(path)?, limit)
}

/// The same for text in UTF-8.
///
/// # Errors
///
/// As [`read`], and if it is no UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Opens a file that somebody has named, for [`bounded`].
pub(crate) fn open_named(path: &Path) -> io::Result<File> {
    let file = without_waiting(OpenOptions::new().read(true), 0).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok(file);
    }
    if is_pipe_given(path, &metadata) {
        // Whoever writes into it may need a while.
        wait_again(&file)?;
        return Ok(file);
    }
    Err(irregular(&metadata))
}

/// Opens a regular file that somebody has named.
pub(crate) fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = without_waiting(options, 0).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(file) } else { Err(irregular(&metadata)) }
}

/// Opens a regular file in a folder of our own; a link is none of ours.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = no_link(without_waiting(options, NO_LINK).open(path), path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(file) } else { Err(irregular(&metadata)) }
}

/// The same; one that is not there is made, for its owner alone.
#[cfg(feature = "wasm")]
pub(crate) fn open_own_or_new(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    open_own(path, options)
}

/// Reads a file in a folder of our own.
pub(crate) fn read_own(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bounded(&open_own(path, OpenOptions::new().read(true))?, limit)
}

/// Reads the rest of a file.
pub(crate) fn bounded(mut file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let too_long = || {
        let text = format!("it has more than {limit} bytes, the most that is read of it");
        io::Error::new(io::ErrorKind::FileTooLarge, text)
    };
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() > limit {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let read = (&mut file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > limit { Err(too_long()) } else { Ok(bytes) }
}

/// Whether it is a pipe that this process was given under a number, as by `<(...)` of a shell. One with a name of its own
/// may be anybody's, and may never say anything.
fn is_pipe_given(path: &Path, metadata: &Metadata) -> bool {
    #[cfg(unix)]
    let is_pipe = std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type());
    #[cfg(not(unix))]
    let is_pipe = !metadata.is_file() && !metadata.is_dir();
    is_pipe && is_descriptor(path)
}

/// Whether the name stands for something that is open in this process.
pub(super) fn is_descriptor(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || path == Path::new("/dev/stdout")
        || path == Path::new("/dev/stderr")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

/// Says what is wrong where a link was not followed.
pub(crate) fn no_link<T>(opened: io::Result<T>, path: &Path) -> io::Result<T> {
    opened.map_err(|error| match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => {
            io::Error::new(io::ErrorKind::InvalidInput, "it is a link, which is not followed: name what it leads to")
        }
        _ => error,
    })
}

pub(super) fn irregular(metadata: &Metadata) -> io::Error {
    let what = if metadata.is_dir() { "a folder" } else { "a pipe, a socket or a device" };
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what} and no regular file"))
}

/// Opening a pipe would wait until somebody writes into it, maybe for ever.
#[cfg(unix)]
pub(super) fn without_waiting(options: &mut OpenOptions, more: u32) -> &mut OpenOptions {
    use rustix::fs::OFlags;
    let flags = OFlags::NONBLOCK.bits() | OFlags::NOCTTY.bits() | more;
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.cast_signed())
}

#[cfg(not(unix))]
pub(super) fn without_waiting(options: &mut OpenOptions, _: u32) -> &mut OpenOptions {
    options
}

#[cfg(unix)]
pub(super) const NO_LINK: u32 = rustix::fs::OFlags::NOFOLLOW.bits();
#[cfg(not(unix))]
pub(super) const NO_LINK: u32 = 0;

#[cfg(unix)]
pub(super) fn wait_again(file: &File) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(file)? - OFlags::NONBLOCK;
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(not(unix))]
pub(super) fn wait_again(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn a_link_to_something_endless_and_a_pipe_without_a_writer_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("/dev/zero", at("endless")).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        symlink(at("pipe"), at("to-pipe")).unwrap();
        for name in ["endless", "pipe", "to-pipe", "."] {
            for result in [read(&at(name), 100), read_own(&at(name), 100)] {
                let error = result.unwrap_err().to_string();
                assert!(error.contains("no regular file") || error.contains("it is a link"), "{name}: {error}");
            }
        }
    }

    #[test]
    fn what_is_named_may_be_a_link_and_what_is_ours_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(read_text(&link, 4).unwrap(), "text");
        assert_eq!(read_own(&file, 4).unwrap(), b"text");
        assert!(read_own(&link, 4).unwrap_err().to_string().contains("it is a link"));
        let error = read(&link, 3).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 3 bytes, the most that is read of it");
    }

    #[test]
    fn a_pipe_that_was_given_is_read_to_its_end() {
        let script = r#"exec "$0" --exact files::open::tests::child_that_reads_its_stdin --ignored --nocapture"#;
        let mut child = Command::new("sh");
        child.args(["-c", &format!("(sleep 0.1; printf text) | {script}")]).arg(std::env::current_exe().unwrap());
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    #[ignore = "it is the child of another test"]
    fn child_that_reads_its_stdin() {
        assert_eq!(read_text(Path::new("/dev/stdin"), 4).unwrap(), "text");
    }
}
