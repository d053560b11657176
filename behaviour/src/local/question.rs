//! When the LAN is asked again, and how.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockAddr;
use tokio::time::{Instant, Sleep, sleep_until};

use super::probe::{Family, PORT};

/// Pauses before the questions. The first comes when libp2p's behaviour listens; the others are for packets that are lost,
/// or came before a switch had noticed the cable.
const PAUSES: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(950), Duration::from_secs(4)];

/// On a host with more interface addresses the others are not asked on.
const MAX_INTERFACES: usize = 32;

/// A query for pointers of `_p2p._udp.local`, the name under which libp2p programs are found.
const QUESTION: &[u8; 33] = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x04_p2p\x04_udp\x05local\0\0\x0c\0\x01";

/// When to ask.
#[derive(Default)]
pub(super) struct Questions {
    asked: usize,
    begun: bool,
    /// Needs the runtime, so it is made by the poll.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Questions {
    /// Begins anew: something has started that has heard nothing yet.
    pub(super) fn begin(&mut self) {
        *self = Self { begun: true, ..Self::default() };
    }

    /// Whether it is time for a question; each is due once.
    pub(super) fn is_due(&mut self, context: &mut Context<'_>) -> bool {
        let Some(pause) = PAUSES.get(self.asked).filter(|_| self.begun) else { return false };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + *pause)));
        if timer.as_mut().poll(context) == Poll::Pending {
            return false;
        }
        self.timer = None;
        self.asked += 1;
        true
    }
}

impl Family {
    /// Asks everybody on all networks who is there. Who asks answers, too, and is so heard by all.
    pub(super) fn ask(self) {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let ips = interfaces.iter().filter(|interface| !interface.is_loopback()).map(if_addrs::Interface::ip);
        for ip in ips.filter(|ip| ip.is_ipv4() == (self == Self::V4)).take(MAX_INTERFACES) {
            if let Err(error) = self.ask_from(ip) {
                tracing::debug!(%ip, %error, "the LAN cannot be asked again");
            }
        }
    }

    fn ask_from(self, ip: IpAddr) -> io::Result<()> {
        let (socket, group) = self.sender(ip)?;
        socket.send_to(QUESTION, &SockAddr::from(SocketAddr::new(group, PORT))).map(|_| ())
    }
}
