//! A run as its options say it: which sides there are, what is refused before anything is done, and how it stands in the report.
//!
//! Invariants: whoever runs looks at the `Plan` and never asks which mode it is; what the options only say together is refused here or in
//! the options' own checks.
//! Not here: threads and the broker (`run.rs`).

use crate::args::{Common, From, Level, Mode, Read, name_of};
use crate::asker::Asks;
use crate::environment::build_warning;
use crate::files::check_distinct;
use crate::load::{Churn, Load, Pacing};
use crate::pick::{Choice, Values};
use crate::schedule::Window;
use crate::stats::{CONNECT, SERVICE};
use crate::watch::tags;
use serde_json::{Value, json};
use std::time::Duration;

/// Setting a producer up takes some 0.2 ms of its thread: metadata, connection, hello.
const SET_UP: Duration = Duration::from_micros(200);
/// Less than this is not worth a word.
const SET_UP_TOLD: Duration = Duration::from_millis(20);

/// The checked options of a run.
pub struct Plan<'a> {
    /// Its name.
    pub mode: &'static str,
    /// Options of every mode.
    pub common: &'a Common,
    /// The writing side.
    pub load: Option<&'a Load>,
    /// What its values are.
    pub values: Option<Values>,
    /// The reading side.
    pub read: Option<&'a Read>,
    /// Readers that follow the end.
    pub readers: u64,
    /// Where reading starts.
    pub from: From,
    /// Readers that go round from the beginning.
    pub cold: u64,
    /// Connections that come and go.
    pub churn: Option<&'a Churn>,
    /// Whether what was written is read back at the end.
    pub verify: bool,
    /// Whether it stops at the end as of the start.
    pub until_end: bool,
}

impl<'a> Plan<'a> {
    /// Of a mode; the file of real records is not read yet.
    fn of(mode: &'a Mode) -> Plan<'a> {
        let plan = |mode, common| Plan {
            mode,
            common,
            load: None,
            values: None,
            read: None,
            readers: 0,
            cold: 0,
            churn: None,
            from: From::Latest,
            verify: false,
            until_end: false,
        };
        match mode {
            Mode::Produce(it) => {
                Plan { load: Some(&it.load), verify: !it.no_verify && it.load.level != Level::None, ..plan("produce", &it.common) }
            }
            Mode::Consume(it) => {
                Plan { read: Some(&it.read), readers: 1, from: it.from, until_end: it.until_end, ..plan("consume", &it.common) }
            }
            Mode::Both(it) => Plan { load: Some(&it.load), read: Some(&it.read), readers: 1, ..plan("both", &it.common) },
            Mode::Replay(it) => {
                Plan { load: Some(&it.load), read: Some(&it.read), readers: 1, cold: it.readers, ..plan("replay", &it.common) }
            }
            Mode::Fanout(it) => Plan { load: Some(&it.load), read: Some(&it.read), readers: it.readers, ..plan("fanout", &it.common) },
            Mode::Churn(it) => Plan { churn: Some(&it.churn), ..plan("churn", &it.common) },
        }
    }

    /// Checks what the options only say together, and reads the file of real records.
    pub fn new(mode: &'a Mode) -> Result<Plan<'a>, String> {
        let mut plan = Plan::of(mode);
        plan.common.check()?;
        if let Some(load) = plan.load {
            load.check()?;
        }
        if let Some(churn) = plan.churn {
            churn.check()?;
        }
        let tags = plan.latencies();
        if let Some(option) = plan.common.needs_latency().filter(|_| tags.is_empty()) {
            return Err(format!("{option} needs a latency, and reading what was written long ago has none; use --from latest"));
        }
        check_distinct(&plan.inputs(), &plan.common.outputs(&tags))?;
        let cores: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        for cpu in &plan.common.cpu {
            if !cores.contains(&usize::from(*cpu)) {
                let known = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
                return Err(format!("--cpu {cpu} is not a core this process may use; allowed is one of {known}"));
            }
        }
        plan.values = plan.load.map(Load::values).transpose()?;
        Ok(plan)
    }

    /// The files that are read, each with the option that names it.
    fn inputs(&self) -> Vec<(&'static str, String)> {
        let records = self.load.and_then(|load| load.records.clone());
        let named = [("--scenario", self.common.scenario.clone()), ("--records", records)];
        named.into_iter().filter_map(|(option, path)| Some((option, path?))).collect()
    }

    /// The three times of the run.
    pub fn window(&self) -> Window {
        let warmup_ns = if self.until_end { 0 } else { self.common.warmup.as_nanos() as u64 };
        Window::new(warmup_ns, self.common.duration.as_nanos() as u64)
    }

    /// When records or connections are due, where there are any.
    pub fn pacing(&self) -> Option<&'a Pacing> {
        self.load.map(|load| &load.pacing).or(self.churn.map(|churn| &churn.pacing))
    }

    /// Whether records wait for answers.
    pub fn closed(&self) -> bool {
        self.load.is_some_and(|load| load.closed)
    }

    /// When the server has to be asked whether it is there, since the run's own answers would not show it.
    pub fn asks(&self) -> Asks {
        match self.load {
            Some(load) if load.level == Level::None => Asks::Always,
            None if self.readers > 0 => Asks::WhenSilent,
            Some(_) | None => Asks::Never,
        }
    }

    /// What a progress line calls the measured part.
    pub fn phase(&self) -> &'static str {
        match self.load {
            Some(load) if load.closed => "CLOSED",
            Some(_) => "open",
            None if self.churn.is_some() => "open",
            None => "read",
        }
    }

    /// The tags of the latencies that are measured, the main one first; empty when there are none.
    pub fn latencies(&self) -> Vec<&'static str> {
        let mut found = Vec::new();
        if self.readers > 0 && self.from == From::Latest {
            found.extend(tags(false, self.closed()));
        }
        if self.load.is_some() {
            found.extend(tags(true, self.closed()));
        }
        if self.churn.is_some() {
            found.extend([CONNECT, SERVICE]);
        }
        found
    }

    /// What makes the numbers doubtful before there are any.
    pub fn early_warnings(&self, partitions: u32) -> Vec<String> {
        let mut warnings: Vec<String> = build_warning().into_iter().collect();
        if let Some(asked) = self.common.partitions.filter(|asked| *asked != partitions) {
            warnings.push(format!("the topic has {partitions} partitions already, --partitions {asked} was not used"));
        }
        let Some(load) = self.load else { return warnings };
        if load.level == Level::None {
            warnings.push("level none has no acknowledgements: write latencies are those of handing the records to the kernel, and nothing is read back"
                    .to_owned());
        }
        let needed = SET_UP * (load.producers / load.threads()) as u32;
        if needed > self.common.warmup.max(SET_UP_TOLD) {
            let (needed_ms, warmup_ms) = (needed.as_millis(), self.common.warmup.as_millis());
            warnings.push(format!(
                "setting up {} producers takes some {needed_ms} ms of each thread, --warmup has {warmup_ms} ms: the rest is measured",
                load.producers
            ));
        }
        warnings
    }

    /// What the report says was asked.
    pub fn parameters(&self, partitions: u32, owners: u64, run: u64) -> Value {
        let common = self.common;
        let mut object = json!({
            "server": common.server, "topic": common.topic, "partitions": partitions, "owners": owners, "run": run,
            "duration_s": common.duration.as_secs_f64(), "warmup_s": self.window().from_ns as f64 / 1e9,
            "busy_poll": common.busy_poll, "cpu": common.cpu, "scenario": common.scenario, "read_back": self.verify,
        });
        if let (Some(load), Some(values)) = (self.load, &self.values) {
            let outstanding = load.closed.then(|| load.outstanding_max(values, owners));
            let size = match values {
                Values::Sizes(min, max) if min == max => json!(min),
                Values::Sizes(..) => json!(load.size.to_string()),
                Values::Lines(_) => Value::Null,
            };
            let key_choice = match load.key_choice {
                Choice::Turn => "turn".to_owned(),
                Choice::Uniform => "uniform".to_owned(),
                Choice::Zipf(exponent) => format!("zipf:{exponent}"),
            };
            let filled = load.records.is_none();
            for (name, value) in [
                ("rate", json!(load.pacing.rate)),
                ("arrivals", json!(load.pacing.rate.map(|_| name_of(load.pacing.arrivals)))),
                ("burst", json!(load.pacing.burst_len())),
                ("late_max_us", json!(load.pacing.rate.map(|_| load.pacing.late_max.as_micros() as u64))),
                ("outstanding", json!(outstanding)),
                ("size", size),
                ("compressible", json!(filled.then_some(load.compressible))),
                ("records", json!(load.records)),
                ("batch_bytes", json!(load.batch_bytes)),
                ("linger_us", json!(load.linger.as_micros() as u64)),
                ("in_flight", json!(load.in_flight)),
                ("buffer_bytes", json!(load.buffer_bytes)),
                ("level", json!(name_of(load.level))),
                ("compression", json!(name_of(load.compression))),
                ("producers", json!(load.producers)),
                ("threads", json!(load.threads())),
                ("keys", json!(load.keys)),
                ("key_choice", json!((load.keys > 0).then_some(key_choice))),
                ("key_field", json!(load.key_field)),
            ] {
                object[name] = value;
            }
        }
        if let Some(churn) = self.churn {
            for (name, value) in [
                ("rate", json!(churn.pacing.rate)),
                ("arrivals", json!(name_of(churn.pacing.arrivals))),
                ("burst", json!(churn.pacing.burst_len())),
                ("late_max_us", json!(churn.pacing.late_max.as_micros() as u64)),
                ("threads", json!(churn.threads)),
                ("action", json!(name_of(churn.action))),
                ("size", json!(churn.size)),
                ("level", json!(name_of(churn.level))),
            ] {
                object[name] = value;
            }
        }
        if let Some(read) = self.read {
            object["credit_bytes"] = json!(read.credit_bytes);
            object["verify"] = json!(!read.no_verify);
            object["from"] = json!(name_of(self.from));
            object["readers"] = json!(self.readers); // at the tail
            object["cold_readers"] = json!((self.cold > 0).then_some(self.cold));
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::mode;

    #[test]
    fn a_plan_says_which_latencies_there_are() {
        for (line, expected) in [
            ("produce --rate 5", &["ack", "service"][..]),
            ("produce --closed", &["ack"]),
            ("both --rate 5", &["e2e", "ack", "service"]),
            ("consume --from latest", &["e2e"]),
            ("consume", &[]),
            ("replay --rate 5", &["e2e", "ack", "service"]),
            ("fanout --closed", &["e2e", "ack"]),
            ("churn --rate 5", &["connect", "service"]),
        ] {
            assert_eq!(Plan::of(&mode(line)).latencies(), expected, "{line}");
        }
    }

    #[test]
    fn the_server_is_asked_where_no_answer_is_due() {
        for (line, expected) in [
            ("consume", Asks::WhenSilent),
            ("produce --closed --level none", Asks::Always),
            ("both --closed --level none", Asks::Always),
            ("produce --closed", Asks::Never),
            ("fanout --rate 5", Asks::Never),
            ("churn --rate 5", Asks::Never),
        ] {
            assert_eq!(Plan::of(&mode(line)).asks(), expected, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_together_is_refused_before_the_run() {
        for (line, part) in [
            ("produce --closed --records /nonexistent/lines.csv", "/nonexistent/lines.csv (--records) cannot be read"),
            ("produce --closed --cpu 1023", "--cpu 1023 is not a core"),
            ("consume --hgrm x", "--hgrm needs a latency"),
            ("produce --closed --key-field 1", "needs --records"),
            ("churn --rate 5 --level none", "--level none has no answer"),
            ("churn --rate 5 --burst 5", "--arrivals bursts"),
        ] {
            assert!(Plan::new(&mode(line)).err().unwrap().contains(part), "{line}");
        }
    }

    #[test]
    fn parameters_say_what_was_asked() {
        let mode = mode("both --rate 500 --arrivals bursts --size 100..200 --keys 9 --key-choice zipf:1.5 --producers 4 --threads 2");
        let parameters = Plan::new(&mode).unwrap().parameters(3, 1, 7);
        for (name, expected) in [
            ("rate", json!(500)),
            ("arrivals", json!("bursts")),
            ("burst", json!(100)),
            ("size", json!("100..200")),
            ("key_choice", json!("zipf:1.5")),
            ("threads", json!(2)),
            ("readers", json!(1)),
            ("outstanding", Value::Null),
        ] {
            assert_eq!(parameters[name], expected, "{name}");
        }
    }

    #[test]
    fn many_producers_in_a_short_warm_up_are_told() {
        let warned = |line| Plan::of(&mode(line)).early_warnings(1).iter().any(|warning| warning.contains("setting up"));
        assert!(warned("produce --closed --producers 5000 --threads 1 --warmup 500ms"));
        assert!(!warned("produce --closed --producers 5000 --threads 1 --warmup 2s"));
        assert!(!warned("produce --closed --producers 5 --threads 1 --warmup 0s"));
    }
}
