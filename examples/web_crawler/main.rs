//! A web crawler that runs on any number of machines.
//!
//! By itself it serves a small site, with circles, dead links and pages that have moved, crawls it with four nodes in
//! this process, and compares what was found with what the site really holds: the exit code is 1 if that differs.
//!
//! ```text
//! cargo run --release --example web_crawler [PAGES]
//! ```
//!
//! Or in several terminals, or on several machines of a LAN: any number of workers, which may come and go. `own` is the
//! site of its own, which others on this machine can reach; any other is a URL that begins with `http://`. Where nodes
//! cannot find each other by themselves, say where the one that crawls listens, such as /ip4/192.168.1.7/tcp/4001.
//!
//! ```text
//! cargo run --release --example web_crawler worker [ADDRESS]
//! cargo run --release --example web_crawler crawl own|URL [ADDRESS]
//! ```
//!
//! ```text
//!  urls ──▶ downloader ──▶ resolver ──▶ seen ──▶ new urls ──┐     downloader: any node
//!    ▲          └────────▶ harvester ──▶ what is on a page  │     resolver, harvester: where the page is
//!    └──────────────────────────────────────────────────────┘     seen: the node that owns the url
//! ```
//!
//! A link that nobody has seen becomes an item of the source by itself. So each page is acknowledged on its own, and the
//! crawl is over when no item is open and none waits.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

mod html;
mod http;
mod site;
mod stages;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error,
    process::ExitCode,
    time::{Duration, Instant},
};

use futures::stream;
use multinodes::{
    Builder, Node, Payload, printable,
    topology::{Event, Flow, Grouping, Run},
};
use tokio::sync::mpsc;

use crate::{
    site::Site,
    stages::{Found, Link},
};

/// No more pages of a site are crawled: what waits is kept in memory.
const MOST_PAGES: usize = 100_000;

/// What was found, by its URL.
type Finds = BTreeMap<String, Found>;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("worker") => work(arguments.get(1)).await,
        Some("crawl") => {
            let url = arguments.get(1).ok_or("which site? `web_crawler crawl own` or `web_crawler crawl URL`")?;
            let builder = at(arguments.get(2), node("crawler"));
            let crawler = arguments.get(2).into_iter().fold(builder, Builder::listen).start().await?;
            println!("waiting for `web_crawler worker` on this machine or another one");
            let outcome = if url == "own" { crawl_own(&crawler, 200).await } else { crawl_other(&crawler, url).await };
            crawler.stop().await;
            outcome
        }
        pages => in_one_process(pages.map_or(Ok(200), number)?).await,
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is neither `worker`, `crawl` nor a number"))
}

async fn in_one_process(pages: usize) -> Result<ExitCode, Box<dyn Error>> {
    let crawler = alone(node("crawler")).start().await?;
    let address = crawler.addresses()[0].to_string();
    let mut workers = Vec::new();
    for name in ["alpha", "beta", "gamma"] {
        let worker = alone(node(name)).join(&address).start().await?;
        stages::register(&worker)?;
        workers.push(worker);
    }
    // With fewer it would begin as well, and the others would join in.
    let mut events = crawler.events();
    while crawler.hosts("seen").len() < workers.len() {
        events.next().await;
    }
    let outcome = crawl_own(&crawler, pages).await;
    for worker in workers {
        worker.stop().await;
    }
    crawler.stop().await;
    outcome
}

/// A worker needs no word about what there is to crawl, or for whom.
async fn work(address: Option<&String>) -> Result<ExitCode, Box<dyn Error>> {
    let builder = at(address, Node::builder().swarm("web-crawler-example"));
    let worker = address.into_iter().fold(builder, Builder::join).start().await?;
    stages::register(&worker)?;
    println!("`{}` crawls; Ctrl-C ends", worker.name());
    tokio::signal::ctrl_c().await?;
    worker.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Crawls the site that is served here, and compares.
async fn crawl_own(crawler: &Node, pages: usize) -> Result<ExitCode, Box<dyn Error>> {
    let site = Site::new(pages);
    let server = http::serve(site.clone()).await?;
    let finds = crawl(crawler, &server.url("/")).await?;
    let held: Finds = site.reachable(|path| server.url(path));
    show(&finds);
    if finds == held {
        println!("the site holds the same");
        return Ok(ExitCode::SUCCESS);
    }
    for (url, found) in held.iter().filter(|(url, found)| finds.get(*url) != Some(found)).take(10) {
        println!("{url}: {found:?} is there, {:?} was found", finds.get(url));
    }
    for url in finds.keys().filter(|url| !held.contains_key(*url)).take(10) {
        println!("{url} was found, and is not there");
    }
    println!("the site holds something else");
    Ok(ExitCode::FAILURE)
}

async fn crawl_other(crawler: &Node, url: &str) -> Result<ExitCode, Box<dyn Error>> {
    let url = html::resolve(url, "").ok_or_else(|| format!("`{url}` does not begin with http://"))?;
    show(&crawl(crawler, &url).await?);
    Ok(ExitCode::SUCCESS)
}

/// Follows all links from here that stay on the site.
async fn crawl(crawler: &Node, url: &str) -> Result<Finds, Box<dyn Error>> {
    let flow = Flow::new("crawl")
        .stage("downloader", Grouping::Shuffle)
        .stage("resolver", Grouping::LocalFirst)
        .stage("seen", Grouping::by_key("url"))
        .stage_after("downloader", "harvester", Grouping::LocalFirst)
        .ack_timeout(Duration::from_secs(20))
        .max_replays(3)
        .max_pending(64);
    let begun = Instant::now();
    let (urls, receiver) = mpsc::channel(1);
    let items = stream::unfold(receiver, |mut urls| async move { urls.recv().await.map(|url: String| (url, urls)) });
    let run = flow.run(crawler, items)?;
    let mut crawl = Crawl::new(url.to_owned());
    crawl.run(run, urls).await?;
    println!("{} items in {:.2?}", crawl.sent, begun.elapsed());
    if crawl.left_out > 0 {
        println!("{} links were left out: {MOST_PAGES} pages are the limit", crawl.left_out);
    }
    Ok(crawl.finds)
}

/// What the source of a crawl keeps.
struct Crawl {
    waiting: VecDeque<String>,
    /// Items that were sent, and those of them that are not complete.
    sent: usize,
    open: usize,
    /// What came of items that are not complete: by item, with the attempt.
    outputs: HashMap<u64, Vec<(u32, Output)>>,
    finds: Finds,
    left_out: usize,
}

enum Output {
    Link(Link),
    Found(Found),
}

impl Crawl {
    fn new(url: String) -> Self {
        let waiting = VecDeque::from([url]);
        Self { waiting, sent: 0, open: 0, outputs: HashMap::new(), finds: Finds::new(), left_out: 0 }
    }

    /// Over when nothing waits and nothing is open: no other item can come any more.
    async fn run(&mut self, mut run: Run, urls: mpsc::Sender<String>) -> Result<(), Box<dyn Error>> {
        while self.open > 0 || !self.waiting.is_empty() {
            tokio::select! {
                place = urls.reserve(), if !self.waiting.is_empty() => {
                    if let Some(url) = self.waiting.pop_front() {
                        place?.send(url);
                        self.sent += 1;
                        self.open += 1;
                    }
                }
                event = run.next() => self.on_event(event.ok_or("the crawl has ended too early")?)?,
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Box<dyn Error>> {
        match event {
            Event::Output(output) => {
                let value = decode(&output.stage, &output.value)?;
                self.outputs.entry(output.root).or_default().push((output.attempt, value));
            }
            // The outputs of this attempt are all here, each once; those of earlier ones do not count.
            Event::Completed { root, attempt } => {
                self.open -= 1;
                let outputs = self.outputs.remove(&root).into_iter().flatten();
                for (_, output) in outputs.filter(|(of, _)| *of == attempt) {
                    self.on_output(output);
                }
            }
            Event::Failed(failed) => {
                self.open -= 1;
                self.outputs.remove(&failed.root);
                let url = printable(&failed.input.decode::<String>()?);
                println!("  {url} was given up: {}", printable(&failed.reason));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Link(link) if self.sent + self.waiting.len() < MOST_PAGES => self.waiting.push_back(link.url),
            Output::Link(_) => self.left_out += 1,
            Output::Found(found) => _ = self.finds.insert(found.url.clone(), found),
        }
    }
}

fn decode(stage: &str, value: &Payload) -> Result<Output, Box<dyn Error>> {
    Ok(if stage == "seen" { Output::Link(value.decode()?) } else { Output::Found(value.decode()?) })
}

fn show(finds: &Finds) {
    let with = |status: std::ops::Range<u16>| finds.values().filter(|found| status.contains(&found.status)).count();
    println!("{} pages, {} that have moved, {} dead links", with(200..300), with(300..400), with(400..600));
    for found in finds.values().filter(|found| found.status == 200).take(5) {
        // What a page says of itself may hold what a terminal would obey.
        println!("  {}: `{}`, {} words", printable(&found.url), printable(&found.title), found.words);
    }
}

fn node(name: &str) -> Builder {
    Node::builder().name(name).swarm("web-crawler-example")
}

/// A node that looks for nobody but those it joins.
fn alone(builder: Builder) -> Builder {
    builder.listen("/ip4/127.0.0.1/tcp/0").mdns(false).rendezvous(false)
}

/// A node that finds others by itself, unless they are to meet at an address of this machine alone.
fn at(address: Option<&String>, builder: Builder) -> Builder {
    if address.is_some_and(|address| address.starts_with("/ip4/127.")) { alone(builder) } else { builder }
}
