//! How a verb gets into its swarm: by name, with a secret, or with a ticket.

use std::{
    io::{BufRead, Read},
    path::{Path, PathBuf},
};

use multinodes::{Builder, Secret, Ticket};
use zeroize::Zeroizing;

use super::failure::Failure;

/// What stands for standard input.
const STDIN: &str = "-";

/// The longest line that is read from standard input for a ticket, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// What was given at one place: the command line and the environment, or the file with settings.
#[derive(Debug, Default)]
pub(crate) struct Given {
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
    /// Settles what counts, and reads the file that it names. A ticket is all of it: beside a name or a secret it would
    /// not be clear which swarm is meant.
    pub(crate) fn settle(mut flags: Given, mut file: Given) -> Result<Self, Failure> {
        for given in [&mut flags, &mut file] {
            given.swarm.take_if(|swarm| swarm.is_empty());
            given.ticket.take_if(|path| path.as_os_str().is_empty());
        }
        let ticket = match (&flags.ticket, &file.ticket) {
            (Some(path), _) => {
                conflict(&flags, "with `--ticket`")?;
                Some(path)
            }
            (None, Some(path)) => {
                conflict(&flags, "with the `ticket` of the file with settings")?;
                conflict(&file, "with the `ticket` beside it in the file with settings")?;
                Some(path)
            }
            (None, None) => None,
        };
        if let Some(path) = ticket {
            return Ok(Self::Ticket(Box::new(read_ticket(path)?)));
        }
        // An empty path on the command line takes the file's secret back.
        let secret = flags.secret.or(file.secret).filter(|path| !path.as_os_str().is_empty());
        let secret = secret.map(Secret::from_file).transpose().map_err(Failure::own)?;
        Ok(Self::Name { swarm: flags.swarm.or(file.swarm).unwrap_or_else(|| "default".to_owned()), secret })
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

fn conflict(given: &Given, what: &str) -> Result<(), Failure> {
    let other = match given {
        Given { swarm: Some(_), .. } => "`--swarm`",
        Given { secret: Some(path), .. } if !path.as_os_str().is_empty() => "`--secret`",
        _ => return Ok(()),
    };
    Err(Failure::own(format_args!("{other} cannot be used {what}: the ticket says which swarm, and has its secret")))
}

fn read_ticket(path: &Path) -> Result<Ticket, Failure> {
    if path != Path::new(STDIN) {
        return Ticket::from_file(path).map_err(|error| Failure::own(format_args!("`{}`: {error}", path.display())));
    }
    // One line only: what follows is the verb's own input.
    let mut line = Zeroizing::new(String::new());
    let stdin = std::io::stdin().lock();
    let read = stdin.take(MAX_LINE).read_line(&mut line);
    read.map_err(|error| Failure::own(format_args!("cannot read a ticket from stdin: {error}")))?;
    Ticket::parse(&line).map_err(|error| Failure::own(format_args!("stdin: {error}")))
}
