//! What was found, how much it matters, and why.
//!
//! Invariant: every finding has a reason, also a good one: what it is for. Not here: how it is shown (`show.rs`).

/// How much a finding matters, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// This machine does not tell, or has no such thing.
    Unknown,
    /// Worth knowing; nothing has to be done.
    Note,
    /// A node runs, slower than it could.
    Warn,
    /// A node does not run, or what it acknowledges may be lost.
    Bad,
}

impl Severity {
    /// All of them, least first.
    pub const ALL: [Severity; 5] = [Severity::Ok, Severity::Unknown, Severity::Note, Severity::Warn, Severity::Bad];

    /// Its name in tables and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Unknown => "unknown",
            Severity::Note => "note",
            Severity::Warn => "warn",
            Severity::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What part of the host it is about.
    pub topic: &'static str,
    /// What of that.
    pub name: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is so.
    pub found: String,
    /// Why that matters, and what to do where something is to be done.
    pub reason: String,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order of the topics.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The most severe of all.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }

    /// How many there are of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Collects the findings of one topic.
pub(super) struct Topic {
    topic: &'static str,
    findings: Vec<Finding>,
}

impl Topic {
    pub(super) fn new(topic: &'static str) -> Topic {
        Topic { topic, findings: Vec::new() }
    }

    pub(super) fn add(&mut self, severity: Severity, name: impl Into<String>, found: impl Into<String>, reason: impl Into<String>) {
        self.findings.push(Finding { topic: self.topic, name: name.into(), severity, found: found.into(), reason: reason.into() });
    }

    pub(super) fn ok(&mut self, name: impl Into<String>, found: impl Into<String>, reason: impl Into<String>) {
        self.add(Severity::Ok, name, found, reason);
    }

    pub(super) fn unknown(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.add(Severity::Unknown, name, "-", reason);
    }

    pub(super) fn note(&mut self, name: impl Into<String>, found: impl Into<String>, reason: impl Into<String>) {
        self.add(Severity::Note, name, found, reason);
    }

    pub(super) fn warn(&mut self, name: impl Into<String>, found: impl Into<String>, reason: impl Into<String>) {
        self.add(Severity::Warn, name, found, reason);
    }

    pub(super) fn bad(&mut self, name: impl Into<String>, found: impl Into<String>, reason: impl Into<String>) {
        self.add(Severity::Bad, name, found, reason);
    }

    pub(super) fn done(self) -> Vec<Finding> {
        self.findings
    }
}
