//! The standard streams, unless whoever has started this program has closed them.
//!
//! The standard library opens `/dev/null` in place of each one that is closed, before `main` runs. So no file of ours gets
//! the number of one, and so what is written there would be lost without a word: that it was closed is seen even before.
//! It also takes a stream that is open for the other direction only for one that works.

use std::{
    io::{self, StdinLock, StdoutLock},
    path::Path,
};

/// Where data goes.
pub(crate) fn stdout() -> io::Result<StdoutLock<'static>> {
    check(Stream::Stdout)?;
    Ok(io::stdout().lock())
}

/// Where data comes from, if it is not named.
pub(crate) fn stdin() -> io::Result<StdinLock<'static>> {
    check(Stream::Stdin)?;
    Ok(io::stdin().lock())
}

/// Whether a name for a file means stdout.
pub(crate) fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// Whether a name for a file means stdin.
pub(crate) fn is_stdin(path: &Path) -> bool {
    ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"].iter().any(|name| path == Path::new(name))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdin,
    Stdout,
}

#[cfg(not(unix))]
fn check(_: Stream) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn check(stream: Stream) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl};
    let (name, file, unfit, use_of_it) = match stream {
        Stream::Stdin => ("stdin", rustix::stdio::stdin(), OFlags::WRONLY, "reading"),
        Stream::Stdout => ("stdout", rustix::stdio::stdout(), OFlags::RDONLY, "writing"),
    };
    if start::was_closed(stream) {
        return Err(io::Error::other(format!("{name} is closed")));
    }
    if fcntl_getfl(file).is_ok_and(|flags| flags.intersection(OFlags::RWMODE) == unfit) {
        return Err(io::Error::other(format!("{name} is not open for {use_of_it}")));
    }
    Ok(())
}

/// What is seen before the standard library begins.
#[cfg(unix)]
mod start {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::Stream;

    static STDIN_CLOSED: AtomicBool = AtomicBool::new(false);
    static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

    pub(super) fn was_closed(stream: Stream) -> bool {
        match stream {
            Stream::Stdin => STDIN_CLOSED.load(Relaxed),
            Stream::Stdout => STDOUT_CLOSED.load(Relaxed),
        }
    }

    /// Asks the system and nothing else: there is no standard library yet.
    extern "C" fn look() {
        STDIN_CLOSED.store(rustix::io::fcntl_getfd(rustix::stdio::stdin()).is_err(), Relaxed);
        STDOUT_CLOSED.store(rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err(), Relaxed);
    }

    #[allow(unsafe_code, reason = "only a place in the program file says what runs before the standard library")]
    #[used]
    #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
    #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
    static LOOK: extern "C" fn() = look;
}
