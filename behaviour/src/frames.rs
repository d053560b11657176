//! Reads frames of yamux that are longer than the implementation underneath takes, and notes when something came.
//!
//! The specification of yamux bounds a frame of data by the window of its stream alone, and ours grows. The
//! implementation ends a connection at a frame over 1 MiB. So a long frame is handed on as several
//! frames of the same stream, which say the same; whether they fit into the window is still looked at there.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, TryFutureExt, future::BoxFuture};
use libp2p::core::{
    UpgradeInfo,
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
};

use crate::{
    corked::{self, CorkedMuxer},
    delegate::write_through,
    pulse::Pulse,
};

/// The longest piece, in bytes: no more than the window that every stream begins with, so that what fits is read as it
/// comes. Yamux takes up to 1 MiB.
const PIECE: u32 = 256 * 1024;

/// Version, type, flags (two bytes), stream (four), length (four).
const HEADER: usize = 12;

/// The type of a frame that has a body.
const DATA: u8 = 0;

/// Flags that belong to the beginning of a frame: the stream is opened, or taken.
const OPENING: u16 = 1 | 2;

/// Flags that belong to its end: the stream is closed, or reset.
const CLOSING: u16 = 4 | 8;

/// Upgrades an encrypted connection to one of streams.
#[derive(Debug, Clone)]
pub struct Config(corked::Config);

impl From<corked::Config> for Config {
    fn from(corked: corked::Config) -> Self {
        Self(corked)
    }
}

impl UpgradeInfo for Config {
    type Info = <corked::Config as UpgradeInfo>::Info;
    type InfoIter = <corked::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = Muxer<CorkedMuxer<Frames<C>>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        let pulse = Pulse::default();
        let upgraded = self.0.upgrade_inbound(Frames::new(io, pulse.clone()), info);
        upgraded.map_ok(|muxer| Muxer { muxer, pulse }).boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer<CorkedMuxer<Frames<C>>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        let pulse = Pulse::default();
        let upgraded = self.0.upgrade_outbound(Frames::new(io, pulse.clone()), info);
        upgraded.map_ok(|muxer| Muxer { muxer, pulse }).boxed()
    }
}

/// A muxer and its pulse.
#[derive(Debug)]
pub struct Muxer<M> {
    muxer: M,
    pulse: Pulse,
}

impl<M> Muxer<M> {
    /// When something last came.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Muxer<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(context)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.muxer).poll_close(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.muxer).poll(context)
    }
}

/// A connection on which no frame of data is longer than `PIECE`.
#[derive(Debug)]
pub struct Frames<C> {
    io: C,
    pulse: Pulse,
    header: [u8; HEADER],
    /// How much of the header has come. All of it has as long as a body follows.
    come: usize,
    /// How much of the header was handed on; nothing before all of it has come.
    given: usize,
    /// The flags of the frame; its pieces have some of them.
    flags: u16,
    /// Bytes of the body of this piece that are still to come.
    body: u32,
    /// Bytes of the same frame behind this piece.
    rest: u32,
}

impl<C> Frames<C> {
    fn new(io: C, pulse: Pulse) -> Self {
        Self { io, pulse, header: [0; HEADER], come: 0, given: 0, flags: 0, body: 0, rest: 0 }
    }

    fn on_header(&mut self) {
        self.pulse.beat();
        let [_, kind, flags0, flags1, _, _, _, _, length @ ..] = self.header;
        if kind == DATA {
            self.flags = u16::from_be_bytes([flags0, flags1]);
            self.begin_piece(u32::from_be_bytes(length), CLOSING);
        }
    }

    /// Makes the header one of the next piece, of a frame of which so much is left. It has all flags of the frame but
    /// those that are `not_yet` true while there is more, or that were said before.
    fn begin_piece(&mut self, left: u32, not_yet: u16) {
        self.body = left.min(PIECE);
        self.rest = left - self.body;
        let withheld = if self.rest > 0 { not_yet } else { not_yet & !CLOSING };
        self.header[2..4].copy_from_slice(&(self.flags & !withheld).to_be_bytes());
        self.header[8..].copy_from_slice(&self.body.to_be_bytes());
        self.given = 0;
    }

    fn give_header(&mut self, buffer: &mut [u8]) -> usize {
        let given = buffer.len().min(HEADER - self.given);
        buffer[..given].copy_from_slice(&self.header[self.given..self.given + given]);
        self.given += given;
        if self.given == HEADER && self.body == 0 {
            self.end_piece();
        }
        given
    }

    fn end_piece(&mut self) {
        if self.rest > 0 {
            self.begin_piece(self.rest, OPENING | CLOSING);
        } else {
            (self.come, self.given) = (0, 0);
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Frames<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        while this.come < HEADER {
            let read = ready!(Pin::new(&mut this.io).poll_read(context, &mut this.header[this.come..]))?;
            if read == 0 {
                let whole = this.come == 0;
                return Poll::Ready(if whole { Ok(0) } else { Err(io::ErrorKind::UnexpectedEof.into()) });
            }
            this.come += read;
            if this.come == HEADER {
                this.on_header();
            }
        }
        if this.given < HEADER {
            return Poll::Ready(Ok(this.give_header(buffer)));
        }
        let most = buffer.len().min(this.body as usize);
        let read = ready!(Pin::new(&mut this.io).poll_read(context, &mut buffer[..most]))?;
        // No more than `most` is read, which fits.
        this.body -= u32::try_from(read).unwrap_or(this.body).min(this.body);
        if this.body == 0 {
            this.end_piece();
        } else if read > 0 {
            // That of a whole body came with its header, as good as.
            this.pulse.beat();
        }
        Poll::Ready(Ok(read))
    }
}

write_through!(Frames);

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u16, length: u32) -> Vec<u8> {
        let mut frame = vec![0, kind];
        frame.extend(flags.to_be_bytes());
        frame.extend(7_u32.to_be_bytes());
        frame.extend(length.to_be_bytes());
        if kind == DATA {
            frame.extend((0..length).map(|at| (at * 31 / 7) as u8));
        }
        frame
    }

    fn read(bytes: Vec<u8>, step: usize) -> Vec<u8> {
        let mut frames = Frames::new(Cursor::new(bytes), Pulse::default());
        let (mut all, mut buffer) = (Vec::new(), vec![0; step]);
        futures::executor::block_on(async {
            loop {
                match frames.read(&mut buffer).await.unwrap() {
                    0 => return all,
                    read => all.extend_from_slice(&buffer[..read]),
                }
            }
        })
    }

    /// Kind, flags and body of each.
    fn parts(mut bytes: &[u8]) -> Vec<(u8, u16, Vec<u8>)> {
        let mut parts = Vec::new();
        while let [_, kind, flags0, flags1, _, _, _, _, l0, l1, l2, l3, rest @ ..] = bytes {
            let length = if *kind == DATA { u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize } else { 0 };
            parts.push((*kind, u16::from_be_bytes([*flags0, *flags1]), rest[..length].to_vec()));
            bytes = &rest[length..];
        }
        parts
    }

    #[test]
    fn a_long_frame_is_opened_by_its_first_piece_and_closed_by_its_last() {
        let sent = frame(DATA, OPENING | CLOSING, 2 * PIECE + 1);
        let pieces = parts(&read(sent.clone(), 1000));
        let said: Vec<_> = pieces.iter().map(|(_, flags, body)| (*flags, body.len() as u32)).collect();
        assert_eq!(said, [(OPENING, PIECE), (0, PIECE), (CLOSING, 1)]);
        let bodies: Vec<u8> = pieces.into_iter().flat_map(|(_, _, body)| body).collect();
        assert_eq!(bodies, sent[HEADER..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_not_too_long_is_read_as_it_came(
            frames in prop::collection::vec((0..4_u8, 0..16_u16, prop_oneof![0..40_u32, PIECE - 2..=PIECE]), 0..6),
            step in 1..20_000_usize,
        ) {
            let sent: Vec<u8> = frames.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
            prop_assert!(read(sent.clone(), step) == sent);
        }
    }

    #[test]
    fn half_a_header_is_an_error() {
        let mut frames = Frames::new(Cursor::new(vec![0; HEADER - 1]), Pulse::default());
        let error = futures::executor::block_on(frames.read(&mut [0; 64])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
