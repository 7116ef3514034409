//! Each setting at its bounds and beyond them.

use super::*;
use crate::config::BROKER_LIMITS;

/// The lowest and the highest value are taken, the ones beside them refused by a sentence with all of these words.
fn check<C: Default, T: Copy>(set: impl Fn(&mut C, T), check: impl Fn(&C) -> Result<(), Error>, good: [T; 2], bad: &[T], words: &[&str]) {
    for value in good {
        let mut config = C::default();
        set(&mut config, value);
        assert!(check(&config).is_ok(), "{words:?}: {:?}", check(&config));
    }
    for value in bad {
        let mut config = C::default();
        set(&mut config, *value);
        let message = check(&config).expect_err(words[0]).to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_clients_settings_have_bounds() {
    let all = Config::check;
    type Set = fn(&mut Config, Duration);
    let times: [(Set, _, _); 3] = [
        (|config, time| config.connect_timeout = time, [MS(10), MS(300_000)], ["connect_timeout", "between 10ms and 300s", "it is"]),
        (|config, time| config.request_timeout = time, [MS(100), MS(600_000)], ["request_timeout", "between 100ms and 600s", "it is"]),
        (|config, time| config.call_timeout = time, [MS(100), MS(3_600_000)], ["call_timeout", "between 100ms and 3600s", "it is"]),
    ];
    for (set, good, words) in times {
        check(set, all, good, &[Duration::ZERO, good[0] - MS(1), good[1] + MS(1), Duration::MAX], &words);
    }
    let frame = |config: &mut Config, bytes| config.frame_bytes_max = bytes;
    check(frame, all, [2 << 20, 17 << 20], &[0, (2 << 20) - 1, (17 << 20) + 1, u32::MAX], &["frame_bytes_max", "2097152 and 17825792"]);
    let name = |config: &mut Config, bytes| config.client_name = "n".repeat(bytes);
    check(name, all, [0, 255], &[256, 70_000], &["client_name", "255"]);
    let servers = |config: &mut Config, count| config.servers = vec!["host:1".to_string(); count];
    check(servers, all, [1, 64], &[65], &["servers", "64", "65"]);
    assert!(Config { servers: Vec::new(), ..Config::default() }.check().expect_err("none").to_string().contains("host:port"));
    let server = |config: &mut Config, server: &str| config.servers = vec!["host:1".to_string(), server.to_string()];
    check(server, all, ["[::1]:65535", "a.b-c:1"], &["host", ":7410", "host:", "host:0", "host:65536", "host:+1", "a b:1"], &["host:port"]);
}

#[test]
fn a_producers_settings_have_bounds() {
    let all = ProducerConfig::check;
    type Set<T> = fn(&mut ProducerConfig, T);
    let time: Set<Duration> = |config, time| config.delivery_timeout = time;
    check(
        time,
        all,
        [MS(10), MS(43_200_000)],
        &[Duration::ZERO, MS(9), MS(43_200_001), Duration::MAX],
        &["delivery_timeout", "10ms and 43200s"],
    );
    let batch: Set<usize> = |config, bytes| config.batch_bytes = bytes;
    check(batch, all, [1, 1 << 20], &[0, (1 << 20) + 1, usize::MAX], &["batch_bytes must be between 1 and 1048576"]);
    let linger: Set<u64> = |config, us| config.linger_us = us;
    check(linger, all, [0, 15_000_000], &[15_000_001, u64::MAX], &["linger_us", "delivery_timeout", "15000000"]);
    let linger: Set<u64> = |config, us| (config.linger_us, config.delivery_timeout) = (us, MS(3_600_000));
    check(linger, all, [0, 60_000_000], &[60_000_001], &["linger_us", "60000000"]);
    let in_flight: Set<usize> = |config, count| config.max_in_flight = count;
    check(in_flight, all, [1, 1024], &[0, 1025, usize::MAX], &["max_in_flight", "between 1 and 1024"]);
    let buffer: Set<usize> = |config, bytes| config.buffer_bytes = bytes;
    check(buffer, all, [65_536, 64 << 30], &[0, 65_535, (64 << 30) + 1, usize::MAX], &["buffer_bytes", "65536 and 68719476736"]);
    let request: Set<usize> = |config, bytes| config.request_bytes = bytes;
    check(request, all, [1, 14 << 20], &[0, (14 << 20) + 1, usize::MAX], &["request_bytes", "between 1 and 14680064"]);
}

#[test]
fn a_producers_limits_have_bounds() {
    type Set = fn(&mut Limits, u32);
    let cases: [(Set, [u32; 2], &[u32], &str); 7] = [
        (
            |limits, bytes| limits.batch_bytes_max = bytes,
            [2 << 20, 14 << 20],
            &[0, 1023, (14 << 20) + 1, u32::MAX],
            "limits.batch_bytes_max",
        ),
        (|limits, bytes| limits.values_bytes_max = bytes, [1 << 10, 64 << 20], &[0, 1023, (64 << 20) + 1], "limits.values_bytes_max"),
        (|limits, bytes| limits.record_bytes_max = bytes, [64 << 10, (1 << 20) - 1], &[0, 1 << 20, u32::MAX], "limits.record_bytes_max"),
        (|limits, bytes| limits.key_bytes_max = bytes, [0, 65_535], &[65_536, u32::MAX], "limits.key_bytes_max"),
        (|limits, count| limits.headers_max = count, [0, 65_535], &[65_536, u32::MAX], "limits.headers_max"),
        (|limits, bytes| limits.headers_bytes_max = bytes, [0, 1_000_000], &[1_000_001], "limits.headers_bytes_max"),
        (|limits, bytes| limits.id_bytes_max = bytes, [0, 65_535], &[65_536, u32::MAX], "limits.id_bytes_max"),
    ];
    for (set, good, bad, name) in cases {
        let set = |config: &mut ProducerConfig, value| {
            config.limits = Limits { ..BROKER_LIMITS };
            set(&mut config.limits, value);
        };
        check(set, ProducerConfig::check, good, bad, &[name, "must be between", "it is"]);
    }
    let smallest = Limits { batch_bytes_max: 1 << 10, record_bytes_max: 1, headers_bytes_max: 0, ..BROKER_LIMITS };
    assert!(ProducerConfig { limits: smallest, batch_bytes: 1, ..ProducerConfig::default() }.check().is_ok());
}

#[test]
fn a_consumers_settings_have_bounds() {
    let all = ConsumerConfig::check;
    let credit = |config: &mut ConsumerConfig, bytes| config.credit_bytes = bytes;
    check(credit, all, [4096, 1 << 30], &[0, 1, 4095, (1 << 30) + 1, u32::MAX], &["credit_bytes", "4096 and 1073741824"]);
    let partition = |config: &mut ConsumerConfig, bytes| config.partition_bytes_max = bytes;
    check(partition, all, [4096, 16 << 20], &[0, 4095, (16 << 20) + 1], &["partition_bytes_max", "4096 and 16777216"]);
    let values = |config: &mut ConsumerConfig, bytes| config.batch_values_bytes_max = bytes;
    check(values, all, [1024, 1 << 30], &[0, 1023, (1 << 30) + 1], &["batch_values_bytes_max", "1024 and 1073741824"]);
}

#[test]
fn a_members_settings_have_bounds() {
    struct Member(GroupConfig);
    impl Default for Member {
        fn default() -> Member {
            Member(GroupConfig::new("g", &["t"]))
        }
    }
    let all = |member: &Member| member.0.check();
    let session = |member: &mut Member, time| member.0.session_timeout = time;
    let bad = [Duration::ZERO, MS(999), MS(3_600_001), Duration::MAX];
    check(session, all, [MS(1_000), MS(3_600_000)], &bad, &["session_timeout", "between 1s and 3600s"]);
    let interval = |member: &mut Member, time| member.0.auto_commit_interval = time;
    check(interval, all, [MS(10), MS(3_600_000)], &[Duration::ZERO, MS(9), MS(3_600_001)], &["auto_commit_interval", "10ms"]);
    let topics = |member: &mut Member, count: usize| member.0.topics = (0..count).map(|number| number.to_string()).collect();
    check(topics, all, [1, 100], &[0, 101], &["topics", "between 1 and 100"]);
    let group = |member: &mut Member, bytes| member.0.group = "g".repeat(bytes);
    check(group, all, [1, 249], &[0, 250], &["group", "between 1 and 249"]);
    let instance = |member: &mut Member, bytes| member.0.instance_id = Some("i".repeat(bytes));
    check(instance, all, [1, 249], &[0, 250], &["instance_id", "between 1 and 249"]);
    assert!(GroupConfig::new("g", &["t", "u", "t"]).check().expect_err("twice").to_string().contains("\"t\" is named twice"));
    let mut config = GroupConfig::new("g", &["t"]);
    config.consumer.credit_bytes = 0;
    assert!(config.check().expect_err("no credit").to_string().contains("credit_bytes"));
}
