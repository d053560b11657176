//! Reads a rule for code.

use std::time::Duration;

use multinodes_behaviour::names;

use super::{CodeRule, CodeRuleError, Who};
use crate::{
    code::{
        limits::Limits,
        rate::{self, Rate},
    },
    permissions::Rule,
};

/// What a publisher is named by.
const PUBLISHER: &str = "publisher=";

/// The options, so that a colon within a condition is told from the one before them.
const OPTIONS: [&str; 11] =
    ["run", "install", "app=", "wall=", "cpu=", "compile=", "memory=", "size=", "output=", "instances=", "complexity="];

pub(super) fn parse(text: &str) -> Result<CodeRule, CodeRuleError> {
    let (who, options) = parts(text);
    let who = match who.trim().strip_prefix(PUBLISHER) {
        Some(publisher) => Who::Publisher(
            publisher.trim().parse().map_err(|_| CodeRuleError::Publisher { text: publisher.trim().to_owned() })?,
        ),
        None => Who::Peers(Rule::new(who)?),
    };
    let mut rule = CodeRule::who(text.trim().to_owned(), who);
    let (mut run, mut install) = (false, false);
    for option in options.into_iter().flat_map(|options| options.split(',')).map(str::trim) {
        match option.split_once('=') {
            None if option == "run" => run = true,
            None if option == "install" => install = true,
            Some(("app", glob)) if !glob.is_empty() => rule.applications.push(names::normal(glob).into_owned()),
            Some((key, value)) => limit(&mut rule.limits, key, value)
                .map_err(|reason| CodeRuleError::Option { option: option.to_owned(), reason })?,
            None => return Err(CodeRuleError::Option { option: option.to_owned(), reason: UNKNOWN }),
        }
    }
    if run || install {
        (rule.run, rule.install) = (run, install);
    }
    Ok(rule)
}

/// Who, and the options. Conditions have colons, too: what is behind the last one counts if its beginning looks like an
/// option, or if what is before it is a whole rule.
fn parts(text: &str) -> (&str, Option<&str>) {
    let Some((who, options)) = text.rsplit_once(':') else { return (text, None) };
    let known = OPTIONS.iter().any(|option| options.trim_start().starts_with(option));
    let simple = who.trim().chars().all(|character| character.is_alphanumeric() || "@=./-_".contains(character));
    if known || simple { (who, Some(options)) } else { (text, None) }
}

fn limit(limits: &mut Limits, key: &str, value: &str) -> Result<(), &'static str> {
    match key {
        "wall" => limits.wall = time(value)?,
        "cpu" if value.contains('/') => limits.rate = Some(rate(value)?),
        "cpu" => limits.cpu = time(value)?,
        "compile" => limits.compile = Some(rate(value)?),
        "memory" => limits.memory = size(value)?,
        "size" => limits.code_size = size(value)? as u64,
        "output" => limits.output = size(value)?,
        "instances" => limits.instances = number(value)?,
        "complexity" => limits.complexity = number(value)? as u64,
        _ => return Err(UNKNOWN),
    }
    Ok(())
}

fn number(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|number| *number > 0).ok_or("a number above 0 is wanted, such as 16")
}

fn time(text: &str) -> Result<Duration, &'static str> {
    rate::time(text).ok_or("a time is wanted, such as 500ms, 10s or 2m")
}

fn rate(text: &str) -> Result<Rate, &'static str> {
    text.parse().map_err(|_| "a time in each period is wanted, such as 1s/min")
}

fn size(text: &str) -> Result<usize, &'static str> {
    const WANTED: &str = "a size is wanted, such as 64MiB, 256KiB or 1GiB";
    let unit = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit);
    let number: usize = digits.parse().map_err(|_| WANTED)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(WANTED),
    };
    number.checked_mul(factor).filter(|size| *size > 0).ok_or(WANTED)
}

const UNKNOWN: &str =
    "run, install, app=GLOB, wall=, cpu=, compile=, memory=, size=, output=, instances= and complexity= are understood";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_wrong_ones_are_named() {
        let rule = parse("any:run,app=calc*,app=x,cpu=500ms,wall=2m,memory=16MiB,instances=3").unwrap();
        assert!(rule.run && !rule.install);
        assert_eq!(rule.applications, ["calc*", "x"]);
        assert_eq!((rule.limits.cpu, rule.limits.wall), (Duration::from_millis(500), Duration::from_secs(120)));
        assert_eq!((rule.limits.memory, rule.limits.instances), (16 << 20, 3));
        let rated = parse("any:cpu=200ms,cpu=1s/min,compile=2m/h").unwrap();
        let rate = |seconds, per| Rate::new(Duration::from_secs(seconds), Duration::from_secs(per));
        assert_eq!(rated.limits.cpu, Duration::from_millis(200));
        assert_eq!((rated.limits.rate, rated.limits.compile), (Some(rate(1, 60)), Some(rate(120, 3600))));
        let both = parse("any").unwrap();
        assert!(both.run && both.install && both.applications.is_empty());
        for (text, part) in [
            ("any:fly", "`fly` is no option"),
            ("any:run,cpu=1", "`cpu=1` is no option of a rule for code: a time is wanted"),
            ("any:cpu=1s/day", "`cpu=1s/day` is no option of a rule for code: a time in each period is wanted"),
            ("any:compile=1s", "a time in each period is wanted"),
            ("any:memory=64MB", "a size is wanted"),
            ("any:instances=0", "above 0"),
            ("publisher=me", "`me` is no peer id"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[cfg(feature = "cel")]
    #[test]
    fn a_colon_within_a_condition_is_not_mistaken() {
        let rule = parse("'a' in peer.labels ? true : false").unwrap();
        assert!(rule.run && rule.install);
        let rule = parse("peer.labels.role == 'a:b':run").unwrap();
        assert!(rule.run && !rule.install);
    }
}
