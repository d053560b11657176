//! Applications from the flags and from the file: what they come to, and what contradicts itself.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    path::Path,
    thread::available_parallelism,
};

use clap::Args;
use multinodes::Payload;
use multinodes_behaviour::names;
use serde_json::Value;

use super::command_line::CommandLine;
use crate::cli::{
    config::{self, Run},
    failure::Failure,
};

/// The most processes that one application may have: each of them is a process of the system.
const MAX_SLOTS: u32 = 1024;

/// The flags of `start` for applications that are commands.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Host an application: a process that runs all the time and speaks JSON lines; may be repeated
    #[arg(long, value_name = "NAME=COMMAND")]
    serve: Vec<String>,

    /// Host an application: a process for each message, arguments on stdin, result on stdout; may be repeated
    #[arg(long, value_name = "NAME=COMMAND")]
    exec: Vec<String>,

    /// Processes of an application at once [default: 1 with --serve, the number of cores with --exec]
    #[arg(long, value_name = "NAME=COUNT")]
    slots: Vec<String>,

    /// What others should know of an application
    #[arg(long, value_name = "NAME=JSON")]
    describe: Vec<String>,
}

/// An application that is a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) command: CommandLine,
    pub(super) slots: u32,
    pub(super) description: Value,
    pub(super) actions: Vec<String>,
    pub(super) idempotent: Vec<String>,
    pub(super) version: Option<String>,
}

/// How a command is an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Serve,
    Exec,
}

impl Options {
    /// The applications of the flags and of the file; a flag wins over the file.
    pub(super) fn settle(&self, file: &config::Applications) -> Result<Vec<Spec>, Failure> {
        let (commands, filed) = (self.given()?, by_name(file)?);
        let slots = all("--slots", &self.slots, number)?;
        let descriptions = all("--describe", &self.describe, |text| {
            let read = Payload::from_json(text.as_bytes()).and_then(|value| value.to_json());
            read.map_err(|error| format!("`{text}` is not JSON: {error}"))
        })?;
        let names: BTreeSet<&str> = commands.keys().chain(filed.keys()).map(AsRef::as_ref).collect();
        let slots_of = slots.keys().map(|name| ("--slots", name));
        let descriptions_of = descriptions.keys().map(|name| ("--describe", name));
        if let Some((flag, name)) = slots_of.chain(descriptions_of).find(|(_, name)| !names.contains(&***name)) {
            return Err(Failure::own(format!("{flag}: there is no --serve or --exec for `{name}`")));
        }
        let mut specs = Vec::new();
        for name in names {
            let mut spec = match (commands.get(name), filed.get(name).copied()) {
                (Some((kind, command)), given) => Spec::new(name, *kind, command, None, given)?,
                (None, Some(given)) => {
                    let (kind, command) = match &given.run {
                        Run::Serve(command) => (Kind::Serve, command),
                        Run::Exec(command) => (Kind::Exec, command),
                    };
                    Spec::new(name, kind, command, Some(&file.folder), Some(given))?
                }
                (None, None) => continue,
            };
            spec.slots = slots.get(name).copied().unwrap_or(spec.slots);
            spec.description = descriptions.get(name).cloned().unwrap_or(spec.description);
            specs.push(spec);
        }
        Ok(specs)
    }

    /// The commands of the flags by name.
    fn given(&self) -> Result<BTreeMap<Cow<'_, str>, (Kind, &str)>, Failure> {
        let mut commands = BTreeMap::new();
        for (flag, kind, given) in [("--serve", Kind::Serve, &self.serve), ("--exec", Kind::Exec, &self.exec)] {
            for text in given {
                let (name, command) = pair(flag, text)?;
                if commands.insert(name.clone(), (kind, command)).is_some() {
                    return Err(Failure::own(format!("application `{name}` is given twice with --serve or --exec")));
                }
            }
        }
        Ok(commands)
    }
}

impl Spec {
    /// `given` is what the file says of it, whatever command it names.
    fn new(
        name: &str,
        kind: Kind,
        command: &str,
        folder: Option<&Path>,
        given: Option<&config::Application>,
    ) -> Result<Self, Failure> {
        let parsed = CommandLine::parse(command, folder);
        let command = parsed
            .map_err(|reason| Failure::own(format!("application `{name}`: `{command}` cannot be started: {reason}")))?;
        Ok(Self {
            name: name.to_owned(),
            kind,
            command,
            slots: given.and_then(|given| given.slots).unwrap_or_else(|| usual(kind)),
            description: given.and_then(|given| given.description.clone()).unwrap_or_default(),
            actions: given.and_then(|given| given.actions.clone()).unwrap_or_default(),
            idempotent: given.and_then(|given| given.idempotent.clone()).unwrap_or_default(),
            version: given.and_then(|given| given.version.clone()),
        })
    }
}

/// `slots` as the file and the flags take them.
pub(crate) fn slots(count: u32) -> Result<u32, String> {
    if (1..=MAX_SLOTS).contains(&count) { Ok(count) } else { Err(format!("1 to {MAX_SLOTS} slots are possible")) }
}

fn number(text: &str) -> Result<u32, String> {
    let count = text.parse().map_err(|_| format!("`{text}` is no number of processes"))?;
    slots(count)
}

fn usual(kind: Kind) -> u32 {
    match kind {
        Kind::Serve => 1,
        Kind::Exec => available_parallelism().map_or(1, NonZero::get).try_into().unwrap_or(MAX_SLOTS).min(MAX_SLOTS),
    }
}

/// The values of a flag by name; a name given twice is an error.
fn all<'a, T>(
    flag: &str,
    given: &'a [String],
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<BTreeMap<Cow<'a, str>, T>, Failure> {
    let mut all = BTreeMap::new();
    for text in given {
        let (name, value) = pair(flag, text)?;
        let value = read(value).map_err(|reason| Failure::own(format!("{flag} {name}: {reason}")))?;
        if all.insert(name.clone(), value).is_some() {
            return Err(Failure::own(format!("{flag} is given twice for `{name}`")));
        }
    }
    Ok(all)
}

/// The applications of the file by their names in the form in which all names are.
fn by_name(file: &config::Applications) -> Result<BTreeMap<Cow<'_, str>, &config::Application>, Failure> {
    let mut all = BTreeMap::new();
    for (name, application) in &file.all {
        if all.insert(names::normal(name), application).is_some() {
            return Err(Failure::own(format!("application `{name}` is in the file twice, in two forms of its name")));
        }
    }
    Ok(all)
}

/// A name, in the form in which all names are, and what is said of it.
fn pair<'a>(flag: &str, text: &'a str) -> Result<(Cow<'a, str>, &'a str), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((names::normal(name), value)),
        _ => Err(Failure::own(format!("{flag} wants NAME=VALUE, not `{text}`"))),
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        options: Options,
    }

    fn settle(flags: &[&str], file: &str) -> Result<Vec<Spec>, String> {
        let flags = Flags::try_parse_from([&["start"], flags].concat()).unwrap();
        flags.options.settle(&config::parse(file).unwrap().applications).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = "[applications.one]\nexec = 'cat'\nslots = 3\ndescription = { gpu = true }\nactions = ['a']\nversion = '1'\nidempotent = ['a']\n\
                    [applications.two]\nserve = 'cat'";
        let specs = settle(&["--serve", "one=sh -c 'a=b'", "--describe", "one=[1]"], file).unwrap();
        assert_eq!(specs.iter().map(|spec| &spec.name[..]).collect::<Vec<_>>(), ["one", "two"]);
        let one = &specs[0];
        assert_eq!((one.kind, one.command.text(), one.slots), (Kind::Serve, "sh -c 'a=b'", 3));
        assert_eq!(
            (&one.description, &one.actions[..], one.version.as_deref()),
            (&json!([1]), &["a".to_owned()][..], Some("1"))
        );
        assert_eq!(one.idempotent, ["a"]);
        assert_eq!((specs[1].kind, specs[1].slots, &specs[1].description), (Kind::Serve, 1, &Value::Null));
        assert_eq!(settle(&[], file).unwrap()[0].description, json!({"gpu": true}));
    }

    #[test]
    fn contradictions_are_named() {
        let wrong = |flags: &[&str]| settle(flags, "").unwrap_err();
        assert_eq!(
            wrong(&["--serve", "a=cat", "--exec", "a=cat"]),
            "application `a` is given twice with --serve or --exec"
        );
        assert_eq!(wrong(&["--slots", "b=2"]), "--slots: there is no --serve or --exec for `b`");
        assert_eq!(wrong(&["--serve", "a=cat", "--slots", "a=0"]), "--slots a: 1 to 1024 slots are possible");
        assert_eq!(wrong(&["--serve", "a=cat", "--slots", "a=x"]), "--slots a: `x` is no number of processes");
        assert_eq!(wrong(&["--exec", "a=cat", "--slots", "a=1", "--slots", "a=2"]), "--slots is given twice for `a`");
        assert!(wrong(&["--exec", "a=cat", "--describe", "a={"]).starts_with("--describe a: `{` is not JSON"));
        assert_eq!(wrong(&["--exec", "cat"]), "--exec wants NAME=VALUE, not `cat`");
        assert_eq!(
            wrong(&["--serve", "a=no-such-program -x"]),
            "application `a`: `no-such-program -x` cannot be started: no program `no-such-program` is in PATH"
        );
    }
}
