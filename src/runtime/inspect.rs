//! `tramline inspect PATH`: finds out what PATH is and lets the log room look through it, read only, through the page cache.
//!
//! Not here: what is checked (`log/inspect.rs`).

use crate::log::DiskError;
use crate::log::inspect::{Detail, InspectReport, InspectSource, inspect_segment, inspect_shard};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

struct Directory {
    path: PathBuf,
    /// The file read last, still open.
    open: Option<(String, File)>,
}

impl Directory {
    fn file(&mut self, name: &str) -> Result<&File, DiskError> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = File::open(self.path.join(name)).map_err(|cause| refused("open", name, &cause))?;
            self.open = Some((name.to_owned(), file));
        }
        Ok(&self.open.as_ref().expect("opened above").1)
    }
}

fn refused(op: &'static str, name: &str, cause: &io::Error) -> DiskError {
    DiskError { op, name: name.to_owned(), errno: cause.raw_os_error().unwrap_or(0) }
}

impl InspectSource for Directory {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        let entries = fs::read_dir(&self.path).map_err(|cause| refused("list", ".", &cause))?;
        let name = |entry: io::Result<fs::DirEntry>| entry.map(|e| e.file_name().to_string_lossy().into_owned());
        entries.map(name).collect::<Result<_, _>>().map_err(|cause| refused("list", ".", &cause))
    }

    fn len(&mut self, name: &str) -> Result<u64, DiskError> {
        self.file(name)?.metadata().map(|m| m.len()).map_err(|cause| refused("stat", name, &cause))
    }

    fn read(&mut self, name: &str, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.file(name)?.read_exact_at(buf, pos).map_err(|cause| refused("read", name, &cause))
    }
}

/// The room writes text, standard output takes bytes. A reader that has gone away (`| head`) ends nothing: the verdict counts.
struct Text<'a>(&'a mut dyn Write);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let _ = self.0.write_all(text.as_bytes());
        Ok(())
    }
}

/// Inspects a segment file, a shard's directory or a data directory; answers the number of damaged places.
pub fn inspect(path: &Path, out: &mut dyn Write) -> io::Result<usize> {
    let reports = if fs::metadata(path)?.is_file() {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut source = Directory { path: parent.to_owned(), open: None };
        vec![inspect_segment(&mut source, &name, Detail::Blocks, &mut Text(out))]
    } else {
        inspect_directories(path, out)?
    };
    let mut damaged = 0;
    for report in &reports {
        for damage in &report.damage {
            damaged += 1;
            writeln!(out, "DAMAGED {} at byte {} ({} bytes): {}", damage.file, damage.pos, damage.len, damage.what)?;
        }
    }
    let sum = |of: fn(&InspectReport) -> u64| reports.iter().map(of).sum::<u64>();
    writeln!(
        out,
        "segments={} blocks={} entries={} batches={} bytes={} footer_entries={} torn_tail={} damaged={damaged}",
        sum(|r| r.segments),
        sum(|r| r.blocks),
        sum(|r| r.entries),
        sum(|r| r.batches),
        sum(|r| r.bytes),
        sum(|r| r.footer_entries),
        reports.iter().any(|r| r.torn_tail),
    )?;
    Ok(damaged)
}

fn inspect_directories(path: &Path, out: &mut dyn Write) -> io::Result<Vec<InspectReport>> {
    let mut shards: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("shard-") && entry.path().is_dir() {
            shards.push(entry.path());
        }
    }
    shards.sort();
    if shards.is_empty() {
        shards.push(path.to_owned());
    }
    let mut reports = Vec::new();
    for shard in shards {
        writeln!(out, "{}", shard.display())?;
        let mut source = Directory { path: shard, open: None };
        reports.push(inspect_shard(&mut source, Detail::Segments, &mut Text(out)));
    }
    Ok(reports)
}
