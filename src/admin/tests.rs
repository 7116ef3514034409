//! Tests of the pages over shards that answer, stay silent, or are gone.

use super::*;
use crate::config::SpaceMark;
use crate::ids::ShardId;
use crate::metrics::document::OTHERS;
use crate::metrics::labelled::{GroupNumbers, QueueNumbers};
use crate::metrics::numbers::{COUNTERS, GAUGES};
use crate::metrics::{ShardGone, ShardMetrics, SnapshotRequest, Stamps};
use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;

/// Answers at once, keeps requests unanswered, or is gone.
enum Fake {
    Answers(Box<ShardMetrics>),
    Silent(Vec<SnapshotRequest>),
    Gone,
}

struct Shards(StdMutex<Vec<Fake>>);

impl Shards {
    fn with<R>(&self, shard: usize, act: impl FnOnce(&mut Fake) -> R) -> R {
        act(&mut self.0.lock().unwrap()[shard])
    }
}

impl SnapshotSource for Shards {
    fn shards(&self) -> u16 {
        self.0.lock().unwrap().len() as u16
    }
    fn request(&self, shard: ShardId, request: SnapshotRequest) -> Result<(), ShardGone> {
        self.with(shard.0 as usize, |fake| match fake {
            Fake::Answers(metrics) => {
                metrics.answer(request, 1_000_000 * metrics.counters.cycles as i64);
                Ok(())
            }
            Fake::Silent(kept) => {
                kept.push(request);
                Ok(())
            }
            Fake::Gone => Err(ShardGone),
        })
    }
}

fn admin(fakes: Vec<Fake>) -> (Arc<Admin>, Arc<Shards>, Arc<Health>) {
    let health = Arc::new(Health::new(fakes.len() as u16));
    for shard in 0..fakes.len() {
        health.ready(ShardId(shard as u16));
    }
    let shards = Arc::new(Shards(StdMutex::new(fakes)));
    let node = NodeFacts {
        data_dir: PathBuf::from("d"),
        disk_of: |_| Some(DiskSize { total_bytes: 1000, free_bytes: 150 }),
        disk_marks: DiskMarks {
            warn: SpaceMark { part: Some(2000), bytes: None },
            slow: SpaceMark { part: None, bytes: Some(140) },
            refuse: SpaceMark { part: None, bytes: Some(100) },
            segment_bytes: 10,
            shards: 1,
        },
        started: Instant::now(),
        suppressed: || 4,
    };
    let source: Arc<dyn SnapshotSource> = Arc::clone(&shards) as Arc<dyn SnapshotSource>;
    (Arc::new(Admin::new(Arc::clone(&health), source, node, Duration::from_secs(2))), shards, health)
}

/// Virtual time: a two-second wait for a silent shard takes none.
fn run<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

async fn body(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn working(records: u64) -> Fake {
    let mut metrics = Box::new(ShardMetrics::new());
    metrics.counters.produce_records = records;
    metrics.counters.cycles = 1;
    metrics.counters.busy_us = 100;
    metrics.gauges.connections = 7;
    let stamps = Stamps { received_ns: 1, parsed_ns: 1_001, appended_ns: 2_001, written_ns: 102_001, replied_ns: 103_001 };
    metrics.record(RequestClass::Produce, &stamps, 1, 1, 100);
    metrics.record_log_write(99_000);
    metrics.record_queue_ack(2_000_000);
    let queue = |name: &str| QueueNumbers { name: name.into(), ready: 3, dead: 1, oldest_age_us: 1_500_000, ..QueueNumbers::default() };
    metrics.labelled.queues = vec![queue("mail"), queue("")];
    let group = |name: &str, drain_us| GroupNumbers { name: name.into(), lag_messages: 9, lag_bytes: 900, lag_us: 2_500_000, drain_us };
    metrics.labelled.groups = vec![group("readers", Some(500_000)), group("stuck", None)];
    Fake::Answers(metrics)
}

fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find(|l| l.starts_with(line)).unwrap_or_else(|| panic!("no line '{line}' in\n{text}"));
    found.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn metrics_show_every_name_of_the_tables_and_timings_add_up_over_scrapes() {
    run(async {
        let (admin, shards, _) = admin(vec![working(3), working(5)]);
        let (status, text) = body(metrics(State(Arc::clone(&admin))).await).await;
        assert_eq!(status, StatusCode::OK);
        for name in COUNTERS.iter().map(|d| d.name).chain(GAUGES.iter().map(|d| d.name)).chain(OTHERS.iter().map(|d| d.name)) {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing");
        }
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert_eq!(text.lines().filter(|l| l.starts_with(&format!("# TYPE {name} "))).count(), 1, "{name} is described twice");
        }
        assert_eq!(value(&text, "tramline_produce_records_total{shard=\"0\"}"), 3.0);
        assert_eq!(value(&text, "tramline_produce_records_total{shard=\"1\"}"), 5.0);
        assert_eq!(value(&text, "tramline_connections{shard=\"1\"}"), 7.0);
        assert_eq!(value(&text, "tramline_shard_responsive{shard=\"1\"}"), 1.0);
        assert_eq!(value(&text, "tramline_queue_messages{shard=\"1\",queue=\"mail\",state=\"ready\"}"), 3.0);
        assert_eq!(value(&text, "tramline_queue_messages{shard=\"1\",queue=\"\",state=\"dead\"}"), 1.0);
        assert_eq!(value(&text, "tramline_queue_oldest_age_seconds{shard=\"0\",queue=\"mail\"}"), 1.5);
        assert!(!text.contains("oldest_age_seconds{shard=\"0\",queue=\"\"}"));
        assert_eq!(value(&text, "tramline_queue_ack_seconds_sum{shard=\"0\"}"), 0.002);
        assert_eq!(value(&text, "tramline_group_lag_messages{shard=\"0\",group=\"readers\"}"), 9.0);
        assert_eq!(value(&text, "tramline_group_lag_seconds{shard=\"0\",group=\"stuck\"}"), 2.5);
        assert_eq!(value(&text, "tramline_group_drain_seconds{shard=\"0\",group=\"readers\"}"), 0.5);
        assert_eq!(value(&text, "tramline_group_drain_seconds{shard=\"0\",group=\"stuck\"}"), f64::INFINITY);
        assert_eq!(value(&text, "tramline_disk_pressure_level"), 1.0);
        assert_eq!(value(&text, "tramline_log_messages_suppressed_total"), 4.0);
        let count = "tramline_request_duration_seconds_count{shard=\"0\",kind=\"produce\",stage=\"total\"}";
        assert_eq!(value(&text, count), 1.0);
        assert_eq!(
            value(&text, "tramline_request_duration_seconds_bucket{le=\"0.0001\",shard=\"0\",kind=\"produce\",stage=\"total\"}"),
            0.0
        );
        assert_eq!(
            value(&text, "tramline_request_duration_seconds_bucket{le=\"0.00015\",shard=\"0\",kind=\"produce\",stage=\"total\"}"),
            1.0
        );
        assert!(text.ends_with("# EOF\n") && !text.contains("{}"));

        shards.with(0, |fake| {
            let Fake::Answers(metrics) = fake else { panic!() };
            metrics.counters.cycles = 2;
            metrics.counters.busy_us += 250_000;
            metrics.record(RequestClass::Produce, &Stamps { received_ns: 1, replied_ns: 11, ..Stamps::default() }, 1, 2, 1);
        });
        let (_, text) = body(metrics(State(Arc::clone(&admin))).await).await;
        assert_eq!(value(&text, count), 2.0);
        assert_eq!(value(&text, "tramline_shard_busy_ratio{shard=\"0\"}"), 0.25);

        let (_, text) = body(slow(State(admin)).await).await;
        let slow: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(slow[0]["write_us"], 100.0);
        assert_eq!(slow.as_array().unwrap().len(), 3);
    });
}

#[test]
fn histograms_leave_as_a_log_that_the_library_reads() {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let read = |text: &str| -> BTreeMap<String, Histogram<u64>> {
        let entries = IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.unwrap());
        let histograms = entries.filter_map(|entry| match entry {
            LogEntry::Interval(line) => {
                let bytes = base64_of(line.encoded_histogram());
                Some((line.tag().unwrap().as_str().to_owned(), Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap()))
            }
            _ => None,
        });
        histograms.collect()
    };
    run(async {
        let (admin, ..) = admin(vec![working(3), working(5)]);
        let (status, text) = body(histograms_of_all(State(Arc::clone(&admin))).await).await;
        assert_eq!(status, StatusCode::OK);
        let all = read(&text);
        let tags: Vec<&str> = all.keys().map(String::as_str).collect();
        let of_produce = ["produce.append", "produce.parse", "produce.reply", "produce.total", "produce.write"];
        assert_eq!(tags, [&["log_write"], &of_produce[..], &["queue_ack"]].concat());
        assert_eq!((all["produce.write"].len(), all["produce.write"].max() / 1000), (2, 100));
        let (_, text) = body(histograms_of_shard(State(Arc::clone(&admin)), InPath(1)).await).await;
        assert_eq!(read(&text)["produce.write"].len(), 1);
        let (status, text) = body(histograms_of_shard(State(admin), InPath(2)).await).await;
        assert_eq!((status, text.as_str()), (StatusCode::NOT_FOUND, "there is no shard 2: they are 0 to 1\n"));
    });
}

/// The bytes of a line of base64.
fn base64_of(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn a_silent_shard_is_shown_as_such_and_its_late_answer_is_not_lost() {
    run(async {
        let (admin, shards, _) = admin(vec![working(3), Fake::Silent(Vec::new())]);
        for _ in 0..3 {
            let (status, text) = body(metrics(State(Arc::clone(&admin))).await).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(value(&text, "tramline_shard_responsive{shard=\"1\"}"), 0.0);
            assert_eq!(value(&text, "tramline_shard_responsive{shard=\"0\"}"), 1.0);
            let (status, text) = body(readyz(State(Arc::clone(&admin))).await).await;
            assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "shard 1 has not answered for 2 seconds\n"));
        }
        assert_eq!(livez().await, "alive\n");
        let kept = shards.with(1, |fake| match std::mem::replace(fake, working(9)) {
            Fake::Silent(kept) => kept,
            _ => panic!(),
        });
        assert_eq!(kept.len(), 2, "one full request and one for readyz, however often the pages are asked for");
        for request in kept {
            shards.with(1, |fake| {
                let Fake::Answers(metrics) = fake else { panic!() };
                metrics.answer(request, 5)
            });
        }
        let (_, text) = body(metrics(State(Arc::clone(&admin))).await).await;
        assert_eq!(value(&text, "tramline_request_duration_seconds_count{shard=\"1\",kind=\"produce\",stage=\"total\"}"), 1.0);
        assert_eq!(body(readyz(State(admin)).await).await, (StatusCode::OK, "ready\n".to_owned()));
    });
}

#[test]
fn readyz_names_every_reason() {
    run(async {
        let (admin, _, health) = admin(vec![working(1), Fake::Gone]);
        let (status, text) = body(readyz(State(Arc::clone(&admin))).await).await;
        assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "shard 1 has not answered for 2 seconds\n"));
        health.failed(ShardId(1), "a write failed");
        let (_, text) = body(readyz(State(Arc::clone(&admin))).await).await;
        assert_eq!(text, "shard 1 has failed: a write failed\n");
        let (_, text) = body(metrics(State(Arc::clone(&admin))).await).await;
        assert_eq!(value(&text, "tramline_shard_ready{shard=\"1\"}"), 0.0);
        health.stopping();
        let (_, text) = body(readyz(State(admin)).await).await;
        assert_eq!(text, "shard 0 is shutting down\nshard 1 has failed: a write failed\n");
    });
}
