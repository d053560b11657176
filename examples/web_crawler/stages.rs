//! The stages that every worker hosts.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use multinodes::{
    AppError, Node,
    topology::{Emitter, Stage},
};
use serde::{Deserialize, Serialize};

use crate::{html, http};

/// Crawls whose links a worker remembers, so that what it keeps does not grow for ever.
const REMEMBERED: usize = 4;

/// What was downloaded.
#[derive(Serialize, Deserialize)]
struct Page {
    url: String,
    status: u16,
    location: Option<String>,
    html: String,
}

/// A link that was found on a page.
#[derive(Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) url: String,
    /// It is the page itself.
    is_itself: bool,
}

/// What is at a URL.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) title: String,
    pub(crate) words: usize,
}

/// Hosts all stages.
pub(crate) fn register(worker: &Node) -> Result<(), Box<dyn Error>> {
    worker.register("downloader", downloader().concurrency(16))?;
    worker.register("resolver", resolver())?;
    worker.register("seen", seen())?;
    worker.register("harvester", harvester())?;
    Ok(())
}

/// A server that does not answer is an error: the URL is tried again later, perhaps by another worker.
fn downloader() -> Stage {
    Stage::new(|url: String, out: Emitter| async move {
        let response = http::fetch(&url).await.map_err(AppError::of)?;
        let http::Response { status, location, body } = response;
        Ok(out.emit(Page { url, status, location, html: body }).await?)
    })
}

/// Makes absolute URLs of the links on a page, those that stay on its site.
fn resolver() -> Stage {
    Stage::new(|page: Page, out: Emitter| async move {
        // The page itself has been seen, too.
        out.emit(Link { url: page.url.clone(), is_itself: true }).await?;
        let links = html::links(&page.html);
        for link in links.iter().copied().chain(page.location.as_deref()) {
            if let Some(url) = html::resolve(&page.url, link).filter(|url| html::site(url) == html::site(&page.url)) {
                out.emit(Link { url, is_itself: false }).await?;
            }
        }
        Ok(())
    })
}

/// The URLs that a worker owns, for each crawl: which item has brought each of them, and in which attempt.
type Seen = VecDeque<(u64, HashMap<String, (u64, u32)>)>;

/// Lets a URL through when it is seen for the first time.
///
/// When the item that has brought it is replayed, it has to be let through again: what was let through the first time
/// may have been lost. This is how a stage that keeps something bears that tuples come more than once.
fn seen() -> Stage {
    let crawls: Arc<Mutex<Seen>> = Arc::default();
    Stage::new(move |link: Link, out: Emitter| {
        let is_new = is_new(&mut crawls.lock().unwrap_or_else(PoisonError::into_inner), &link, &out);
        async move {
            if is_new {
                out.emit(link).await?;
            }
            Ok(())
        }
    })
}

fn is_new(crawls: &mut Seen, link: &Link, out: &Emitter) -> bool {
    if !crawls.iter().any(|(crawl, _)| *crawl == out.run()) {
        crawls.push_back((out.run(), HashMap::new()));
        if crawls.len() > REMEMBERED {
            crawls.pop_front();
        }
    }
    let Some((_, seen)) = crawls.iter_mut().find(|(crawl, _)| *crawl == out.run()) else { return false };
    let (root, attempt) = (out.root(), out.attempt());
    match seen.entry(link.url.clone()) {
        Entry::Vacant(unseen) => {
            // Where the crawl has begun, nothing else has brought the page.
            unseen.insert((root, if link.is_itself { u32::MAX } else { attempt }));
            !link.is_itself
        }
        Entry::Occupied(mut seen) => {
            let is_replayed = seen.get().0 == root && seen.get().1 < attempt;
            if is_replayed {
                seen.insert((root, attempt));
            }
            is_replayed
        }
    }
}

fn harvester() -> Stage {
    Stage::new(|page: Page, out: Emitter| async move {
        let (title, words) = html::harvest(&page.html);
        Ok(out.emit(Found { url: page.url, status: page.status, title, words }).await?)
    })
}
