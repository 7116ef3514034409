//! `tramline doctor` as a process: over trees that the test makes, and over this machine.
//!
//! Invariant: a file that is missing, empty or full of nonsense is never a failure. Not here: what is judged how (`src/doctor/tests.rs`).

use common::node::binary;
use common::tool::{Ran, run_command};
use common::{Node, Options, WAIT, not_run, temp_dir};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const DISK: &str = "sys/devices/pci0000:00/0000:00:02.0/ata1/sda";
const CARD: &str = "sys/devices/pci0000:00/0000:00:03.0";

/// Runs it; flags of a node that fit on any machine come first.
fn doctor(arguments: &[&str]) -> Ran {
    run_command(&mut command(&[], arguments), b"")
}

/// What runs it, behind the words of another program that ends in it.
fn command(front: &[&str], arguments: &[&str]) -> Command {
    let words = [front, &[binary()]].concat();
    let mut command = Command::new(words[0]);
    // Settings of who runs the tests are not the tests'.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRAMLINE_")) {
        command.env_remove(name);
    }
    command.args(&words[1..]).arg("doctor").args(["--set", "memory.bytes=64MiB"]).args(arguments);
    command
}

/// The finding of a name.
fn found(report: &Value, name: &str) -> Value {
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no finding '{name}': {findings:?}")).clone()
}

/// A machine of four cores where all is well.
fn tree() -> tempfile::TempDir {
    let dir = temp_dir("doctor");
    let mut files = vec![
        ("proc/sys/kernel/osrelease".to_owned(), "6.18.1\n"),
        ("proc/sys/kernel/io_uring_disabled".to_owned(), "0\n"),
        ("proc/sys/kernel/numa_balancing".to_owned(), "0\n"),
        (
            "proc/self/limits".to_owned(),
            "Limit Soft Hard Units\nMax open files  1048576  1048576  files\nMax locked memory  unlimited  unlimited  bytes\n",
        ),
        ("proc/self/mountinfo".to_owned(), "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"),
        ("proc/interrupts".to_owned(), " 30: 9 9 PCI-MSIX 0-edge ahci\n 40: 9 9 PCI-MSIX 0-edge eth0-0\n"),
        ("proc/irq/30/smp_affinity_list".to_owned(), "3\n"),
        ("proc/irq/40/effective_affinity_list".to_owned(), "3\n"),
        ("proc/irq/40/smp_affinity_list".to_owned(), "0-3\n"),
        ("proc/cmdline".to_owned(), "isolcpus=managed_irq,domain,0-2 nohz_full=0-2 rcu_nocbs=0-2\n"),
        ("proc/stat".to_owned(), "cpu  100 0 100 9800 0 0 0 0 0 0\n"),
        ("proc/swaps".to_owned(), "Filename Type Size Used Priority\n"),
        ("proc/7/comm".to_owned(), "irqbalance\n"),
        ("etc/default/irqbalance".to_owned(), "IRQBALANCE_BANNED_CPULIST=0-2\n"),
        ("proc/sys/vm/swappiness".to_owned(), "1\n"),
        ("proc/sys/net/core/somaxconn".to_owned(), "4096\n"),
        ("proc/sys/net/core/rmem_max".to_owned(), "67108864\n"),
        ("proc/sys/net/core/wmem_max".to_owned(), "67108864\n"),
        ("proc/sys/net/core/netdev_max_backlog".to_owned(), "16384\n"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog".to_owned(), "4096\n"),
        ("proc/sys/net/ipv4/tcp_rmem".to_owned(), "4096\t131072\t67108864\n"),
        ("proc/sys/net/ipv4/tcp_wmem".to_owned(), "4096\t131072\t67108864\n"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle".to_owned(), "0\n"),
        ("sys/devices/system/cpu/online".to_owned(), "0-3\n"),
        ("sys/devices/system/cpu/smt/active".to_owned(), "0\n"),
        ("sys/devices/system/node/node0/cpulist".to_owned(), "0-3\n"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource".to_owned(), "tsc\n"),
        ("sys/devices/virtual/workqueue/cpumask".to_owned(), "8\n"),
        ("sys/bus/pci/drivers_autoprobe".to_owned(), "1\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled".to_owned(), "always [madvise] never\n"),
        ("sys/kernel/mm/transparent_hugepage/defrag".to_owned(), "always defer [defer+madvise] madvise never\n"),
        (format!("{DISK}/sda1/partition"), "1\n"),
        (format!("{DISK}/queue/scheduler"), "[none] mq-deadline\n"),
        (format!("{DISK}/queue/rotational"), "0\n"),
        (format!("{DISK}/queue/nomerges"), "2\n"),
        (format!("{DISK}/queue/rq_affinity"), "0\n"),
        (format!("{DISK}/queue/write_cache"), "write through\n"),
        (format!("{DISK}/queue/fua"), "0\n"),
        (format!("{DISK}/queue/logical_block_size"), "512\n"),
        ("sys/devices/pci0000:00/0000:00:02.0/msi_irqs/30".to_owned(), "msi\n"),
        (format!("{CARD}/msi_irqs/40"), "msix\n"),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus".to_owned(), "0\n"),
    ];
    for core in 0..3 {
        files.push((format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"), "performance\n"));
        files.push((format!("sys/devices/system/cpu/cpu{core}/cpuidle/state1/latency"), "2\n"));
        files.push((format!("sys/devices/system/cpu/cpu{core}/cpuidle/state1/disable"), "0\n"));
    }
    for (path, text) in files {
        put(dir.path(), &path, text);
    }
    for (path, to) in [
        ("sys/dev/block/8:1".to_owned(), format!("../../../{DISK}/sda1")),
        ("sys/class/net/eth0/device".to_owned(), format!("../../../../{CARD}")),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        symlink(to, path).expect("linked");
    }
    dir
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, text).expect("written");
}

fn look(root: &Path) -> (i32, Value) {
    let ran = doctor(&["--data-dir", "/var/lib/tramline", "--root", root.to_str().expect("UTF-8"), "--json"]);
    assert_eq!(ran.stderr, "");
    (ran.code, ran.json())
}

/// Severity and name of all that is not fine.
fn not_fine(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("findings");
    let words =
        |finding: &Value| format!("{} {}", finding["severity"].as_str().expect("a word"), finding["name"].as_str().expect("a name"));
    findings.iter().filter(|finding| finding["severity"] != "ok").map(words).collect()
}

#[test]
fn a_machine_that_is_set_right_has_nothing_to_do() {
    let root = tree();
    let (code, report) = look(root.path());
    // What no file tells: space, coalescing, latencies.
    assert_eq!(not_fine(&report), ["unknown space", "unknown eth0 coalescing", "unknown latencies"]);
    assert_eq!((code, &report["worst"]), (0, &Value::from("unknown")));
    for finding in report["findings"].as_array().expect("findings") {
        assert!(finding["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{finding}");
    }
}

#[test]
fn the_exit_code_says_how_severe_the_worst_is() {
    let root = tree();
    put(root.path(), &format!("{DISK}/queue/scheduler"), "none [mq-deadline]\n");
    put(root.path(), "proc/irq/30/smp_affinity_list", "0-3\n");
    put(root.path(), "etc/default/irqbalance", "IRQBALANCE_BANNED_CPUS=00000001\n");
    put(root.path(), "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n");
    put(root.path(), "proc/cmdline", "quiet\n");
    let (code, report) = look(root.path());
    assert_eq!(code, 3);
    let found = not_fine(&report);
    for name in ["warn sda scheduler", "warn sda", "warn irqbalance", "warn governor", "note isolcpus"] {
        assert!(found.iter().any(|finding| finding == name), "{name}: {found:?}");
    }
    put(root.path(), "proc/self/mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw,nobarrier\n");
    let (code, report) = look(root.path());
    assert_eq!((code, &report["worst"]), (4, &Value::from("bad")));

    // The same for people.
    let ran = doctor(&["--data-dir", "/var/lib/tramline", "--root", root.path().to_str().expect("UTF-8")]);
    assert!(ran.code == 4 && ran.text().starts_with("SEVERITY"), "{}", ran.text());
    assert!(
        ran.text().lines().any(|line| line.starts_with("warn ") && line.contains("mq-deadline") && line.contains("tune.sh: disk_queue")),
        "{}",
        ran.text()
    );
}

#[test]
fn a_missing_empty_or_nonsensical_file_is_unknown_and_never_a_failure() {
    let empty = temp_dir("doctor-empty");
    let (code, report) = look(empty.path());
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["counts"]["bad"], 0);
    let files = |root: &Path| {
        fn walk(dir: &Path, into: &mut Vec<std::path::PathBuf>) {
            for entry in fs::read_dir(dir).expect("listed") {
                let path = entry.expect("an entry").path();
                match fs::symlink_metadata(&path).expect("there").is_dir() {
                    true => walk(&path, into),
                    false => into.push(path),
                }
            }
        }
        let mut found = Vec::new();
        walk(root, &mut found);
        found.sort();
        found
    };
    let count = files(tree().path()).len();
    for i in 0..count {
        let root = tree();
        let file = &files(root.path())[i];
        fs::remove_file(file).expect("removed");
        let (code, _) = look(root.path());
        // Without the other part of a pair it may look worse than it is, never as if a node could not run.
        assert!(code == 0 || code == 3, "without {}: {code}", file.display());
        for nonsense in [&b""[..], b"\xff\xfe\0nonsense\n\n[", b"99999999999999999999999999"] {
            fs::write(file, nonsense).expect("written");
            let ran = doctor(&["--data-dir", "/var/lib/tramline", "--root", root.path().to_str().expect("UTF-8"), "--json"]);
            assert!([0, 3, 4].contains(&ran.code) && ran.stderr.is_empty(), "nonsense in {}: {ran:?}", file.display());
        }
    }
}

#[test]
fn this_machine_is_looked_at_and_measured() {
    let dir = temp_dir("doctor-data");
    let data = dir.path().join("not/yet");
    let flags = ["--data-dir", data.to_str().expect("UTF-8"), "--shards", "1", "--json"];
    let ran = doctor(&flags);
    assert!([0, 3, 4].contains(&ran.code), "{ran:?}");
    let report = ran.json();
    let find = |name: &str| found(&report, name);
    // The tests of this repository run where a node runs.
    assert_eq!((&find("version")["severity"], &find("io_uring")["severity"]), (&Value::from("ok"), &Value::from("ok")));
    for name in ["synced write", "loopback"] {
        let times = find(name);
        assert!(times["found"].as_str().is_some_and(|text| text.starts_with("median ")), "{times}");
    }
    // Nothing is left of it, and nothing was made for the node.
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0);
    let still = doctor(&[&flags[..], &["--no-self-test"]].concat()).json();
    assert!(not_fine(&still).contains(&"unknown latencies".to_owned()), "{still}");
}

#[test]
fn it_takes_the_settings_of_a_node_and_refuses_what_a_node_refuses() {
    let none = doctor(&[]);
    assert!(none.code == 1 && none.stderr.contains("no data directory"), "{none:?}");
    let root = tree();
    let with = |flags: &[&str]| doctor(&[&["--data-dir", "/d", "--root", root.path().to_str().expect("UTF-8"), "--json"], flags].concat());
    let beyond = with(&["--cpus", "2,9"]);
    assert!(beyond.code == 1 && beyond.stderr.contains("core 9") && beyond.stderr.contains("0,1,2,3"), "{beyond:?}");
    assert_eq!(with(&["--fast"]).code, 2);
    // Other cores, other findings: the disk's interrupt is on core 3.
    let there = with(&["--cpus", "3"]).json();
    assert!(not_fine(&there).contains(&"warn sda".to_owned()), "{there}");
    let floating = with(&["--unpinned"]).json();
    assert!(not_fine(&floating).contains(&"note placement".to_owned()), "{floating}");
}

#[test]
fn an_interrupted_one_leaves_nothing_that_keeps_a_node_from_starting() {
    let dir = temp_dir("doctor-killed");
    let data = dir.path().canonicalize().expect("there");
    let mut running = command(&[], &["--data-dir", data.to_str().expect("UTF-8")]);
    let mut running = running.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    // Its one file is open for a second and more; the link shows what it is called, also where that is gone.
    let (files, begun) = (format!("/proc/{}/fd", running.id()), Instant::now());
    let is_testing = || {
        let links = fs::read_dir(&files).into_iter().flatten().flatten().filter_map(|link| fs::read_link(link.path()).ok());
        links.into_iter().any(|to| to.starts_with(&data))
    };
    while !is_testing() {
        assert!(begun.elapsed() < WAIT && running.try_wait().expect("ours").is_none(), "the self-test was not seen");
        std::thread::yield_now();
    }
    running.kill().expect("killed");
    running.wait().expect("ended");
    assert_eq!(fs::read_dir(&data).expect("listed").count(), 0, "something is left in the data directory");
    drop(Node::at(&data, Options::default()));
}

#[test]
fn a_limit_of_locked_memory_below_which_no_node_starts_is_bad() {
    let dir = temp_dir("doctor-memlock");
    let flags = ["--data-dir", dir.path().to_str().expect("UTF-8"), "--shards", "1", "--no-self-test", "--json"];
    let ran = run_command(&mut command(&["sh", "-c", "ulimit -l 100 && exec \"$0\" \"$@\""], &flags), b"");
    let report = ran.json();
    assert_eq!((ran.code, &found(&report, "memlock")["severity"]), (4, &Value::from("bad")), "{report}");
    // The limit is one thing, what the kernel permits another.
    assert_eq!(found(&report, "io_uring")["severity"], "ok");
}

/// Two cores that this process may run on, unless there are none; then the test that asks is told as not run.
fn two_cores(test: &str) -> Option<[String; 2]> {
    let status = fs::read_to_string("/proc/self/status").expect("told");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list").trim();
    let ends = [allowed.split([',', '-']).next(), allowed.rsplit([',', '-']).next()].map(|core| core.expect("a number").to_owned());
    if ends[0] == ends[1] {
        not_run(test, "it needs two cores");
        return None;
    }
    Some(ends)
}

#[test]
fn a_shell_that_is_kept_off_cores_says_nothing_about_a_node() {
    let Some([first, last]) = two_cores("a_shell_that_is_kept_off_cores_says_nothing_about_a_node") else { return };
    let dir = temp_dir("doctor-affinity");
    let flags = ["--data-dir", dir.path().to_str().expect("UTF-8"), "--no-self-test", "--json"];
    let wide = doctor(&flags).json();
    for core in [&first, &last] {
        let pinned = |more: &[&str]| run_command(&mut command(&["taskset", "-c", core], &[&flags[..], more].concat()), b"");
        let report = pinned(&[]).json();
        // As `tune.sh` has it: all cores but the last are the shards'.
        assert_eq!(found(&report, "placement"), found(&wide, "placement"), "from core {core}");
        assert_eq!(found(&report, "workqueues"), found(&wide, "workqueues"), "from core {core}");
        assert_eq!(found(&report, "affinity")["severity"], "note");
        for named in [&first, &last] {
            let ran = pinned(&["--cpus", named]);
            assert!([0, 3, 4].contains(&ran.code), "from core {core} for core {named}: {ran:?}");
            assert!(
                found(&ran.json(), "placement")["found"].as_str().is_some_and(|text| text.starts_with(&format!("shards on {named}, ")))
            );
        }
    }
}

#[test]
fn a_running_nodes_cores_are_what_counts() {
    let Some([_, last]) = two_cores("a_running_nodes_cores_are_what_counts") else { return };
    let mut options = Options::default();
    // Pinned.
    options.arguments.clear();
    let node = Node::with(options);
    let flags = ["--data-dir", node.dir().to_str().expect("UTF-8"), "--no-self-test", "--json"];
    let moved = Command::new("taskset").args(["-p", "-c", &last, &node.process.pid().to_string()]).output().expect("taskset runs");
    assert!(moved.status.success(), "{moved:?}");
    let report = doctor(&flags).json();
    let placement = found(&report, "placement");
    assert_eq!(placement["found"], format!("shards on {last}, none is left"), "{placement}");
    assert!(found(&report, "memlock")["reason"].as_str().is_some_and(|reason| reason.contains(&node.process.pid().to_string())));
}

#[test]
fn a_data_directory_that_cannot_be_one_is_bad() {
    let dir = temp_dir("doctor-file");
    fs::write(dir.path().join("file"), "x").expect("written");
    symlink("nowhere", dir.path().join("dangling")).expect("linked");
    for name in ["file", "file/below", "dangling"] {
        let data = dir.path().join(name);
        let ran = doctor(&["--data-dir", data.to_str().expect("UTF-8"), "--shards", "1", "--json"]);
        let report = ran.json();
        assert_eq!((ran.code, &found(&report, "data directory")["severity"]), (4, &Value::from("bad")), "{name}");
        assert!(found(&report, "data directory")["reason"].as_str().is_some_and(|reason| reason.contains("--data-dir")), "{name}");
        assert!(!ran.text().contains("in the data directory"), "{name}: {report}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2, "nothing was made");
}

#[test]
fn a_pipe_in_place_of_the_lock_is_not_waited_for() {
    let dir = temp_dir("doctor-pipe");
    assert!(Command::new("mkfifo").arg(dir.path().join("lock")).status().expect("mkfifo runs").success());
    let ran = doctor(&["--data-dir", dir.path().to_str().expect("UTF-8"), "--shards", "1", "--no-self-test", "--json"]);
    assert!([0, 3, 4].contains(&ran.code), "{ran:?}");
}

#[test]
fn a_root_that_is_none_and_an_answer_that_cannot_be_given_end_with_1() {
    let root = tree();
    for name in ["missing", "etc/default/irqbalance"] {
        let ran = doctor(&["--data-dir", "/d", "--root", root.path().join(name).to_str().expect("UTF-8")]);
        assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.contains("cannot be looked at"), "{name}: {ran:?}");
    }
    let flags = ["--data-dir", "/d", "--root", root.path().to_str().expect("UTF-8")];
    let full = fs::File::options().write(true).open("/dev/full").expect("there");
    let ended = command(&[], &flags).stdout(full).stderr(Stdio::piped()).output().expect("it runs");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && text.contains("standard output"), "{text}");
    // Who closes the pipe has read enough.
    let mut quiet = command(&[], &flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    drop(quiet.stdout.take());
    let mut text = String::new();
    quiet.stderr.take().expect("piped").read_to_string(&mut text).expect("read");
    assert_eq!((quiet.wait().expect("ended").code(), text.as_str()), (Some(0), ""));
}

#[test]
fn the_machines_own_root_is_it_by_any_name() {
    let dir = temp_dir("doctor-root");
    for name in ["/", "//", "/proc/.."] {
        let ran = doctor(&["--data-dir", dir.path().to_str().expect("UTF-8"), "--root", name, "--no-self-test", "--json"]);
        assert_eq!(found(&ran.json(), "io_uring")["found"], "works", "{name}: {ran:?}");
    }
}
