//! Compiled code, in memory and on disk.

use std::{collections::HashMap, fs, io, path::Path};

use super::{
    here::MAX_COMPILED,
    seal::{LENGTH, SealKey, Sealed},
};
use crate::{
    code::{cid::Cid, code_ref::World, folder::Folder, vetting::Vetted},
    files,
};

/// Code that is kept ready to run. Its machine code is a few times as long as the code that travels.
const LOADED: usize = 64;

/// All the compiled code on disk, in bytes. Compiling anew what was let go costs time only.
const ON_DISK: u64 = 1024 * 1024 * 1024;

/// The world, and five numbers of 8 bytes.
const KNOWN: usize = 1 + 5 * 8;

/// Of the files with machine code.
const EXTENSION: &str = "cwasm";

/// All of it together, in bytes of machine code and of the records of it: what one rule lets in can be some megabytes each.
const LOADED_BYTES: usize = 256 * 1024 * 1024;

/// What is ready to run; the one that was not used for longest goes first.
#[derive(Debug)]
pub(super) struct Loaded<T> {
    all: HashMap<Cid, Ready<T>>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Ready<T> {
    value: T,
    bytes: usize,
    used: u64,
}

impl<T: Clone> Loaded<T> {
    pub(super) fn find(&mut self, cid: &Cid) -> Option<T> {
        self.clock += 1;
        let ready = self.all.get_mut(cid)?;
        ready.used = self.clock;
        Some(ready.value.clone())
    }

    pub(super) fn insert(&mut self, cid: Cid, value: T, bytes: usize) {
        self.clock += 1;
        self.remove(&cid);
        self.bytes += bytes;
        self.all.insert(cid, Ready { value, bytes, used: self.clock });
        while self.all.len() > LOADED || self.bytes > LOADED_BYTES && self.all.len() > 1 {
            let oldest = self.all.iter().min_by_key(|(_, ready)| ready.used).map(|(cid, _)| *cid);
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, cid: &Cid) {
        self.bytes -= self.all.remove(cid).map_or(0, |ready| ready.bytes);
    }
}

impl<T> Default for Loaded<T> {
    fn default() -> Self {
        Self { all: HashMap::new(), bytes: 0, clock: 0 }
    }
}

/// A folder for each engine: what another one has compiled is of no use. Each file begins with its seal and what is known
/// of the code that it was made of.
#[derive(Debug)]
pub(super) struct Cache {
    folder: Folder,
    engine: String,
    key: SealKey,
}

impl Cache {
    /// Without a key, that in the folder is used.
    pub(super) fn open(folder: &Path, engine: &str, key: Option<SealKey>) -> io::Result<Self> {
        // Both are our own, or what is in there is somebody else's, who would run machine code here.
        files::own_folder(folder).map_err(io::Error::other)?;
        let largest = LENGTH as u64 + KNOWN as u64 + MAX_COMPILED;
        let cache = Folder::open(folder.join(engine), EXTENSION, ON_DISK, largest).map_err(io::Error::other)?;
        sweep(folder, engine)?;
        let key = key.map_or_else(|| SealKey::in_folder(cache.path()), Ok)?;
        Ok(Self { folder: cache, engine: engine.to_owned(), key })
    }

    /// What was compiled before of this code, if it is as it was written.
    pub(super) fn read(&self, cid: &Cid) -> Option<(Vetted, Vec<u8>)> {
        let name = cid.to_string();
        let mut bytes = match self.folder.read(&name) {
            Ok(bytes) => bytes?,
            // A link, a pipe, or far too long: nothing that was ever written here.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge) => {
                tracing::warn!(%cid, %error, "what lies in the place of compiled code is removed, and the code compiled anew");
                _ = self.folder.remove(&name);
                return None;
            }
            // The disk, or this process, may be at fault for a while: the file may be as good as ever.
            Err(error) => {
                tracing::warn!(%cid, %error, "compiled code cannot be read now, and is compiled anew");
                return None;
            }
        };
        match self.open_sealed(cid, &bytes) {
            Some(vetted) => {
                self.folder.touch(&name);
                bytes.drain(..LENGTH + KNOWN);
                Some((vetted, bytes))
            }
            None => {
                tracing::warn!(%cid, "compiled code is damaged, or not what this node has made of it: it is compiled anew");
                _ = self.folder.remove(&name);
                None
            }
        }
    }

    pub(super) fn write(&self, cid: &Cid, vetted: &Vetted, native: &[u8]) -> io::Result<()> {
        debug_assert!(native.len() as u64 <= MAX_COMPILED, "the compiler's limit");
        let known = known(vetted);
        let seal = self.key.seal(&self.sealed(cid, &known, native));
        self.folder.write(&cid.to_string(), &[&seal[..], &known, native])
    }

    fn sealed<'a>(&'a self, cid: &'a Cid, known: &'a [u8], native: &'a [u8]) -> Sealed<'a> {
        Sealed { engine: &self.engine, cid, known, native }
    }

    /// What is known of the code, if the seal is good.
    fn open_sealed(&self, cid: &Cid, bytes: &[u8]) -> Option<Vetted> {
        let (seal, rest) = bytes.split_at_checked(LENGTH)?;
        let (known, native) = rest.split_at_checked(KNOWN)?;
        if !self.key.fits(seal, &self.sealed(cid, known, native)) {
            return None;
        }
        let (tag, numbers) = known.split_first()?;
        let world = [World::Task, World::Application].into_iter().find(|world| byte(*world) == *tag)?;
        let (numbers, _) = numbers.as_chunks();
        let numbers: [[u8; 8]; 5] = numbers.try_into().ok()?;
        let [size, cost, largest, instance, items] = numbers.map(u64::from_le_bytes);
        Some(Vetted { world, size, cost, largest, instance, items })
    }
}

/// Removes what was compiled of some code by any engine, out of a folder in which a node keeps code; false if there was
/// nothing.
///
/// # Errors
///
/// A file cannot be removed, or the folder not be read.
pub fn forget_compiled(folder: &Path, cid: &Cid) -> io::Result<bool> {
    let mut found = false;
    for entry in fs::read_dir(folder)? {
        match fs::remove_file(entry?.path().join(format!("{cid}.{EXTENSION}"))) {
            Ok(()) => found = true,
            // The folder has files, too, and folders of other engines.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn known(vetted: &Vetted) -> Vec<u8> {
    let Vetted { world, size, cost, largest, instance, items } = vetted;
    let numbers = [size, cost, largest, instance, items].map(|number| number.to_le_bytes());
    [&[byte(*world)][..], numbers.as_flattened()].concat()
}

fn byte(world: World) -> u8 {
    match world {
        World::Task => 0,
        World::Application => 1,
    }
}

/// Removes what engines of other versions have left.
fn sweep(folder: &Path, engine: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_other =
            name != engine && name.len() == engine.len() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_other && path.is_dir() {
            _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn what_cannot_be_read_for_a_while_is_left_and_what_was_never_written_is_removed() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let test = "code::compiler::cache::tests::child_that_may_open_nothing";
        let output = child.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    #[cfg(unix)]
    #[ignore = "it is the child of another test: for a moment its process can open nothing"]
    fn child_that_may_open_nothing() {
        use std::os::unix::fs::symlink;

        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), "engine", None).unwrap();
        let (cid, native) = (Cid::of(b"code"), b"native");
        let vetted = Vetted { world: World::Task, size: 1, cost: 2, largest: 3, instance: 4, items: 5 };
        cache.write(&cid, &vetted, native).unwrap();
        let file = cache.folder.path_of(&cid.to_string());
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: limit.maximum }).unwrap();
        let read = cache.read(&cid);
        setrlimit(Resource::Nofile, limit).unwrap();
        assert_eq!(read, None);
        assert_eq!(cache.read(&cid), Some((vetted, native.to_vec())), "it is as it was");
        std::fs::remove_file(&file).unwrap();
        symlink("/dev/zero", &file).unwrap();
        assert_eq!(cache.read(&cid), None);
        assert!(file.symlink_metadata().is_err(), "it was none of ours");
    }

    #[test]
    fn what_is_ready_to_run_is_bounded_in_number_and_in_bytes_and_the_last_one_stays() {
        let mut loaded = Loaded::default();
        let cid = |number: usize| Cid::of(&number.to_be_bytes());
        for number in 0..=LOADED {
            loaded.insert(cid(number), number, 1);
            assert!(loaded.find(&cid(0)).is_some(), "it is used all the time");
        }
        assert_eq!((loaded.all.len(), loaded.bytes, loaded.find(&cid(1))), (LOADED, LOADED, None));
        loaded.insert(cid(0), 0, LOADED_BYTES / 2);
        assert_eq!((loaded.all.len(), loaded.bytes), (LOADED, LOADED_BYTES / 2 + LOADED - 1));
        loaded.insert(cid(1), 1, LOADED_BYTES / 2);
        assert_eq!((loaded.all.len(), loaded.bytes), (2, LOADED_BYTES));
        loaded.insert(cid(2), 2, LOADED_BYTES + 1);
        assert_eq!((loaded.all.len(), loaded.find(&cid(2))), (1, Some(2)));
    }
}
