//! How far the clocks of the nodes are from the one of this host.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream};
use multinodes::{CallError, NodeInfo};

use super::report::{Check, Finding};
use crate::cli::{feed::BUILT_IN, session::Session};

/// More nodes are not asked: clocks of so many hosts say enough of the others.
const MAX_ASKED: usize = 64;

/// Nodes that are asked at once; more would only wait for each other, and blur the measurement.
const AT_ONCE: usize = 8;

/// Each is asked so often: the quickest answer is the most exact.
const TIMES: usize = 3;

/// Above this, times in listings do not fit together any more.
const NOTICEABLE: f64 = 1.0;

/// Above this, tickets are good too long or not long enough, and a node that restarts is behind its former life.
const HARMFUL: f64 = 30.0;

/// A clock as it was read from here, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    /// How far it is ahead.
    ahead: f64,
    /// How far that may be wrong, in both directions.
    uncertainty: f64,
}

/// The clocks of all nodes.
pub(super) async fn findings(session: &Session, nodes: &[Arc<NodeInfo>], limit: Duration) -> Vec<Finding> {
    let asked =
        nodes.iter().take(MAX_ASKED).map(|node| async move { judge(&node.name, read(session, node, limit).await) });
    let mut findings: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    if let Some(others) = nodes.len().checked_sub(MAX_ASKED).filter(|others| *others > 0) {
        let text = format!("the clocks of {others} more nodes were not read: {MAX_ASKED} are at the most");
        findings.push(Finding::ok(Check::Clock, "other nodes", text));
    }
    findings
}

async fn read(session: &Session, node: &NodeInfo, limit: Duration) -> Result<Reading, CallError> {
    let target = session.node.app(BUILT_IN).on(node.peer_id.to_string()).timeout(limit);
    let mut best: Option<Reading> = None;
    for _ in 0..TIMES {
        let (before, begin) = (now(), Instant::now());
        let there: u64 = target.call("ping", ()).await?;
        let reading = reading(before, begin.elapsed(), there);
        if best.is_none_or(|best| reading.uncertainty < best.uncertainty) {
            best = Some(reading);
        }
    }
    Ok(best.expect("asked at least once"))
}

/// The clock there was read somewhere on the way: half of it is the best guess, and all of it is possible.
fn reading(before: Duration, round_trip: Duration, there: u64) -> Reading {
    let half = round_trip.as_secs_f64() / 2.0;
    // What comes back are whole milliseconds: half of one is added for what was cut off.
    let there = there as f64 / 1000.0 + HALF_A_MILLISECOND;
    Reading { ahead: there - (before.as_secs_f64() + half), uncertainty: half + HALF_A_MILLISECOND }
}

const HALF_A_MILLISECOND: f64 = 0.000_5;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn judge(name: &str, reading: Result<Reading, CallError>) -> Finding {
    let Reading { ahead, uncertainty } = match reading {
        Ok(reading) => reading,
        // Rules are nothing that is wrong; nor is a node that does without.
        Err(CallError::Forbidden) => {
            let text = format!("not read: its rules do not let this command call its `{BUILT_IN}`");
            return Finding::ok(Check::Clock, name, text);
        }
        Err(CallError::NoSuchApplication { .. } | CallError::NoSuchAction { .. }) => {
            return Finding::ok(Check::Clock, name, format!("not read: it hosts no `{BUILT_IN}` that says it"));
        }
        Err(error) => {
            let remedy = format!("see the lines on dialling `{name}`");
            return Finding::warning(Check::Clock, name, format!("cannot be asked: {error}"), remedy);
        }
    };
    let direction = if ahead < 0.0 { "behind" } else { "ahead of" };
    let text = format!("{:.3} s {direction} this host's clock, give or take {uncertainty:.3} s", ahead.abs());
    // Only what is sure counts.
    let sure = ahead.abs() - uncertainty;
    let remedy = "set the clocks of both hosts by NTP; until then tickets expire at the wrong time there";
    if sure > HARMFUL {
        Finding::failure(Check::Clock, name, text, remedy)
    } else if sure > NOTICEABLE {
        Finding::warning(Check::Clock, name, text, remedy)
    } else {
        Finding::ok(Check::Clock, name, text)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    #[test]
    fn a_node_that_has_rules_is_well() {
        let finding = judge("store", Err(CallError::Forbidden));
        assert_eq!((finding.verdict, finding.remedy), (Verdict::Ok, None));
        let elsewhere = CallError::NoSuchApplication { application: BUILT_IN.into(), node: Some("store".into()) };
        assert_eq!(judge("store", Err(elsewhere)).verdict, Verdict::Ok);
        let silent = CallError::Unreachable { node: "store".into(), reason: "gone".into() };
        assert_eq!(judge("store", Err(silent)).verdict, Verdict::Warning);
    }

    #[test]
    fn half_of_the_round_trip_is_taken_off() {
        let reading = reading(Duration::from_millis(1_000_000), Duration::from_millis(200), 1_000_100);
        assert!((reading.ahead - HALF_A_MILLISECOND).abs() < 1e-6, "{reading:?}");
        assert!((reading.uncertainty - 0.100_5).abs() < 1e-6, "{reading:?}");
    }

    #[test]
    fn only_what_is_surely_wrong_is_judged() {
        let verdict = |ahead, uncertainty| judge("beta", Ok(Reading { ahead, uncertainty })).verdict;
        assert_eq!(verdict(0.9, 0.001), Verdict::Ok);
        assert_eq!(verdict(-1.5, 0.001), Verdict::Warning);
        assert_eq!(verdict(1.5, 1.0), Verdict::Ok);
        assert_eq!(verdict(-31.0, 0.5), Verdict::Failure);
        let finding = judge("beta", Ok(Reading { ahead: -2.0, uncertainty: 0.01 }));
        assert_eq!(finding.text, "2.000 s behind this host's clock, give or take 0.010 s");
    }
}
