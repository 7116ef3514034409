//! Machines of other kinds: another owner's settings of irqbalance, disks and cards that stand elsewhere in the tree, many cores, a data directory by
//! another name. And what a dry run prints, done by hand.

use super::{CARD, DISK, LIMITS, Machine, STORE, script, tune};
use common::temp_dir;
use common::tool::run_command;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

const BALANCE: &str = "etc/default/irqbalance";

#[test]
fn what_a_dry_run_prints_does_the_same_by_hand() {
    let (by_hand, by_script) = (Machine::named("tune sp'ace"), Machine::new());
    let before = by_hand.text(BALANCE);
    let arguments = ["apply", "--only", "irqbalance,limits,swappiness,disk_queue"];
    for cores in ["0-1", "0-2"] {
        let told = by_hand.run(&[&arguments[..], &["--cores", cores, "--dry-run"]].concat()).text();
        let commands = told.split("SETTING ").next().expect("a table behind them");
        let shell = run_command(&mut Command::new("bash"), commands.as_bytes());
        assert!(shell.code == 0 && shell.stderr.is_empty(), "{shell:?}\n{commands}");
        by_script.run(&[&arguments[..], &["--cores", cores]].concat());
        for path in [BALANCE, LIMITS, "proc/sys/vm/swappiness"] {
            assert_eq!(by_hand.text(path), by_script.text(path), "{path}");
        }
        assert_eq!(by_hand.text(&format!("{DISK}/queue/scheduler")), "none\n");
        assert_eq!(by_hand.text(&format!("{STORE}/by-hand/%etc%default%irqbalance")), before, "the first state");
    }
    // And back, from what the script keeps.
    by_script.run(&["revert", "--only", "disk_queue"]);
    let told = by_script.run(&["revert", "--dry-run"]).text();
    let shell = run_command(&mut Command::new("bash"), told.split("SETTING ").next().expect("a table").as_bytes());
    assert!(shell.code == 0 && shell.stderr.is_empty(), "{shell:?}\n{told}");
    assert_eq!((by_script.text(BALANCE), by_script.at(LIMITS).exists()), (before, false));
}

#[test]
fn what_the_owner_of_irqbalance_has_set_stays() {
    let machine = Machine::new();
    let line = |name: &str| {
        let text = machine.text(BALANCE);
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default().to_owned()
    };
    let cores = || line("IRQBALANCE_BANNED_CPULIST");
    machine.put(BALANCE, "IRQBALANCE_BANNED_CPULIST=\"3\"\nIRQBALANCE_ARGS=\"--banmod=* -x\\\\t --banirq=31\"\n");
    let before = machine.bytes();
    for (shards, banned) in [("3", "\"3\""), ("0-2", "0-3"), ("0", "0,3"), ("0-1", "0-1,3")] {
        let applied = machine.run(&["apply", "--cores", shards]);
        assert_eq!((applied.code, cores()), (0, banned.to_owned()), "{}", applied.text());
        assert_eq!(machine.run(&["check", "--cores", shards]).code, 0);
    }
    // Neither what is a pattern for the shell, in a folder where it fits, nor what is an escape for awk.
    assert_eq!(line("IRQBALANCE_ARGS"), "\"--banmod=* -x\\\\t --banirq=31 --banirq=100 --banirq=40 --banirq=41\"");
    let dir = temp_dir("tune-names");
    fs::write(dir.path().join("--banmod=x"), "").expect("written");
    let checked = run_command(Command::new(script()).current_dir(&dir).args(["check", "--cores", "0-1", "--root", machine.root()]), b"");
    assert_eq!(checked.code, 0, "{}", checked.text());
    assert_eq!(machine.run(&["revert"]).code, 0);
    assert_eq!(machine.bytes(), before);

    // What this script cannot read it does not replace.
    machine.put(BALANCE, "IRQBALANCE_BANNED_CPULIST=isolated\nIRQBALANCE_ARGS=\"--a\" '--b'\n");
    let before = machine.bytes();
    let applied = machine.run(&["apply", "--only", "irqbalance"]);
    assert_eq!((applied.code, applied.text().matches(" advice ").count()), (0, 2), "{}", applied.text());
    assert_eq!(machine.bytes(), before);
}

#[test]
fn the_data_directory_is_found_by_any_name() {
    let machine = Machine::new();
    machine.put("proc/self/mountinfo", "20 1 0:20 / / rw - tmpfs x rw\n30 20 259:1 / /fast rw - xfs y rw\n");
    machine.link("var/lib/tramline", "../../fast/data");
    machine.link("srv", "var/lib");
    for disk in ["/var/lib/tramline", "/srv/tramline", "/var/lib/../../fast/data", "/fast"] {
        let checked = machine.run(&["check", "--only", "irq_disk", "--disk", disk]);
        assert!(checked.code == 1 && checked.text().contains("irq/31/"), "{disk}: {}", checked.text());
    }
    let beside = machine.run(&["check", "--only", "irq_disk", "--disk", "/fast/../data"]);
    assert!(beside.text().contains("/data is on no block device (device number 0:20)"), "{}", beside.text());
    // On the machine itself, with what it has in any case.
    let dir = temp_dir("tune-link");
    symlink("/proc", dir.path().join("data")).expect("linked");
    let link = dir.path().join("data/self");
    let real = tune(&["check", "--only", "irq_disk", "--disk", link.to_str().expect("UTF-8")]).text();
    assert!(real.contains("/proc/") && real.contains("is on no block device"), "{real}");
}

#[test]
fn interrupts_of_disks_and_cards_that_stand_elsewhere_are_found() {
    // A disk that two controllers lead to stands below neither.
    let machine = Machine::new();
    let whole = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    let second = "sys/devices/pci0000:00/0000:00:1c.0";
    for (file, text) in [("scheduler", "[none]\n"), ("nomerges", "0\n"), ("rq_affinity", "0\n")] {
        machine.put(&format!("{whole}/nvme0n1/queue/{file}"), text);
    }
    machine.put(&format!("{second}/msi_irqs/52"), "msix\n");
    machine.put("proc/irq/52/smp_affinity_list", "0-3\n");
    machine.link(&format!("{whole}/nvme0"), "../../../pci0000:00/0000:00:1d.0/nvme/nvme0");
    machine.link(&format!("{whole}/nvme1"), "../../../pci0000:00/0000:00:1c.0/nvme/nvme1");
    fs::create_dir_all(machine.at(second).join("nvme/nvme1")).expect("made");
    machine.remove("sys/block/nvme0n1");
    machine.remove("sys/dev/block/259:1");
    machine.link("sys/block/nvme0n1", &format!("../../{whole}/nvme0n1"));
    machine.link("sys/dev/block/259:1", &format!("../../../{whole}/nvme0n1"));
    assert_eq!(machine.run(&["apply", "--only", "irq_disk"]).code, 0);
    assert_eq!(
        ["31", "100", "52", "30"].map(|irq| machine.text(&format!("proc/irq/{irq}/smp_affinity_list"))),
        ["3\n", "3\n", "3\n", "0-3\n"]
    );

    // A card without messages: its own line, or none, and not the interrupts of the port above it.
    let machine = Machine::new();
    let card = format!("{CARD}/0000:02:00.0");
    machine.put(&format!("{card}/irq"), "19\n");
    machine.put("proc/irq/19/smp_affinity_list", "0-3\n");
    machine.remove("sys/class/net/eth0/device");
    machine.link("sys/class/net/eth0/device", &format!("../../../../{card}"));
    assert_eq!(machine.run(&["apply", "--only", "irq_net"]).code, 0);
    assert_eq!(["19", "40", "41"].map(|irq| machine.text(&format!("proc/irq/{irq}/smp_affinity_list"))), ["3\n", "0-3\n", "0-3\n"]);
    machine.put(&format!("{card}/irq"), "0\n");
    assert!(machine.run(&["check", "--only", "irq_net"]).text().contains("no interrupts of eth0 were found"));

    // By a root that is a link with a longer name than what it leads to.
    let dir = temp_dir("tune-root");
    let link = dir.path().join("a-name-that-is-longer-than-the-whole-path-of-the-copy-that-it-leads-to-".repeat(3));
    symlink(machine.root(), &link).expect("linked");
    let checked = tune(&["check", "--only", "irq_disk", "--root", link.to_str().expect("UTF-8")]).text();
    assert!(checked.contains("irq/31/"), "{checked}");
}

#[test]
fn stacks_in_a_ring_end_and_a_file_as_a_disk_does_not_turn() {
    let machine = Machine::new();
    machine.remove("sys/dev/block/259:1");
    machine.link("sys/dev/block/259:1", "../../devices/virtual/block/dm-0");
    machine.link("sys/devices/virtual/block/dm-0/slaves/dm-1", "../../dm-1");
    machine.link("sys/devices/virtual/block/dm-1/slaves/dm-0", "../../dm-0");
    let checked = machine.run(&["check", "--only", "irq_disk"]);
    assert!(checked.code == 0 && checked.text().contains("the disks below device 259:1 were not found"), "{}", checked.text());
    machine.remove("sys/devices/virtual/block/dm-1/slaves/dm-0");
    machine.put("sys/devices/virtual/block/loop3/queue/scheduler", "none [mq-deadline]\n");
    machine.put("sys/devices/virtual/block/loop3/queue/rotational", "1\n");
    machine.link("sys/devices/virtual/block/dm-1/slaves/loop3", "../../loop3");
    machine.link("sys/block/loop3", "../devices/virtual/block/loop3");
    assert_eq!(machine.run(&["apply", "--only", "disk_queue"]).code, 0);
    assert_eq!(machine.text("sys/devices/virtual/block/loop3/queue/scheduler"), "[none] mq-deadline\n");
}

#[test]
fn no_more_cores_are_the_shards_than_a_node_can_have() {
    let machine = Machine::new();
    machine.put("sys/devices/system/cpu/online", "0-299\n");
    let checked = machine.run(&["check", "--only", "boot"]);
    assert!(checked.text().contains("nohz_full=0-255 "), "{}", checked.text());
}
