//! `multinodes run FILE`.

mod install;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use multinodes::{Code, Payload, PeerId, World, read_identity};

use super::{
    call,
    failure::Failure,
    guest::{self, Asked, Wish},
    json,
    options::Settings,
    output::Output,
    session::Session,
};

/// Run code on another node, or install it there
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Run {
    /// The code, WebAssembly: .wasm or .wat; `-` reads it from stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Its arguments, as JSON; `-` reads one from stdin
    #[arg(value_name = "JSON", allow_negative_numbers = true, conflicts_with = "install")]
    arguments: Vec<String>,

    /// On this node, by name or peer id [default: any that takes code]
    #[arg(long, value_name = "NODE", conflicts_with_all = ["all", "everywhere", "condition"])]
    node: Option<String>,

    /// On a node that hosts this application, bound to it: what the code calls `this`
    #[arg(long = "app", value_name = "APP", conflicts_with = "install")]
    application: Option<String>,

    /// Write the bytes of a result that is a byte string or a text as they are, for a file or another program
    #[arg(long, conflicts_with = "install")]
    raw: bool,

    /// Let it stay there, as the application NAME
    #[arg(long, value_name = "NAME")]
    install: Option<String>,

    #[command(flatten)]
    place: install::Where,

    /// The version of the code, such as 1.2.3: of two that are installed under one name the later one stays
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// The identity file whose key signs the code [default: the signature in FILE.sig, if that is there]
    #[arg(long, value_name = "KEY")]
    signed_by: Option<PathBuf>,

    /// Send it with the key in this file, made at first use, so that others can allow it by its peer id
    #[arg(long, value_name = "KEY")]
    identity: Option<PathBuf>,
}

const HELP: &str = "\
The code runs in a sandbox, within limits, and only where a rule allows it: `multinodes start --allow-code RULE`. It is sent \
the first time only. Arguments and result are JSON, as with `call`; with --install it stays, and `call` reaches it. \
A byte string in the result is printed as an array of numbers; --raw writes its bytes.

  multinodes run sum.wasm 1 2 3 --node beta                     once, there
  multinodes run task.wat --app calculator                      beside that
  multinodes run render.wasm --raw > picture.png                its bytes
  multinodes run counter.wasm --install counter --node beta     it stays
  multinodes run counter.wasm --install counter --all --version 1.1.0
  multinodes run crawler.wasm --install crawler --everywhere    newcomers, too
  multinodes code uninstall counter --node beta";

impl Run {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        output.check()?;
        if self.file.as_os_str() == "-" && self.arguments.iter().any(|argument| argument == "-") {
            return Err(Failure::own("`-` was given twice, but there is only one stdin"));
        }
        let arguments = json::arguments(&self.arguments)?;
        let place = self.place.clone().settle()?;
        let code = guest::load(&self.file, self.version.as_deref(), self.signed_by.as_deref())?;
        self.check_world(&code)?;
        let session = Session::open_as(settings, self.identity.as_deref()).await?;
        let wish = match &self.install {
            Some(_) => Wish::Install,
            None => Wish::Run { application: self.application.as_deref() },
        };
        let sender = sender(self.identity.as_deref())?;
        let asked = Asked { wish, node: self.node.as_deref(), sender, publisher: code.publisher() };
        match &self.install {
            Some(name) => {
                let order = install::Order { name, code: &code, place, asked, output };
                session.with(async |session| order.run(session).await).await
            }
            None => session.with(async |session| self.once(session, &code, arguments, asked, output).await).await,
        }
    }

    async fn once(
        &self,
        session: &Session,
        code: &Code,
        arguments: Payload,
        asked: Asked<'_>,
        output: Output,
    ) -> Result<ExitCode, Failure> {
        let mut run = session.node.run(code);
        match &self.node {
            Some(node) => run = run.on(node),
            // The first one that turns up need not be the one that takes code.
            None => session.settle().await,
        }
        if let Some(application) = &self.application {
            run = run.in_application(application);
        }
        let answer = run.timeout(session.left()).call_raw(arguments).await;
        let answer = answer.map_err(|error| asked.failed(&session.given(error), &session.hint()))?;
        call::print(&answer, self.raw, output)?;
        Ok(ExitCode::SUCCESS)
    }

    fn check_world(&self, code: &Code) -> Result<(), Failure> {
        let file = self.file.display();
        match (code.world(), &self.install) {
            (World::Application, None) => Err(Failure::own(format_args!(
                "`{file}` is an application, which does not run once but stays: `--install NAME` says under which name"
            ))),
            (World::Task, Some(name)) => Err(Failure::own(format_args!(
                "`{file}` is a task, which runs once and cannot be installed as `{name}`: leave --install out"
            ))),
            _ => Ok(()),
        }
    }
}

/// As whom a verb asks, if that is the same each time. The file is there by now.
pub(super) fn sender(identity: Option<&Path>) -> Result<Option<PeerId>, Failure> {
    let keypair = identity.map(read_identity).transpose().map_err(Failure::own)?;
    Ok(keypair.map(|keypair| keypair.public().to_peer_id()))
}
