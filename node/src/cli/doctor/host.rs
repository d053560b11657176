//! What this host, and the way into the swarm, allow.

use std::time::{Duration, SystemTime};

use super::report::{Check, Finding};
use crate::cli::{descriptors, entry::Entry};

/// A ticket that is good for less than this should be replaced soon.
const SOON: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether enough files may be open.
pub(super) fn open_files() -> Option<Finding> {
    if !cfg!(unix) {
        return None;
    }
    let wanted = descriptors::wanted();
    Some(match descriptors::limit() {
        Some(few) if few < wanted => Finding::warning(
            Check::Limits,
            "open files",
            format!("only {few} may be open at once; a node's own limits allow it {wanted}"),
            format!("raise the limit before starting a node: ulimit -n {}", wanted.next_power_of_two()),
        ),
        Some(enough) => Finding::ok(Check::Limits, "open files", format!("{enough} may be open at once")),
        None => Finding::ok(Check::Limits, "open files", "there is no limit"),
    })
}

/// The way into the swarm. That a file with a secret is its owner's alone was checked when it was read.
pub(super) fn entry(entry: &Entry) -> Vec<Finding> {
    let mut findings = Vec::new();
    let swarm = format!("swarm `{}`", entry.swarm());
    if entry.is_private() {
        let text = "private: its secret was read, from nothing that others may read";
        findings.push(Finding::ok(Check::Private, &swarm, text));
    }
    if let Entry::Ticket(ticket) = entry
        && let Some(expires) = ticket.expires()
    {
        findings.push(expiry(expires.duration_since(SystemTime::now()).unwrap_or_default()));
    }
    findings
}

fn expiry(left: Duration) -> Finding {
    let text = format!("expires in {}", humantime::format_duration(Duration::from_secs(left.as_secs())));
    if left >= SOON {
        return Finding::ok(Check::Private, "ticket", text);
    }
    let remedy = "have a new one made by somebody in the swarm, with the verb `ticket`";
    Finding::warning(Check::Private, "ticket", text, remedy)
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    #[test]
    fn a_ticket_that_expires_within_a_day_is_a_warning() {
        let soon = expiry(Duration::from_secs(3600));
        assert_eq!((soon.verdict, soon.text.as_str()), (Verdict::Warning, "expires in 1h"));
        assert_eq!(expiry(2 * SOON).verdict, Verdict::Ok);
    }
}
