//! The flags of every verb, and what they come to: flag, then environment, then `multinodes.toml`, then default.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use multinodes::{Builder, Node};
use serde::Deserialize;

use super::{
    config::{self, Config},
    duration::some_time,
    entry::{Entry, Given},
    failure::Failure,
    origin::{self, Origins, Place, Written},
    paste,
};

/// The flags of every verb, as given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Options {
    /// The swarm to be in; swarms of different names never meet [default: default]
    #[arg(long, global = true, value_name = "NAME", env = "MULTINODES_SWARM", hide_env = true)]
    swarm: Option<String>,

    /// The file with the secret of a private swarm, made by `multinodes secret new`
    #[arg(long, global = true, value_name = "FILE", env = "MULTINODES_SECRET", hide_env = true)]
    secret: Option<PathBuf>,

    /// Join with the ticket in FILE, or on the first line of stdin (-), instead of --swarm and --secret
    #[arg(long, global = true, value_name = "FILE", env = "MULTINODES_TICKET", hide_env = true)]
    ticket: Option<PathBuf>,

    /// An address to join through, /ip4/../tcp/.. or host:port; may be repeated
    #[arg(long, global = true, value_name = "ADDR", env = "MULTINODES_JOIN", hide_env = true, value_delimiter = ',')]
    join: Vec<String>,

    /// Do not look for nodes on the LAN by mDNS
    #[arg(long, global = true, value_name = "BOOL", env = "MULTINODES_NO_MDNS", hide_env = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    no_mdns: Option<bool>,

    /// A network interface on which to look by mDNS; may be repeated [default: those behind which others may be]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "MULTINODES_INTERFACE",
        hide_env = true,
        value_delimiter = ','
    )]
    interface: Vec<String>,

    /// Do not use Kademlia
    #[arg(long, global = true, value_name = "BOOL", env = "MULTINODES_NO_KADEMLIA", hide_env = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    no_kademlia: Option<bool>,

    /// Do not look for nodes of this host in the rendezvous folder, nor be found there
    #[arg(long, global = true, value_name = "BOOL", env = "MULTINODES_NO_RENDEZVOUS", hide_env = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    no_rendezvous: Option<bool>,

    /// Where the rendezvous folder is [default: $XDG_RUNTIME_DIR, or the system's folder for temporary files]
    #[arg(long, global = true, value_name = "DIR", env = "MULTINODES_RUNTIME_DIR", hide_env = true)]
    runtime_dir: Option<PathBuf>,

    /// The longest that an answer may take, such as 10s or 500ms [default: 10s]
    #[arg(long, global = true, value_name = "TIME", env = "MULTINODES_TIMEOUT", hide_env = true)]
    #[arg(value_parser = some_time)]
    timeout: Option<Duration>,

    /// Print JSON
    #[arg(long, global = true, value_name = "BOOL", env = "MULTINODES_JSON", hide_env = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = switch)]
    json: Option<bool>,

    /// Log to stderr: -v what changes, -vv each step, -vvv each message; RUST_LOG wins
    #[arg(short, long, global = true, action = ArgAction::Count, env = "MULTINODES_VERBOSE", hide_env = true)]
    verbose: u8,

    /// When to use colours; NO_COLOR is respected [default: auto]
    #[arg(long, global = true, value_name = "WHEN", env = "MULTINODES_COLOR", hide_env = true)]
    color: Option<Color>,

    /// The file with settings [default: multinodes.toml in the working directory, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "MULTINODES_CONFIG", hide_env = true)]
    config: Option<PathBuf>,

    /// Which of all flags, those of the verb included, have their values from the environment.
    #[arg(skip)]
    pub(super) origins: Origins,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    // No `///` here: it would become a help text, and spread the whole help over three lines an option.
    #[default]
    Auto,
    Always,
    Never,
}

/// What the flags, the environment and the file come to.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) entry: Entry,
    pub(crate) join: Vec<String>,
    pub(crate) mdns: bool,
    pub(crate) interfaces: Vec<String>,
    pub(crate) kademlia: bool,
    pub(crate) rendezvous: bool,
    pub(crate) runtime_dir: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) json: bool,
    pub(crate) verbose: u8,
    pub(crate) color: Color,
    /// The flags that were typed and that decide in which swarm others are found, and how: words for another command.
    pub(crate) typed: Vec<String>,
    /// What people are told of settings that are not used.
    pub(crate) notes: Vec<String>,
    pub(crate) origins: Origins,
    /// The file with settings.
    file: PathBuf,
    /// Keys that only `start` reads.
    pub(crate) start: config::Start,
    pub(crate) applications: config::Applications,
}

impl Options {
    /// Reads the file, if there is one, and settles each setting by precedence.
    pub(crate) fn settle(self) -> Result<Settings, Failure> {
        self.origins.check()?;
        // With one of them typed, the other is not missed.
        if self.is_only_from_environment("secret", self.secret.as_ref())
            && self.is_only_from_environment("ticket", self.ticket.as_ref())
            && let Some(flag) = ["secret", "ticket"].into_iter().find(|flag| self.origins.is_empty(flag))
        {
            return Err(origin::empty(&Place::Environment.name(flag)));
        }
        let file = config::find(self.config.as_deref())?;
        self.over(file)
    }

    fn is_only_from_environment(&self, flag: &str, value: Option<&PathBuf>) -> bool {
        value.is_none() || self.origins.is_from_environment(flag)
    }

    /// Whether JSON was asked for on the command line or in the environment.
    pub(crate) fn json(&self) -> bool {
        self.json.unwrap_or(false)
    }

    /// The flags that were typed and that another command needs as well. What is in the environment or in the file is there
    /// for that one, too.
    pub(crate) fn typed(&self) -> Vec<String> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut values = vec![
            ("config", self.config.as_ref().map(text)),
            ("swarm", self.swarm.clone()),
            ("secret", self.secret.as_ref().map(text)),
            ("ticket", self.ticket.as_ref().map(text)),
            ("runtime-dir", self.runtime_dir.as_ref().map(text)),
        ];
        values.extend(self.join.iter().map(|address| ("join", Some(address.clone()))));
        let switches =
            [("no-mdns", self.no_mdns), ("no-kademlia", self.no_kademlia), ("no-rendezvous", self.no_rendezvous)];
        let is_typed = |flag: &str| !self.origins.is_from_environment(flag);
        let mut words = Vec::new();
        for (flag, value) in values.into_iter().filter(|(flag, _)| is_typed(flag)) {
            words.extend(value.into_iter().flat_map(|value| paste::flag(flag, &value)));
        }
        for (flag, value) in switches.into_iter().filter(|(flag, _)| is_typed(flag)) {
            words.extend(value.map(|value| if value { format!("--{flag}") } else { format!("--{flag}=false") }));
        }
        words
    }

    fn over(self, file: Config) -> Result<Settings, Failure> {
        let words = self.typed();
        let place = Place::File(file.path.clone());
        let in_file = Given { place, swarm: file.swarm, secret: file.secret, ticket: file.ticket };
        let (entry, notes) = Entry::settle(&[
            Given {
                place: Place::Typed,
                swarm: typed(&self.origins, "swarm", &self.swarm),
                secret: typed(&self.origins, "secret", &self.secret),
                ticket: typed(&self.origins, "ticket", &self.ticket),
            },
            Given {
                place: Place::Environment,
                swarm: from_environment(&self.origins, "swarm", &self.swarm),
                secret: from_environment(&self.origins, "secret", &self.secret),
                ticket: from_environment(&self.origins, "ticket", &self.ticket),
            },
            in_file,
        ])?;
        Ok(Settings {
            entry,
            join: given(self.join).or(file.join).unwrap_or_default(),
            mdns: !self.no_mdns.or(file.no_mdns).unwrap_or(false),
            interfaces: given(self.interface).or(file.interface).unwrap_or_default(),
            kademlia: !self.no_kademlia.or(file.no_kademlia).unwrap_or(false),
            rendezvous: !self.no_rendezvous.or(file.no_rendezvous).unwrap_or(false),
            runtime_dir: self.runtime_dir.filter(|path| !path.as_os_str().is_empty()).or(file.runtime_dir),
            timeout: self.timeout.or(file.timeout).unwrap_or(TIMEOUT),
            json: self.json.or(file.json).unwrap_or(false),
            verbose: if self.verbose > 0 { self.verbose } else { file.verbose.unwrap_or(0) },
            color: self.color.or(file.color).unwrap_or_default(),
            typed: words,
            notes,
            origins: self.origins,
            file: file.path,
            start: file.start,
            applications: file.applications,
        })
    }
}

impl Settings {
    /// What was written of a setting of `start` that may be repeated: what is typed, or is in the environment, or else
    /// what is in the file. It is refused if it came out empty.
    pub(crate) fn written(
        &self,
        flag: &str,
        given: &[String],
        file: Option<&Vec<String>>,
    ) -> Result<Vec<Written>, Failure> {
        match (given, file) {
            ([], None) => Ok(Vec::new()),
            ([], Some(values)) => Written::all(&self.in_file(flag), values),
            (given, _) => Written::all(&self.origins.name(flag), given),
        }
    }

    /// What a setting is called in the file, for people.
    pub(crate) fn in_file(&self, key: &str) -> String {
        Place::File(self.file.clone()).name(key)
    }

    /// A command for people to paste: these words, and the flags that were typed.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        paste::command(words.iter().copied().chain(self.typed.iter().map(String::as_str)))
    }

    /// A node as these settings want it.
    pub(crate) fn builder(&self) -> Builder {
        let builder = Node::builder().mdns(self.mdns).kademlia(self.kademlia).rendezvous(self.rendezvous);
        let mut builder = self.entry.lead(builder);
        for address in &self.join {
            builder = builder.join(address.as_str());
        }
        for name in &self.interfaces {
            builder = builder.interface(name.as_str());
        }
        if let Some(folder) = &self.runtime_dir {
            builder = builder.runtime_folder(folder);
        }
        builder
    }
}

fn typed<T: Clone>(origins: &Origins, flag: &str, value: &Option<T>) -> Option<T> {
    value.clone().filter(|_| !origins.is_from_environment(flag))
}

fn from_environment<T: Clone>(origins: &Origins, flag: &str, value: &Option<T>) -> Option<T> {
    value.clone().filter(|_| origins.is_from_environment(flag))
}

/// The list without the empty entries that an empty variable leaves; `None` if nothing is left.
pub(crate) fn given(mut list: Vec<String>) -> Option<Vec<String>> {
    list.retain(|entry| !entry.is_empty());
    (!list.is_empty()).then_some(list)
}

/// Reads a switch as people write it in environment variables.
fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "y" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "n" | "off" => Ok(false),
        _ => Err("neither yes nor no: true, false, 1 and 0 are understood".to_owned()),
    }
}

/// The swarm of those who name none.
pub(crate) const DEFAULT_SWARM: &str = "default";

/// How long an answer may take when nobody says otherwise; the library's own default.
const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        options: Options,
    }

    fn settle(flags: &[&str], file: &str) -> Settings {
        let flags = Flags::try_parse_from([&["multinodes"], flags].concat()).unwrap();
        flags.options.over(config::parse(file).unwrap()).unwrap()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "swarm = 'file'\nno-mdns = true\ntimeout = '3s'";
        let settings = settle(&["--swarm", "flag", "--no-mdns=false"], file);
        assert_eq!((settings.entry.swarm(), settings.mdns), ("flag", true));
        assert_eq!(settings.timeout, Duration::from_secs(3));
        assert!(settings.kademlia, "nobody has said otherwise");
    }

    #[test]
    fn what_was_typed_and_finds_the_swarm_is_typed_again() {
        let settings = settle(&["--swarm", "my garden", "--join", "a:1,b:2", "--no-mdns", "--no-kademlia=no"], "");
        let line = settings.command(&["call", "node", "echo", "\"hi\""]);
        let flags = "--swarm 'my garden' --join a:1 --join b:2 --no-mdns --no-kademlia=false";
        assert!(line.ends_with(&format!(" call node echo '\"hi\"' {flags}")), "{line}");
        assert!(settle(&["--timeout", "3s", "--json"], "swarm = 'file'").typed.is_empty());
    }

    #[test]
    fn an_empty_variable_is_no_address() {
        assert_eq!(given(vec![String::new()]), None);
        assert_eq!(settle(&["--join", "a:1,b:2"], "").join, ["a:1", "b:2"]);
    }

    #[test]
    fn switches_are_read_as_people_write_them() {
        assert_eq!((switch("1"), switch("No"), switch("")), (Ok(true), Ok(false), Ok(false)));
        assert!(switch("maybe").is_err());
    }
}
