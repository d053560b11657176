//! Folders of our own: whose they are, and that what changed in them is on disk.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::quoting::quoted_path;

/// Why a folder is not one of our own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderFault {
    #[error("`{}` is no folder, but a file or a link", .path.display())]
    NoFolder { path: PathBuf },
    #[error("the folder `{}` belongs to another user, with the id {owner}: name another one", .path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("the folder `{0}` can be written by others (mode {mode:o}): look at what is in it, then chmod 700 {1}", .path.display(), quoted_path(.path))]
    Writable { path: PathBuf, mode: u32 },
    #[error("the folder `{}` cannot be used: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Checks that a folder belongs to this user, and that nobody else writes to it.
#[cfg(unix)]
pub(crate) fn check_folder(path: &Path) -> Result<File, FolderFault> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    use rustix::fs::OFlags;
    let failed = |source| FolderFault::Io { path: path.to_owned(), source };
    // What was opened is what is looked at, whatever comes to stand there in the meantime.
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let folder = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(folder) => folder,
        Err(error) => match path.symlink_metadata() {
            Ok(metadata) if !metadata.is_dir() => return Err(FolderFault::NoFolder { path: path.to_owned() }),
            _ => return Err(failed(error)),
        },
    };
    let metadata = folder.metadata().map_err(failed)?;
    if metadata.uid() != own_user_id() {
        return Err(FolderFault::Foreign { path: path.to_owned(), owner: metadata.uid() });
    }
    match metadata.mode() & 0o7777 {
        mode if mode & 0o022 != 0 => Err(FolderFault::Writable { path: path.to_owned(), mode }),
        _ => Ok(folder),
    }
}

#[cfg(not(unix))]
pub(crate) fn check_folder(path: &Path) -> Result<(), FolderFault> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(FolderFault::NoFolder { path: path.to_owned() }),
        Err(source) => Err(FolderFault::Io { path: path.to_owned(), source }),
    }
}

/// Makes a folder if it is not there, and lets nobody but this user in.
#[cfg(feature = "wasm")]
pub(crate) fn own_folder(path: &Path) -> Result<(), FolderFault> {
    let failed = |source| FolderFault::Io { path: path.to_owned(), source };
    if path.symlink_metadata().is_err() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(failed)?;
        sync_folder_of(path).map_err(failed)?;
    }
    #[cfg_attr(not(unix), allow(unused_variables, reason = "there are no modes"))]
    let folder = check_folder(path)?;
    // It may have been there, open to readers.
    #[cfg(unix)]
    folder.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed)?;
    Ok(())
}

/// Sees to it that a name in this folder is on disk: a file that was synced may be lost as long as its folder is not.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// The same for the folder that something is in.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    sync_folder(parent(path))
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The user whose files this process makes.
#[cfg(unix)]
pub(crate) fn own_user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(all(test, unix, feature = "wasm"))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_of_somebody_else_or_open_to_others_or_behind_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        own_folder(&own).unwrap();
        let set = |mode| std::fs::set_permissions(&own, PermissionsExt::from_mode(mode)).unwrap();
        set(0o755);
        own_folder(&own).unwrap();
        assert_eq!(std::fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700, "readers are shut out");
        for mode in [0o770, 0o1777, 0o722] {
            set(mode);
            let error = own_folder(&own).unwrap_err();
            assert!(matches!(error, FolderFault::Writable { .. }), "{error}");
            assert_eq!(std::fs::metadata(&own).unwrap().permissions().mode() & 0o7777, mode, "it is left as it is");
        }
        set(0o700);
        let link = folder.path().join("link");
        symlink(&own, &link).unwrap();
        assert!(matches!(own_folder(&link).unwrap_err(), FolderFault::NoFolder { .. }));
        if own_user_id() == 0 {
            std::os::unix::fs::chown(&own, Some(1000), None).unwrap();
            assert!(matches!(own_folder(&own).unwrap_err(), FolderFault::Foreign { owner: 1000, .. }));
        }
    }
}
