//! Requests that lay in the socket while this process stood still: none is begun before what lies behind it was looked
//! through, for its sender may have cancelled it meanwhile.

use std::{collections::VecDeque, time::Instant};

use super::super::{LaneEnd, reader::RawFrame, standstill::READING};
use crate::wire::{Call, Frame};

/// Requests that are held at once; with more, they are begun.
const MAX_HELD: usize = 1_024;

/// What they may have together, in bytes.
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// Requests that are not begun yet, in the order in which they came.
#[derive(Default)]
pub(super) struct Held {
    frames: VecDeque<(Option<u64>, RawFrame)>,
    bytes: usize,
    until: Option<Instant>,
}

/// What is done with a frame that was read.
pub(super) enum Admitted {
    /// Whatever is held comes first.
    Now(RawFrame),
    /// It does not have to wait for what is held.
    Past(RawFrame),
    /// It is held, or has done away with what was held.
    Kept,
    /// It is held, and there is no room for more.
    Full,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// When what is held is begun at the latest.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until.filter(|_| !self.frames.is_empty())
    }

    pub(super) fn next(&mut self) -> Option<RawFrame> {
        let (_, frame) = self.frames.pop_front()?;
        self.bytes -= frame.bytes.len();
        Some(frame)
    }

    /// What becomes of a frame. One that came in time is never held, but keeps its place behind those that are.
    pub(super) fn admit(&mut self, frame: RawFrame) -> Result<Admitted, LaneEnd> {
        Ok(match Frame::decode(&frame.bytes)? {
            Frame::Call(Call { id, deadline_ms, .. }) if outlives(deadline_ms, &frame) => self.hold(Some(id), frame),
            Frame::Tell(tell) if outlives(tell.deadline_ms, &frame) => self.hold(None, frame),
            Frame::Cancel { id } if self.drop_call(id) => Admitted::Kept,
            Frame::Goodbye => Admitted::Now(frame),
            // Answers, cancels of what runs, and requests whose time is over.
            _ => Admitted::Past(frame),
        })
    }

    fn hold(&mut self, id: Option<u64>, frame: RawFrame) -> Admitted {
        if frame.lag.is_zero() {
            return Admitted::Now(frame);
        }
        if self.frames.is_empty() {
            self.until = Some(Instant::now() + READING);
        }
        self.bytes += frame.bytes.len();
        self.frames.push_back((id, frame));
        if self.frames.len() >= MAX_HELD || self.bytes >= MAX_HELD_BYTES { Admitted::Full } else { Admitted::Kept }
    }

    fn drop_call(&mut self, id: u64) -> bool {
        let Some(place) = self.frames.iter().position(|(held, _)| *held == Some(id)) else { return false };
        if let Some((_, frame)) = self.frames.remove(place) {
            self.bytes -= frame.bytes.len();
        }
        true
    }
}

fn outlives(deadline_ms: u64, frame: &RawFrame) -> bool {
    u128::from(deadline_ms) > frame.lag.as_millis()
}
