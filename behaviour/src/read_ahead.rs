//! Reads more at a time while much is coming. The codec under noise reads 8 KiB a system call; when a read fills
//! that, the next ones go through a buffer of 64 KiB, which is given back as soon as nothing is left to read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::AsyncRead;

use crate::delegate::write_through;

/// A read that fills this much means that more is waiting: what `asynchronous-codec` reads at once.
const FULL_READ: usize = 8 * 1024;

/// One noise record at its largest. Idle connections, of which a node has many, keep none.
const BUFFER: usize = 64 * 1024;

/// A connection that is read in larger pieces.
#[derive(Debug)]
pub struct ReadAhead<C> {
    io: C,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read filled its buffer.
    more: bool,
}

impl<C> ReadAhead<C> {
    /// Wraps a connection.
    pub fn new(io: C) -> Self {
        Self { io, buffer: Vec::new(), start: 0, end: 0, more: false }
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let taken = buffer.len().min(self.end - self.start);
        buffer[..taken].copy_from_slice(&self.buffer[self.start..self.start + taken]);
        self.start += taken;
        taken
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for ReadAhead<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.start < this.end {
            return Poll::Ready(Ok(this.take(buffer)));
        }
        if !this.more {
            this.buffer = Vec::new();
            let read = ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
            this.more = read == buffer.len() && read >= FULL_READ;
            return Poll::Ready(Ok(read));
        }
        this.buffer.resize(BUFFER, 0);
        match Pin::new(&mut this.io).poll_read(context, &mut this.buffer) {
            Poll::Ready(Ok(read)) => {
                (this.start, this.end) = (0, read);
                this.more = read >= FULL_READ;
                Poll::Ready(Ok(this.take(buffer)))
            }
            outcome => {
                this.more = false;
                this.buffer = Vec::new();
                outcome
            }
        }
    }
}

write_through!(ReadAhead);

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
    use proptest::prelude::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn all_bytes_arrive_in_order(size in 0..1_000_000_usize, step in 1..20_000_usize, piece in 1..200_000_usize) {
            let sent: Vec<u8> = (0..size).map(|at| (at * 31 / 7) as u8).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let received = runtime.block_on(async {
                let (near, far) = tokio::io::duplex(piece);
                let (mut near, mut far) = (near.compat(), ReadAhead::new(far.compat()));
                let write = async {
                    near.write_all(&sent).await.unwrap();
                    near.close().await.unwrap();
                };
                let read = async {
                    let (mut received, mut buffer) = (Vec::new(), vec![0; step]);
                    loop {
                        match far.read(&mut buffer).await.unwrap() {
                            0 => return received,
                            read => received.extend_from_slice(&buffer[..read]),
                        }
                    }
                };
                futures::join!(write, read).1
            });
            prop_assert!(received == sent);
        }
    }

    #[tokio::test]
    async fn the_buffer_is_given_back_when_nothing_is_left_to_read() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (mut near, mut far) = (near.compat(), ReadAhead::new(far.compat()));
        near.write_all(&[7; 200_000]).await.unwrap();
        let mut buffer = [0; FULL_READ];
        far.read_exact(&mut buffer).await.unwrap();
        far.read_exact(&mut buffer).await.unwrap();
        assert_eq!(far.buffer.len(), BUFFER);
        let mut left = vec![0; 200_000 - 2 * FULL_READ];
        far.read_exact(&mut left).await.unwrap();
        let next = poll_fn(|context| Poll::Ready(Pin::new(&mut far).poll_read(context, &mut buffer))).await;
        assert!(next.is_pending());
        assert_eq!(far.buffer.capacity(), 0);
    }
}
