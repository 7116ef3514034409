//! Tests of the data directory: first starts, starts on what is there, and everything that is refused.

use super::*;
use crate::ids::{LogIndex, ReplicaId, Term};

/// As a node that begins a cluster.
fn open(path: &Path, wanted: &Wanted) -> Result<DataDir, DataDirError> {
    match Found::at(path, wanted)? {
        Found::Known(dir) => Ok(dir),
        Found::Empty(dir) => dir.begin_cluster(),
    }
}

fn empty(path: &Path, wanted: &Wanted) -> EmptyDir {
    match Found::at(path, wanted).unwrap() {
        Found::Known(dir) => panic!("{dir:?}"),
        Found::Empty(dir) => dir,
    }
}

fn told() -> Joined {
    Joined {
        cluster_id: [7; 16],
        generation: 3,
        index: LogIndex(9),
        term: Term(2),
        voters: vec![ReplicaId(1)],
        learners: Vec::new(),
        state: vec![1, 2, 3],
    }
}

fn wanted(shards: u16) -> Wanted {
    Wanted { node: NodeId(1), shards, groups_per_shard: 4, first_start_bytes: 1 << 20, lock_wait: Duration::ZERO }
}

#[test]
fn the_first_start_makes_it_and_later_ones_find_the_same_identity() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b");
    let first = open(&path, &wanted(2)).unwrap();
    assert!(first.is_new() && first.shard_dir(ShardId(1)).is_dir());
    assert_ne!(first.identity().cluster_id, [0; 16]);
    assert!(first.identity().disk != 0 && first.identity().generation == 0 && first.joined().is_none());
    let identity = first.identity().clone();
    drop(first);
    let second = open(&path, &wanted(2)).unwrap();
    assert!(!second.is_new());
    assert_eq!(*second.identity(), identity);
}

#[test]
fn a_directory_in_use_is_refused_until_the_last_handle_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path(), &wanted(1)).unwrap();
    let handle = first.lock_handle().unwrap();
    let refusal = open(root.path(), &wanted(1)).unwrap_err().to_string();
    assert!(refusal.contains(&format!("in use by process {}", std::process::id())), "{refusal}");
    drop(first);
    assert!(matches!(open(root.path(), &wanted(1)), Err(DataDirError::InUse { .. })), "a ring may hold a handle");
    drop(handle);
    open(root.path(), &wanted(1)).unwrap();
}

#[test]
fn a_lock_given_up_while_waiting_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path(), &wanted(1)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| open(root.path(), &Wanted { lock_wait: Duration::from_secs(60), ..wanted(1) }).map(|_| ()));
        drop(first);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn other_numbers_and_versions_are_refused_with_the_way_out() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path(), &wanted(2)).unwrap());
    let shards = open(root.path(), &wanted(3)).unwrap_err().to_string();
    assert!(shards.contains("made with 2 shards") && shards.contains("--shards 2"), "{shards}");
    let groups = open(root.path(), &Wanted { groups_per_shard: 8, ..wanted(2) }).unwrap_err().to_string();
    assert!(groups.contains("groups.per.shard=4"), "{groups}");
    let node = open(root.path(), &Wanted { node: NodeId(2), ..wanted(2) }).unwrap_err().to_string();
    assert!(node.contains("belongs to node 1, this start is to be node 2; start with --node-id 1"), "{node}");
    fs::write(root.path().join("node"), "version = 1\nnode = 1\n").unwrap();
    let older = open(root.path(), &wanted(2)).unwrap_err().to_string();
    assert!(older.contains("layout version 1") && older.contains("start it with the tramline that wrote it"), "{older}");
    fs::write(root.path().join("node"), "version = 9\nsomething_new = true\n").unwrap();
    let version = open(root.path(), &wanted(2)).unwrap_err().to_string();
    assert!(version.contains("layout version 9"), "{version}");
}

#[test]
fn damaged_identities_are_refused() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path(), &wanted(1)).unwrap());
    let good = fs::read_to_string(root.path().join("node")).unwrap();
    for (from, to, expected) in [
        ("cluster = \"", "cluster = \"zz", "hexadecimal"),
        ("shards = 1", "shards = 0", "'shards' is out of range"),
        ("node = 1", "node = \"one\"", "'node' is missing or no number"),
        ("node = 1", "nodes = 1", "'nodes' is not known"),
        ("node = 1", "node = 0", "'node' is out of range"),
        ("disk = \"", "disk = \"0", "'disk' is not 16 hexadecimal digits"),
        ("generation = 0", "generation = -1", "'generation' is missing or no number"),
        ("version = 2", "version 2", "cannot be used"),
    ] {
        fs::write(root.path().join("node"), good.replacen(from, to, 1)).unwrap();
        let refusal = open(root.path(), &wanted(1)).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    fs::write(root.path().join("node"), [0xff, 0xfe, 0x00]).unwrap();
    assert!(open(root.path(), &wanted(1)).unwrap_err().to_string().contains("it is not text"));
}

#[test]
fn foreign_directories_are_refused_and_an_interrupted_first_start_is_finished() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("holiday.jpg"), "x").unwrap();
    let refusal = open(root.path(), &wanted(1)).unwrap_err().to_string();
    assert!(refusal.contains("'holiday.jpg'") && refusal.contains("choose an empty directory"), "{refusal}");
    fs::remove_file(root.path().join("holiday.jpg")).unwrap();
    fs::write(root.path().join("node.new"), "vers").unwrap();
    // Those of tests of the disk, which may run beside it.
    fs::write(root.path().join(".tramline-probe-7"), "x").unwrap();
    fs::write(root.path().join(".tramline-doctor-7"), "x").unwrap();
    fs::create_dir(root.path().join("shard-0")).unwrap();
    drop(open(root.path(), &wanted(1)).unwrap());
    fs::write(root.path().join("shard-0/manifest"), "x").unwrap();
    fs::remove_file(root.path().join("node")).unwrap();
    assert!(matches!(open(root.path(), &wanted(1)), Err(DataDirError::Foreign { .. })), "data without identity");
}

#[test]
fn a_file_in_the_way_and_missing_space_are_told() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let refusal = open(&path, &wanted(1)).unwrap_err().to_string();
        assert!(refusal.contains("a file is in the way"), "{refusal}");
    }
    let greedy = Wanted { first_start_bytes: u64::MAX >> 1, ..wanted(1) };
    let refusal = open(&root.path().join("new"), &greedy).unwrap_err().to_string();
    assert!(refusal.contains("MiB are free") && refusal.contains("lower segment.bytes"), "{refusal}");
}

#[test]
fn a_node_that_joins_keeps_what_it_was_told() {
    let root = tempfile::tempdir().unwrap();
    let wanted = Wanted { node: NodeId(2), ..wanted(2) };
    let dir = empty(root.path(), &wanted);
    let disk = dir.disk_to_join_as().unwrap();
    let dir = dir.join(disk, told(), &told().encode()).unwrap();
    let identity = dir.identity().clone();
    assert_eq!((identity.node, identity.cluster_id, identity.disk, identity.generation), (NodeId(2), [7; 16], disk, 3));
    assert!(dir.is_new() && dir.shard_dir(ShardId(1)).is_dir() && !root.path().join("joining").exists());
    drop(dir);
    // As a crash before the last step leaves it.
    fs::write(root.path().join("joining"), "").unwrap();
    let again = open(root.path(), &wanted).unwrap();
    assert_eq!((again.identity(), again.joined().as_deref()), (&identity, Some(&told())));
    assert!(!root.path().join("joining").exists());
}

#[test]
fn a_crash_while_joining_is_followed_by_joining_as_the_same_disk() {
    let root = tempfile::tempdir().unwrap();
    let disk = empty(root.path(), &wanted(1)).disk_to_join_as().unwrap();
    // Before the call, after it, and between the two files.
    let told_before = Joined { cluster_id: [8; 16], ..told() }.encode();
    for leftovers in [&[][..], &[("joined.new", &b"TL"[..])], &[("joined", &told_before[..]), ("node.new", b"vers")]] {
        leftovers.iter().for_each(|(name, bytes)| fs::write(root.path().join(name), bytes).unwrap());
        assert_eq!(empty(root.path(), &wanted(1)).disk_to_join_as().unwrap(), disk);
        let refusal = open(root.path(), &wanted(1)).unwrap_err().to_string();
        assert!(refusal.contains("start with --join again"), "{refusal}");
    }
    let dir = empty(root.path(), &wanted(1)).join(disk, told(), &told().encode()).unwrap();
    assert_eq!((dir.identity().disk, dir.identity().cluster_id), (disk, [7; 16]));
    drop(dir);
    assert_eq!(open(root.path(), &wanted(1)).unwrap().joined().as_deref(), Some(&told()));
}

#[test]
fn what_the_cluster_told_is_refused_where_it_is_damaged_or_of_another() {
    let root = tempfile::tempdir().unwrap();
    let dir = empty(root.path(), &wanted(1));
    let disk = dir.disk_to_join_as().unwrap();
    drop(dir.join(disk, told(), &told().encode()).unwrap());
    let mut damaged = told().encode();
    *damaged.last_mut().unwrap() ^= 1;
    let other_cluster = Joined { cluster_id: [9; 16], ..told() }.encode();
    let other_life = Joined { generation: 4, ..told() }.encode();
    for (bytes, expected) in
        [(damaged, "damaged"), (other_cluster, "in cluster 0909"), (other_life, "it is about generation 4"), (Vec::new(), "damaged")]
    {
        fs::write(root.path().join("joined"), bytes).unwrap();
        let refusal = open(root.path(), &wanted(1)).unwrap_err().to_string();
        assert!(refusal.contains(expected) && refusal.contains("join again on an empty --data-dir"), "{refusal}");
    }
    fs::write(root.path().join("joining"), "disk = \"0000000000000000\"\n").unwrap();
    fs::remove_file(root.path().join("node")).unwrap();
    let refusal = empty(root.path(), &wanted(1)).disk_to_join_as().unwrap_err().to_string();
    assert!(refusal.contains("joining cannot be used: 'disk' is out of range"), "{refusal}");
}
