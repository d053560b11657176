//! `multinodes ping NODE`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use multinodes::{CallError, NodeInfo};
use serde_json::json;

use super::{
    duration::milliseconds,
    failure::Failure,
    options::Settings,
    output::Output,
    session::Session,
    signals::Signals,
    style::{self, paint, printable},
};

/// Measure round trips to a node
#[derive(Debug, Args)]
#[command(
    after_help = "Each ping is a call of the application `node` ; a node that hosts none says so, which is an answer, too. What is measured is what a call takes."
)]
pub(crate) struct Ping {
    /// The node's name or peer id
    node: String,

    /// How many pings to send
    #[arg(long, short, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// The time between two pings
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = super::duration::some_time)]
    interval: Duration,
}

impl Ping {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let mut signals = Signals::take()?;
        let timeout = settings.timeout;
        Session::open(settings)
            .await?
            .with(async |session| {
                let mut tally = Tally::default();
                tokio::select! {
                    result = self.pings(session, timeout, output, &mut tally) => result?,
                    _ = signals.next() => {}
                }
                tally.summarize(output)?;
                Ok(if tally.times.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
            })
            .await
    }

    async fn pings(
        &self,
        session: &Session,
        timeout: Duration,
        output: Output,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let node = session.find(&self.node).await?;
        let mut clock = tokio::time::interval(self.interval.max(Duration::from_millis(1)));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for number in 1..=self.count {
            clock.tick().await;
            tally.sent += 1;
            match session.node.ping(&node, timeout).await {
                Ok(time) => tally.on_answer(&node, number, time, output)?,
                Err(error) => tally.on_silence(&node, number, &error, output)?,
            }
        }
        Ok(())
    }
}

/// What has come of the pings so far.
#[derive(Debug, Default)]
struct Tally {
    sent: u32,
    times: Vec<Duration>,
}

impl Tally {
    fn on_answer(&mut self, node: &NodeInfo, number: u32, time: Duration, output: Output) -> Result<(), Failure> {
        self.times.push(time);
        if output.json {
            return output.line(&json!({
                "event": "pong", "node": node.name, "peer_id": node.peer_id.to_string(), "number": number,
                "milliseconds": milliseconds(time),
            }));
        }
        output.text(&format!("{}  {number:>4}  {:>9.3} ms", paint(style::NODE, &node.name), milliseconds(time)))
    }

    fn on_silence(&self, node: &NodeInfo, number: u32, error: &CallError, output: Output) -> Result<(), Failure> {
        if output.json {
            return output.line(&json!({
                "event": "no_answer", "node": node.name, "peer_id": node.peer_id.to_string(), "number": number,
                "reason": error.to_string(),
            }));
        }
        let reason = printable(&error.to_string());
        let node = paint(style::NODE, &node.name);
        output.text(&format!("{node}  {number:>4}  {}: {reason}", paint(style::BAD, "no answer")))
    }

    fn summarize(&self, output: Output) -> Result<(), Failure> {
        let (sent, answered) = (self.sent, self.times.len());
        let least = self.times.iter().min().copied().map(milliseconds);
        let most = self.times.iter().max().copied().map(milliseconds);
        let average = u32::try_from(answered).ok().filter(|count| *count > 0);
        let average = average.map(|count| milliseconds(self.times.iter().sum::<Duration>() / count));
        if output.json {
            return output.line(&json!({
                "event": "summary", "sent": sent, "answered": answered, "min": least, "avg": average, "max": most,
            }));
        }
        let mut text = format!("{sent} sent, {answered} answered");
        if let (Some(least), Some(average), Some(most)) = (least, average, most) {
            text += &format!("; round trip min {least:.3}, avg {average:.3}, max {most:.3} ms");
        }
        output.text(&text)
    }
}
