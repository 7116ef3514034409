//! The probe: true on this machine, and each refusal by its decision function.

use super::super::probe::{MEMLOCK_BYTES_MIN, ProbeError, judge_direct, judge_memlock, judge_release, judge_setup, probe};
use super::*;
use std::io;
use std::path::Path;

fn setup_error(errno: i32, disabled: Option<u32>) -> ProbeError {
    judge_setup(io::Error::from_raw_os_error(errno), disabled, 65_536, "6.18.44-host")
}

#[test]
fn this_machine_is_fit_and_the_probe_leaves_nothing_behind() {
    let dir = scratch_dir();
    let features = probe(dir.path()).unwrap();
    assert!(features.kernel >= (6, 1));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn kernels_are_compared_by_number() {
    for good in ["6.1.0", "6.1", "6.18.44-fc", "10.0.1", "6.10.0-rc1+"] {
        assert!(judge_release(good).is_ok(), "{good}");
    }
    assert_eq!(judge_release("6.18.44-fc").unwrap(), (6, 18));
    for bad in ["6.0.19", "5.15.0-91-generic", "4.18.0", "", "nonsense"] {
        let refused = judge_release(bad).unwrap_err();
        assert!(matches!(refused, ProbeError::KernelTooOld { .. }) && refused.to_string().contains("6.1"), "{bad}");
    }
}

#[test]
fn a_refused_ring_is_explained_with_what_to_do() {
    let cases = [
        (setup_error(libc::EPERM, Some(2)), "kernel.io_uring_disabled = 2"),
        (setup_error(libc::EPERM, Some(1)), "io_uring_group"),
        (setup_error(libc::EPERM, Some(0)), "seccomp"),
        (setup_error(libc::EPERM, None), "seccomp"),
        (setup_error(libc::ENOSYS, None), "CONFIG_IO_URING"),
        (setup_error(libc::ENOMEM, Some(0)), "LimitMEMLOCK"),
        (setup_error(libc::EMFILE, Some(0)), "LimitNOFILE"),
        (setup_error(libc::EINVAL, Some(0)), "upgrade the kernel"),
        (setup_error(libc::EIO, Some(0)), "setting up io_uring failed"),
    ];
    for (error, words) in cases {
        assert!(error.to_string().contains(words), "{error} should say {words}");
    }
    assert!(setup_error(libc::ENOMEM, None).to_string().contains("65536 bytes"));
}

#[test]
fn a_limit_of_locked_memory_below_the_executors_is_refused_with_what_to_do() {
    assert!(judge_memlock(MEMLOCK_BYTES_MIN).is_ok() && judge_memlock(u64::MAX).is_ok());
    let refused = judge_memlock(102_400).unwrap_err().to_string();
    for words in ["102400 bytes", "524288", "ulimit -l unlimited", "LimitMEMLOCK=infinity"] {
        assert!(refused.contains(words), "{refused} should say {words}");
    }
    // The kernel's own refusal comes with any limit, and has one more way out.
    assert!(ProbeError::MemlockTooSmall { limit_bytes: 8 << 20 }.to_string().contains("fewer shards"));
}

#[test]
fn a_refused_directory_is_explained_with_what_to_do() {
    let judge = |errno| judge_direct(Path::new("/data"), io::Error::from_raw_os_error(errno));
    assert!(matches!(judge(libc::EINVAL), ProbeError::DirectRefused { .. }));
    assert!(judge(libc::EINVAL).to_string().contains("ext4 or XFS"));
    for errno in [libc::ENOSPC, libc::EACCES, libc::EROFS] {
        assert!(matches!(judge(errno), ProbeError::DirUnusable { .. }));
        assert!(judge(errno).to_string().contains("/data"));
    }
    let dir = scratch_dir();
    assert!(matches!(probe(&dir.path().join("none")), Err(ProbeError::DirUnusable { .. })));
}

#[test]
fn a_file_system_without_direct_io_is_refused_or_works() {
    // /proc takes no files at all; shared memory takes direct I/O since kernel 6.6 and refused it before.
    assert!(matches!(probe(Path::new("/proc")), Err(ProbeError::DirUnusable { .. } | ProbeError::DirectRefused { .. })));
    if let Err(e) = probe(Path::new("/dev/shm")) {
        assert!(matches!(e, ProbeError::DirectRefused { .. } | ProbeError::DirUnusable { .. }), "{e}");
    }
}

#[test]
fn a_ring_that_cannot_be_made_says_why() {
    let dir = scratch_dir();
    let refused = |change: &dyn Fn(&mut RingConfig)| {
        let mut cfg = config(&dir);
        change(&mut cfg);
        Ring::new(cfg).err().expect("refused").to_string()
    };
    assert!(refused(&|c| c.dir = dir.path().join("none")).contains("create it"));
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(refused(&|c| c.dir = file.clone()).contains("cannot be opened"));
    assert!(refused(&|c| c.iowq_cpus = Some(vec![])).contains("name cores"));
    assert!(refused(&|c| c.iowq_cpus = Some(vec![1 << 20])).contains("name cores"));
}

#[test]
fn the_workers_can_be_put_on_a_core() {
    let mut bench = Bench::with(|c| c.iowq_cpus = Some(vec![0]));
    bench.ring.file_op(Token(1), FileOp::SyncDir);
    assert!(matches!(bench.io(Token(1)), Outcome::File(Ok(()))));
}
