//! The site of its own: pages that lead round in circles, to dead ends, and to pages that have moved.
//!
//! It knows where each link leads from having made it, not by resolving it: so it can say what a crawler must find.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    sync::Arc,
};

use crate::stages::Found;

/// What a link says, and the path that it leads to; none if it leads away from the site.
type Link = (String, Option<String>);

/// Everything that a path can be.
enum Place {
    Page { title: String, text: String, links: Vec<Link> },
    Moved { to: String },
}

/// Its places by their paths.
pub(crate) struct Site(BTreeMap<String, Place>);

/// Stands in links for the address of the server, which the site does not know.
const HERE: &str = "http://here";

impl Site {
    /// A site of so many pages and some more, of which nobody is led to the last.
    pub(crate) fn new(pages: usize) -> Arc<Self> {
        let pages = pages.max(1);
        let mut places = BTreeMap::new();
        for number in 0..pages {
            let links = links(number, pages);
            let text = "word ".repeat(number % 13 + 1);
            places.insert(path(number), Place::Page { title: format!("Page {number}"), text, links });
            if number % 10 == 3 {
                places.insert(format!("/moved/{number}"), Place::Moved { to: path((number + 5) % pages) });
            }
        }
        let alone = Place::Page { title: "Alone".into(), text: "nobody".into(), links: Vec::new() };
        places.insert("/alone.html".into(), alone);
        Arc::new(Self(places))
    }

    /// The answer to a request.
    pub(crate) fn answer(&self, path: &str, here: &str) -> String {
        let (status, more, body) = match self.0.get(path) {
            Some(Place::Page { title, text, links }) => ("200 OK", String::new(), page(title, text, links, here)),
            // Relative, as it may be.
            Some(Place::Moved { to }) => ("302 Found", format!("Location: {to}\r\n"), String::new()),
            None => ("404 Not Found", String::new(), String::new()),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n{more}");
        format!("{head}Connection: close\r\n\r\n{body}")
    }

    /// What whoever begins at `/` and follows all links must find. `url` makes one of a path.
    pub(crate) fn reachable(&self, url: impl Fn(&str) -> String) -> BTreeMap<String, Found> {
        let mut found = BTreeMap::new();
        let mut waiting = VecDeque::from(["/".to_owned()]);
        while let Some(path) = waiting.pop_front() {
            let url = url(&path);
            if found.contains_key(&url) {
                continue;
            }
            let (status, title, words) = match self.0.get(&path) {
                Some(Place::Page { title, text, links }) => {
                    waiting.extend(links.iter().filter_map(|(_, to)| to.clone()));
                    // Each link is a word, too.
                    (200, title.clone(), text.split_whitespace().count() + links.len())
                }
                Some(Place::Moved { to }) => {
                    waiting.push_back(to.clone());
                    (302, String::new(), 0)
                }
                None => (404, String::new(), 0),
            };
            found.insert(url.clone(), Found { url, status, title, words });
        }
        found
    }
}

/// Pages are in folders, two levels deep; the first is the root.
fn path(number: usize) -> String {
    if number == 0 { "/".into() } else { format!("/shelf{}/board{}/{number}.html", number % 7, number % 3) }
}

/// Links of every kind: up, down, round in a circle, to itself, away.
fn links(number: usize, pages: usize) -> Vec<Link> {
    let to = |other: usize| Some(path(other % pages));
    let (next, twice, back) = ((number + 1) % pages, number * 2 % pages, (number + pages / 2) % pages);
    let mut links = vec![
        (path(next), to(next)),
        (format!("{HERE}{}", path(twice)), to(twice)),
        (format!("{}#part", path(back)), to(back)),
        (String::new(), to(number)),
        ("#top".into(), to(number)),
        ("http://elsewhere.invalid/".into(), None),
        ("mailto:somebody@elsewhere.invalid".into(), None),
        ("https://elsewhere.invalid/".into(), None),
    ];
    if number > 0 {
        links.push(("../../".into(), to(0)));
        links.push((format!("../board{}/./{number}.html", number % 3), to(number)));
        links.push((format!("../..{}", path(next)), to(next)));
    }
    if number % 10 == 3 {
        links.push((format!("/moved/{number}"), Some(format!("/moved/{number}"))));
    }
    if number % 8 == 5 {
        let missing = format!("missing-{number}.html");
        links.push((missing.clone(), Some(format!("/shelf{}/board{}/{missing}", number % 7, number % 3))));
    }
    links
}

fn page(title: &str, text: &str, links: &[Link], here: &str) -> String {
    let mut html = format!("<!doctype html><html><head><title>{title}</title></head><body><p>{text}</p>");
    for (link, _) in links {
        let link = link.replace(HERE, here);
        // Writing to a string does not fail.
        let _ = writeln!(html, "<a href=\"{link}\">link</a>");
    }
    html + "</body></html>"
}
