//! The clock of the guests. It stands still when none of them has run for a while.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use wasmtime::Engine;

/// A guest computes for so long before others have their turn.
const TICK: Duration = Duration::from_millis(1);

/// The clock goes on for so many ticks without a guest: to wake it for each short task would cost more than the task.
const LINGER: u32 = 100;

/// A thread that lets the engine's clock tick. Dropped, it goes on until the last guest has ended: without ticks none does.
pub(super) struct Ticker(Clock);

/// Lets the clock tick. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Shared>);

struct Shared {
    running: AtomicUsize,
    stopped: AtomicBool,
    asleep: AtomicBool,
    /// Held while it is decided to sleep, and to wake it.
    sleeping: Mutex<()>,
    changed: Condvar,
}

/// The clock ticks as long as it is there.
pub(crate) struct Ticking(Arc<Shared>);

impl Ticker {
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            sleeping: Mutex::default(),
            changed: Condvar::new(),
        });
        let ticker = Self(Clock(shared.clone()));
        thread::Builder::new().name("guest-clock".to_owned()).spawn(move || shared.go(&engine))?;
        Ok(ticker)
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0
    }
}

impl Clock {
    pub(crate) fn tick(&self) -> Ticking {
        self.0.running.fetch_add(1, SeqCst);
        // Either this sees that it sleeps, or it sees that a guest runs.
        if self.0.asleep.load(SeqCst) {
            self.0.wake();
        }
        Ticking(self.0.clone())
    }
}

impl Shared {
    fn go(&self, engine: &Engine) {
        let mut quiet = 0;
        loop {
            if self.is_running() {
                quiet = 0;
            } else if self.stopped.load(SeqCst) {
                return;
            } else if quiet < LINGER {
                quiet += 1;
            } else {
                self.sleep();
                continue;
            }
            thread::sleep(TICK);
            engine.increment_epoch();
        }
    }

    /// Until a guest runs, or none will any more.
    fn sleep(&self) {
        let sleeping = self.lock();
        self.asleep.store(true, SeqCst);
        let idle = |(): &mut ()| !self.is_running() && !self.stopped.load(SeqCst);
        drop(self.changed.wait_while(sleeping, idle).unwrap_or_else(PoisonError::into_inner));
        self.asleep.store(false, SeqCst);
    }

    fn wake(&self) {
        let _sleeping = self.lock();
        self.changed.notify_one();
    }

    fn is_running(&self) -> bool {
        self.running.load(SeqCst) > 0
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleeping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.0.stopped.store(true, SeqCst);
        self.0.0.wake();
    }
}
