//! How a verb gets into its swarm: by name, with a secret, or with a ticket.

use std::{
    io::{BufRead, Read},
    path::{Path, PathBuf},
};

use multinodes::{Builder, Secret, Ticket};
use zeroize::Zeroizing;

use super::{
    failure::Failure,
    options::DEFAULT_SWARM,
    origin::{self, Place},
    streams,
};

/// What stands for standard input.
const STDIN: &str = "-";

/// The longest line that is read from standard input for a ticket, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// What was given at one place.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) place: Place,
    pub(crate) swarm: Option<String>,
    pub(crate) secret: Option<PathBuf>,
    pub(crate) ticket: Option<PathBuf>,
}

/// The way into a swarm.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Name { swarm: String, secret: Option<Secret> },
    Ticket(Box<Ticket>),
}

impl Entry {
    /// Settles what counts, and reads the files that are named. `given` is in order: the first place wins. Also what is to
    /// be said to people: which setting is not used, although it would protect.
    ///
    /// A ticket is all of it. Beside a name or a secret of the same place it would not be clear which swarm is meant; one
    /// of a place that counts less gives way, unless it says the same.
    pub(crate) fn settle(given: &[Given]) -> Result<(Self, Vec<String>), Failure> {
        given.iter().try_for_each(Given::check)?;
        let secret = first(given, |given| given.secret.as_ref());
        let mut notes = Vec::new();
        if let Some(at) = given.iter().position(|given| given.ticket.is_some()) {
            let (ticket, place) = (read_ticket(&given[at])?, &given[at].place);
            let mut other = None;
            for given in &given[..at] {
                if other.is_none() && given.contradicts(&ticket)? {
                    other = Some(given.names());
                }
            }
            let Some(other) = other else {
                if let Some((place, _)) = secret.filter(|_| !ticket.is_private()) {
                    let secret = place.name("secret");
                    notes.push(format!("{secret}: the ticket counts more, and leads into a swarm without a secret"));
                }
                return Ok((Self::Ticket(Box::new(ticket)), notes));
            };
            notes.push(format!("{}: {other} counts more, and says something else", place.name("ticket")));
        }
        let swarm = first(given, |given| given.swarm.as_ref());
        let swarm = swarm.map_or_else(|| DEFAULT_SWARM.to_owned(), |(_, swarm)| swarm.clone());
        let secret = secret.map(|(place, path)| read_secret(place, path)).transpose()?;
        Ok((Self::Name { swarm, secret }, notes))
    }

    /// The name of the swarm.
    pub(crate) fn swarm(&self) -> &str {
        match self {
            Self::Name { swarm, .. } => swarm,
            Self::Ticket(ticket) => ticket.swarm(),
        }
    }

    /// Whether nobody gets in without a secret.
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Self::Name { secret, .. } => secret.is_some(),
            Self::Ticket(ticket) => ticket.is_private(),
        }
    }

    /// Whether it says where nodes are.
    pub(crate) fn has_addresses(&self) -> bool {
        matches!(self, Self::Ticket(ticket) if !ticket.addresses().is_empty())
    }

    /// Lets a node go this way.
    pub(crate) fn lead(&self, builder: Builder) -> Builder {
        match self {
            Self::Name { swarm, secret: None } => builder.swarm(swarm.as_str()),
            Self::Name { swarm, secret: Some(secret) } => builder.swarm(swarm.as_str()).secret(secret.clone()),
            Self::Ticket(ticket) => builder.ticket(Ticket::clone(ticket)),
        }
    }
}

impl Given {
    /// Refuses what is empty, and a ticket beside something else.
    fn check(&self) -> Result<(), Failure> {
        if self.swarm.as_ref().is_some_and(String::is_empty) {
            return Err(origin::empty(&self.place.name("swarm")));
        }
        for (key, path) in [("secret", &self.secret), ("ticket", &self.ticket)] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                return Err(origin::empty(&self.place.name(key)));
            }
        }
        if self.ticket.is_some() && (self.swarm.is_some() || self.secret.is_some()) {
            let (other, ticket) = (self.names(), self.place.name("ticket"));
            let text = "the ticket says which swarm, and has its secret";
            return Err(Failure::own(format_args!("{other} cannot be used with {ticket}: {text}")));
        }
        Ok(())
    }

    /// Whether it leads somewhere else than a ticket.
    fn contradicts(&self, ticket: &Ticket) -> Result<bool, Failure> {
        if self.swarm.as_ref().is_some_and(|swarm| swarm != ticket.swarm()) {
            return Ok(true);
        }
        let secret = self.secret.as_ref().map(|path| read_secret(&self.place, path)).transpose()?;
        Ok(secret.is_some_and(|secret| !ticket.has_secret(&secret)))
    }

    /// What is given beside a ticket, for people.
    fn names(&self) -> String {
        self.place.name(if self.swarm.is_some() { "swarm" } else { "secret" })
    }
}

/// The value that counts, and where it is.
fn first<'a, T>(given: &'a [Given], value: impl Fn(&'a Given) -> Option<&'a T>) -> Option<(&'a Place, &'a T)> {
    given.iter().find_map(|given| Some((&given.place, value(given)?)))
}

fn read_secret(place: &Place, path: &Path) -> Result<Secret, Failure> {
    Secret::from_file(path).map_err(|error| Failure::own(format_args!("{}: {error}", place.name("secret"))))
}

fn read_ticket(given: &Given) -> Result<Ticket, Failure> {
    let path = given.ticket.as_deref().unwrap_or(Path::new(STDIN));
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::own(format_args!("{}: {what}: {error}", given.place.name("ticket")))
    };
    if path != Path::new(STDIN) {
        return Ticket::from_file(path).map_err(|error| failed(&format!("`{}`", path.display()), &error));
    }
    // One line only: what follows is the verb's own input.
    let mut line = Zeroizing::new(String::new());
    let read = streams::stdin().and_then(|stdin| stdin.take(MAX_LINE).read_line(&mut line));
    read.map_err(|error| failed("stdin cannot be read", &error))?;
    Ticket::parse(&line).map_err(|error| failed("stdin", &error))
}
