//! `multinodes.toml`: the same settings as the flags, under the same names. See `multinodes.example.toml`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

use serde_json::Value;

use multinodes::files;

use super::{
    child, duration,
    failure::Failure,
    options::Color,
    origin::{self, Place},
};

/// The keys of the file. An unknown one is refused: it is a setting that somebody believes in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    pub(crate) swarm: Option<String>,
    pub(crate) secret: Option<PathBuf>,
    pub(crate) ticket: Option<PathBuf>,
    pub(crate) join: Option<Vec<String>>,
    pub(crate) no_mdns: Option<bool>,
    pub(crate) interface: Option<Vec<String>>,
    pub(crate) no_kademlia: Option<bool>,
    pub(crate) no_rendezvous: Option<bool>,
    pub(crate) runtime_dir: Option<PathBuf>,
    #[serde(deserialize_with = "some_time")]
    pub(crate) timeout: Option<Duration>,
    pub(crate) json: Option<bool>,
    pub(crate) verbose: Option<u8>,
    pub(crate) color: Option<Color>,
    pub(crate) start: Start,
    pub(crate) applications: Applications,
    /// Where it is.
    #[serde(skip)]
    pub(crate) path: PathBuf,
}

/// The keys that only `multinodes start` reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Start {
    pub(crate) name: Option<String>,
    pub(crate) listen: Option<Vec<String>>,
    pub(crate) identity: Option<PathBuf>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "any_time")]
    pub(crate) drain: Option<Duration>,
    pub(crate) allow_peer: Option<Vec<String>>,
    pub(crate) deny_peer: Option<Vec<String>>,
    /// By application or `application/action`.
    pub(crate) allow: Option<BTreeMap<String, Vec<String>>>,
    pub(crate) trust: Option<Vec<String>>,
    pub(crate) allow_code: Option<Vec<String>>,
    pub(crate) data: Option<PathBuf>,
}

/// The applications that are commands, for `multinodes start`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Applications {
    pub(crate) all: BTreeMap<String, Application>,
    /// Where the file is: their paths are meant from there, and they are started there.
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "ApplicationKeys")]
pub(crate) struct Application {
    pub(crate) run: Run,
    pub(crate) slots: Option<u32>,
    pub(crate) description: Option<Value>,
    pub(crate) actions: Option<Vec<String>>,
    pub(crate) idempotent: Option<Vec<String>>,
    pub(crate) version: Option<String>,
}

/// A command, and how it is an application.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Run {
    /// It runs all the time.
    Serve(String),
    /// It is started for each message.
    Exec(String),
}

/// The keys of an application as they are in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ApplicationKeys {
    serve: Option<String>,
    exec: Option<String>,
    slots: Option<u32>,
    description: Option<toml::Value>,
    actions: Option<Vec<String>>,
    idempotent: Option<Vec<String>>,
    version: Option<String>,
}

impl TryFrom<ApplicationKeys> for Application {
    type Error = String;

    fn try_from(keys: ApplicationKeys) -> Result<Self, String> {
        let ApplicationKeys { serve, exec, slots, description, actions, idempotent, version } = keys;
        let run = match (serve, exec) {
            (Some(command), None) => Run::Serve(command),
            (None, Some(command)) => Run::Exec(command),
            (None, None) => return Err("an application needs `serve` or `exec`".to_owned()),
            (Some(_), Some(_)) => return Err("an application has `serve` or `exec`, not both".to_owned()),
        };
        let description = description.map(|value| json(value, "description")).transpose()?;
        Ok(Self { run, slots: slots.map(child::slots).transpose()?, description, actions, idempotent, version })
    }
}

/// The same value as JSON. What JSON does not have is named, with the place.
fn json(value: toml::Value, place: &str) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) if number.is_finite() => number.into(),
        toml::Value::Float(number) => {
            return Err(format!("`{place}` is `{}`, a number that JSON does not have", toml::Value::Float(number)));
        }
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(time) => {
            return Err(format!("`{place}` is the time `{time}`, which JSON does not have: write it as a text"));
        }
        toml::Value::Array(values) => {
            let values = values.into_iter().enumerate();
            values.map(|(index, value)| json(value, &format!("{place}[{index}]"))).collect::<Result<_, _>>()?
        }
        toml::Value::Table(table) => {
            let pair = |(key, value): (String, toml::Value)| {
                let value = json(value, &format!("{place}.{key}"))?;
                Ok::<_, String>((key, value))
            };
            Value::Object(table.into_iter().map(pair).collect::<Result<_, _>>()?)
        }
    })
}

/// Reads `given`, or `multinodes.toml` of the working directory if it is there.
pub(crate) fn find(given: Option<&Path>) -> Result<Config, Failure> {
    let path = given.unwrap_or(Path::new(FILE));
    // A link that leads nowhere is there all the same: somebody believes in what it was to lead to.
    if given.is_none() && path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(Config::default());
    }
    let text = files::read_text(path, MAX_FILE)
        .map_err(|error| Failure::own(format!("cannot read the file with settings `{}`: {error}", path.display())))?;
    let config = parse(&text).map_err(|error| Failure::own(format!("`{}`: {error}", path.display())))?;
    if let Some(key) = config.empty() {
        return Err(origin::empty(&Place::File(path.to_owned()).name(key)));
    }
    let config = Config { path: path.to_owned(), ..config };
    Ok(config.below(path.parent().unwrap_or(Path::new(""))))
}

/// Reads the text of a file; the error is one line that names line and key.
pub(crate) fn parse(text: &str) -> Result<Config, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let reason = error.message().replace("unknown field", "unknown key").replace('\n', " ");
        match line {
            Some(line) => format!("line {line}: {reason}"),
            None => reason,
        }
    })
}

impl Config {
    /// A key that is there without a value: a path that is empty would become that of the folder, and a secret no secret.
    fn empty(&self) -> Option<&'static str> {
        let Self { start, .. } = self;
        let texts = [("swarm", &self.swarm), ("name", &start.name)];
        let paths = [
            ("secret", &self.secret),
            ("ticket", &self.ticket),
            ("runtime-dir", &self.runtime_dir),
            ("identity", &start.identity),
            ("data", &start.data),
        ];
        let texts = texts.into_iter().filter(|(_, text)| text.as_ref().is_some_and(String::is_empty));
        let paths = paths.into_iter().filter(|(_, path)| path.as_ref().is_some_and(|path| path.as_os_str().is_empty()));
        texts.map(|(key, _)| key).chain(paths.map(|(key, _)| key)).next()
    }

    /// Paths in the file are meant from where the file is.
    fn below(mut self, folder: &Path) -> Self {
        // `-` is standard input, wherever the file is.
        let ticket = self.ticket.as_mut().filter(|path| path.as_os_str() != "-");
        let paths = [&mut self.runtime_dir, &mut self.start.identity, &mut self.start.data, &mut self.secret];
        for path in paths.into_iter().flatten().chain(ticket) {
            *path = folder.join(&path);
        }
        let Start { allow_peer, deny_peer, allow, allow_code, .. } = &mut self.start;
        let rules = [allow_peer, deny_peer, allow_code]
            .into_iter()
            .flatten()
            .chain(allow.iter_mut().flat_map(BTreeMap::values_mut));
        for rule in rules.flatten() {
            if let Some(path) = rule.strip_prefix('@') {
                *rule = format!("@{}", folder.join(path).display());
            }
        }
        self.applications.folder = folder.to_owned();
        self
    }
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    time(deserializer, duration::some_time)
}

fn any_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    time(deserializer, duration::any_time)
}

fn time<'de, D: Deserializer<'de>>(
    deserializer: D,
    read: impl FnOnce(&str) -> Result<Duration, String>,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    read(&text).map(Some).map_err(|error| de::Error::custom(format!("`{text}` is no length of time: {error}")))
}

/// The file that is read when none is named.
const FILE: &str = "multinodes.toml";

/// The largest file with settings, in bytes: hundreds of applications.
const MAX_FILE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name_and_line() {
        let error = parse("swarm = 'a'\nswram = 'b'").unwrap_err();
        assert!(error.starts_with("line 2: unknown key `swram`"), "{error}");
        let error = parse("[start]\nnmae = 'b'").unwrap_err();
        assert!(error.contains("`nmae`"), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_no_key() {
        assert_eq!(parse("\u{feff}swarm = 'a'").unwrap().swarm.as_deref(), Some("a"));
    }

    #[test]
    fn a_time_without_a_unit_is_refused() {
        let error = parse("timeout = '10'").unwrap_err();
        assert!(error.contains("`10` is no length of time"), "{error}");
    }

    #[test]
    fn the_example_has_every_key_and_is_valid_when_uncommented() {
        let example = include_str!("multinodes.example.toml");
        assert_eq!(parse(example).unwrap(), Config::default(), "everything in it is commented");
        let uncommented: String = example
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .fold(String::new(), |text, line| if line.starts_with(' ') { text } else { text + line + "\n" });
        let config = parse(&uncommented).unwrap();
        let text = format!("{config:?}");
        assert!(!text.contains("None"), "every key has an example: {text}");
    }

    #[test]
    fn an_application_is_one_command() {
        let wrong = |keys: &str| parse(&format!("[applications.one]\n{keys}")).unwrap_err();
        assert!(wrong("slots = 1").contains("needs `serve` or `exec`"));
        assert!(wrong("serve = 'a'\nexec = 'b'").contains("not both"));
        assert!(wrong("serve = 'a'\nslots = 0").contains("1 to 1024"));
        assert!(wrong("serve = 'a'\ncommand = 'b'").contains("unknown key `command`"));
    }

    #[test]
    fn what_json_does_not_have_is_refused_in_a_description_by_name() {
        let description = |text: &str| parse(&format!("[applications.one]\nserve = 'a'\ndescription = {text}"));
        for (text, parts) in [
            ("nan", ["`description`", "`nan`"]),
            ("{ load = -inf }", ["`description.load`", "`-inf`"]),
            ("{ a = [1, { b = inf }] }", ["`description.a[1].b`", "`inf`"]),
            ("{ since = 2026-01-02 }", ["`description.since`", "`2026-01-02`"]),
        ] {
            let error = description(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
        let config = description("{ a = [1, 2.5, true, 'text'], b = {} }").unwrap();
        let read = config.applications.all["one"].description.clone();
        assert_eq!(read, Some(serde_json::json!({ "a": [1, 2.5, true, "text"], "b": {} })));
    }

    #[test]
    fn paths_are_meant_from_where_the_file_is() {
        let config =
            parse("runtime-dir = 'run'\nstart.identity = '/keys/alpha'").unwrap().below(Path::new("/etc/swarm"));
        assert_eq!(config.runtime_dir.as_deref(), Some(Path::new("/etc/swarm/run")));
        assert_eq!(config.start.identity.as_deref(), Some(Path::new("/keys/alpha")));
        let config = parse("[start]\ndata = 'alpha.data'\nallow-code = ['any:run', '@friends:install']").unwrap();
        let start = config.below(Path::new("/etc/swarm")).start;
        assert_eq!(start.data.as_deref(), Some(Path::new("/etc/swarm/alpha.data")));
        assert_eq!(start.allow_code.unwrap(), ["any:run", "@/etc/swarm/friends:install"]);
    }
}
