//! Where the time of a run goes, as the node that runs it tells its log.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

/// What the node says when it has run some code.
const RUN: &str = "code was run";

/// In microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Timings {
    pub(super) vetting: u64,
    pub(super) compile: u64,
    pub(super) instantiate: u64,
    pub(super) run: u64,
}

/// Hears of the last run, and of nothing else.
#[derive(Clone, Default)]
pub(super) struct Ear(Arc<Mutex<Timings>>);

impl Ear {
    pub(super) fn last(&self) -> Timings {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Ear {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let has_it = metadata.fields().field("instantiate_us").is_some();
        metadata.is_event() && *metadata.level() == Level::DEBUG && has_it
    }

    fn event(&self, event: &Event<'_>) {
        let mut heard = Heard::default();
        event.record(&mut heard);
        if heard.is_run {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard.timings;
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Heard {
    is_run: bool,
    timings: Timings,
}

impl Visit for Heard {
    fn record_u64(&mut self, field: &Field, value: u64) {
        let Timings { vetting, compile, instantiate, run } = &mut self.timings;
        match field.name() {
            "vetting_us" => *vetting = value,
            "compile_us" => *compile = value,
            "instantiate_us" => *instantiate = value,
            "run_us" => *run = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.is_run |= field.name() == "message" && format!("{value:?}") == RUN;
    }
}
