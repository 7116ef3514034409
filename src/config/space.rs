//! How much space has to stay free: marks in per cent and bytes, and what follows from them.
//!
//! A mark of both kinds is the smaller of the two: `5%,8GiB` is 77 MiB of a file system of 1.5 GiB and 8 GiB of one of 10 TiB, so one default
//! fits both.
//!
//! Invariants: a stage is a function of the marks and of one look at the file system; the same function decides in the broker and in the simulator.
//!
//! Not here: who looks (`runtime/housekeeping.rs`), what a shard does about it (`shard/throttle.rs`, `log/pool.rs`).

use super::DiskSize;
use std::fmt;

/// Parts of a whole that a mark's per cent counts.
const WHOLE: u64 = 10_000;

/// An amount of space that has to stay free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceMark {
    /// A part of the file system, in hundredths of a per cent (1 to 10,000).
    pub part: Option<u32>,
    /// Bytes. With both, the smaller amount holds.
    pub bytes: Option<u64>,
}

impl SpaceMark {
    /// The mark's bytes on a file system of `total_bytes`.
    pub fn of(&self, total_bytes: u64) -> u64 {
        let part = self.part.map(|part| (u128::from(total_bytes) * u128::from(part) / u128::from(WHOLE)) as u64);
        match (part, self.bytes) {
            (Some(part), Some(bytes)) => part.min(bytes),
            (Some(amount), None) | (None, Some(amount)) => amount,
            (None, None) => 0,
        }
    }

    /// A per cent with up to two decimals, `1.5%`, as its hundredths; `None` when `text` is none or not within 0.01 to 100.
    pub fn part_of(text: &str) -> Option<u32> {
        let digits = text.strip_suffix('%')?.trim_end();
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || decimals.len() > 2 || !is_number(whole) || !is_number(decimals) {
            return None;
        }
        let part = whole.parse::<u32>().ok()? * 100 + format!("{decimals:0<2}").parse::<u32>().ok()?;
        (1..=WHOLE as u32).contains(&part).then_some(part)
    }

    /// The per cent as `part_of` reads it.
    pub fn show_part(part: u32) -> String {
        let (whole, decimals) = (part / 100, part % 100);
        match decimals {
            0 => format!("{whole}%"),
            tenths if tenths.is_multiple_of(10) => format!("{whole}.{}%", tenths / 10),
            hundredths => format!("{whole}.{hundredths:02}%"),
        }
    }
}

/// How much space the data directory's file system has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskLevel {
    /// More than `disk.warn.free`.
    #[default]
    Enough,
    /// Less than `disk.warn.free`.
    Low,
    /// Less than `disk.slow.free`: producers are slowed down.
    Slow,
    /// Less than `disk.refuse.free` would stay free: no new segment is taken from the file system.
    Refuse,
}

impl DiskLevel {
    /// All of them, by their number.
    pub const ALL: [DiskLevel; 4] = [DiskLevel::Enough, DiskLevel::Low, DiskLevel::Slow, DiskLevel::Refuse];

    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            DiskLevel::Enough => "ok",
            DiskLevel::Low => "warn",
            DiskLevel::Slow => "slow",
            DiskLevel::Refuse => "refuse",
        }
    }
}

impl fmt::Display for DiskLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The marks of a node.
#[derive(Clone, Copy, Debug)]
pub struct DiskMarks {
    /// Setting disk.warn.free.
    pub warn: SpaceMark,
    /// Setting disk.slow.free.
    pub slow: SpaceMark,
    /// Setting disk.refuse.free.
    pub refuse: SpaceMark,
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Shards that take their segments from this file system.
    pub shards: u16,
}

/// What a look at the file system means for each shard, until the next look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLook {
    /// The stage.
    pub level: DiskLevel,
    /// Free bytes.
    pub free_bytes: u64,
    /// What disk.refuse.free keeps.
    pub refuse_bytes: u64,
    /// What disk.slow.free wants.
    pub slow_bytes: u64,
    /// Segments that each shard may take: whatever they take, `refuse_bytes` stay free.
    pub segments: u32,
    /// Bytes of segments that each shard could take if nothing else changed. Unlike `segments`, a part of a segment counts.
    pub room_bytes: u64,
}

impl DiskMarks {
    /// What `disk` means.
    pub fn look(&self, disk: DiskSize) -> DiskLook {
        let (refuse_bytes, slow_bytes) = (self.refuse.of(disk.total_bytes), self.slow.of(disk.total_bytes));
        let growth_bytes = self.segment_bytes * u64::from(self.shards.max(1));
        let room_bytes = disk.free_bytes.saturating_sub(refuse_bytes);
        let level = match disk.free_bytes {
            _ if room_bytes < growth_bytes => DiskLevel::Refuse,
            free if free < slow_bytes => DiskLevel::Slow,
            free if free < self.warn.of(disk.total_bytes) => DiskLevel::Low,
            _ => DiskLevel::Enough,
        };
        DiskLook {
            level,
            free_bytes: disk.free_bytes,
            refuse_bytes,
            slow_bytes,
            segments: u32::try_from(room_bytes / growth_bytes.max(1)).unwrap_or(u32::MAX),
            room_bytes: room_bytes / u64::from(self.shards.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn the_smaller_of_part_and_bytes_holds() {
        let mark = SpaceMark { part: Some(500), bytes: Some(8 * GIB) };
        assert_eq!(mark.of(1536 * MIB) / MIB, 76);
        assert_eq!(mark.of(10 << 40), 8 * GIB);
        assert_eq!(SpaceMark { part: None, bytes: Some(7) }.of(u64::MAX), 7);
        assert_eq!(SpaceMark { part: Some(10_000), bytes: None }.of(u64::MAX), u64::MAX);
    }

    #[test]
    fn parts_are_read_and_written_back() {
        for (text, part) in [("5%", 500), ("1.5%", 150), ("0.25%", 25), ("100%", 10_000), ("0.01%", 1)] {
            assert_eq!(SpaceMark::part_of(text), Some(part), "{text}");
            assert_eq!(SpaceMark::show_part(part), text);
        }
        for text in ["5", "0%", "101%", "1.234%", ".5%", "-1%", "%", "1e2%"] {
            assert_eq!(SpaceMark::part_of(text), None, "{text}");
        }
    }

    #[test]
    fn the_stages_follow_the_marks() {
        let bytes = |bytes| SpaceMark { part: None, bytes: Some(bytes) };
        let marks = DiskMarks { warn: bytes(100), slow: bytes(60), refuse: bytes(10), segment_bytes: 5, shards: 2 };
        let look = |free_bytes| marks.look(DiskSize { total_bytes: 1000, free_bytes });
        for (free, level, segments) in [
            (100, DiskLevel::Enough, 9),
            (99, DiskLevel::Low, 8),
            (60, DiskLevel::Low, 5),
            (59, DiskLevel::Slow, 4),
            (20, DiskLevel::Slow, 1),
            // One more segment of each shard would go below the last mark.
            (19, DiskLevel::Refuse, 0),
            (0, DiskLevel::Refuse, 0),
        ] {
            assert_eq!((look(free).level, look(free).segments), (level, segments), "{free}");
        }
        assert_eq!(look(59).room_bytes, 24);
    }
}
