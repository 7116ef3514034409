//! Facts from trees of files that no machine at hand has. Not here: what is judged of facts (`tests.rs`), whole machines (`tests/doctor.rs`).

use super::super::cores::{Cores, Set};
use super::super::disk::{Ground, Place};
use super::super::tree::Tree;
use super::super::{cpu, disk, interrupts, memory};
use super::{Bad, Fine, Unknown, cores, named, set, severity};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A copy with these files, and links as they are to be read from where they stand.
fn copy(files: &[(&str, &str)], links: &[(&str, &str)]) -> (TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let place = |path: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    files.iter().for_each(|(path, text)| fs::write(place(path), text).unwrap());
    links.iter().for_each(|(path, to)| symlink(to, place(path)).unwrap());
    let tree = Tree::open(dir.path()).unwrap();
    (dir, tree)
}

fn place_in(tree: &Tree) -> Place {
    Place::of(tree, &Ground::of(tree, Path::new("/var/lib/tramline")))
}

const MOUNTS: &str = "20 1 259:1 / / rw - ext4 /dev/x rw\n";

#[test]
fn the_paths_to_an_nvme_disk_that_the_kernel_puts_together_are_its_devices() {
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    let (dir, tree) = copy(
        &[
            ("proc/self/mountinfo", MOUNTS),
            (&format!("{subsystem}/nvme0n1/queue/scheduler"), "[none]"),
            (&format!("{subsystem}/nvme0n1/nvme0n1p1/partition"), "1"),
            (&format!("{subsystem}/nqn"), "x"),
            ("sys/devices/pci0000:00/0000:00:1d.0/numa_node", "1"),
            ("sys/devices/pci0000:00/0000:00:1d.0/msi_irqs/30", "msix"),
            ("sys/devices/pci0000:80/0000:80:01.0/numa_node", "-1"),
            ("sys/devices/pci0000:80/0000:80:01.0/msi_irqs/31", "msix"),
            ("proc/irq/30/smp_affinity_list", "0"),
            ("proc/irq/31/smp_affinity_list", "3"),
            ("sys/devices/system/node/node0/cpulist", "0-1"),
            ("sys/devices/system/node/node1/cpulist", "2-3"),
            ("sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0/model", "x"),
            ("sys/devices/pci0000:80/0000:80:01.0/nvme/nvme1/model", "x"),
        ],
        &[
            ("sys/dev/block/259:1", "../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p1"),
            (&format!("{subsystem}/nvme0"), "../../../pci0000:00/0000:00:1d.0/nvme/nvme0"),
            (&format!("{subsystem}/nvme1"), "../../../pci0000:80/0000:80:01.0/nvme/nvme1"),
        ],
    );
    let place = place_in(&tree);
    assert_eq!(place.disks.iter().map(|disk| (disk.name.as_str(), disk.numa_nodes.clone())).collect::<Vec<_>>(), [("nvme0n1", set(&[1]))]);
    let facts = interrupts::Facts::gather(&tree, &place, &[]);
    assert_eq!(facts.devices[0].irqs, [(30, set(&[0])), (31, set(&[3]))]);
    let nodes = |shards: &[usize]| {
        let cores = Cores { shards: set(shards), ..cores() };
        severity(&cpu::judge(&cpu::Facts::gather(&tree, &cores, &place_in(&tree), &[]), &cores), "memory nodes")
    };
    assert_eq!([nodes(&[2, 3]), nodes(&[0, 1])], [Fine, super::Warn]);
    // Nobody tells where the disk is.
    fs::remove_file(dir.path().join("sys/devices/pci0000:00/0000:00:1d.0/numa_node")).unwrap();
    assert_eq!(nodes(&[2, 3]), Unknown);
}

#[test]
fn a_machine_without_memory_nodes_says_nothing_about_them() {
    let (_dir, tree) = copy(&[], &[]);
    let judged = cpu::judge(&cpu::Facts::gather(&tree, &cores(), &Place::default(), &[]), &cores());
    assert_eq!(severity(&judged, "memory nodes"), Unknown);
}

#[test]
fn stacks_that_lead_to_each_other_end() {
    let (_dir, tree) = copy(
        &[("proc/self/mountinfo", MOUNTS), ("sys/devices/sda/queue/scheduler", "none"), ("sys/devices/sda/sda1/partition", "1")],
        &[
            ("sys/dev/block/259:1", "../../devices/dm-0"),
            ("sys/devices/dm-0/slaves/dm-1", "../../dm-1"),
            ("sys/devices/dm-0/slaves/sda1", "../../sda/sda1"),
            ("sys/devices/dm-1/slaves/dm-0", "../../dm-0"),
            ("sys/devices/dm-1/slaves/sda", "../../sda"),
        ],
    );
    assert_eq!(place_in(&tree).disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["sda"]);
}

#[test]
fn the_ports_interrupt_is_not_the_cards() {
    let port = "sys/devices/pci0000:00/0000:00:1c.0";
    let card = format!("{port}/0000:01:00.0");
    let (dir, tree) = copy(
        &[
            (&format!("{port}/msi_irqs/24"), "msi"),
            (&format!("{card}/vendor"), "x"),
            ("proc/irq/24/smp_affinity_list", "0"),
            ("proc/irq/11/smp_affinity_list", "2"),
        ],
        &[("sys/class/net/eth0/device", "../../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0")],
    );
    let irqs = || interrupts::Facts::gather(&tree, &Place::default(), &["eth0".to_owned()]).devices.remove(0).irqs;
    assert_eq!(irqs(), []);
    // Its own line, and none.
    fs::write(dir.path().join(&card).join("irq"), "11\n").unwrap();
    assert_eq!(irqs(), [(11, set(&[2]))]);
    fs::write(dir.path().join(&card).join("irq"), "0\n").unwrap();
    assert_eq!(irqs(), []);
}

#[test]
fn irqbalance_is_absent_only_where_it_could_be_seen() {
    let running = |files: &[(&str, &str)]| interrupts::Facts::gather(&copy(files, &[]).1, &Place::default(), &[]).irqbalance.is_running;
    assert_eq!(running(&[("proc/2/comm", "kthreadd\n"), ("proc/70/comm", "bash\n")]), Some(false));
    assert_eq!(running(&[("proc/2/comm", "kthreadd\n"), ("proc/70/comm", "irqbalance\n")]), Some(true));
    assert_eq!(running(&[("proc/70/comm", "irqbalance\n")]), Some(true));
    // hidepid; a container, whose second process is anybody; a copy of the settings alone.
    assert_eq!(running(&[("proc/70/comm", "bash\n")]), None);
    assert_eq!(running(&[("proc/1/comm", "sh\n"), ("proc/2/comm", "sh\n")]), None);
    assert_eq!(running(&[("proc/interrupts", "")]), None);
}

#[test]
fn what_has_the_directorys_name_and_is_none_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let tree = Tree::open(Path::new("/")).unwrap();
    fs::write(root.join("file"), "x").unwrap();
    fs::create_dir(root.join("real")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("round", root.join("round")).unwrap();
    symlink("real", root.join("good")).unwrap();
    let ground = |path: &str| Ground::of(&tree, &root.join(path));
    for (path, dir) in [("real", "real"), ("good", "good"), ("good/a/b", "good"), ("new", "")] {
        let dir: PathBuf = root.join(dir).components().collect();
        assert_eq!(ground(path), Ground { dir, in_the_way: None }, "{path}");
        assert_eq!(disk::judge_ground(&ground(path)), []);
    }
    for (path, what) in [("file", "file"), ("file/a/b", "file"), ("dangling", "dangling"), ("dangling/a", "dangling"), ("round/a", "round")]
    {
        let judged = disk::judge_ground(&ground(path));
        let found = named(&judged, "data directory");
        assert!(found.severity == Bad && found.found.contains(&root.join(what).display().to_string()), "{path}: {found:?}");
    }
    // Of a copy the directory is only a name.
    let (_copy, tree) = copy(&[], &[]);
    assert_eq!(Ground::of(&tree, &root.join("file")).in_the_way, None);
}

#[test]
fn all_that_mountinfo_escapes_is_read_once() {
    let point =
        |escaped: &str| disk::mount_of(&format!("20 1 8:1 / {escaped} rw - ext4 /dev/a rw\n"), Path::new("/")).map(|mount| mount.point);
    // Not above `/`, so it is no mount of it.
    assert_eq!(point("/a\\040b"), None);
    let of = |escaped: &str, path: &str| {
        let table = format!("19 1 8:9 / / rw - ext4 /dev/r rw\n20 1 8:1 / {escaped} rw - ext4 /dev/a rw\n");
        disk::mount_of(&table, Path::new(path)).map(|mount| mount.device)
    };
    for (escaped, path) in [
        ("/a\\040b", "/a b/c"),
        ("/a\\011b", "/a\tb"),
        ("/a\\012b", "/a\nb"),
        ("/a\\134b", "/a\\b"),
        ("/a\\043b", "/a#b"),
        ("/a\\134040b", "/a\\040b"),
        ("/\\303\\244", "/\u{e4}"),
        ("/a\\9", "/a\\9"),
        ("/a\\04", "/a\\04"),
    ] {
        assert_eq!(of(escaped, path).as_deref(), Some("8:1"), "{escaped}");
    }
    assert_eq!(of("/a\\134040b", "/a b").as_deref(), Some("8:9"));
}

#[test]
fn what_is_left_is_counted_from_what_a_node_may_run_on() {
    let placement = |allowed: &[usize], shards: &[usize], shell: &[usize]| {
        let cores = Cores { online: set(&[0, 1, 2, 3]), allowed: set(allowed), shards: set(shards), shell: set(shell) };
        let judged = cpu::judge(&cpu::Facts::default(), &cores);
        let told = judged.iter().filter(|finding| finding.name == "affinity").count();
        (named(&judged, "placement").severity, named(&judged, "placement").found.clone(), told)
    };
    assert_eq!(placement(&[0, 1, 2, 3], &[0, 1, 2], &[0, 1, 2, 3]), (Fine, "shards on 0-2, 3 left".to_owned(), 0));
    // A shell that is kept off them says nothing about the node.
    assert_eq!(placement(&[0, 1, 2, 3], &[0, 1, 2], &[3]), (Fine, "shards on 0-2, 3 left".to_owned(), 1));
    // A node that may not run on core 0.
    assert_eq!(placement(&[1], &[1], &[]), (super::Note, "shards on 1, none is left".to_owned(), 0));
    assert_eq!(placement(&[1, 2], &[0, 1], &[]).0, Bad);
    let none: Set = Set::new();
    assert_eq!(Cores::default().left(), none);
}

#[test]
fn free_pages_are_reported_where_a_balloons_driver_agreed_to_it() {
    let reports = |files: &[(&str, &str)]| memory::Facts::gather(&copy(files, &[]).1).reports_free_pages;
    let [other, balloon] = ["sys/bus/virtio/devices/virtio0", "sys/bus/virtio/devices/virtio1"];
    let machine = |device: &str, features: &str, is_driven: bool| {
        let files = [
            (format!("{other}/device"), "0x0002\n"),
            (format!("{other}/features"), "111111\n"),
            (format!("{other}/driver/uevent"), ""),
            (format!("{balloon}/device"), device),
            (format!("{balloon}/features"), features),
            (format!("{balloon}/driver/uevent"), ""),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        reports(&files[..if is_driven { 6 } else { 5 }])
    };
    assert_eq!(machine("0x0005\n", "011001\n", true), Some(true));
    assert_eq!(machine("0x0005\n", "011000\n", true), Some(false), "the host does not offer it");
    assert_eq!(machine("0x0005\n", "011001\n", false), Some(false), "nobody drives it");
    assert_eq!(machine("0x0005\n", "011\n", true), Some(false));
    assert_eq!([machine("0x0005\n", "", true), machine("0x0005\n", "yes\n", true)], [None, None], "what was agreed on?");
    assert_eq!(machine("0x0004\n", "011001\n", true), Some(false), "that is no balloon");
    assert_eq!(reports(&[("sys/bus/pci/drivers_autoprobe", "1")]), Some(false));
    assert_eq!(reports(&[("proc/stat", "")]), None);
    // A copy of the links alone.
    let (_dir, tree) = copy(&[("sys/bus/pci/drivers_autoprobe", "1")], &[(balloon, "../../../devices/pci0000:00/0000:00:01.0/virtio1")]);
    assert_eq!(memory::Facts::gather(&tree).reports_free_pages, None);
}
