//! Every measurement runs once, for a moment, so that none rots. The figures are not looked at, only that they are there.

use std::process::Command;

#[test]
fn every_measurement_gives_figures() {
    let one_cpu = std::thread::available_parallelism().is_ok_and(|n| n.get() < 2);
    let only = if one_cpu { "write-4k,write-128k,write-1m,write-beside-reads,read" } else { "" };
    let mut command = Command::new(env!("CARGO_BIN_EXE_tramline-limits"));
    command.args(["--json", "--seconds", "0.05", "--read-mib", "64", "--write-mib", "16", "--dir", env!("CARGO_TARGET_TMPDIR")]);
    if one_cpu {
        command.args(["--cpus", "0,0", "--only", only]);
    }
    let output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    let limits = report["limits"].as_object().expect("limits by name");
    let disk = [
        "write_4k_p50_us",
        "write_4k_gbps",
        "write_128k_gbps",
        "write_1m_gbps",
        "read_128k_gbps",
        "read_gbps",
        "beside_p99_us",
        "beside_read_gbps",
    ];
    let tcp = [
        "many_rtt_per_s",
        "tcp_rtt_p50_us",
        "tcp_rtt_64_p50_us",
        "tcp_stream_in_gbps",
        "tcp_stream_out_gbps",
        "durable_rtt_p50_us",
        "durable_stream_gbps",
    ];
    for name in disk.iter().chain(tcp.iter().filter(|_| !one_cpu)) {
        assert!(limits[*name].as_f64().is_some_and(|v| v > 0.0), "{name}: {}", limits[*name]);
    }
}

#[test]
fn wrong_arguments_are_refused_with_a_sentence() {
    for wrong in [&["--cpus", "0"][..], &["--seconds", "0"], &["--only", "nothing"], &["--dir", "/proc/self", "--only", "write-4k"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_tramline-limits")).args(wrong).output().expect("the binary starts");
        assert!(!output.status.success(), "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?}");
    }
}
