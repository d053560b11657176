//! Code on its way here: hashed as it comes, kept when it breaks off, and whole or nothing at the end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::PathBuf,
};

use sha2::{Digest, Sha256};

use super::{Place, Store, StoreError, lock};
use crate::code::{cid::Cid, folder::Folder};

/// Code that is being received. Dropped before its end, what came is kept, and [`Store::begin`] goes on from there.
#[derive(Debug)]
#[must_use = "what is received is of use only when it is finished"]
pub struct Partial {
    store: Store,
    cid: Cid,
    size: u64,
    received: u64,
    hash: Sha256,
    /// `None` once nothing of it is to be kept.
    place: Option<Half>,
}

#[derive(Debug)]
enum Half {
    Disk(File, PathBuf),
    Memory(Vec<u8>),
}

impl Partial {
    pub(super) fn begin(store: Store, cid: Cid, size: u64) -> Result<Self, StoreError> {
        if !lock(&store.0.receiving).insert(cid) {
            return Err(StoreError::InProgress { cid });
        }
        // From here on its drop takes the mark away.
        let mut partial = Self { store, cid, size, received: 0, hash: Sha256::new(), place: None };
        partial.open().map_err(|source| partial.store.failed(size, source))?;
        Ok(partial)
    }

    /// How many bytes are here: the transfer goes on at this offset.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many there will be.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the bytes that follow those that are here.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongPlace`] takes nothing. After [`StoreError::Full`] and [`StoreError::Io`] nothing is kept.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let (given, received, size) = (bytes.len() as u64, self.received, self.size);
        if offset != received || given > size - received {
            return Err(StoreError::WrongPlace { offset, given, received, size });
        }
        let written = match &mut self.place {
            Some(Half::Disk(file, _)) => file.write_all(bytes),
            Some(Half::Memory(half)) => {
                half.extend_from_slice(bytes);
                Ok(())
            }
            None => Err(io::Error::other("an earlier part could not be kept")),
        };
        if let Err(source) = written {
            self.discard();
            return Err(self.store.failed(size, source));
        }
        self.hash.update(bytes);
        self.received += given;
        Ok(())
    }

    /// Checks that it is what was asked for, and keeps it in the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongHash`], also if bytes are missing; [`StoreError::Full`], [`StoreError::Io`]. Nothing is kept then.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let actual = Cid::of_hash(self.hash.clone());
        if actual != self.cid {
            self.discard();
            return Err(StoreError::WrongHash { expected: self.cid, actual });
        }
        let kept = match (&self.store.0.place, self.place.take()) {
            (Place::Disk { whole, .. }, Some(Half::Disk(file, path))) => {
                let name = self.cid.to_string();
                let kept = file.sync_data().and_then(|()| whole.adopt(&path, &name));
                if kept.is_err() {
                    _ = fs::remove_file(path);
                }
                kept
            }
            (Place::Memory(memory), Some(Half::Memory(bytes))) => lock(memory).insert(self.cid, bytes.into()),
            _ => Err(io::Error::other("an earlier part could not be kept")),
        };
        kept.map_err(|source| self.store.failed(self.size, source))
    }

    /// Finds what came before, and hashes it.
    fn open(&mut self) -> io::Result<()> {
        match &self.store.0.place {
            Place::Disk { partial, .. } => {
                let name = self.cid.to_string();
                let path = partial.path_of(&name);
                let mut file = open(partial, &name)?;
                // What is longer than all of it is not a part of it, and not worth a look.
                let is_part = file.metadata()?.len() <= self.size;
                let (mut hash, mut received) = if is_part { hash(&mut file)? } else { (Sha256::new(), u64::MAX) };
                if received > self.size {
                    file.set_len(0)?;
                    (hash, received) = (Sha256::new(), 0);
                }
                partial.touch(&self.cid.to_string());
                partial.make_room(self.size - received)?;
                (self.hash, self.received) = (hash, received);
                self.place = Some(Half::Disk(file, path));
            }
            Place::Memory(memory) => {
                let mut half = lock(memory).resume(&self.cid, self.size)?;
                if half.len() as u64 > self.size {
                    half.clear();
                }
                self.hash.update(&half);
                self.received = half.len() as u64;
                self.place = Some(Half::Memory(half));
            }
        }
        Ok(())
    }

    fn discard(&mut self) {
        if let Some(Half::Disk(_, path)) = self.place.take() {
            _ = fs::remove_file(path);
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        match (self.place.take(), &self.store.0.place) {
            (Some(Half::Memory(half)), Place::Memory(memory)) => lock(memory).suspend(self.cid, half),
            // Nothing came of it, as of a name that was made up.
            (Some(Half::Disk(_, path)), _) if self.received == 0 => _ = fs::remove_file(path),
            _ => {}
        }
        lock(&self.store.0.receiving).remove(&self.cid);
        self.store.0.released.notify_waiters();
    }
}

/// Opens it for more to be appended. What is no file is removed: it is none of ours.
fn open(folder: &Folder, name: &str) -> io::Result<File> {
    let open = || folder.open_file(name, OpenOptions::new().read(true).append(true));
    match open() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            folder.remove(name)?;
            open()
        }
        result => result,
    }
}

/// What is in a file, as far as it goes.
fn hash(file: &mut File) -> io::Result<(Sha256, u64)> {
    const BLOCK: usize = 64 * 1024;
    let (mut hash, mut length) = (Sha256::new(), 0);
    file.rewind()?;
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok((hash, length)),
            read => {
                hash.update(&block[..read]);
                length += read as u64;
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said_and_leaves_nothing_half() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Some(folder.path().to_owned()), None).unwrap();
        let bytes = b"some code";
        let mut receiving = store.begin(Cid::of(bytes), bytes.len() as u64).unwrap();
        // A device on which there is never any room.
        let full = File::options().append(true).open("/dev/full").unwrap();
        let Some(Half::Disk(file, _)) = &mut receiving.place else { panic!("it is on disk") };
        *file = full;
        let error = receiving.write(0, bytes).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert!(error.to_string().starts_with("there is no room for code of"), "{error}");
        drop(receiving);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(store.find(&Cid::of(bytes)), None);
    }
}
