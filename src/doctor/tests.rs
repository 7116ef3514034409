//! Facts into findings, topic by topic, on machines that are not at hand. Not here: how facts are gathered (`fake_trees.rs`).

mod fake_trees;

use super::cores::{Cores, Set};
use super::disk::{Disk, Mount, Place};
use super::finding::{Finding, Report, Severity};
use super::self_test::{Measured, Times};
use super::{cpu, disk, interrupts, kernel, memory, network, self_test, show};
use std::collections::BTreeMap;
use std::path::Path;

use Severity::{Bad, Note, Ok as Fine, Unknown, Warn};

fn set(cores: &[usize]) -> Set {
    cores.iter().copied().collect()
}

/// Four cores, shards on the first three.
fn cores() -> Cores {
    Cores { online: set(&[0, 1, 2, 3]), allowed: set(&[0, 1, 2, 3]), shards: set(&[0, 1, 2]), shell: set(&[0, 1, 2, 3]) }
}

fn named<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
    let found: Vec<&Finding> = findings.iter().filter(|finding| finding.name == name).collect();
    assert_eq!(found.len(), 1, "findings named '{name}' among {findings:?}");
    assert!(!found[0].reason.is_empty(), "each has a reason");
    found[0]
}

fn severity(findings: &[Finding], name: &str) -> Severity {
    named(findings, name).severity
}

#[test]
fn the_kernel_and_its_limits() {
    let fit = kernel::Facts {
        release: Some("6.18.0".into()),
        ring_disabled: Some(0),
        ring: Some(Ok(())),
        limits_of: "this shell".into(),
        memlock_bytes: Some(8 << 20),
        files: Some(20_000),
        shards: 1,
        connections: 10_000,
    };
    assert!(kernel::judge(&fit).iter().all(|finding| finding.severity == Fine));
    let judged =
        kernel::judge(&kernel::Facts { release: Some("5.15.0-91".into()), ring: Some(Err("it is forbidden".into())), ..fit.clone() });
    assert_eq!((severity(&judged, "version"), severity(&judged, "io_uring")), (Bad, Bad));
    assert!(named(&judged, "io_uring").reason.contains("forbidden"));
    // Of a copy the switch alone tells.
    let copy = kernel::Facts { ring: None, ..fit.clone() };
    assert_eq!(severity(&kernel::judge(&copy), "io_uring"), Fine);
    assert_eq!(severity(&kernel::judge(&kernel::Facts { ring_disabled: Some(2), ..copy.clone() }), "io_uring"), Bad);
    let judged = kernel::judge(&kernel::Facts { shards: 64, connections: 640_000, memlock_bytes: Some(8 << 20), ..fit });
    assert_eq!((severity(&judged, "memlock"), severity(&judged, "open files")), (Warn, Warn));
    assert!(named(&judged, "open files").reason.contains("641024"));
    assert!(kernel::judge(&kernel::Facts::default()).iter().all(|finding| finding.severity == Unknown));
    // Where the executor does not begin a node does not run, however few shards it has.
    let locked = |bytes: u64| kernel::judge(&kernel::Facts { shards: 1, memlock_bytes: Some(bytes), ..kernel::Facts::default() });
    assert_eq!([524_287, 524_288, 1 << 20].map(|bytes| severity(&locked(bytes), "memlock")), [Bad, Warn, Fine]);
    assert!(named(&locked(102_400), "memlock").reason.contains("LimitMEMLOCK"));

    let limits =
        "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\nMax locked memory   unlimited   unlimited   bytes\n";
    assert_eq!(kernel::limit_of(limits, "Max open files"), Some(1024));
    assert_eq!(kernel::limit_of(limits, "Max locked memory"), Some(u64::MAX));
    assert_eq!(kernel::limit_of(limits, "Max pending signals"), None);
}

#[test]
fn the_mount_of_a_directory_is_the_nearest_and_the_last() {
    let table = "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                 31 20 8:2 / /var/lib rw,noatime - xfs /dev/sda2 rw,attr2\n\
                 32 20 8:3 / /var/lib/tram rw - tmpfs none rw\n\
                 33 20 8:4 /sub /a\\040b rw - ext4 /dev/sda4 rw,nobarrier\n\
                 34 20 8:5 / /var/lib rw - ext4 /dev/sda5 rw\nnonsense\n";
    let device = |path: &str| disk::mount_of(table, Path::new(path)).map(|mount| mount.device);
    assert_eq!(device("/var/lib/tramline").as_deref(), Some("8:5"));
    assert_eq!(device("/var/lib/tram/x").as_deref(), Some("8:3"));
    assert_eq!(device("/home").as_deref(), Some("8:1"));
    let mount = disk::mount_of(table, Path::new("/a b/c")).expect("it is there");
    assert_eq!((mount.kind.as_str(), mount.options.join(" ")), ("ext4", "rw rw nobarrier".to_owned()));
    assert_eq!(disk::mount_of("", Path::new("/")), None);
}

#[test]
fn file_systems_and_their_options() {
    let judged = |kind: &str, options: &[&str]| {
        let mount = Mount {
            kind: kind.into(),
            point: "/data".into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            device: "8:1".into(),
        };
        let findings = disk::judge(&Place { mount: Some(mount), disks: Vec::new() });
        (severity(&findings, "file system"), severity(&findings, "mount options"))
    };
    assert_eq!(judged("ext4", &["rw", "noatime"]), (Fine, Fine));
    assert_eq!(judged("xfs", &["rw", "nobarrier"]), (Fine, Bad));
    assert_eq!(judged("ext4", &["rw", "barrier=0"]), (Fine, Bad));
    assert_eq!(judged("ext4", &["ro"]), (Fine, Bad));
    assert_eq!(judged("ext4", &["rw", "data=journal"]), (Fine, Warn));
    assert_eq!(judged("tmpfs", &["rw"]).0, Bad);
    assert_eq!(judged("nfs4", &["rw"]).0, Bad);
    assert_eq!(judged("fuse.sshfs", &["rw"]).0, Bad);
    assert_eq!(judged("btrfs", &["rw"]).0, Warn);
    assert_eq!(judged("overlay", &["rw"]).0, Warn);
    assert_eq!(judged("jfs", &["rw"]).0, Note);
    let none = disk::judge(&Place::default());
    assert_eq!((severity(&none, "file system"), severity(&none, "device")), (Unknown, Unknown));
}

/// An NVMe disk with a volatile cache and everything set right.
fn nvme() -> Disk {
    Disk {
        name: "nvme0n1".into(),
        rotational: Some(false),
        scheduler: Some("none".into()),
        nomerges: Some(2),
        rq_affinity: Some(0),
        write_cache: Some("write back".into()),
        fua: Some(1),
        logical_block_bytes: Some(512),
        ..Disk::default()
    }
}

fn on(disk: Disk) -> Place {
    Place { mount: None, disks: vec![disk] }
}

#[test]
fn disks_and_their_queues() {
    let judged = |change: fn(&mut Disk)| {
        let mut changed = nvme();
        change(&mut changed);
        disk::judge(&on(changed))
    };
    let fit = judged(|_| {});
    assert_eq!(
        (severity(&fit, "nvme0n1 scheduler"), severity(&fit, "nvme0n1 alignment"), severity(&fit, "nvme0n1 write cache")),
        (Fine, Fine, Note)
    );
    assert!(named(&fit, "nvme0n1 write cache").reason.contains("FUA"));
    assert!(named(&judged(|disk| disk.fua = Some(0)), "nvme0n1 write cache").reason.contains("flush"));
    assert_eq!(severity(&judged(|disk| disk.write_cache = Some("write through".into())), "nvme0n1 write cache"), Fine);
    let of_a_host = judged(|disk| disk.name = "vda".into());
    assert!(named(&of_a_host, "vda write cache").reason.contains("the host of this virtual disk"));
    assert_eq!(severity(&judged(|disk| disk.logical_block_bytes = Some(16_384)), "nvme0n1 alignment"), Bad);
    assert_eq!(severity(&judged(|disk| disk.scheduler = Some("bfq".into())), "nvme0n1 scheduler"), Warn);
    assert_eq!(severity(&judged(|disk| disk.rq_affinity = Some(2)), "nvme0n1 completions"), Warn);
    assert_eq!(severity(&judged(|disk| disk.nomerges = Some(0)), "nvme0n1 merging"), Note);
    let turning = judged(|disk| (disk.rotational, disk.scheduler) = (Some(true), Some("mq-deadline".into())));
    assert_eq!((severity(&turning, "nvme0n1 kind"), severity(&turning, "nvme0n1 scheduler")), (Warn, Fine));
    let silent = disk::judge(&on(Disk { name: "sda".into(), ..Disk::default() }));
    assert!(silent.iter().all(|finding| finding.severity == Unknown), "{silent:?}");
}

#[test]
fn cores_their_clocks_and_what_is_kept_away_from_them() {
    let fit = cpu::Facts {
        governors: (0..3).map(|core| (core, "performance".to_owned())).collect(),
        wake_us: (0..3).map(|core| (core, 2)).collect(),
        smt: Some(false),
        siblings: (0..3).map(|core| (core, set(&[core]))).collect(),
        cmdline: Some("quiet isolcpus=managed_irq,domain,0-2 nohz_full=0-2 rcu_nocbs=0-3".into()),
        nodes: BTreeMap::from([(0, set(&[0, 1, 2, 3]))]),
        device_nodes: Vec::new(),
        clock: Some("tsc".into()),
    };
    let judged = cpu::judge(&fit, &cores());
    assert!(judged.iter().all(|finding| finding.severity == Fine), "{judged:?}");

    let mut slow = fit.clone();
    slow.governors.insert(1, "powersave".into());
    slow.wake_us.insert(2, 133);
    (slow.clock, slow.cmdline) = (Some("hpet".into()), Some("nohz_full=0-1".into()));
    let judged = cpu::judge(&slow, &cores());
    assert_eq!(named(&judged, "governor").found, "powersave on 1");
    assert_eq!(named(&judged, "idle states").found, "up to 133 us to wake, on 2");
    let of = ["governor", "idle states", "clock", "isolcpus", "nohz_full", "rcu_nocbs"].map(|name| severity(&judged, name));
    assert_eq!(of, [Warn, Warn, Warn, Note, Note, Note]);
    let idle = |us: u64| severity(&cpu::judge(&cpu::Facts { wake_us: BTreeMap::from([(0, us)]), ..fit.clone() }, &cores()), "idle states");
    // Up to 100 us is what the profile for throughput leaves.
    assert_eq!([10, 11, 100, 101].map(idle), [Fine, Note, Note, Warn]);

    // Two threads each: cores 0 and 2 are one, 1 and 3 are one.
    let mut pairs = fit.clone();
    (pairs.smt, pairs.siblings) = (Some(true), BTreeMap::from([(0, set(&[0, 2])), (1, set(&[1, 3])), (2, set(&[0, 2]))]));
    let smt = |shards: &[usize]| {
        let judged = cpu::judge(&pairs, &Cores { shards: set(shards), ..cores() });
        (named(&judged, "smt").severity, named(&judged, "smt").found.clone())
    };
    assert_eq!(smt(&[0, 1, 2]), (Warn, "shards 0,2 share physical cores".to_owned()));
    assert_eq!(smt(&[0, 1]), (Note, "shards 0-1 share theirs with cores left over".to_owned()));

    let mut far = fit.clone();
    (far.nodes, far.device_nodes) = (BTreeMap::from([(0, set(&[0, 1])), (1, set(&[2, 3]))]), vec![("nvme0n1".into(), set(&[1]))]);
    let nodes =
        |facts: &cpu::Facts, shards: &[usize]| severity(&cpu::judge(facts, &Cores { shards: set(shards), ..cores() }), "memory nodes");
    assert_eq!([nodes(&far, &[0, 1]), nodes(&far, &[1, 2]), nodes(&far, &[2])], [Warn, Note, Fine]);
    // What is not told is not near; of two ways the near one is taken.
    far.device_nodes.push(("eth0".into(), Set::new()));
    assert_eq!([nodes(&far, &[0, 1]), nodes(&far, &[2])], [Warn, Unknown]);
    far.device_nodes = vec![("nvme0n1".into(), set(&[0, 1]))];
    assert_eq!([nodes(&far, &[0]), nodes(&far, &[2])], [Fine, Fine]);
    far.device_nodes.clear();
    assert_eq!(nodes(&far, &[2]), Unknown);

    let all = cpu::judge(&fit, &Cores { shards: set(&[0, 1, 2, 3]), ..cores() });
    assert_eq!((severity(&all, "placement"), severity(&all, "boot parameters")), (Note, Unknown));
    let silent = cpu::judge(&cpu::Facts::default(), &Cores { online: Set::new(), ..cores() });
    assert!(silent.iter().all(|finding| finding.severity <= Unknown), "{silent:?}");
    assert_eq!(severity(&cpu::judge(&fit, &Cores::default()), "placement"), Note);
}

#[test]
fn stolen_time_counts_while_the_test_runs() {
    let stat = |stolen: u64, idle: u64| Some(format!("cpu  100 0 100 {idle} 0 0 0 {stolen} 0 0\ncpu0 1 2 3\n"));
    let judged = |before, after| cpu::judge_steal(&cpu::Steal { before, after }).remove(0);
    assert_eq!(judged(stat(0, 9_800), None).severity, Fine);
    assert_eq!(judged(stat(500, 9_300), None).severity, Warn);
    let calm = judged(stat(500, 9_300), stat(500, 9_500));
    assert_eq!((calm.severity, calm.found.as_str()), (Fine, "0.0 % now, 5.0 % since the start"));
    assert_eq!(judged(stat(0, 9_800), stat(50, 9_950)).severity, Warn);
    assert_eq!(judged(Some("nonsense".into()), None).severity, Unknown);
    assert_eq!(judged(None, None).severity, Unknown);
}

#[test]
fn interrupts_against_the_shards_cores() {
    let device = |name: &str, is_disk, irqs: &[(u32, usize)]| interrupts::Device {
        name: name.into(),
        is_disk,
        irqs: irqs.iter().map(|(irq, core)| (*irq, set(&[*core]))).collect(),
    };
    let facts =
        |device, workqueue: &[usize], irqbalance| interrupts::Facts { devices: vec![device], workqueue: Some(set(workqueue)), irqbalance };
    let still = interrupts::Balance { is_running: Some(false), banned: Set::new() };
    let away = interrupts::judge(&facts(device("sda", true, &[(30, 3), (31, 3)]), &[3], still.clone()), &cores());
    assert!(away.iter().all(|finding| finding.severity == Fine), "{away:?}");
    let on = interrupts::judge(
        &facts(device("sda", true, &[(30, 0), (31, 3)]), &[0, 3], interrupts::Balance { is_running: Some(true), banned: set(&[0]) }),
        &cores(),
    );
    assert_eq!(["sda", "workqueues", "irqbalance"].map(|name| severity(&on, name)), [Warn, Warn, Warn]);
    assert_eq!(named(&on, "sda").found, "1 of 2 on shards' cores: 30 on 0");
    let of = |device| severity(&interrupts::judge(&facts(device, &[3], still.clone()), &cores()), "x");
    assert_eq!([of(device("x", false, &[(40, 1)])), of(device("x", true, &[]))], [Note, Unknown]);
    assert_eq!(severity(&interrupts::judge(&facts(device("nvme0n1", true, &[(1, 1)]), &[3], still.clone()), &cores()), "nvme0n1"), Note);
    let banned = interrupts::Balance { is_running: Some(true), banned: set(&[0, 1, 2]) };
    assert_eq!(severity(&interrupts::judge(&facts(device("x", true, &[]), &[3], banned), &cores()), "irqbalance"), Fine);
    let hidden = interrupts::Balance { is_running: None, banned: Set::new() };
    assert_eq!(severity(&interrupts::judge(&facts(device("x", true, &[]), &[3], hidden), &cores()), "irqbalance"), Unknown);
    let all = interrupts::judge(&facts(device("x", true, &[(1, 1)]), &[3], still), &Cores { shards: set(&[0, 1, 2, 3]), ..cores() });
    assert_eq!((all.len(), all[0].severity), (1, Unknown));

    let table = " 30:  1 0  PCI-MSIX  0-edge  virtio1-config\n 31: 9 0 PCI-MSIX 1-edge  virtio1-req.0\n  3: 1 0 x  nvme0q0\n";
    assert_eq!([30, 31, 3, 1].map(|irq| interrupts::is_quiet(table, irq)), [true, false, true, false]);
}

#[test]
fn the_network_and_memory() {
    let card = |receive_queues, coalescing| network::Card { name: "eth0".into(), receive_queues, is_virtual: false, coalescing };
    let with = |card, settings: &[(&'static str, &str)]| {
        let settings = settings.iter().map(|(path, text)| (*path, Some((*text).to_owned()))).collect();
        network::judge(&network::Facts { cards: vec![card], settings }, &cores())
    };
    let off = network::Coalescing { is_adaptive: false, receive_us: Some(0) };
    let judged = with(
        card(4, Some(off)),
        &[
            ("net/core/somaxconn", "128"),
            ("net/ipv4/tcp_rmem", "4096 1 8388608"),
            ("net/ipv4/tcp_slow_start_after_idle", "1"),
            ("net/core/rmem_max", "x"),
        ],
    );
    let of = [
        "eth0",
        "eth0 coalescing",
        "net/core/somaxconn",
        "net/ipv4/tcp_rmem",
        "net/ipv4/tcp_wmem",
        "net/ipv4/tcp_slow_start_after_idle",
        "net/core/rmem_max",
    ];
    assert_eq!(of.map(|name| severity(&judged, name)), [Fine, Fine, Warn, Fine, Unknown, Warn, Unknown]);
    let waits = network::Coalescing { is_adaptive: false, receive_us: Some(50) };
    assert_eq!(severity(&with(card(4, Some(waits)), &[]), "eth0 coalescing"), Note);
    let two_left = Cores { online: set(&[0, 1, 2, 3, 4, 5]), ..cores() };
    let one_queue = network::judge(&network::Facts { cards: vec![card(1, None)], settings: Vec::new() }, &two_left);
    assert_eq!((severity(&one_queue, "eth0"), severity(&one_queue, "eth0 coalescing")), (Note, Unknown));
    let told = "Coalesce parameters for eth0:\nAdaptive RX: on  TX: off\nrx-usecs:\t8\nrx-frames:\tn/a\n";
    assert_eq!(network::read_coalescing(told), Some(network::Coalescing { is_adaptive: true, receive_us: Some(8) }));
    assert_eq!(network::read_coalescing("no such card"), None);

    let fit = memory::Facts {
        huge_pages: Some("madvise".into()),
        huge_defrag: Some("madvise".into()),
        swappiness: Some(1),
        swaps: Some(1),
        numa_balancing: Some(0),
        reports_free_pages: Some(false),
    };
    assert!(memory::judge(&fit).iter().all(|finding| finding.severity == Fine));
    let worse = memory::Facts {
        huge_pages: Some("never".into()),
        huge_defrag: Some("always".into()),
        swappiness: Some(60),
        numa_balancing: Some(1),
        reports_free_pages: Some(true),
        ..fit.clone()
    };
    assert_eq!(memory::judge(&worse).iter().map(|finding| finding.severity).collect::<Vec<_>>(), [Warn, Note, Warn, Warn, Warn]);
    assert_eq!(severity(&memory::judge(&memory::Facts { swappiness: Some(60), swaps: Some(0), ..fit }), "swappiness"), Fine);
    assert!(memory::judge(&memory::Facts::default()).iter().all(|finding| finding.severity == Unknown));
}

#[test]
fn what_was_measured_against_what_the_disk_says() {
    let judged = |median_us: f64, place: &Place| {
        let times = Ok(Times { median_us, p99_us: median_us * 2.0, count: 9 });
        severity(&self_test::judge(&Measured { write: times.clone(), wake: times }, place), "synced write")
    };
    let volatile = on(nvme());
    let protected = on(Disk { write_cache: Some("write through".into()), ..nvme() });
    let turning = on(Disk { rotational: Some(true), ..nvme() });
    assert_eq!([5.0, 100.0, 1_500.0].map(|us| judged(us, &volatile)), [Bad, Fine, Warn]);
    assert_eq!([5.0, 15.0, 500.0].map(|us| judged(us, &protected)), [Fine, Fine, Warn]);
    assert_eq!([5.0, 8_000.0, 30_000.0].map(|us| judged(us, &turning)), [Bad, Fine, Warn]);
    assert_eq!([5.0, 100.0, 1_500.0].map(|us| judged(us, &Place::default())), [Note, Note, Warn]);
    let failed = Measured { write: Err("no space".into()), wake: Ok(Times { median_us: 300.0, p99_us: 400.0, count: 9 }) };
    let findings = self_test::judge(&failed, &volatile);
    assert_eq!((severity(&findings, "synced write"), severity(&findings, "loopback")), (Unknown, Warn));
}

#[test]
fn a_report_is_shown_with_its_counts() {
    let finding =
        |severity, name: &str| Finding { topic: "disk", name: name.into(), severity, found: "x".into(), reason: "because".into() };
    let report = Report { findings: vec![finding(Fine, "a"), finding(Bad, "longer name"), finding(Fine, "c")] };
    assert_eq!(report.worst(), Bad);
    let lines: Vec<String> = show::table(&report).lines().map(str::to_owned).collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["SEVERITY", "TOPIC", "NAME", "FOUND", "REASON"]);
    assert_eq!(lines[2], "bad       disk   longer name  x      because");
    assert_eq!(lines.last().map(String::as_str), Some("1 bad, 2 ok"));
    let json: serde_json::Value = serde_json::from_str(&show::json(&report)).expect("JSON");
    assert_eq!((&json["worst"], &json["counts"]["ok"], &json["findings"][1]["reason"]), (&"bad".into(), &2.into(), &"because".into()));
    assert_eq!(Report { findings: Vec::new() }.worst(), Fine);
}
