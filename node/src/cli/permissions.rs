//! Who may connect to the node of `start`, and who may use its applications.

use std::collections::BTreeMap;

use clap::Args;
use multinodes::{Builder, PeerId, Rule};

use super::{config, failure::Failure, options::given};

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
    pub(crate) fn apply(&self, mut builder: Builder, file: &config::Start) -> Result<Builder, Failure> {
        let either = |flags: &[String], file: &Option<Vec<String>>| given(flags.to_vec()).or_else(|| file.clone());
        for text in either(&self.allow_peer, &file.allow_peer).unwrap_or_default() {
            builder = builder.allow_peer(rule("--allow-peer", &text)?);
        }
        for text in either(&self.deny_peer, &file.deny_peer).unwrap_or_default() {
            builder = builder.deny_peer(rule("--deny-peer", &text)?);
        }
        for (target, text) in self.allowed(file)? {
            let rule = rule(&format!("--allow {target}"), &text)?;
            builder = builder.allow(&target, rule).map_err(|error| Failure::own(format_args!("--allow: {error}")))?;
        }
        for text in either(&self.trust, &file.trust).unwrap_or_default() {
            let issuer: Result<PeerId, _> = text.parse();
            builder = builder.trust(issuer.map_err(|_| {
                Failure::own(format_args!(
                    "--trust: `{text}` is no peer id: `multinodes ticket` shows that of the issuer"
                ))
            })?);
        }
        Ok(builder)
    }

    /// What each rule is about, and its text.
    fn allowed(&self, file: &config::Start) -> Result<Vec<(String, String)>, Failure> {
        let Some(flags) = given(self.allow.clone()) else {
            let all = file.allow.iter().flatten();
            return Ok(all
                .flat_map(|(target, rules)| rules.iter().map(|rule| (target.clone(), rule.clone())))
                .collect());
        };
        let pair = |text: &String| match text.split_once('=') {
            Some((target, rule)) => Ok((target.trim().to_owned(), rule.to_owned())),
            None => Err(Failure::own(format_args!(
                "--allow: `{text}` has no `=`: APP=RULE or APP/ACTION=RULE is meant, such as calc/div=peer.labels.role=='admin'"
            ))),
        };
        flags.iter().map(pair).collect()
    }
}

fn rule(flag: &str, text: &str) -> Result<Rule, Failure> {
    Rule::new(text).map_err(|error| Failure::own(format_args!("{flag}: {error}")))
}

/// Reads labels as they are given in flags.
pub(crate) fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for label in texts {
        let Some((key, value)) = label.split_once('=') else {
            return Err(Failure::own(format_args!("`{label}` is no label: KEY=VALUE is, such as region=eu")));
        };
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::own(format_args!("the label `{key}` is given twice")));
        }
    }
    Ok(pairs)
}
