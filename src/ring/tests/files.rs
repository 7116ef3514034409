//! Files with direct I/O: what is written is read, names change, errors are told, handles come and go.

use super::*;
use crate::bytes::Slab;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

fn name(s: &str) -> Arc<str> {
    Arc::from(s)
}

fn op(bench: &mut Bench, op: FileOp) -> Result<(), i32> {
    bench.ring.file_op(Token(77), op);
    match bench.io(Token(77)) {
        Outcome::File(result) => result,
        other => panic!("{other:?}"),
    }
}

fn bytes(slab: &mut Slab, content: &[u8]) -> Bytes {
    let mut buf = slab.take(content.len()).unwrap();
    buf.as_mut_slice().copy_from_slice(content);
    slab.freeze(buf)
}

#[test]
fn a_file_is_made_written_read_renamed_removed() {
    let mut bench = Bench::new();
    let mut slab = Slab::new(16 << 20);
    let id = FileId(5);
    assert_eq!(op(&mut bench, FileOp::Create { file: id, name: name("a"), len_bytes: 1 << 20 }), Ok(()));
    assert_eq!(std::fs::metadata(bench.dir.path().join("a")).unwrap().len(), 1 << 20);
    // Out of order and several at once.
    let content: Vec<Vec<u8>> = (0..8).map(|i| pattern(65_536, i)).collect();
    for i in (0..8u64).rev() {
        let data = bytes(&mut slab, &content[i as usize]);
        bench.ring.write(Token(i), id, i * 65_536, data);
    }
    assert_eq!((bench.ring.in_flight_ops(), bench.ring.in_flight_writes()), (8, 8));
    let mut done = [false; 8];
    for _ in 0..8 {
        match bench.next() {
            Completion::Io { token, outcome: Outcome::Write(Ok(65_536)) } => {
                assert!(!std::mem::replace(&mut done[token.0 as usize], true), "{token:?} came twice");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((bench.ring.in_flight_ops(), bench.ring.in_flight_writes()), (0, 0));
    assert_eq!(slab.lent_bytes(), 0);
    assert_eq!(op(&mut bench, FileOp::Rename { from: name("a"), to: name("b") }), Ok(()));
    assert_eq!(op(&mut bench, FileOp::SyncDir), Ok(()));
    assert!(!bench.dir.path().join("a").exists());
    // The handle stays on the renamed file.
    let buf = slab.take(65_536).unwrap();
    bench.ring.read(Token(9), id, 3 * 65_536, buf);
    match bench.io(Token(9)) {
        Outcome::Read(buf, Ok(65_536)) => assert!(buf.as_slice() == content[3]),
        other => panic!("{other:?}"),
    }
    assert_eq!(op(&mut bench, FileOp::Remove { name: name("b") }), Ok(()));
    assert!(!bench.dir.path().join("b").exists());
    let buf = slab.take(4096).unwrap();
    bench.ring.read(Token(10), id, 0, buf);
    assert!(matches!(bench.io(Token(10)), Outcome::Read(_, Ok(4096))), "an open handle outlives its name");
    assert_eq!(op(&mut bench, FileOp::Close { file: id }), Ok(()));
    assert_eq!(op(&mut bench, FileOp::Close { file: id }), Err(libc::EBADF));
}

#[test]
fn two_names_are_exchanged_at_once() {
    let mut bench = Bench::new();
    for (number, text) in [(1, "a"), (2, "b")] {
        assert_eq!(op(&mut bench, FileOp::Create { file: FileId(number), name: name(text), len_bytes: number * 4096 }), Ok(()));
    }
    let exchange = || FileOp::Exchange { first: name("a"), second: name("b") };
    match op(&mut bench, exchange()) {
        Ok(()) => {
            let len = |name| std::fs::metadata(bench.dir.path().join(name)).unwrap().len();
            assert_eq!((len("a"), len("b")), (8192, 4096));
        }
        // Not every file system that tests may run on can.
        Err(errno) => assert!(matches!(errno, libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP), "{errno}"),
    }
    assert_eq!(op(&mut bench, FileOp::Remove { name: name("b") }), Ok(()));
    assert_eq!(op(&mut bench, exchange()), Err(libc::ENOENT), "both have to be there");
}

#[test]
fn a_cut_file_is_shorter_and_goes_on_where_the_kernel_can_cut() {
    let mut bench = Bench::new();
    let file = FileId(1);
    assert_eq!(op(&mut bench, FileOp::Cut { file, len_bytes: 0 }), Err(libc::EBADF));
    assert_eq!(op(&mut bench, FileOp::Create { file, name: name("a"), len_bytes: 1 << 20 }), Ok(()));
    // The operation came with 6.9; an older kernel says EINVAL, and the log removes the file whole.
    match op(&mut bench, FileOp::Cut { file, len_bytes: 65_536 }) {
        Ok(()) => assert_eq!(std::fs::metadata(bench.dir.path().join("a")).unwrap().len(), 65_536),
        Err(errno) => assert_eq!(errno, libc::EINVAL),
    }
    let mut slab = Slab::new(1 << 20);
    let buf = slab.take(4096).unwrap();
    bench.ring.read(Token(10), file, 0, buf);
    assert!(matches!(bench.io(Token(10)), Outcome::Read(_, Ok(4096))));
    assert_eq!(op(&mut bench, FileOp::Close { file }), Ok(()));
}

#[test]
fn a_made_file_is_open_for_direct_synced_reads_and_writes() {
    let mut bench = Bench::new();
    assert_eq!(op(&mut bench, FileOp::Create { file: FileId(1), name: name("a"), len_bytes: 4096 }), Ok(()));
    let path = bench.dir.path().join("a").canonicalize().unwrap();
    let flags = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(Result::ok)
        .find(|e| std::fs::read_link(e.path()).is_ok_and(|p| p == path))
        .map(|e| std::fs::read_to_string(format!("/proc/self/fdinfo/{}", e.file_name().to_str().unwrap())).unwrap())
        .expect("the file is open");
    let octal = flags.lines().find_map(|l| l.strip_prefix("flags:")).unwrap().trim();
    let flags = i32::from_str_radix(octal, 8).unwrap();
    let wanted = libc::O_RDWR | libc::O_DIRECT | libc::O_DSYNC | libc::O_CLOEXEC;
    assert_eq!(flags & wanted, wanted, "{flags:o}");
}

#[test]
fn a_read_at_the_end_is_short_and_one_past_it_is_empty() {
    let mut bench = Bench::new();
    let mut slab = Slab::new(1 << 20);
    assert_eq!(op(&mut bench, FileOp::Create { file: FileId(1), name: name("a"), len_bytes: 8192 }), Ok(()));
    for (pos, expected) in [(0, 8192), (4096, 4096), (8192, 0), (1 << 30, 0)] {
        let buf = slab.take(16_384).unwrap();
        bench.ring.read(Token(1), FileId(1), pos, buf);
        match bench.io(Token(1)) {
            Outcome::Read(buf, Ok(n)) => {
                assert_eq!(n, expected, "at {pos}");
                slab.give_back(buf);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn errors_are_told_by_their_number_and_leave_nothing_behind() {
    let mut bench = Bench::new();
    let mut slab = Slab::new(1 << 20);
    let file = FileId(1);
    let create = |n: &str, len_bytes| FileOp::Create { file, name: name(n), len_bytes };
    assert_eq!(op(&mut bench, create("a", 4096)), Ok(()));
    assert_eq!(op(&mut bench, create("b", 4096)), Err(libc::EEXIST), "the FileId is in use");
    assert!(!bench.dir.path().join("b").exists());
    let other = FileOp::Create { file: FileId(2), name: name("a"), len_bytes: 4096 };
    assert_eq!(op(&mut bench, other), Err(libc::EEXIST), "the name is in use");
    let huge = FileOp::Create { file: FileId(2), name: name("huge"), len_bytes: 1 << 60 };
    let refused = op(&mut bench, huge);
    assert!(matches!(refused, Err(libc::EFBIG | libc::ENOSPC)), "{refused:?}");
    assert!(!bench.dir.path().join("huge").exists(), "a failed allocation takes the name back");
    assert_eq!(op(&mut bench, FileOp::Create { file: FileId(2), name: name("c"), len_bytes: 4096 }), Ok(()), "and the FileId");
    for bad in ["", ".", "..", "x/y", "/etc/passwd", "nul\0"] {
        assert_eq!(op(&mut bench, FileOp::Remove { name: name(bad) }), Err(libc::EINVAL), "{bad:?}");
        assert_eq!(op(&mut bench, FileOp::Rename { from: name("a"), to: name(bad) }), Err(libc::EINVAL), "{bad:?}");
    }
    assert_eq!(op(&mut bench, FileOp::Remove { name: name("none") }), Err(libc::ENOENT));
    assert_eq!(op(&mut bench, FileOp::Rename { from: name("none"), to: name("z") }), Err(libc::ENOENT));
    let data = bytes(&mut slab, &[1; 4096]);
    bench.ring.write(Token(3), FileId(99), 0, data.clone());
    assert!(matches!(bench.io(Token(3)), Outcome::Write(Err(libc::EBADF))));
    let buf = slab.take(4096).unwrap();
    bench.ring.read(Token(4), FileId(99), 0, buf);
    assert!(matches!(bench.io(Token(4)), Outcome::Read(_, Err(libc::EBADF))));
    bench.ring.write(Token(5), file, 100, data.clone());
    assert!(matches!(bench.io(Token(5)), Outcome::Write(Err(libc::EINVAL))), "not aligned");
    let read_only = std::fs::File::open(bench.dir.path().join("a")).unwrap();
    bench.ring.attach_file(FileId(7), read_only);
    bench.ring.write(Token(6), FileId(7), 0, data);
    assert!(matches!(bench.io(Token(6)), Outcome::Write(Err(libc::EBADF))));
    assert_eq!(bench.ring.in_flight_ops(), 0);
}

#[test]
fn a_full_disk_is_an_error_of_the_write() {
    let mut bench = Bench::new();
    let mut slab = Slab::new(1 << 20);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    bench.ring.attach_file(FileId(1), full);
    let data = bytes(&mut slab, &[1; 4096]);
    bench.ring.write(Token(1), FileId(1), 0, data);
    assert!(matches!(bench.io(Token(1)), Outcome::Write(Err(libc::ENOSPC))));
    assert_eq!(slab.lent_bytes(), 0);
}

#[test]
fn more_writes_than_the_queue_has_places_are_all_done() {
    let mut bench = Bench::with(|c| c.entries = 4);
    let mut slab = Slab::new(16 << 20);
    assert_eq!(op(&mut bench, FileOp::Create { file: FileId(1), name: name("a"), len_bytes: 1 << 20 }), Ok(()));
    for i in 0..256 {
        let data = bytes(&mut slab, &pattern(4096, i));
        bench.ring.write(Token(i), FileId(1), i * 4096, data);
    }
    for _ in 0..256 {
        assert!(matches!(bench.next(), Completion::Io { outcome: Outcome::Write(Ok(4096)), .. }));
    }
    let on_disk = std::fs::read(bench.dir.path().join("a")).unwrap();
    for i in 0..256 {
        assert!(on_disk[i * 4096..(i + 1) * 4096] == pattern(4096, i as u64), "page {i}");
    }
    assert!(bench.ring.stats().sq_full_count > 0);
}

#[test]
fn the_ring_holds_the_lock_until_it_is_gone() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("lock");
    let open = || std::fs::OpenOptions::new().create(true).truncate(false).write(true).custom_flags(libc::O_CLOEXEC).open(&path).unwrap();
    let lock = open();
    lock.lock().unwrap();
    bench.ring.register_lock(lock).unwrap();
    assert!(open().try_lock().is_err(), "held");
    let Bench { ring, dir, .. } = bench;
    ring.shutdown();
    // The kernel frees a ring's files a moment later, on a worker: so this waits for the lock.
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiting = open();
    std::thread::spawn(move || sender.send(waiting.lock().is_ok()));
    assert_eq!(receiver.recv_timeout(LIMIT), Ok(true), "let go");
    drop(dir);
}
