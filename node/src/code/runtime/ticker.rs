//! The clock of the guests. It stands still while none of them runs.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use wasmtime::Engine;

/// A guest computes for so long before others have their turn.
const TICK: Duration = Duration::from_millis(1);

/// A thread that lets the engine's clock tick. Dropped, it goes on until the last guest has ended: without ticks none does.
pub(super) struct Ticker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    stopped: bool,
}

/// The clock ticks as long as it is there.
pub(super) struct Ticking(Arc<Shared>);

impl Ticker {
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let ticker = Self(shared.clone());
        thread::Builder::new().name("guest-clock".to_owned()).spawn(move || {
            while shared.wait() {
                thread::sleep(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(ticker)
    }

    pub(super) fn tick(&self) -> Ticking {
        let mut state = self.0.lock();
        state.running += 1;
        if state.running == 1 {
            self.0.changed.notify_one();
        }
        Ticking(self.0.clone())
    }
}

impl Shared {
    /// Waits until a guest runs; false if none will any more.
    fn wait(&self) -> bool {
        let idle = |state: &mut State| state.running == 0 && !state.stopped;
        let state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        state.running > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_one();
    }
}
