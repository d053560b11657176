//! A file that this process alone uses, for a while.

use std::fs::{File, TryLockError};

/// Locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// Locks a file, unless another process or another part of this one has.
    pub(crate) fn new(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }

    /// For a file that is locked already.
    pub(crate) fn already(file: File) -> Self {
        Self(file)
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // To close it would not always do: a process that is just being started has it open as well, until it runs its
        // program.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_free_as_soon_as_it_is_dropped_whoever_has_it_open() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let open = || File::options().write(true).open(&path).unwrap();
        let locked = Locked::new(open()).unwrap();
        let of_a_child = locked.file().try_clone().unwrap();
        assert!(matches!(Locked::new(open()), Err(TryLockError::WouldBlock)));
        drop(locked);
        drop(Locked::new(open()).unwrap());
        drop(of_a_child);
    }
}
