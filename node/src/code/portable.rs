//! Code that is ready to travel.

use std::path::Path;

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};
use multinodes_behaviour::names;

use super::{
    cid::Cid,
    code_error::CodeError,
    code_ref::{CodeRef, World},
    componentize::componentize,
    vetting::{Budget, vet},
};
use crate::files;

/// The largest code there is, in bytes: whole interpreters with their libraries have 20 MB. What a node takes is far less
/// unless it is told otherwise.
pub const MAX_CODE: u64 = 64 * 1024 * 1024;

/// Code that can run on any node that allows it: a WebAssembly component. Cheap to clone.
///
/// ```
/// use multinodes::{Code, World};
///
/// // Gives back what it gets. Any language that compiles to WebAssembly does as well.
/// let echo = Code::from_bytes(r#"(module
///   (memory (export "memory") 1)
///   (global $free (mut i32) (i32.const 1024))
///   (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
///     (global.get $free) (global.set $free (i32.add (global.get $free) (local.get 3))))
///   (func (export "run") (param i32 i32) (result i32)
///     (i32.store (i32.const 4) (local.get 0))
///     (i32.store (i32.const 8) (local.get 1))
///     (i32.const 0)))"#)?;
/// assert_eq!(echo.world(), World::Task);
/// println!("{} has {} bytes", echo.cid(), echo.size());
/// # Ok::<(), multinodes::CodeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    bytes: Bytes,
    reference: CodeRef,
}

impl Code {
    /// Takes a component, a core module (of Rust's `wasm32-unknown-unknown`, C, AssemblyScript, Zig), which becomes a
    /// component, or the text of either. It is checked as a node that runs it would, but for its size and complexity.
    ///
    /// # Errors
    ///
    /// [`CodeError::NotWasm`], [`NotAComponent`](CodeError::NotAComponent), [`WrongWorld`](CodeError::WrongWorld),
    /// [`UnknownImport`](CodeError::UnknownImport), [`TooLarge`](CodeError::TooLarge).
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Result<Self, CodeError> {
        let bytes = bytes.as_ref();
        check_size(bytes.len() as u64)?;
        let component = componentize(bytes)?;
        check_size(component.len() as u64)?;
        let vetted = vet(&component, &Budget::unlimited())?;
        let (cid, size) = (Cid::of(&component), component.len() as u64);
        let (name, version, publisher, signature) = (None, None, None, None);
        let reference = CodeRef { cid, size, world: vetted.world, name, version, publisher, signature };
        Ok(Self { bytes: component.into(), reference })
    }

    /// Takes what a file holds, `.wasm` or `.wat`. The code gets the file's name, without what follows the dot.
    ///
    /// # Errors
    ///
    /// As [`from_bytes`](Self::from_bytes), and [`CodeError::Unreadable`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, CodeError> {
        let path = path.as_ref();
        let failed = |error| CodeError::unreadable(path, &error);
        let bytes = files::read(path, MAX_CODE).map_err(failed)?;
        let code = Self::from_bytes(bytes)?;
        // A file may have any name; code goes without one, then.
        let name = path.file_stem().and_then(|name| name.to_str());
        Ok(name.and_then(|name| code.clone().named(name).ok()).unwrap_or(code))
    }

    /// Takes bytes that came from elsewhere, if they are what `reference` says. They are not looked at any further.
    ///
    /// # Errors
    ///
    /// [`CodeError::WrongHash`], [`CodeError::TooLarge`].
    pub fn received(bytes: impl Into<Bytes>, reference: CodeRef) -> Result<Self, CodeError> {
        let bytes = bytes.into();
        if bytes.len() as u64 > reference.size {
            return Err(CodeError::TooLarge { size: bytes.len() as u64, limit: reference.size });
        }
        let actual = Cid::of(&bytes);
        if actual != reference.cid {
            return Err(CodeError::WrongHash { expected: reference.cid, actual });
        }
        Ok(Self { bytes, reference })
    }

    /// Gives it a name of 1 to 64 bytes, and takes any signature away.
    ///
    /// # Errors
    ///
    /// [`CodeError::Name`].
    pub fn named(self, name: impl Into<String>) -> Result<Self, CodeError> {
        self.changed(|reference| reference.name = Some(names::into_normal(name.into())))
    }

    /// Gives it a version such as `1.2.3`, and takes any signature away. Of two installed versions the higher one counts.
    ///
    /// # Errors
    ///
    /// [`CodeError::Version`].
    pub fn versioned(self, version: impl Into<String>) -> Result<Self, CodeError> {
        self.changed(|reference| reference.version = Some(version.into()))
    }

    /// Signs it, its name and its version as their publisher: nodes can allow code by who published it, whoever sends it.
    ///
    /// # Errors
    ///
    /// [`CodeError::Unsigned`] if the key cannot sign.
    pub fn sign(mut self, keypair: &Keypair) -> Result<Self, CodeError> {
        self.reference.sign(keypair)?;
        Ok(self)
    }

    /// The hash of its bytes, which names it.
    #[must_use]
    pub fn cid(&self) -> Cid {
        self.reference.cid
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.reference.size
    }

    /// What it is for.
    #[must_use]
    pub fn world(&self) -> World {
        self.reference.world
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.reference.name()
    }

    /// Its version, if it has one.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.reference.version()
    }

    /// Who has signed it, if its signature holds.
    #[must_use]
    pub fn publisher(&self) -> Option<PeerId> {
        self.reference.verify().ok().flatten()
    }

    /// What is told of it without sending it.
    #[must_use]
    pub fn reference(&self) -> &CodeRef {
        &self.reference
    }

    /// The component.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn changed(mut self, change: impl FnOnce(&mut CodeRef)) -> Result<Self, CodeError> {
        change(&mut self.reference);
        (self.reference.publisher, self.reference.signature) = (None, None);
        self.reference.check()?;
        Ok(self)
    }
}

fn check_size(size: u64) -> Result<(), CodeError> {
    if size > MAX_CODE { Err(CodeError::TooLarge { size, limit: MAX_CODE }) } else { Ok(()) }
}
