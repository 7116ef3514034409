//! `scripts/tune/`: check, apply, revert over a copy of the trees /sys, /proc, /etc that the test makes: a machine of four cores with an NVMe disk and
//! a network card. What apply changes is exactly what a profile wants, a second apply changes nothing, and revert leaves every byte as it was.
//!
//! The card's own settings are not files: a program of a few lines stands for `ethtool` there, and keeps what it is told.
//! What goes wrong on the way stands in `tune/faults.rs`, machines of other kinds in `tune/machines.rs`.
//! Not here: whether a kernel takes a value (`tune.sh` reads it again after writing).

mod faults;
mod machines;

use common::tool::{Ran, run_command};
use common::{not_run, temp_dir};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const DISK: &str = "sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0/nvme0n1";
const CARD: &str = "sys/devices/pci0000:00/0000:00:1f.0";
const STORE: &str = "var/lib/tramline-tune";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tune/tune.sh")
}

fn tune(arguments: &[&str]) -> Ran {
    run_command(Command::new(script()).args(arguments), b"")
}

/// A machine as files.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine::named("tune")
    }

    fn named(purpose: &str) -> Machine {
        let machine = Machine { dir: temp_dir(purpose) };
        for (path, text) in files() {
            machine.put(&path, &text);
        }
        machine.link("sys/dev/block/259:1", &format!("../../../{DISK}/nvme0n1p1"));
        machine.link("sys/block/nvme0n1", &format!("../../{DISK}"));
        machine.link("sys/class/net/eth0/device", &format!("../../../../{CARD}"));
        fs::create_dir_all(machine.at("etc/security/limits.d")).expect("a folder");
        fs::create_dir_all(machine.at("sys/class/net/eth0/queues/rx-0")).expect("a folder");
        machine
    }

    fn root(&self) -> &str {
        self.dir.path().to_str().expect("UTF-8")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn link(&self, path: &str, to: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        symlink(to, path).expect("linked");
    }

    fn remove(&self, path: &str) {
        let path = self.at(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let ran = tune(&[&["--root", self.root()], arguments].concat());
        assert_eq!(ran.stderr, "", "{arguments:?}: {}", ran.text());
        ran
    }

    /// A run to which some files are read-only, as the kernel's are that refuse a write. A mode does not bind root, so root runs it without that
    /// power; `None` (said aloud) where it cannot lay it down.
    fn run_refused(&self, test: &str, paths: &[&str], arguments: &[&str]) -> Option<Ran> {
        let mode =
            |bits| paths.iter().for_each(|path| fs::set_permissions(self.at(path), fs::Permissions::from_mode(bits)).expect("a mode"));
        mode(0o444);
        let is_bound = fs::OpenOptions::new().write(true).open(self.at(paths[0])).is_err();
        let less: &[&str] = if is_bound { &["env"] } else { &["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] };
        if !is_bound && !Command::new(less[0]).args(&less[1..]).arg("true").status().is_ok_and(|status| status.success()) {
            not_run(test, "setpriv cannot take a capability away");
            return None;
        }
        let ran = run_command(Command::new(less[0]).args(&less[1..]).arg(script()).args(["--root", self.root()]).args(arguments), b"");
        mode(0o644);
        Some(ran)
    }

    /// Every file with its bytes and every link, but for what the script keeps for itself.
    fn bytes(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(root: &Path, dir: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
            for entry in fs::read_dir(dir).expect("listed") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(root).expect("inside").to_str().expect("UTF-8").to_owned();
                let kind = fs::symlink_metadata(&path).expect("there").file_type();
                if name == STORE {
                } else if kind.is_symlink() {
                    into.insert(name, fs::read_link(&path).expect("a link").to_str().expect("UTF-8").into());
                } else if kind.is_dir() {
                    walk(root, &path, into);
                } else {
                    into.insert(name, fs::read(&path).expect("readable"));
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.dir.path(), self.dir.path(), &mut found);
        found
    }

    /// Paths below `boot` and `files` of the store: what is kept of before.
    fn kept(&self) -> Vec<String> {
        let mut names = Vec::new();
        for part in ["boot", "files"] {
            let entries = fs::read_dir(self.at(STORE).join(part)).into_iter().flatten();
            names.extend(entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()));
        }
        names.retain(|name| name != "id" && name != "refused");
        names.sort();
        names
    }
}

/// What the kernel shows, byte for byte, blanks at the ends included.
fn files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = [
        ("proc/cmdline", "root=/dev/nvme0n1p2 quiet\n"),
        ("proc/self/mountinfo", "20 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n30 20 259:1 / /var/lib rw,noatime - xfs /dev/nvme0n1p1 rw\n"),
        ("proc/sys/kernel/random/boot_id", "7bd1c5be-0000-4000-8000-000000000001\n"),
        ("proc/sys/kernel/io_uring_disabled", "2\n"),
        ("proc/sys/kernel/numa_balancing", "1\n"),
        ("proc/sys/kernel/nmi_watchdog", "1\n"),
        ("proc/sys/kernel/timer_migration", "1\n"),
        ("proc/sys/vm/swappiness", "60\n"),
        ("proc/sys/vm/stat_interval", "1\n"),
        ("proc/sys/fs/file-max", "9223372036854775807\n"),
        ("proc/sys/fs/nr_open", "65536\n"),
        ("proc/sys/net/core/somaxconn", "128\n"),
        ("proc/sys/net/core/rmem_max", "212992\n"),
        ("proc/sys/net/core/wmem_max", "268435456\n"),
        ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
        ("proc/sys/net/core/busy_poll", "0\n"),
        ("proc/sys/net/core/busy_read", "0\n"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512\n"),
        ("proc/sys/net/ipv4/tcp_autocorking", "1\n"),
        ("proc/irq/default_smp_affinity", "f\n"),
        (
            "proc/interrupts",
            "           CPU0       CPU1\n 30:  1  0  PCI-MSIX-0000:00:1d.0  0-edge  nvme0q0\n 31:  9  0  PCI-MSIX-0000:00:1d.0  1-edge  nvme0q1\n\
             100:  9  0  PCI-MSIX-0000:00:1d.0  2-edge  nvme0q2\n 40:  9  0  PCI-MSIX-0000:00:1f.0  0-edge  eth0-TxRx-0\n\
             41:  9  0  PCI-MSIX-0000:00:1f.0  1-edge  eth0-TxRx-1\n",
        ),
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("sys/devices/system/cpu/smt/active", "0\n"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
        ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm \n"),
        ("sys/devices/virtual/workqueue/cpumask", "f\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
        ("sys/kernel/mm/transparent_hugepage/defrag", "[always] defer defer+madvise madvise never\n"),
        ("sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "1\n"),
        ("etc/default/irqbalance", "# how it is started\nIRQBALANCE_ARGS=\"--foreground --banirq=7\"\n#IRQBALANCE_ONESHOT=\n"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .to_vec();
    let mut add = |path: String, text: &str| files.push((path, text.to_owned()));
    for cpu in 0..4 {
        let cpu_dir = format!("sys/devices/system/cpu/cpu{cpu}");
        add(format!("{cpu_dir}/cpufreq/scaling_governor"), "powersave\n");
        add(format!("{cpu_dir}/cpufreq/scaling_available_governors"), "performance powersave \n");
        add(format!("{cpu_dir}/topology/thread_siblings_list"), &format!("{cpu}\n"));
        for (state, latency_us) in [(0, 0), (1, 2), (2, 10), (3, 40), (4, 133)] {
            add(format!("{cpu_dir}/cpuidle/state{state}/latency"), &format!("{latency_us}\n"));
            add(format!("{cpu_dir}/cpuidle/state{state}/disable"), "0\n");
        }
    }
    for (device, irqs) in [("sys/devices/pci0000:00/0000:00:1d.0", &[30, 31, 100][..]), (CARD, &[40, 41])] {
        for irq in irqs {
            add(format!("{device}/msi_irqs/{irq}"), "msix\n");
            add(format!("proc/irq/{irq}/smp_affinity_list"), "0-3\n");
        }
    }
    add(format!("{DISK}/nvme0n1p1/partition"), "1\n");
    add(format!("{DISK}/queue/scheduler"), "none [mq-deadline] kyber bfq \n");
    add(format!("{DISK}/queue/rotational"), "0\n");
    add(format!("{DISK}/queue/nomerges"), "0\n");
    add(format!("{DISK}/queue/rq_affinity"), "2\n");
    files
}

const LIMITS: &str = "etc/security/limits.d/90-tramline.conf";

/// What both profiles change, with the shards on cores 0 to 2.
fn changed_by_both() -> Vec<(String, &'static str)> {
    let mut changed: Vec<(String, &str)> = [
        ("proc/sys/kernel/io_uring_disabled", "0\n"),
        ("proc/sys/kernel/numa_balancing", "0\n"),
        ("proc/sys/vm/swappiness", "1\n"),
        ("proc/sys/fs/nr_open", "1048576\n"),
        ("proc/sys/net/core/somaxconn", "4096\n"),
        ("proc/sys/net/core/rmem_max", "67108864\n"),
        ("proc/sys/net/core/netdev_max_backlog", "16384\n"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0\n"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096 131072 67108864\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096 16384 67108864\n"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
        ("proc/irq/default_smp_affinity", "00000008\n"),
        // Not 30, which only configures the disk.
        ("proc/irq/31/smp_affinity_list", "3\n"),
        ("proc/irq/100/smp_affinity_list", "3\n"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ("sys/devices/virtual/workqueue/cpumask", "00000008\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ("sys/kernel/mm/transparent_hugepage/defrag", "always defer [defer+madvise] madvise never\n"),
        (
            "etc/default/irqbalance",
            "# how it is started\nIRQBALANCE_ARGS=\"--foreground --banirq=7 --banirq=31 --banirq=100 --banirq=40 --banirq=41\"\n#IRQBALANCE_ONESHOT=\nIRQBALANCE_BANNED_CPULIST=0-2\n",
        ),
    ]
    .map(|(path, text)| (path.to_owned(), text))
    .to_vec();
    for (file, text) in [("scheduler", "[none] mq-deadline kyber bfq \n"), ("nomerges", "2\n"), ("rq_affinity", "0\n")] {
        changed.push((format!("{DISK}/queue/{file}"), text));
    }
    changed.extend((0..4).map(|cpu| (format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "performance\n")));
    changed.extend((0..4).map(|cpu| (format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state4/disable"), "1\n")));
    changed
}

fn changed_by(profile: &str) -> BTreeMap<String, Vec<u8>> {
    let mut changed = changed_by_both();
    let mut add = |path: &str, text| changed.push((path.to_owned(), text));
    if profile == "latency" {
        add("proc/sys/kernel/nmi_watchdog", "0\n");
        add("proc/sys/kernel/timer_migration", "0\n");
        add("proc/sys/vm/stat_interval", "10\n");
        add("proc/sys/net/core/busy_poll", "50\n");
        add("proc/sys/net/core/busy_read", "50\n");
        add("proc/sys/net/ipv4/tcp_autocorking", "0\n");
        add("sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "0\n");
        add("proc/irq/40/smp_affinity_list", "3\n");
        add("proc/irq/41/smp_affinity_list", "3\n");
        (0..4).for_each(|cpu| add(&format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state3/disable"), "1\n"));
    } else {
        add("proc/irq/40/smp_affinity_list", "0\n");
        add("proc/irq/41/smp_affinity_list", "1\n");
    }
    changed.into_iter().map(|(path, text)| (path, text.as_bytes().to_vec())).collect()
}

#[test]
fn what_apply_changes_is_what_the_profile_wants_and_revert_leaves_every_byte_as_it_was() {
    for profile in ["latency", "throughput"] {
        let machine = Machine::new();
        let before = machine.bytes();
        let with = |verb| [verb, "--profile", profile];
        let checked = machine.run(&with("check"));
        assert!(checked.code == 1 && checked.text().contains("differs"), "{}", checked.text());
        let told = machine.run(&[&with("apply")[..], &["--dry-run"]].concat());
        let command = format!("printf '%s\\n' none >{}/sys/block/nvme0n1/queue/scheduler\n", machine.root());
        assert!(told.code == 0 && told.text().contains(&command), "{}", told.text());
        assert!(machine.bytes() == before && !machine.at(STORE).exists(), "a dry run changes nothing");

        let applied = machine.run(&with("apply"));
        assert_eq!(applied.code, 0, "{}", applied.text());
        let after = machine.bytes();
        let mut differs: BTreeMap<_, _> =
            after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).map(|(p, b)| (p.clone(), b.clone())).collect();
        let limits = differs.remove(LIMITS).expect("the limits' file");
        assert!(String::from_utf8_lossy(&limits).contains("* hard memlock unlimited\n"));
        let show = |of: &BTreeMap<String, Vec<u8>>| {
            of.iter().map(|(path, text)| format!("{path}: {}", String::from_utf8_lossy(text))).collect::<String>()
        };
        assert_eq!(show(&differs), show(&changed_by(profile)), "{profile}");

        let checked = machine.run(&with("check"));
        assert!(checked.code == 0 && !checked.text().contains("differs"), "{}", checked.text());
        let again = machine.run(&with("apply"));
        assert!(again.code == 0 && !again.text().contains("changed"), "{}", again.text());
        assert_eq!(machine.bytes(), after, "the second apply changes nothing");
        let told = machine.run(&["revert", "--dry-run"]);
        assert!(told.code == 0 && told.text().contains("mq-deadline >") && machine.bytes() == after, "{}", told.text());
        let reverted = machine.run(&["revert"]);
        assert_eq!(reverted.code, 0, "{}", reverted.text());
        assert_eq!(machine.bytes(), before, "{profile}");
        assert_eq!(machine.kept(), [""; 0]);
        assert!(machine.run(&["revert"]).text().contains("nothing to revert"));
    }
}

#[test]
fn another_profile_gives_back_what_it_does_not_want() {
    let machine = Machine::new();
    let before = machine.bytes();
    assert_eq!(machine.run(&["apply", "--profile", "throughput"]).code, 0);
    let fresh = machine.bytes();
    assert_eq!(machine.run(&["apply", "--profile", "latency"]).code, 0);
    // And back, with one setting between: what is not looked at stays.
    assert_eq!(machine.run(&["apply", "--profile", "throughput", "--only", "kernel_noise"]).code, 0);
    assert_eq!((machine.text("proc/sys/vm/stat_interval"), machine.text("proc/sys/net/core/busy_poll")), ("1\n".into(), "50\n".into()));
    assert_eq!(machine.run(&["apply", "--profile", "throughput"]).code, 0);
    assert_eq!(machine.bytes(), fresh, "as if there had been no other");
    assert_eq!(machine.run(&["revert", "--only", "swappiness"]).code, 0);
    assert_eq!((machine.text("proc/sys/vm/swappiness"), machine.text("proc/sys/net/core/somaxconn")), ("60\n".into(), "4096\n".into()));
    assert_eq!(machine.run(&["revert"]).code, 0);
    assert_eq!(machine.bytes(), before);
}

#[test]
fn what_is_missing_is_unknown_and_never_a_failure() {
    // Nothing but the directory of the limits.
    let bare = Machine { dir: temp_dir("tune-bare") };
    let checked = bare.run(&["check"]);
    assert!(checked.code == 0 && checked.text().lines().filter(|line| line.contains(" unknown ")).count() > 20, "{}", checked.text());
    assert_eq!(bare.run(&["apply"]).code, 0);
    assert_eq!(bare.run(&["revert"]).code, 0);

    // Together what has nothing to do with each other: each run of the script costs some hundred processes.
    let gone = [
        &["proc/self", "proc/interrupts", "sys/kernel/mm"][..],
        &["proc/irq", "proc/sys/kernel", "sys/class"],
        &["sys/devices/system/cpu/online", "sys/dev", "proc/sys/net/core/busy_poll"],
        &["sys/devices/system/cpu/cpu2", "sys/devices/system/clocksource", "etc"],
    ];
    for paths in gone {
        let machine = Machine::new();
        paths.iter().for_each(|path| machine.remove(path));
        let before = machine.bytes();
        let checked = machine.run(&["check"]);
        assert!(checked.code == 1 && !checked.text().contains("failed"), "without {paths:?}: {}", checked.text());
        let applied = machine.run(&["apply"]);
        assert!(applied.code == 0 && applied.text().contains("changed"), "without {paths:?}: {}", applied.text());
        assert_eq!(machine.run(&["check"]).code, 0, "without {paths:?}");
        assert_eq!(machine.run(&["revert"]).code, 0, "without {paths:?}");
        assert_eq!(machine.bytes(), before, "without {paths:?}");
    }
}

#[test]
fn odd_values_are_set_right_and_given_back_as_they_were() {
    let machine = Machine::new();
    for (path, text) in [
        ("proc/sys/vm/swappiness", ""),
        ("proc/sys/net/core/somaxconn", "many\n"),
        ("proc/sys/net/core/rmem_max", "-1\n"),
        ("proc/sys/net/core/wmem_max", "99999999999999999999999\n"),
        ("proc/sys/net/ipv4/tcp_rmem", "\n"),
        ("proc/irq/31/smp_affinity_list", "$(touch here)\n"),
        ("proc/irq/100/smp_affinity_list", "0-99999999\n"),
        ("sys/devices/virtual/workqueue/cpumask", "ffffffff,00000008\n"),
        ("sys/devices/system/cpu/cpu1/cpuidle/state3/latency", "soon\n"),
        ("sys/devices/system/cpu/cpu1/cpufreq/scaling_available_governors", "userspace \n"),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
        ("etc/default/irqbalance", "IRQBALANCE_ARGS='--foreground'"),
    ] {
        machine.put(path, text);
    }
    let queue = format!("{DISK}/queue/scheduler");
    machine.put(&queue, "[mq-deadline] kyber\n");
    let before = machine.bytes();
    let applied = machine.run(&["apply"]);
    assert_eq!(applied.code, 0, "{}", applied.text());
    for words in ["there is no 'none' among", "'soon' is no number", "there is no governor 'performance' here"] {
        assert!(applied.text().contains(words), "{words}: {}", applied.text());
    }
    assert_eq!(machine.text("proc/sys/net/core/wmem_max"), "99999999999999999999999\n", "more than enough");
    assert_eq!(machine.text("proc/sys/net/core/rmem_max"), "67108864\n");
    assert_eq!(machine.text("sys/devices/virtual/workqueue/cpumask"), "00000008\n");
    assert!(machine.text("etc/default/irqbalance").starts_with("IRQBALANCE_ARGS=\"--foreground --banirq=31"));
    assert_eq!(machine.run(&["check"]).code, 0);
    assert_eq!(machine.run(&["revert"]).code, 0);
    assert_eq!(machine.bytes(), before);
}

#[test]
fn values_of_the_kernel_are_not_given_back_to_another_run_of_the_machine() {
    let machine = Machine::new();
    let before = machine.bytes();
    assert_eq!(machine.run(&["apply"]).code, 0);
    // Another start: the kernel has its defaults again, and gives interrupts other numbers.
    for (path, bytes) in before.iter().filter(|(path, _)| !path.starts_with("etc")) {
        if !machine.at(path).is_symlink() {
            fs::write(machine.at(path), bytes).expect("written");
        }
    }
    machine.put("proc/sys/kernel/random/boot_id", "7bd1c5be-0000-4000-8000-000000000002\n");
    machine.put("proc/irq/31/smp_affinity_list", "2\n");
    assert_eq!(machine.run(&["revert"]).code, 0);
    assert_eq!(machine.text("proc/irq/31/smp_affinity_list"), "2\n");
    assert_eq!(machine.text("etc/default/irqbalance").as_bytes(), before["etc/default/irqbalance"]);
    assert!(!machine.at(LIMITS).exists());
}

#[test]
fn a_card_is_asked_and_told_and_told_back() {
    let machine = Machine::new();
    let program = machine.at("ethtool");
    let script = "#!/bin/sh\nat=$(dirname \"$0\")\ncase \"$1\" in\n-c) rx=$(cat \"$at/adaptive-rx\")\n\
         printf 'Coalesce parameters for %s:\\nAdaptive RX: %s  TX: off\\nrx-usecs: %s\\nrx-frames: n/a\\n' \"$2\" \"$rx\" \"$(cat \"$at/rx-usecs\")\" ;;\n\
         -C) echo \"$4\" >\"$at/$3\" ;;\nesac\n";
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    machine.put("adaptive-rx", "on\n");
    machine.put("rx-usecs", "50\n");
    let card = ["--ethtool", program.to_str().expect("UTF-8"), "--only", "nic_coalescing"];
    let run = |verb: &[&str]| machine.run(&[verb, &card].concat());
    let state = || (machine.text("adaptive-rx"), machine.text("rx-usecs"));
    assert_eq!(run(&["check"]).code, 1);
    assert!(run(&["apply", "--dry-run"]).text().contains("ethtool -C eth0 rx-usecs 0\n"));
    assert_eq!(state(), ("on\n".into(), "50\n".into()));
    assert_eq!((run(&["apply"]).code, run(&["check"]).code, state()), (0, 0, ("off\n".into(), "0\n".into())));
    assert_eq!((run(&["revert"]).code, state()), (0, ("on\n".into(), "50\n".into())));
    assert_eq!(run(&["check", "--profile", "throughput"]).code, 0);
}

#[test]
fn the_disks_below_a_stack_and_the_cores_beside_a_shard_are_found() {
    let machine = Machine::new();
    // The data directory on device mapper over the disk and a second one.
    let second = "sys/devices/pci0000:00/0000:00:1e.0/ata1/sdb";
    machine.put(&format!("{second}/queue/scheduler"), "[bfq] none\n");
    machine.put(&format!("{second}/queue/rotational"), "1\n");
    machine.put(&format!("{second}/queue/nomerges"), "0\n");
    machine.link("sys/block/sdb", &format!("../../{second}"));
    machine.link("sys/dev/block/252:0", "../../devices/virtual/block/dm-0");
    machine.link("sys/devices/virtual/block/dm-0/slaves/nvme0n1p1", &format!("../../../../../../{DISK}/nvme0n1p1"));
    machine.link("sys/devices/virtual/block/dm-0/slaves/sdb", &format!("../../../../../../{second}"));
    machine.put("proc/self/mountinfo", "20 1 259:2 / / rw - ext4 x rw\n31 20 252:0 / /data\\040store rw - xfs y rw\n");
    machine.put("sys/devices/system/cpu/smt/active", "1\n");
    for (cpu, pair) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
        machine.put(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), &format!("{pair}\n"));
    }
    let disk = ["apply", "--disk", "/data store/tramline"];
    let applied = machine.run(&[&disk[..], &["--cores", "0"]].concat());
    assert_eq!(applied.code, 0, "{}", applied.text());
    assert!(applied.text().contains("sdb turns"), "{}", applied.text());
    assert!(machine.text(&format!("{DISK}/queue/scheduler")).starts_with("[none]"));
    assert_eq!(machine.text(&format!("{second}/queue/nomerges")), "2\n");
    // Not core 2, which is the other half of core 0.
    assert_eq!(machine.text("proc/irq/31/smp_affinity_list"), "1,3\n");
    assert_eq!(machine.text("sys/devices/virtual/workqueue/cpumask"), "0000000a\n");
    let both = machine.run(&["check", "--cores", "0,2", "--only", "smt,boot"]);
    assert!(both.code == 0 && both.text().contains("core 0 and core 2 share one"), "{}", both.text());
    assert!(both.text().contains("isolcpus=managed_irq,domain,0,2 nohz_full=0,2 rcu_nocbs=0,2"), "{}", both.text());
    machine.put("proc/cmdline", "isolcpus=managed_irq,domain,0-2 nohz_full=0-2 rcu_nocbs=0-2\n");
    assert!(machine.run(&["check", "--cores", "0,2", "--only", "boot"]).text().contains("1 ok"));
    // Where the shards have all cores nothing can be kept away from them.
    let all = machine.run(&["check", "--cores", "0-3", "--only", "irq_disk,workqueue,boot"]);
    assert!(all.code == 0 && all.text().contains("3 unknown"), "{}", all.text());
}

#[test]
fn wrong_usage_is_refused_in_one_sentence() {
    for (arguments, words) in [
        (&[][..], "no verb"),
        (&["tune"], "unknown verb 'tune'"),
        (&["check", "apply"], "one verb too many"),
        (&["check", "--fast"], "unknown argument '--fast'"),
        (&["check", "--profile"], "--profile needs a value"),
        (&["check", "--profile", "fast"], "there is no profile 'fast'"),
        (&["check", "--cores", "0;1"], "--cores takes numbers"),
        (&["check", "--cores", "9000"], "--cores"),
        (&["check", "--cores", "3-1"], "ranges that go up"),
        (&["check", "--cores", "18446744073709551616"], "--cores"),
        (&["check", "--disk", "data"], "a path from the root"),
        (&["check", "--only", "swapiness"], "there is no setting 'swapiness'"),
        (&["check", "--root", "/no/such/place"], "there is no directory"),
    ] {
        let ran = tune(arguments);
        assert!(ran.code == 2 && ran.stderr.contains(words) && ran.stderr.lines().count() == 1, "{arguments:?}: {ran:?}");
    }
    let machine = Machine::new();
    let beyond = tune(&["check", "--root", machine.root(), "--cores", "0-7"]);
    assert!(beyond.code == 2 && beyond.stderr.contains("core 4, which this machine does not have (it has 0-3)"), "{beyond:?}");
    let help = tune(&["--help"]).ok().text();
    assert!(help.contains("revert") && help.contains("Exit codes") && !help.contains("set -"), "{help}");
    assert_eq!(tune(&["list"]).ok().text().lines().count(), 21);
}
