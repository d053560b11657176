//! What was found: line by line, and as one exit code.

use std::process::ExitCode;

use anstyle::Style;
use serde::Serialize;

use crate::cli::{
    failure::Failure,
    output::Output,
    style::{self, paint, printable},
};

/// One line of the doctor's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) check: Check,
    /// What was looked at.
    pub(super) subject: String,
    pub(super) verdict: Verdict,
    pub(super) text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// How bad it is, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    Warning,
    Failure,
}

/// What kind of thing was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Check {
    Settings,
    Limits,
    Private,
    Rendezvous,
    Multicast,
    Nodes,
    Listening,
    Dialling,
    Identity,
    Clock,
    Version,
}

impl Finding {
    pub(super) fn ok(check: Check, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), verdict: Verdict::Ok, text: text.into(), remedy: None }
    }

    pub(super) fn warning(
        check: Check,
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Warning, remedy: Some(remedy.into()), ..Self::ok(check, subject, text) }
    }

    pub(super) fn failure(
        check: Check,
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Failure, ..Self::warning(check, subject, text, remedy) }
    }

    /// For people: a line, and one more with the remedy.
    fn text(&self) -> String {
        let (style, word) = self.verdict.shown();
        // Names and addresses are chosen by others.
        let (subject, text) = (printable(&self.subject), printable(&self.text));
        let line = format!("{}  {:<10}  {subject}: {text}", paint(style, format!("{word:<7}")), self.check.word());
        match &self.remedy {
            Some(remedy) => format!("{line}\n{:21}{}", "", paint(style::DIM, format!("remedy: {}", printable(remedy)))),
            None => line,
        }
    }
}

impl Verdict {
    fn shown(self) -> (Style, &'static str) {
        match self {
            Self::Ok => (style::GOOD, "ok"),
            Self::Warning => (style::WARN, "warning"),
            Self::Failure => (style::BAD, "failure"),
        }
    }

    /// 2 means something else for every verb.
    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Failure => 3,
        }
    }
}

impl Check {
    fn word(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Limits => "limits",
            Self::Private => "private",
            Self::Rendezvous => "rendezvous",
            Self::Multicast => "multicast",
            Self::Nodes => "nodes",
            Self::Listening => "listening",
            Self::Dialling => "dialling",
            Self::Identity => "identity",
            Self::Clock => "clock",
            Self::Version => "version",
        }
    }
}

/// All findings so far: told as they come, counted for the end.
#[derive(Debug)]
pub(super) struct Report {
    output: Output,
    /// How many of each verdict.
    counts: [usize; 3],
    worst: Verdict,
}

impl Report {
    pub(super) fn new(output: Output) -> Self {
        Self { output, counts: [0; 3], worst: Verdict::Ok }
    }

    pub(super) fn tell(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), Failure> {
        for finding in findings {
            self.counts[finding.verdict as usize] += 1;
            self.worst = self.worst.max(finding.verdict);
            if self.output.json { self.output.line(&finding) } else { self.output.text(&finding.text()) }?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<ExitCode, Failure> {
        if !self.output.json {
            let [good, warnings, failures] = self.counts;
            let (style, word) = self.worst.shown();
            let counts = format!("{good} ok, {warnings} with a warning, {failures} failed");
            self.output.text(&format!("{}  {counts}", paint(style, format!("{word:<7}"))))?;
        }
        Ok(ExitCode::from(self.worst.code()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_below_the_line_and_nothing_of_it_moves_the_cursor() {
        let finding = Finding::warning(Check::Clock, "be\u{1b}ta", "late", "set it");
        let text = anstream::adapter::strip_str(&finding.text()).to_string();
        assert_eq!(text, "warning  clock       be\\u{1b}ta: late\n                     remedy: set it");
        let fine = Finding::ok(Check::Nodes, "alpha", "there").text();
        assert_eq!(anstream::adapter::strip_str(&fine).to_string(), "ok       nodes       alpha: there");
    }

    #[test]
    fn the_worst_verdict_is_the_exit_code() {
        let codes = [Verdict::Ok, Verdict::Warning, Verdict::Failure].map(Verdict::code);
        assert_eq!(codes, [0, 1, 3]);
        assert!(Verdict::Ok < Verdict::Warning && Verdict::Warning < Verdict::Failure);
    }
}
