//! An application that starts a process for each message: its arguments on stdin, its result on stdout.

use std::{io, process::ExitStatus, sync::Arc, time::Duration};

use multinodes::{AppError, Application, Context, DEFAULT_MAX_MESSAGE, Payload, Profile};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    sync::Semaphore,
    time::timeout,
};

use super::{
    command_line::CommandLine,
    process::{Groups, Process},
};

/// The longest result: as long as the largest message.
const MAX_OUTPUT: usize = DEFAULT_MAX_MESSAGE;

/// A message that was told has no deadline; its process may take so long.
const TELL_LIMIT: Duration = Duration::from_secs(600);

/// A process that has ended has written everything; only something that has left its group can hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// The application as the node hosts it.
pub(super) struct Exec {
    name: Arc<str>,
    command: CommandLine,
    groups: Groups,
    profile: Profile,
    /// Calls and messages together.
    places: Semaphore,
}

impl Exec {
    /// Runs `command` for each message; no more at once than the profile has slots.
    pub(super) fn new(name: Arc<str>, command: CommandLine, groups: Groups, profile: Profile) -> Self {
        let places = Semaphore::new(profile.concurrency);
        Self { name, command, groups, profile, places }
    }

    /// Runs one process. Dropping the future kills it with all that it has started.
    async fn run(&self, input: Vec<u8>, variables: &[(&str, Option<&str>)]) -> Result<Vec<u8>, AppError> {
        // It is never closed.
        let _place = self.places.acquire().await;
        let started = Process::spawn(&self.command, &self.name, variables, &self.groups);
        let (mut process, stdin, stdout) = started.map_err(|error| {
            let text = format!("`{}` cannot be started: {error}", self.command.text());
            tracing::error!(target: super::LOG, application = %self.name, "{text}");
            AppError::busy(text)
        })?;
        let (output, status) = converse(&mut process, stdin, stdout, input).await?;
        let status = status.map_err(|error| AppError::crashed(format!("lost its process: {error}")))?;
        if status.success() {
            return Ok(output);
        }
        let tail = process.stderr.tail().await;
        Err(match status.code() {
            Some(code) if tail.is_empty() => AppError::new(format!("exit_{code}"), status.to_string()),
            Some(code) => AppError::new(format!("exit_{code}"), tail),
            None if tail.is_empty() => AppError::crashed(format!("lost its process: {status}")),
            None => AppError::crashed(format!("lost its process: {status}; stderr: {tail}")),
        })
    }
}

impl Application for Exec {
    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    async fn call(&self, context: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        let input = super::list(&arguments)?.to_text();
        drop(arguments);
        let (caller, left) = (context.caller().to_base58(), context.remaining().as_millis().to_string());
        let variables = [
            ("MULTINODES_ACTION", Some(action)),
            ("MULTINODES_CALLER", Some(&*caller)),
            ("MULTINODES_DEADLINE_MS", Some(&*left)),
        ];
        if action.contains('\0') {
            return Err(AppError::no_such_action(action));
        }
        let output = self.run(input, &variables).await?;
        result(&output)
    }

    async fn process(&self, context: Context, message: Payload) -> Result<(), AppError> {
        let input = message.json().map_err(AppError::bad_arguments)?.to_text();
        drop(message);
        let caller = context.caller().to_base58();
        let variables =
            [("MULTINODES_ACTION", None), ("MULTINODES_CALLER", Some(&*caller)), ("MULTINODES_DEADLINE_MS", None)];
        let running = timeout(TELL_LIMIT, self.run(input, &variables));
        let late = |_| AppError::new("timed_out", format!("its process has not ended within {TELL_LIMIT:?}"));
        running.await.map_err(late)?.map(drop)
    }
}

/// Gives a process its input, and waits for its output and its end.
async fn converse(
    process: &mut Process,
    mut stdin: ChildStdin,
    mut stdout: ChildStdout,
    input: Vec<u8>,
) -> Result<(Vec<u8>, io::Result<ExitStatus>), AppError> {
    let give = async move {
        // A process has a right not to read its input.
        let _ = stdin.write_all(&input).await;
    };
    let mut output = Vec::new();
    let status = {
        let take = read_bounded(&mut stdout, &mut output);
        tokio::pin!(give, take);
        let (mut given, mut taken) = (false, false);
        loop {
            tokio::select! {
                () = &mut give, if !given => given = true,
                outcome = &mut take, if !taken => {
                    outcome?;
                    taken = true;
                }
                status = process.wait() => {
                    // What it has left behind is gone with it: this comes to an end.
                    if !taken && let Ok(outcome) = timeout(LAST_OUTPUT, take).await {
                        outcome?;
                    }
                    break status;
                }
            }
        }
    };
    Ok((output, status))
}

async fn read_bounded(stdout: &mut ChildStdout, output: &mut Vec<u8>) -> Result<(), AppError> {
    let limit = MAX_OUTPUT as u64 + 1;
    // What cannot be read ends the output; the exit code tells what to think of it.
    let _ = stdout.take(limit).read_to_end(output).await;
    if output.len() > MAX_OUTPUT {
        let text = format!("it has written more than {} MiB on stdout", MAX_OUTPUT >> 20);
        return Err(AppError::new("output_too_large", text));
    }
    Ok(())
}

/// The result that an output stands for: JSON, else text without the end of its last line.
fn result(output: &[u8]) -> Result<Payload, AppError> {
    let unreadable =
        |reason: String| AppError::new("unreadable_result", format!("its output cannot be kept: {reason}"));
    let error = match Payload::from_json(output) {
        Ok(result) => return Ok(result),
        Err(error) => error,
    };
    // It is JSON, but for something that would not come back.
    if serde_json::from_slice::<serde::de::IgnoredAny>(output).is_ok() {
        return Err(unreadable(error.to_string()));
    }
    let text = std::str::from_utf8(output).map_err(|error| unreadable(format!("neither JSON nor UTF-8: {error}")))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Payload::encode(&text.strip_suffix('\r').unwrap_or(text)).map_err(AppError::of)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_output_is_json_or_text_without_its_last_line_end() {
        for (output, value) in [
            (&b" {\"a\": [1]}\n"[..], json!({"a": [1]})),
            (b"two\nlines\n", json!("two\nlines")),
            (b"18446744073709551617 bottles", json!("18446744073709551617 bottles")),
            (b"NaN\n", json!("NaN")),
            (b"\n\n", json!("\n")),
            (b"", json!("")),
        ] {
            assert_eq!(result(output).unwrap().to_json().unwrap(), value);
        }
    }

    #[test]
    fn an_output_that_would_be_changed_is_refused() {
        for output in [&b"18446744073709551617\n"[..], b"[1e400]", b"\"\\ud800\"", b"{\"a\":1,\"a\":2}", b"\xff\xfe"] {
            assert!(result(output).is_err(), "{output:?}");
        }
    }
}
