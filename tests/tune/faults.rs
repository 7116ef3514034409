//! What goes wrong: a disk that is full, a run that is killed, a backup that is damaged, a file that somebody changed, a link that leads out of the copy, a
//! value that is refused. In each case what was there before is there again after `revert`, or it says that it is not and why.

use super::{DISK, LIMITS, Machine, STORE, script, tune};
use common::temp_dir;
use common::tool::{Ran, run_command};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

const BALANCE: &str = "etc/default/irqbalance";
const KEPT: &str = "var/lib/tramline-tune/files/%etc%default%irqbalance";
const ONLY: [&str; 2] = ["--only", "irqbalance"];

/// A run that is killed, with all that it started, where `program` is called with a path that ends in `last`: before it does anything, or after.
fn killed(machine: &Machine, program: &str, last: &str, before: bool, arguments: &[&str]) -> Ran {
    let dir = temp_dir("killer");
    let kill = format!("case \"$*\" in *{last}) kill -KILL 0 ;; esac\n");
    let call = format!("PATH=${{PATH#*:}}\n{program} \"$@\" || exit\n");
    let text = if before { format!("#!/bin/sh\n{kill}{call}") } else { format!("#!/bin/sh\n{call}{kill}") };
    fs::write(dir.path().join(program), text).expect("written");
    fs::set_permissions(dir.path().join(program), fs::Permissions::from_mode(0o755)).expect("executable");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").expect("a PATH"));
    let mut command = Command::new(script());
    command.args(["--root", machine.root()]).args(arguments).env("PATH", path).process_group(0);
    let ran = run_command(&mut command, b"");
    assert_eq!(ran.code, -1, "it came to the end: {ran:?}");
    ran
}

#[test]
fn a_backup_that_was_not_finished_is_none() {
    // A disk that takes small files and not the whole of this one; what is written there ends in the middle.
    let machine = Machine::new();
    machine.put(BALANCE, &"# a long explanation of what is set here\n".repeat(600));
    let before = machine.bytes();
    let full = "trap '' XFSZ; ulimit -f 24; exec \"$@\"";
    let applied =
        run_command(Command::new("sh").args(["-c", full, "sh"]).arg(script()).args(["--root", machine.root(), "apply"]).args(ONLY), b"");
    assert!(applied.code == 1 && applied.text().contains("could not be kept"), "{applied:?}");
    assert!(fs::read_dir(machine.at(STORE).join("files")).expect("a store").next().is_none(), "half of a backup is left");
    assert!(machine.run(&["revert"]).text().contains("nothing to revert"));
    assert_eq!(machine.bytes(), before);

    // The same by a kill; before a file is copied, and after.
    for before_copy in [true, false] {
        let machine = Machine::new();
        let before = machine.bytes();
        killed(&machine, "cp", "irqbalance.new/before", before_copy, &[&["apply"][..], &ONLY].concat());
        assert_eq!(machine.kept(), ["%etc%default%irqbalance.new"]);
        assert!(machine.run(&["revert", "--dry-run"]).text().contains("nothing to revert"));
        assert!(machine.run(&["revert"]).text().contains("nothing to revert"));
        assert_eq!((machine.bytes(), machine.kept()), (before, vec![]));
    }
}

#[test]
fn a_damaged_backup_is_told_and_not_put_back() {
    let machine = Machine::new();
    let before = machine.bytes();
    assert_eq!(machine.run(&["apply"]).code, 0);
    let after = machine.bytes();
    let value = "var/lib/tramline-tune/boot/%proc%sys%vm%swappiness";
    for (file, text) in
        [("before", Some("")), ("before", None), ("was", Some("absent\n")), ("path", None), ("setting", None), ("sum", Some("\n"))]
    {
        let all = [KEPT, value].map(|entry| format!("{entry}/{file}"));
        let whole = all.clone().map(|path| machine.text(&path));
        for path in &all {
            match text {
                Some(text) => machine.put(path, text),
                None => machine.remove(path),
            }
        }
        for verb in [&["revert", "--only", "irqbalance,swappiness"][..], &["apply", "--only", "irqbalance,swappiness", "--cores", "0"]] {
            let ran = machine.run(verb);
            let is_told = ran.text().contains("what is kept of it is damaged");
            assert!(ran.code == 1 && is_told && !ran.text().contains(" back  "), "{file} {verb:?}: {}", ran.text());
            assert_eq!(machine.text(BALANCE).as_bytes(), after[BALANCE], "{file}");
            assert_eq!(machine.text("proc/sys/vm/swappiness"), "1\n", "{file}");
        }
        all.iter().zip(&whole).for_each(|(path, text)| machine.put(path, text));
    }
    assert_eq!(machine.run(&["revert"]).code, 0);
    assert_eq!(machine.bytes(), before);
}

#[test]
fn owner_and_mode_of_a_file_and_a_link_to_it_are_kept() {
    let machine = Machine::new();
    machine.put("etc/ours/balance", &machine.text(BALANCE));
    machine.remove(BALANCE);
    machine.link(BALANCE, "../ours/balance");
    fs::set_permissions(machine.at("etc/ours/balance"), fs::Permissions::from_mode(0o640)).expect("a mode");
    let before = machine.bytes();
    for verb in ["apply", "revert"] {
        assert_eq!(machine.run(&[verb]).code, 0);
        let there = machine.bytes();
        assert_eq!((&there[BALANCE], there["etc/ours/balance"] == before["etc/ours/balance"]), (&before[BALANCE], verb == "revert"));
        assert_eq!(fs::metadata(machine.at(BALANCE)).expect("there").permissions().mode() & 0o777, 0o640);
    }
    assert_eq!(machine.bytes(), before);
}

#[test]
fn a_run_that_is_killed_between_two_lines_is_undone_or_finished() {
    for before_put in [true, false] {
        let machine = Machine::new();
        let before = machine.bytes();
        let kill =
            |cores: &str| killed(&machine, "mv", "default/irqbalance", before_put, &[&["apply", "--cores", cores][..], &ONLY].concat());
        kill("0-1");
        assert_eq!(machine.text(BALANCE).contains("CPULIST=0-1"), !before_put);
        assert_eq!(machine.run(&["revert"]).code, 0);
        assert_eq!(machine.bytes(), before);
        let limits = ["apply", "--only", "limits"];
        killed(&machine, "mv", "90-tramline.conf", before_put, &limits);
        assert_eq!((machine.run(&["revert"]).code, machine.bytes() == before), (0, true));
        // Over the result of a whole one; then finished by another, and undone.
        assert_eq!(machine.run(&["apply", "--cores", "0-2"]).code, 0);
        kill("0");
        let undone = machine.run(&["revert", "--dry-run", "--only", "irqbalance"]);
        assert!(undone.code == 0 && undone.text().contains("cp -p "), "{}", undone.text());
        kill("0-1");
        assert_eq!(machine.run(&["apply", "--cores", "1"]).code, 0);
        assert!(machine.text(BALANCE).contains("CPULIST=1\n"), "{}", machine.text(BALANCE));
        assert_eq!(machine.run(&["revert"]).code, 0);
        assert_eq!((machine.bytes(), machine.kept()), (before, vec![]));
    }
}

#[test]
fn a_change_by_hand_outlives_another_apply() {
    let machine = Machine::new();
    assert_eq!(machine.run(&["apply"]).code, 0);
    machine.put(BALANCE, &(machine.text(BALANCE).replace("BANNED_CPULIST=0-2", "BANNED_CPULIST=0-3") + "IRQBALANCE_ONESHOT=1\n"));
    machine.put(LIMITS, "# ours\n");
    let again = machine.run(&["apply", "--cores", "0-1"]);
    let limits = again.text().lines().find(|line| line.contains("90-tramline.conf")).unwrap_or_default().to_owned();
    assert!(again.code == 1 && limits.contains(" failed ") && limits.contains("it was changed since"), "{}", again.text());
    let theirs = machine.text(BALANCE);
    // What this script had written is gone from the line, what somebody added to it is not.
    assert!(theirs.contains("IRQBALANCE_BANNED_CPULIST=0-1,3\n") && theirs.ends_with("IRQBALANCE_ONESHOT=1\n"), "{theirs}");
    let reverted = machine.run(&["revert"]);
    assert_eq!((reverted.code, reverted.text().matches("it was changed since").count()), (1, 2), "{}", reverted.text());
    assert_eq!((machine.text(BALANCE), machine.text(LIMITS)), (theirs, "# ours\n".to_owned()));
}

#[test]
fn the_first_value_outlives_a_refusal() {
    let test = "the_first_value_outlives_a_refusal";
    let machine = Machine::new();
    let irq = "proc/irq/31/smp_affinity_list";
    let before = machine.bytes();
    assert_eq!(machine.run(&["apply"]).code, 0);
    let Some(applied) = machine.run_refused(test, &[irq], &["apply", "--cores", "0-1"]) else { return };
    let line = applied.text().lines().find(|line| line.contains("irq/31/")).unwrap_or_default().to_owned();
    assert!(applied.code == 0 && line.contains(" kept "), "{}", applied.text());
    assert_eq!((machine.text(irq), machine.run(&["check", "--cores", "0-1", "--only", "irq_disk"]).code), ("3\n".to_owned(), 0));
    // Taken at last, and then moved by somebody: that it was refused once is no reason any more.
    assert_eq!(machine.run(&["apply", "--cores", "0-1", "--only", "irq_disk"]).code, 0);
    machine.put(irq, "0\n");
    assert_eq!(machine.run(&["check", "--cores", "0-1", "--only", "irq_disk"]).code, 1);
    assert_eq!(machine.run(&["revert"]).code, 0);
    assert_eq!(machine.bytes(), before);
}

#[test]
fn a_link_out_of_the_copy_is_not_followed() {
    let outside = Machine::named("tune-outside");
    let there = outside.bytes();
    let dir = temp_dir("tune-empty");
    let lead = |machine: &Machine, path: &str, to: std::path::PathBuf| {
        machine.remove(path);
        symlink(to, machine.at(path)).expect("linked");
    };
    let machine = Machine::new();
    lead(&machine, "proc/sys/vm/swappiness", outside.at("proc/sys/vm/swappiness"));
    lead(&machine, "sys/block/nvme0n1", outside.at(DISK));
    lead(&machine, "sys/class/net/eth0/device", outside.at(super::CARD));
    lead(&machine, "etc/security/limits.d", dir.path().to_owned());
    lead(&machine, BALANCE, outside.at(BALANCE));
    let before = machine.bytes();
    let applied = machine.run(&["apply"]);
    for path in ["vm/swappiness", "nvme0n1/queue/scheduler", "90-tramline.conf", "class/net/eth0", "irqbalance:IRQBALANCE_BANNED_CPULIST"] {
        let line = applied.text().lines().find(|line| line.contains(path)).unwrap_or_default().to_owned();
        assert!(line.contains("leads out of ") && line.contains("nothing is read or written there"), "{path}: {}", applied.text());
    }
    assert_eq!((applied.code, machine.run(&["check"]).code, machine.text("proc/sys/kernel/numa_balancing")), (1, 1, "0\n".to_owned()));
    assert_eq!(machine.run(&["revert"]).code, 0);
    assert_eq!(machine.bytes(), before);
    // A link that came after the apply, and a store outside.
    assert_eq!(machine.run(&["apply", "--only", "numa_balancing"]).code, 0);
    lead(&machine, "proc/sys/kernel/numa_balancing", outside.at("proc/sys/kernel/numa_balancing"));
    let reverted = machine.run(&["revert"]);
    assert!(reverted.code == 1 && reverted.text().contains("leads out of "), "{}", reverted.text());
    lead(&machine, STORE, dir.path().to_owned());
    for verb in ["check", "apply", "revert"] {
        let ran = tune(&[verb, "--root", machine.root()]);
        assert!(ran.code == 2 && ran.stderr.contains("/var/lib/tramline-tune leads out of "), "{ran:?}");
    }
    assert!(outside.bytes() == there && fs::read_dir(dir.path()).expect("listed").next().is_none(), "written outside");
    // And the root by another name is no copy: what it prints names no path below a prefix.
    let real = tune(&["revert", "--dry-run", "--root", "//"]).text();
    assert!(!real.contains("//"), "{real}");
}

#[test]
fn a_store_that_takes_nothing_is_told() {
    let machine = Machine::new();
    fs::create_dir_all(machine.at(STORE).join("lock")).expect("made");
    let other = Machine::new();
    other.put(STORE, "");
    for machine in [machine, other] {
        let before = machine.bytes();
        let ran = tune(&["apply", "--root", machine.root()]);
        assert!(ran.code == 1 && ran.stderr.lines().count() == 1 && ran.stderr.contains("nothing was changed"), "{ran:?}");
        assert_eq!(machine.bytes(), before);
    }
}

#[test]
fn what_cannot_be_written_is_told_and_the_rest_is_done() {
    let machine = Machine::new();
    machine.remove("proc/sys/net/core/somaxconn");
    fs::create_dir(machine.at("proc/sys/net/core/somaxconn")).expect("a folder where a file should be");
    let test = "what_cannot_be_written_is_told_and_the_rest_is_done";
    let Some(applied) = machine.run_refused(test, &["proc/irq/31/smp_affinity_list", "proc/sys/vm/swappiness"], &["apply"]) else { return };
    let line = |name: &str| applied.text().lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert_eq!(applied.code, 1);
    assert!(line("vm/swappiness").contains(" failed ") && line("vm/swappiness").contains("refused"), "{}", applied.text());
    assert!(line("core/somaxconn").contains(" unknown ") && line("core/somaxconn").contains("cannot be read"), "{}", applied.text());
    assert!(line("irq/31/").contains(" kept ") && line("irq/31/").contains("the kernel does not let it be moved"), "{}", applied.text());
    assert_eq!(machine.text("proc/sys/kernel/numa_balancing"), "0\n");
    // An interrupt that the kernel keeps is no fault, and not asked for again and again; a value that was refused is.
    assert_eq!((machine.run(&["check", "--only", "irq_disk"]).code, machine.run(&["check", "--only", "swappiness"]).code), (0, 1));
    let reverted = machine.run(&["revert"]);
    assert_eq!((reverted.code, machine.kept()), (0, vec![]), "{}", reverted.text());
}

#[test]
fn a_file_that_somebody_changed_after_apply_stays_theirs() {
    let machine = Machine::new();
    assert_eq!(machine.run(&["apply"]).code, 0);
    let theirs = machine.text("etc/default/irqbalance") + "IRQBALANCE_ONESHOT=1\n";
    machine.put("etc/default/irqbalance", &theirs);
    let reverted = machine.run(&["revert"]);
    assert!(
        reverted.code == 1 && reverted.text().contains("put it back by hand from /var/lib/tramline-tune/files/"),
        "{}",
        reverted.text()
    );
    assert_eq!((machine.text("etc/default/irqbalance"), machine.text("proc/sys/vm/swappiness")), (theirs, "60\n".into()));
    assert_eq!(machine.kept(), ["%etc%default%irqbalance"]);
}
