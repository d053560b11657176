//! Where a setting was written: on the command line, in the environment, or in the file with settings.
//!
//! What is typed wins over the environment, and that over the file. An empty variable counts as not set, as Compose
//! makes one of each line in its file; where it is about protection, nothing is opened by that.

use std::{collections::BTreeSet, ffi::OsString, fmt::Write, path::PathBuf};

use clap::{
    ArgMatches, Command,
    builder::{OsStr, Resettable},
    parser::ValueSource,
};

use super::failure::Failure;

/// What all our variables begin with.
const PREFIX: &str = "MULTINODES_";

/// Variables on which it depends who gets in: one that looks like them and is none of them is refused.
const PROTECTING: [&str; 8] = ["SECRET", "TICKET", "SWARM", "CONFIG", "ALLOW_PEER", "DENY_PEER", "ALLOW_CODE", "TRUST"];

/// What a variable about protection has in its name.
const ABOUT_PROTECTION: [&str; 4] = ["SECRET", "TICKET", "ALLOW", "DENY"];

/// So many letters may be wrong, missing or too many in a name that is taken for a misspelt one.
const MISSPELT: usize = 2;

/// What is known of the places of one command line's settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    /// The flags whose values are from the environment, as clap calls them.
    from_environment: BTreeSet<String>,
    /// Our variables that are set, and empty.
    empty: BTreeSet<String>,
    /// A variable that is taken for a misspelt one about protection.
    misspelt: Option<String>,
}

/// A place where settings are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Typed,
    Environment,
    File(PathBuf),
}

/// One value of a setting that may be written several times, and where it was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// For people, such as `--allow-peer`.
    pub(crate) place: String,
    pub(crate) value: String,
}

impl Origins {
    pub(crate) fn of(command: &Command, matches: &ArgMatches) -> Self {
        let set: Vec<(String, OsString)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        let mut known = BTreeSet::new();
        collect_variables(command, &mut known);
        let full = set.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.as_str());
        let misspelt = full.filter(|name| !known.contains(*name)).find_map(complaint);
        let empty = set.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| name.clone()).collect();
        let mut from_environment = BTreeSet::new();
        let mut level = Some(matches);
        while let Some(matches) = level {
            let from = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::EnvVariable);
            from_environment.extend(matches.ids().filter(from).map(ToString::to_string));
            level = matches.subcommand().map(|(_, matches)| matches);
        }
        Self { from_environment, empty, misspelt }
    }

    /// Refuses variables that somebody believes to protect, and that do not.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.misspelt.as_ref().map_or(Ok(()), |complaint| Err(Failure::own(complaint)))
    }

    /// Whether the value of a flag is from the environment.
    pub(crate) fn is_from_environment(&self, flag: &str) -> bool {
        self.from_environment.contains(&flag.replace('-', "_"))
    }

    /// Whether the variable of a flag is set and empty.
    pub(crate) fn is_empty(&self, flag: &str) -> bool {
        self.empty.contains(&variable(flag))
    }

    /// Where the value of a flag was written, for people.
    pub(crate) fn name(&self, flag: &str) -> String {
        if self.is_from_environment(flag) { variable(flag) } else { format!("--{flag}") }
    }
}

impl Place {
    /// What a setting is called there, for people.
    pub(crate) fn name(&self, key: &str) -> String {
        match self {
            Self::Typed => format!("`--{key}`"),
            Self::Environment => format!("`{}`", variable(key)),
            Self::File(path) => format!("`{key}` of the file with settings `{}`", path.display()),
        }
    }
}

impl Written {
    /// All values of one place. They are refused if they came out empty: whoever writes a rule wants to keep somebody out.
    pub(crate) fn all(place: &str, values: &[String]) -> Result<Vec<Self>, Failure> {
        if values.is_empty() || values.iter().any(|value| value.trim().is_empty()) {
            return Err(empty(place));
        }
        Ok(values.iter().map(|value| Self { place: place.to_owned(), value: value.clone() }).collect())
    }
}

/// Says that a setting is there, and empty.
pub(crate) fn empty(place: &str) -> Failure {
    Failure::own(format_args!("{place} is empty: give it a value, or leave it out"))
}

/// The variable of a flag.
pub(crate) fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.replace('-', "_").to_ascii_uppercase())
}

/// The command as if empty variables were not set.
pub(crate) fn without_empty(command: Command) -> Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if is_empty(name) => arg.env(Resettable::<OsStr>::Reset),
        _ => arg,
    });
    command.mut_subcommands(without_empty)
}

fn collect_variables(command: &Command, known: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
    known.extend(names.map(str::to_owned));
    command.get_subcommands().for_each(|command| collect_variables(command, known));
}

/// What is said of a variable that is none of ours, if it looks as if it were to protect something.
fn complaint(name: &str) -> Option<String> {
    let short = name.strip_prefix(PREFIX)?;
    let nearest = PROTECTING.iter().min_by_key(|known| distance(known, short))?;
    let near = distance(nearest, short) <= MISSPELT;
    if !near && !ABOUT_PROTECTION.iter().any(|word| short.contains(word)) {
        return None;
    }
    let mut text = format!("`{name}` is no setting, and would protect nothing");
    if near {
        // Writing into a `String` cannot fail.
        let _ = write!(text, ": is `{PREFIX}{nearest}` meant?");
    }
    Some(text)
}

/// How many letters have to be put in, taken away or changed to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, counterpart) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *counterpart);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_variable_that_protects_and_is_none_is_refused() {
        for (name, meant) in [
            ("MULTINODES_SECERT", "`MULTINODES_SECRET` meant"),
            ("MULTINODES_SWRAM", "`MULTINODES_SWARM` meant"),
            ("MULTINODES_ALLOW_PEERS", "`MULTINODES_ALLOW_PEER` meant"),
            ("MULTINODES_SECRET_FILE", "is no setting"),
            ("MULTINODES_ALLOW", "is no setting"),
        ] {
            let text = complaint(name).unwrap();
            assert!(text.contains(name) && text.contains(meant), "{text}");
        }
        // What is set by others: scripts, workers' hosts, Kubernetes for a service of that name.
        for name in ["MULTINODES_BIN", "MULTINODES_ACTION", "MULTINODES_PORT_4001_TCP", "MULTINODES_SERVICE_HOST"] {
            assert_eq!(complaint(name), None);
        }
    }

    #[test]
    fn letters_are_counted_that_differ() {
        for (one, other, count) in [("", "", 0), ("a", "", 1), ("abc", "acb", 2), ("kitten", "sitting", 3)] {
            assert_eq!((distance(one, other), distance(other, one)), (count, count));
        }
    }
}
