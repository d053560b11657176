//! Sends a message to one host, and to others as long as that is allowed.

use std::time::Instant;

use super::{Kind, Route, Time, opening::Way};
use crate::{
    attempts::{Attempts, Failed},
    call_error::CallError,
    core::Core,
    payload::Payload,
    selection::{Nobody, Target},
};

/// What was done for a message before others than its first host are thought of.
enum First {
    /// It was picked, and no lane to it is open.
    Picked(Target),
    /// It was tried.
    Failed(Target, Failed),
}

impl Route<'_> {
    /// As [`deliver`](Self::deliver), for a cast: as a rule it is in the write queue of a lane without any waiting.
    pub(crate) async fn deliver_cast(&self, message: Payload) -> Result<(), CallError> {
        self.check(Kind::Cast)?;
        let time = self.time()?;
        match self.cast_now(&message, time) {
            Ok(()) => Ok(()),
            Err(first) => Box::pin(self.on_others(first, Kind::Cast, message, time)).await.map(drop),
        }
    }

    /// Casts over a lane that is open and has room. Else says what was done.
    fn cast_now(&self, message: &Payload, time: Time) -> Result<(), Option<First>> {
        let (core, asked) = (self.node.core(), Kind::Cast.asked());
        if core.registry.is_draining() {
            return Err(None);
        }
        let target = self.pick(core, asked, &[]).map_err(|_| None)?;
        let Target::There(info) = &target else { return Err(Some(First::Picked(target))) };
        let fits = message.as_bytes().len() <= core.settings.max_message;
        let queued =
            if fits { core.links.cast_now(&info.peer_id, self.outgoing("", time), message.bytes()) } else { None };
        let Some(queued) = queued else { return Err(Some(First::Picked(target))) };
        let outcome = queued.map_err(|error| CallError::of_lane(error, &self.attempt(Kind::Cast, &info.name, time)));
        core.selection.asides.heard(info.peer_id, self.application, asked, &outcome);
        outcome.map_err(|error| Some(First::Failed(target, error.into())))
    }

    /// Sends a message to a host, and to others as long as that is allowed. What goes wrong with several of them is said
    /// of all.
    pub(crate) async fn deliver(&self, kind: Kind<'_>, payload: Payload) -> Result<Payload, CallError> {
        self.check(kind)?;
        let (core, time) = (self.node.core(), self.time()?);
        let mut first = None;
        // Nearly all messages go to the first host, over a lane that is open. The others are kept out of this future, which is
        // moved with each message.
        if self.hedge.is_none()
            && !core.registry.is_draining()
            && let Ok(target) = self.pick(core, kind.asked(), &[])
        {
            first = Some(match self.way(core, &target, &payload) {
                Some(way) => match self.by(way, core, &target, kind, &payload, time).await {
                    Ok(answer) => return Ok(answer),
                    Err(failed) => First::Failed(target, failed),
                },
                None => First::Picked(target),
            });
        }
        Box::pin(self.on_others(first, kind, payload, time)).await
    }

    async fn on_others(
        &self,
        first: Option<First>,
        kind: Kind<'_>,
        payload: Payload,
        time: Time,
    ) -> Result<Payload, CallError> {
        let attempts = Attempts::default();
        let picked = match first {
            Some(First::Failed(target, failed)) => {
                if let Err(last) = self.may_go_on(&target, failed, kind, time, &attempts) {
                    return Err(attempts.sum(last));
                }
                None
            }
            Some(First::Picked(target)) => Some(target),
            None => None,
        };
        match self.try_hosts(picked, kind, payload, time, &attempts).await {
            Ok(answer) => Ok(answer),
            Err(last) => Err(attempts.sum(last)),
        }
    }

    /// Notes that an attempt has failed, if another host may be tried; else gives the failure back.
    fn may_go_on(
        &self,
        target: &Target,
        failed: Failed,
        kind: Kind<'_>,
        time: Time,
        attempts: &Attempts,
    ) -> Result<(), Failed> {
        let peer_id = target.peer_id(self.node.core());
        if self.on.is_some()
            || !attempts.allow(&failed, self.may_run_twice(target, kind))
            || Instant::now() >= time.deadline
        {
            return Err(failed);
        }
        tracing::debug!(%peer_id, error = %failed.error(), "trying another host");
        attempts.failed(peer_id, failed);
        Ok(())
    }

    async fn try_hosts(
        &self,
        mut picked: Option<Target>,
        kind: Kind<'_>,
        payload: Payload,
        time: Time,
        attempts: &Attempts,
    ) -> Result<Payload, Failed> {
        let core = self.node.core();
        loop {
            if core.registry.is_draining() {
                return Err(CallError::Stopped.into());
            }
            let target =
                match picked.take().map_or_else(|| attempts.pick(|tried| self.pick(core, kind.asked(), tried)), Ok) {
                    Ok(target) => target,
                    Err(nobody) => Box::pin(self.without_host(core, kind, nobody, attempts, time)).await?,
                };
            let (target, way) = match self.way(core, &target, &payload) {
                Some(way) => (target, way),
                None => match Box::pin(self.opened(target, kind, &payload, time, attempts)).await {
                    Some(target) => (target, Way::Any),
                    None if Instant::now() < time.deadline => continue,
                    None => return Err(attempts.last().unwrap_or_else(|| CallError::Stopped.into())),
                },
            };
            if let Some(after) = self.hedge
                && self.on.is_none()
                && self.may_run_twice(&target, kind)
            {
                match Box::pin(self.hedged(target, kind, &payload, time, after, attempts)).await {
                    Some(outcome) => return outcome,
                    None => continue,
                }
            }
            match self.by(way, core, &target, kind, &payload, time).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => self.may_go_on(&target, failed, kind, time, attempts)?,
            }
        }
    }

    /// What is done when nobody is left, or nobody was there: waits for a host, if there may be one. Those of whom nothing
    /// was heard are asked again: where there are no others, all the time is theirs.
    async fn without_host(
        &self,
        core: &Core,
        kind: Kind<'_>,
        nobody: Nobody,
        attempts: &Attempts,
        time: Time,
    ) -> Result<Target, Failed> {
        if attempts.again(time.deadline).await {
            if let Ok(target) = attempts.pick(|tried| self.pick(core, kind.asked(), tried)) {
                return Ok(target);
            }
        } else if let Some(last) = attempts.last() {
            return Err(last);
        }
        match nobody {
            Nobody::Ever(error) => Err(error.into()),
            Nobody::Yet(_) => Ok(self.wait_for_host(core, kind.asked(), time.deadline).await?),
        }
    }
}
