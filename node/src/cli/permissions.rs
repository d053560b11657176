//! Who may connect to the node of `start`, and who may use its applications.

use std::collections::BTreeMap;

use clap::Args;
use multinodes::{Builder, Node, PeerId, Rule};
use multinodes_behaviour::names;

use super::{
    failure::Failure,
    options::Settings,
    origin::{self, Written},
    style,
};

/// The flags of `start` for permissions.
#[derive(Debug, Args)]
pub(crate) struct Permissions {
    /// Let only those connect whom RULE takes: a peer id, `@FILE` of rules, or a condition; may be repeated
    #[arg(long, value_name = "RULE", env = "MULTINODES_ALLOW_PEER", hide_env = true)]
    allow_peer: Vec<String>,

    /// Do not let those connect whom RULE takes; may be repeated
    #[arg(long, value_name = "RULE", env = "MULTINODES_DENY_PEER", hide_env = true)]
    deny_peer: Vec<String>,

    /// Let only those use an application, or one action of it, whom RULE takes; may be repeated
    #[arg(long, value_name = "APP[/ACTION]=RULE")]
    allow: Vec<String>,

    /// Trust the labels that this peer has signed into tickets; may be repeated
    #[arg(long, value_name = "PEER", env = "MULTINODES_TRUST", hide_env = true, value_delimiter = ',')]
    trust: Vec<String>,
}

impl Permissions {
    /// Gives a node its rules: those of the flags, or else those of the file.
    pub(crate) fn apply(&self, mut builder: Builder, settings: &Settings) -> Result<Builder, Failure> {
        let file = &settings.start;
        for Written { place, value } in settings.written("allow-peer", &self.allow_peer, file.allow_peer.as_ref())? {
            builder = builder.allow_peer(rule(&place, &value)?);
        }
        for Written { place, value } in settings.written("deny-peer", &self.deny_peer, file.deny_peer.as_ref())? {
            builder = builder.deny_peer(rule(&place, &value)?);
        }
        for (flag, given) in [("allow-peer", &self.allow_peer), ("deny-peer", &self.deny_peer)] {
            if given.is_empty() && settings.origins.is_empty(flag) {
                // Not refused: Compose makes empty variables. Not open: somebody wanted to keep others out.
                style::note(style::WARN, "nobody may connect:", &format!("`{}` is empty", origin::variable(flag)));
                builder = builder.deny_peer(Rule::any());
            }
        }
        for Allowed { place, target, rule: text } in self.allowed(settings)? {
            let rule = rule(&format!("{place} for `{target}`"), &text)?;
            let allowed = builder.allow(&target, rule);
            builder = allowed.map_err(|error| Failure::own(format_args!("{place}: {error}")))?;
        }
        for Written { place, value } in settings.written("trust", &self.trust, file.trust.as_ref())? {
            let issuer: Result<PeerId, _> = value.trim().parse();
            builder = builder.trust(issuer.map_err(|_| {
                let text = "is no peer id: the verb `ticket` shows that of the issuer";
                Failure::own(format_args!("{place}: `{value}` {text}"))
            })?);
        }
        Ok(builder)
    }

    /// The targets of rules that are not hosted, or not said to be there: most likely they are misspelt.
    pub(crate) fn strangers(&self, settings: &Settings, node: &Node) -> Vec<String> {
        let hosted = node.description().applications;
        let hosted = |name: &str| hosted.iter().find(|application| application.name == name);
        let targets = self.allowed(settings).unwrap_or_default().into_iter().map(|allowed| allowed.target);
        let is_strange = |target: &String| {
            let part = target.rsplit_once('/').and_then(|(name, action)| Some((hosted(name)?, action)));
            match part {
                _ if hosted(target).is_some() => false,
                // One that lists nothing may take anything.
                Some((application, action)) => {
                    let actions = &application.actions;
                    action != TELLS && !actions.is_empty() && !actions.iter().any(|known| known == action)
                }
                None => true,
            }
        };
        targets.filter(is_strange).collect()
    }

    /// What each rule is about, and its text.
    fn allowed(&self, settings: &Settings) -> Result<Vec<Allowed>, Failure> {
        let written = settings.written("allow", &self.allow, None)?;
        if written.is_empty() {
            return in_file(settings);
        }
        let pair = |Written { place, value }: Written| match value.split_once('=') {
            Some((target, rule)) => {
                Ok(Allowed { place, target: names::normal(target.trim()).into_owned(), rule: rule.to_owned() })
            }
            None => Err(Failure::own(format_args!(
                "{place}: `{value}` has no `=`: APP=RULE or APP/ACTION=RULE is meant, such as calc/div=peer.labels.role=='admin'"
            ))),
        };
        written.into_iter().map(pair).collect()
    }
}

/// A rule for an application or a part of it.
struct Allowed {
    /// Where it is written, for people.
    place: String,
    target: String,
    rule: String,
}

fn in_file(settings: &Settings) -> Result<Vec<Allowed>, Failure> {
    let Some(allow) = &settings.start.allow else { return Ok(Vec::new()) };
    if allow.is_empty() {
        return Err(origin::empty(&settings.in_file("allow")));
    }
    let mut all = Vec::new();
    for (target, rules) in allow {
        let written = Written::all(&settings.in_file(&format!("allow.{target}")), rules)?;
        let allowed =
            |Written { place, value }| Allowed { place, target: names::normal(target).into_owned(), rule: value };
        all.extend(written.into_iter().map(allowed));
    }
    Ok(all)
}

/// What stands for tells in a target.
const TELLS: &str = "tell()";

fn rule(place: &str, text: &str) -> Result<Rule, Failure> {
    Rule::new(text).map_err(|error| Failure::own(format_args!("{place}: {error}")))
}

/// Reads labels as they are given in flags.
pub(crate) fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for label in texts {
        let Some((key, value)) = label.split_once('=') else {
            return Err(Failure::own(format_args!("`{label}` is no label: KEY=VALUE is, such as region=eu")));
        };
        if pairs.insert(names::normal(key).into_owned(), value.to_owned()).is_some() {
            return Err(Failure::own(format_args!("the label `{key}` is given twice")));
        }
    }
    Ok(pairs)
}
