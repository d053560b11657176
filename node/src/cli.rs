//! The command line: what can be asked, and which exit code answers.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 a negative answer, 2 usage or a failure of our
//! own, 124 out of time. Only `doctor` has a 3: what it has found is a failure.

mod apps;
mod bar;
mod call;
mod child;
mod choice;
#[cfg(feature = "wasm")]
mod code;
mod code_rules;
#[cfg(feature = "wasm")]
mod compile_code;
mod completion;
mod config;
mod demo;
mod descriptors;
mod doctor;
mod duration;
mod entry;
mod events;
mod everyone;
mod explain;
mod failure;
mod feed;
#[cfg(feature = "wasm")]
mod guest;
mod info;
mod json;
mod log;
mod map;
#[cfg(not(feature = "wasm"))]
mod no_code;
mod nodes;
mod options;
mod origin;
mod output;
mod paste;
mod permissions;
mod ping;
mod publish;
#[cfg(feature = "wasm")]
mod run;
mod same_file;
mod secret;
mod session;
mod shapes;
mod signals;
mod start;
mod streams;
mod style;
mod subscribe;
mod table;
mod tell;
mod ticket;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use failure::Failure;
#[cfg(not(feature = "wasm"))]
use no_code as code;
#[cfg(not(feature = "wasm"))]
use no_code as run;
use options::{Options, Settings};
use output::Output;

/// Reads the command line, does what it says and tells how it went.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing help into a pipe that nobody reads is no failure, as long as somebody could have read it.
            let printed = if error.use_stderr() { Ok(()) } else { streams::stdout().map(drop) };
            return match printed.and_then(|()| error.print()) {
                Err(io) if io.kind() != std::io::ErrorKind::BrokenPipe => Failure::from(io).report(),
                _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
            };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    if let Verb::Completion(verb) = cli.verb {
        return verb.run();
    }
    if let Verb::Secret(verb) = cli.verb {
        return verb.run(cli.options.json(), &cli.options.typed());
    }
    if let Verb::KeepGroups(verb) = cli.verb {
        verb.run();
        return Ok(ExitCode::SUCCESS);
    }
    #[cfg(feature = "wasm")]
    if let Verb::CompileCode(verb) = cli.verb {
        return Ok(verb.run());
    }
    let json = cli.options.json();
    let settings = match (cli.options.settle(), &cli.verb) {
        // What is wrong with the settings is a finding, too.
        (Err(failure), Verb::Doctor(_)) => return doctor::Doctor::on_bad_settings(&failure, Output::new(json)),
        (settings, _) => settings?,
    };
    style::choose(settings.color);
    log::start(settings.verbose);
    settings.notes.iter().for_each(|note| style::note(style::WARN, "not used:", note));
    runtime(&cli.verb)?.block_on(cli.verb.run(settings))
}

/// One-shot verbs are served best by one thread: it starts fastest.
fn runtime(verb: &Verb) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match verb {
        Verb::Start(_) | Verb::Demo(_) | Verb::Events(_) | Verb::Map(_) | Verb::Subscribe(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build().map_err(|error| Failure::own(format!("cannot start the runtime: {error}")))
}

/// Many logical nodes, one swarm: applications that find each other and talk, with no configuration.
#[derive(Debug, Parser)]
#[command(name = "multinodes", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_value_name = "VERB", subcommand_help_heading = "Verbs", disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    verb: Verb,
}

impl Cli {
    fn read() -> Result<Self, clap::Error> {
        let command = Self::command();
        let matches = origin::without_empty(command.clone()).try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.options.origins = origin::Origins::of(&command, &matches);
        Ok(cli)
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Start(start::Start),
    Nodes(nodes::Nodes),
    Apps(apps::Apps),
    Explain(explain::Explain),
    Doctor(doctor::Doctor),
    Info(info::Info),
    Call(call::Call),
    Tell(tell::Tell),
    Map(map::Map),
    Run(run::Run),
    Code(code::Code),
    Publish(publish::Publish),
    Subscribe(subscribe::Subscribe),
    Ping(ping::Ping),
    Events(events::Events),
    Secret(secret::Secret),
    Ticket(ticket::Ticket),
    Completion(completion::Completion),
    #[command(hide = true)]
    KeepGroups(child::KeepGroups),
    #[cfg(feature = "wasm")]
    #[command(hide = true)]
    CompileCode(compile_code::CompileCode),
}

impl Verb {
    async fn run(self, settings: Settings) -> Result<ExitCode, Failure> {
        let output = Output::new(settings.json);
        match self {
            Self::Demo(verb) => verb.run(output).await,
            Self::Start(verb) => verb.run(settings, output).await,
            Self::Nodes(verb) => verb.run(settings, output).await,
            Self::Apps(verb) => verb.run(settings, output).await,
            Self::Explain(verb) => verb.run(settings, output).await,
            Self::Doctor(verb) => verb.run(settings, output).await,
            Self::Info(verb) => verb.run(settings, output).await,
            Self::Call(verb) => verb.run(settings, output).await,
            Self::Tell(verb) => verb.run(settings, output).await,
            Self::Map(verb) => verb.run(settings, output).await,
            Self::Run(verb) => verb.run(settings, output).await,
            Self::Code(verb) => verb.run(settings, output).await,
            Self::Publish(verb) => verb.run(settings, output).await,
            Self::Subscribe(verb) => verb.run(settings, output).await,
            Self::Ping(verb) => verb.run(settings, output).await,
            Self::Events(verb) => verb.run(settings, output).await,
            Self::Secret(verb) => verb.run(settings.json, &settings.typed),
            Self::Ticket(verb) => verb.run(settings, output).await,
            Self::Completion(verb) => verb.run(),
            Self::KeepGroups(verb) => {
                verb.run();
                Ok(ExitCode::SUCCESS)
            }
            #[cfg(feature = "wasm")]
            Self::CompileCode(verb) => Ok(verb.run()),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  multinodes demo                            a whole swarm on this machine
  multinodes start --name alpha              a node; it finds the others itself
  multinodes nodes                           who is there
  multinodes doctor                          what does not work here, and why
  multinodes call node echo 1 --node alpha   call an action; arguments are JSON
  seq 1000 | multinodes map node echo        an action for each line of input
  multinodes explain node                    which host would be taken, and why
  multinodes subscribe news                  what `publish news 7` publishes
  multinodes secret new garden.secret        then: start --secret garden.secret
  multinodes ticket --out garden.ticket      then: start --ticket garden.ticket
  multinodes run task.wasm 27 --node alpha   your own code on another node

The flags of every verb and those of `start` have an environment variable (MULTINODES_SWARM for --swarm) and a key of the same \
name in `multinodes.toml`.

Exit codes: 0 done, 1 a negative answer, 2 usage or a failure of our own, 124 out of time.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// A paragraph is one line, which is broken where the terminal ends; whatever is aligned fits any terminal.
    #[test]
    fn no_help_is_broken_into_lines_twice() {
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            let name = command.get_name().to_owned();
            for text in [command.get_after_help(), command.get_about()].into_iter().flatten() {
                let text = text.to_string();
                let lines: Vec<&str> = text.lines().collect();
                for pair in lines.windows(2) {
                    let is_text = |line: &str| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':');
                    assert!(!is_text(pair[0]) || !is_text(pair[1]), "`{name}` goes on in a line of its own: {pair:?}");
                }
                for line in lines.iter().filter(|line| line.starts_with(' ')) {
                    assert!(line.chars().count() <= 80, "`{name}` has an aligned line that is too long: {line}");
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
