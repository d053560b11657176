//! As much of HTTP/1.1 as the crawler needs: a client, and a server for the site of its own.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{html, site::Site};

/// Longer pages are cut off.
const MOST_BYTES: u64 = 1024 * 1024;
/// The longest head of a request.
const MOST_HEAD: u64 = 8 * 1024;
/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Requests that the server answers at once.
const AT_ONCE: usize = 64;

/// What a server has answered.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

/// Asks for one URL, over a connection of its own.
pub(crate) async fn fetch(url: &str) -> io::Result<Response> {
    timeout(LIMIT, fetch_without_limit(url)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn fetch_without_limit(url: &str) -> io::Result<Response> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{url}: {what}"));
    let site = html::site(url).ok_or_else(|| wrong("no URL that begins with http://"))?;
    let host = &site["http://".len()..];
    let path = if url.len() == site.len() { "/" } else { &url[site.len()..] };
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| wrong("the answer has no end of the head"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let location = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("location"))
        .map(|(_, value)| value.trim().to_owned());
    let status = status.ok_or_else(|| wrong("the answer has no status"))?;
    Ok(Response { status, location, body: body.to_owned() })
}

/// A server on loopback, as long as it is kept.
pub(crate) struct Server {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Server {
    /// The URL of one of its paths.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Serves a site at any free port.
pub(crate) async fn serve(site: Arc<Site>) -> io::Result<Server> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut answering = JoinSet::new();
        while let Ok(place) = places.clone().acquire_owned().await {
            while answering.try_join_next().is_some() {}
            // Whoever was not accepted tries again.
            let Ok((stream, _)) = listener.accept().await else { continue };
            let site = site.clone();
            answering.spawn(async move {
                // Whoever does not get an answer tries again.
                let _ = timeout(LIMIT, answer(stream, &site, address)).await;
                drop(place);
            });
        }
    });
    Ok(Server { address, _serving: serving })
}

async fn answer(mut stream: TcpStream, site: &Site, address: SocketAddr) -> io::Result<()> {
    let mut request = Vec::new();
    let mut head = (&mut stream).take(MOST_HEAD);
    while !request.ends_with(b"\r\n\r\n") {
        if head.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or("/");
    stream.write_all(site.answer(path, &format!("http://{address}")).as_bytes()).await?;
    stream.shutdown().await
}
