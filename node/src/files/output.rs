//! Where the command writes to what somebody has named.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::{
    folder::parent,
    open::{NO_LINK, is_descriptor, no_link},
    unfinished::Unfinished,
};

/// Opens a file for results, which is made if it is not there; what it holds stays. A pipe or a device may be there, but a
/// link is not followed, unless it is one of the system's to what is open in this process (`/dev/stdout`, `/dev/fd/N`).
///
/// # Errors
///
/// It cannot be opened, or is a link.
pub fn open_output(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if is_descriptor(path) {
        return options.open(path);
    }
    options.create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, NO_LINK.cast_signed());
    no_link(options.open(path), path)
}

/// Writes a whole file for everybody to read, in the place of one that is there: it is the old or the new one at any time.
///
/// # Errors
///
/// It cannot be written, or a link is there.
pub fn write_output(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let there = path.symlink_metadata().ok();
    // What goes to a pipe or a device is passed on as it comes; a link is refused there.
    if is_descriptor(path) || there.as_ref().is_some_and(|there| !there.is_file()) {
        return open_output(path)?.write_all(bytes);
    }
    let mut new = Unfinished::with_mode(parent(path), 0o666)?;
    if let Some(there) = there {
        new.file()?.set_permissions(there.permissions())?;
    }
    new.write(&[bytes])?;
    new.finish(path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn an_output_goes_through_no_link_and_replaces_no_device() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink("/dev/null", at("to-device")).unwrap();
        for name in ["link", "to-device"] {
            for error in [write_output(&at(name), b"x").unwrap_err(), open_output(&at(name)).unwrap_err()] {
                assert!(error.to_string().contains("it is a link"), "{error}");
            }
        }
        assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
        write_output(Path::new("/dev/null"), b"x").unwrap();
        assert!(!Path::new("/dev/null").symlink_metadata().unwrap().is_file());
        fs::set_permissions(at("victim"), PermissionsExt::from_mode(0o640)).unwrap();
        write_output(&at("victim"), b"new").unwrap();
        assert_eq!(fs::metadata(at("victim")).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read(at("victim")).unwrap(), b"new");
    }
}
