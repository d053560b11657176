//! Code as it is given on the command line: a file, perhaps with a signature beside it, and why a node does not take it.

use std::{
    ffi::OsString,
    io::{self, Read},
    path::{Path, PathBuf},
};

use multinodes::{CallError, Code, CodeRef, Payload, PeerId, World, code::MAX_CODE, files, read_identity};

use super::{failure::Failure, session::Session, streams};

/// No signature is anywhere near so long, in bytes.
const MAX_SIGNATURE_FILE: u64 = 16 * 1024;

/// What nodes without any support for code are asked in vain.
const SERVICE: &str = "multinodes/code";

/// Reads code from a file, or from stdin.
pub(crate) fn read(file: &Path) -> Result<Code, Failure> {
    if file.as_os_str() != "-" {
        return Code::from_file(file).map_err(|error| match error {
            multinodes::CodeError::Unreadable { .. } => Failure::own(error),
            error => Failure::own(format_args!("`{}`: {error}", file.display())),
        });
    }
    let mut bytes = Vec::new();
    let read = streams::stdin().and_then(|stdin| stdin.take(MAX_CODE + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::own(format_args!("cannot read stdin: {error}")))?;
    Code::from_bytes(bytes).map_err(|error| Failure::own(format_args!("what is on stdin: {error}")))
}

/// Reads code, and signs it or takes the signature that lies beside it.
pub(crate) fn load(file: &Path, version: Option<&str>, signed_by: Option<&Path>) -> Result<Code, Failure> {
    let mut code = read(file)?;
    let signed = match signed_by {
        Some(_) => None,
        None => with_signature(&code, file)?,
    };
    if let Some(signed) = signed {
        return match version.filter(|version| signed.version() != Some(version)) {
            None => Ok(signed),
            Some(version) => Err(Failure::own(format_args!(
                "`{}` signs {}, not version `{version}`: leave --version out, or sign it with --signed-by FILE",
                signature_file(file).display(),
                signed.version().map_or("no version".to_owned(), |version| format!("version `{version}`")),
            ))),
        };
    }
    if let Some(version) = version {
        code = code.versioned(version).map_err(Failure::own)?;
    }
    match signed_by {
        Some(key) => code.sign(&read_identity(key).map_err(Failure::own)?).map_err(Failure::own),
        None => Ok(code),
    }
}

/// Where the signature of a file is looked for.
pub(crate) fn signature_file(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".sig");
    name.into()
}

/// The code as its publisher has signed it, if there is a signature beside the file.
pub(crate) fn with_signature(code: &Code, file: &Path) -> Result<Option<Code>, Failure> {
    let path = signature_file(file);
    let wrong = |reason: &dyn std::fmt::Display| Failure::own(format_args!("`{}`: {reason}", path.display()));
    let bytes = match files::read(&path, MAX_SIGNATURE_FILE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
    };
    let signed: CodeRef = Payload::from_bytes(bytes)
        .decode()
        .map_err(|error| wrong(&format_args!("it is no signature made by `code sign`: {error}")))?;
    if signed.cid() != code.cid() || signed.world() != code.world() {
        return Err(wrong(&format_args!(
            "it signs `{}`, but `{}` is `{}` now: sign it again with `code sign`, or remove the signature",
            signed.cid(),
            file.display(),
            code.cid()
        )));
    }
    match signed.verify() {
        Ok(Some(_)) => Code::received(code.bytes().clone(), signed).map(Some).map_err(|error| wrong(&error)),
        Ok(None) => Err(wrong(&"there is no signature in it")),
        Err(error) => Err(wrong(&error)),
    }
}

/// What it is for, in a word.
pub(crate) fn world(world: World) -> &'static str {
    match world {
        World::Task => "task",
        World::Application => "application",
        _ => "unknown",
    }
}

/// What was asked of a node: for the rule that would allow it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish<'a> {
    Run { application: Option<&'a str> },
    Install,
}

/// Who asked which node to do what with which code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) wish: Wish<'a>,
    /// As it was named.
    pub(crate) node: Option<&'a str>,
    /// None if the key was made for this one time.
    pub(crate) sender: Option<PeerId>,
    pub(crate) publisher: Option<PeerId>,
}

impl Asked<'_> {
    /// Why it was not done, and what can be done about it; `hint` is for what is not there.
    pub(crate) fn failed(&self, error: &CallError, hint: &str) -> Failure {
        match error {
            CallError::Forbidden => Failure::negative(format_args!("{error}: {}", self.rules())),
            CallError::NoSuchApplication { application, node } if application == SERVICE => {
                let node = self.node.or(node.as_deref()).unwrap_or("it");
                Failure::negative(format_args!("node `{node}` runs no code: its build has no feature `wasm`"))
            }
            CallError::NoMatch { hosts, .. } => Failure::negative(format_args!(
                "none of {hosts} nodes takes code: one that is started with `--allow-code RULE` does, where {}",
                self.rule()
            )),
            CallError::Unsendable { .. } | CallError::TooLarge { .. } => Failure::own(error),
            error => Failure::call(error, hint),
        }
    }

    /// That nobody is there who would take it.
    pub(crate) fn nobody(&self, session: &Session, condition: Option<&str>) -> Failure {
        if session.others() == 0 {
            return Failure::negative(session.nobody());
        }
        let matching = condition.map_or(String::new(), |condition| format!(" that matches `{condition}`"));
        Failure::negative(format_args!(
            "no node{matching} takes code: one that is started with `--allow-code RULE` does, where {}",
            self.rule()
        ))
    }

    fn rules(&self) -> String {
        let node = self.node.map_or("that node".to_owned(), |node| format!("node `{node}`"));
        format!("who runs {node} can allow it by starting it with `--allow-code RULE`, where {}", self.rule())
    }

    fn rule(&self) -> String {
        let options = match self.wish {
            Wish::Run { application: None } => "run".to_owned(),
            Wish::Run { application: Some(application) } => format!("run,app={application}"),
            Wish::Install => "install".to_owned(),
        };
        let peer = match self.sender {
            Some(sender) => format!("`{sender}:{options}` for what you send"),
            None => format!(
                "`PEER:{options}` for what you send with `--identity FILE` (without it PEER is another each time)"
            ),
        };
        let publisher = match self.publisher {
            Some(publisher) => format!("`publisher={publisher}:{options}` for what has this signature"),
            None => format!("`publisher=PEER:{options}` for what you sign with `--signed-by FILE`"),
        };
        format!("RULE is {peer}, {publisher}, or `any:{options}` for everybody")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_knows_nothing_of_code_is_named() {
        let asked = Asked { wish: Wish::Install, node: Some("beta"), sender: None, publisher: None };
        let error = CallError::NoSuchApplication { application: SERVICE.into(), node: Some("12D3".into()) };
        let text = asked.failed(&error, "no hint").to_string();
        assert_eq!(text, "node `beta` runs no code: its build has no feature `wasm`");
    }

    #[test]
    fn the_rule_that_would_allow_it_is_spelled_out() {
        let (sender, publisher) = (PeerId::random(), PeerId::random());
        let asked = |sender, publisher| {
            let wish = Wish::Run { application: Some("calc") };
            Asked { wish, node: None, sender, publisher }.failed(&CallError::Forbidden, "").to_string()
        };
        for rule in [format!("`{sender}:run,app=calc`"), format!("`publisher={publisher}:run,app=calc`")] {
            let text = asked(Some(sender), Some(publisher));
            assert!(text.contains(&rule), "{rule}: {text}");
            rule.trim_matches('`').parse::<multinodes::CodeRule>().unwrap();
        }
        assert!(asked(None, None).contains("`any:run,app=calc`"));
    }
}
