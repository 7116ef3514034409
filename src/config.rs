//! The settings of a node: where they come from, what holds, and `Settings`, the typed form everybody uses.
//!
//! ```text
//!   flag  >  environment TRAMLINE_*  >  file (TOML)  >  default
//! ```
//!
//! Invariants: every setting of the table has exactly one effective value with its origin; an unknown key in a file or flag is refused, an
//! unknown `TRAMLINE_` name in the environment is warned about (environments are shared, files are not); `Settings` is complete and its
//! numbers agree with each other (`agree`).
//!
//! Not here: the table itself (`config/table.rs`), reading values (`config/value.rs`), printing (`config/show.rs`), asking the machine
//! (`runtime/topology.rs`), settings of topics (the control room).

mod cluster;
pub mod show;
pub mod space;
pub mod table;
#[cfg(test)]
mod tests;
pub mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use space::{DiskLevel, DiskLook, DiskMarks, SpaceMark};
pub use table::{Def, TABLE, env_name};
use table::{DefaultValue, Facts};
pub use value::{Kind, Value};

/// `TRAMLINE_` names in the environment that are not settings of a node but known to one of our programs or scripts.
const OTHER_ENVIRONMENT: [&str; 7] = [
    "TRAMLINE_CONFIG",
    "TRAMLINE_SERVER",
    "TRAMLINE_UPDATE_DOCS",
    "TRAMLINE_UPDATE_VECTORS",
    "TRAMLINE_FLIGHTS_CSV",
    "TRAMLINE_KILL_ROUNDS",
    "TRAMLINE_TEST_SEED",
];

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// A `TRAMLINE_` variable.
    Environment,
    /// The settings file.
    File,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Flag => "flag",
            Origin::Environment => "environment",
            Origin::File => "file",
            Origin::Default => "default",
        })
    }
}

/// Size of the file system that holds a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSize {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What an ordinary user may still write, in bytes.
    pub free_bytes: u64,
}

/// What defaults and checks need to know of the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores this process may run on, ascending.
    pub cpus: Vec<usize>,
    /// Memory this process may use (the machine's, or its control group's limit if that is less), in bytes.
    pub memory_bytes: u64,
    /// Asks for the file system of a directory that may not exist yet.
    pub disk_of: fn(&Path) -> Option<DiskSize>,
}

/// Everything that says something about settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Key and text of each flag, in the order given; `--set` and the named flags alike.
    pub flags: Vec<(String, String)>,
    /// The process's environment (names that do not begin with `TRAMLINE_` are skipped).
    pub environment: Vec<(String, String)>,
    /// The settings file.
    pub file: Option<PathBuf>,
}

/// One effective setting.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Its definition.
    pub def: &'static Def,
    /// What holds.
    pub value: Value,
    /// Who said so.
    pub origin: Origin,
}

/// The outcome of loading.
#[derive(Debug)]
pub struct Loaded {
    /// All settings in the table's order.
    pub effective: Vec<Effective>,
    /// To be logged once the log is up.
    pub warnings: Vec<String>,
}

/// What an idle shard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// Polls for ever.
    Always,
    /// Polls for this many microseconds, then sleeps.
    Adaptive {
        /// Idle budget before sleeping, in microseconds.
        us: u64,
    },
    /// Sleeps at once.
    Never,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The settings of a node, typed and checked. Sizes in bytes, times in microseconds. docs/SETTINGS.md says what each is for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // field x_y is the setting x.y, and the table documents that
pub struct Settings {
    pub data_dir: PathBuf,
    pub node_id: u32,
    pub listen: SocketAddr,
    /// Host told to clients: the setting, or the address of `listen`.
    pub advertise: String,
    pub admin_listen: SocketAddr,
    /// Shard 0's address for other nodes; none on a node that is a cluster of one.
    pub cluster_listen: Option<SocketAddr>,
    /// Addresses of nodes that a new one asks to be taken in; empty: it begins a cluster.
    pub cluster_join: Vec<String>,
    pub rack: String,
    pub cluster_connections_max: usize,
    pub cluster_receive_bytes_max: usize,
    /// One core per shard; empty when unpinned.
    pub cpus: Vec<usize>,
    pub shards: u16,
    pub unpinned: bool,
    pub spin: Spin,
    pub groups_per_shard: u32,
    pub segment_bytes: u64,
    pub block_bytes_max: u32,
    pub writes_in_flight_max: u32,
    pub pool_segments: u32,
    pub memory_bytes: usize,
    pub memory_prefault: bool,
    pub scrub_bytes_per_second: u64,
    pub scrub_interval_us: u64,
    pub sorter_segments: u32,
    pub sorter_bytes_per_second: u64,
    pub catchup_bytes_per_second: u64,
    pub sorter_run_bytes: u64,
    pub sorter_live_percent: u64,
    pub sorter_debt_bytes: u64,
    pub index_bytes_max: u64,
    pub tail_cache_bytes: usize,
    pub receive_bytes_max: usize,
    pub frame_max_bytes: u32,
    pub batch_max_bytes: u32,
    pub record_max_bytes: u32,
    pub key_max_bytes: u32,
    pub headers_max: u32,
    pub headers_bytes_max: u32,
    pub entries_max: u32,
    pub connections_max: usize,
    pub producers_max: usize,
    pub producer_expiry_us: u64,
    pub group_expiry_us: u64,
    pub connection_idle_timeout_us: u64,
    pub keepalive_interval_us: u64,
    pub connection_send_queue_bytes: usize,
    pub partial_frame_timeout_us: u64,
    pub credit_max_bytes: u32,
    pub fetch_wait_max_us: u64,
    pub disk_warn_free: SpaceMark,
    pub disk_slow_free: SpaceMark,
    pub disk_refuse_free: SpaceMark,
    pub throttle_time_us: u64,
    pub shutdown_timeout_us: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    pub log_format: LogFormat,
}

/// Why settings were refused.
#[derive(Debug)]
pub enum SettingsError {
    /// The file could not be read.
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or holds something that is no setting's value.
    FileSyntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No such setting.
    UnknownKey {
        /// Who named it.
        origin: Origin,
        /// What was named.
        key: String,
        /// The closest existing key.
        nearest: &'static str,
    },
    /// Two flags for one setting.
    GivenTwice {
        /// The setting.
        key: &'static str,
    },
    /// The text is no value of this setting.
    BadValue {
        /// Who gave it.
        origin: Origin,
        /// The setting.
        key: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Settings that do not fit each other or the machine.
    Disagree(String),
    /// Nobody said where the data is.
    NoDataDir,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsError::FileUnreadable { path, source } => {
                write!(f, "cannot read the settings file {}: {source}; check --config and its permissions", path.display())
            }
            SettingsError::FileSyntax { path, what } => write!(f, "the settings file {} is not valid: {what}", path.display()),
            SettingsError::UnknownKey { origin, key, nearest } => {
                write!(f, "unknown setting '{key}' ({origin}); did you mean '{nearest}'? `tramline config` lists all")
            }
            SettingsError::GivenTwice { key } => write!(f, "setting {key} is given by two flags; keep one"),
            SettingsError::BadValue { origin, key, what } => write!(f, "setting {key} ({origin}): {what}"),
            SettingsError::Disagree(what) => f.write_str(what),
            SettingsError::NoDataDir => {
                f.write_str("no data directory: say --data-dir DIR (or set TRAMLINE_DATA_DIR, or data.dir in the settings file)")
            }
        }
    }
}

impl std::error::Error for SettingsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SettingsError::FileUnreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Finds what holds for every setting.
pub fn load(sources: &Sources, machine: &Machine) -> Result<Loaded, SettingsError> {
    let mut given: Vec<(&'static Def, Value, Origin)> = Vec::new();
    let mut warnings = Vec::new();
    for (key, text) in &sources.flags {
        let def = known(key, Origin::Flag)?;
        if given.iter().any(|(other, ..)| other.key == def.key) {
            return Err(SettingsError::GivenTwice { key: def.key });
        }
        given.push((def, read(def, text, Origin::Flag)?, Origin::Flag));
    }
    for (name, text) in sources.environment.iter().filter(|(name, _)| name.starts_with("TRAMLINE_")) {
        match TABLE.iter().find(|def| env_name(def.key) == *name) {
            Some(def) => add_weaker(&mut given, (def, read(def, text, Origin::Environment)?, Origin::Environment)),
            None if OTHER_ENVIRONMENT.contains(&name.as_str()) => {}
            None => {
                warnings.push(format!("environment variable {name} is not known and has no effect; `tramline config` lists the settings"))
            }
        }
    }
    if let Some(path) = &sources.file {
        for (key, text) in read_file(path)? {
            let def = known(&key, Origin::File)?;
            add_weaker(&mut given, (def, read(def, &text, Origin::File)?, Origin::File));
        }
    }
    Ok(Loaded { effective: complete(given, machine), warnings })
}

fn known(key: &str, origin: Origin) -> Result<&'static Def, SettingsError> {
    table::find(key).ok_or_else(|| SettingsError::UnknownKey { origin, key: key.to_owned(), nearest: nearest(key) })
}

fn add_weaker(given: &mut Vec<(&'static Def, Value, Origin)>, found: (&'static Def, Value, Origin)) {
    if !given.iter().any(|(def, ..)| def.key == found.0.key) {
        given.push(found);
    }
}

fn read(def: &'static Def, text: &str, origin: Origin) -> Result<Value, SettingsError> {
    let bad = |what| SettingsError::BadValue { origin, key: def.key, what };
    let value = def.kind.read(text).map_err(bad)?;
    match value {
        Value::Number(number) if number < def.min || number > def.max => {
            Err(bad(format!("'{}' is outside of {}", text.trim(), def.range())))
        }
        value => Ok(value),
    }
}

/// Fills what nobody gave, in the table's order.
fn complete(given: Vec<(&'static Def, Value, Origin)>, machine: &Machine) -> Vec<Effective> {
    let mut known: Vec<(&'static str, Value)> = given.iter().map(|(def, value, _)| (def.key, value.clone())).collect();
    let disk = match known.iter().find(|(key, _)| *key == "data.dir") {
        Some((_, Value::Text(dir))) if !dir.is_empty() => (machine.disk_of)(Path::new(dir)),
        _ => (machine.disk_of)(Path::new(".")),
    };
    let mut effective = Vec::with_capacity(TABLE.len());
    for def in TABLE {
        let (value, origin) = match given.iter().find(|(other, ..)| other.key == def.key) {
            Some((_, value, origin)) => (value.clone(), *origin),
            None => {
                let value = match &def.default {
                    DefaultValue::Fixed(text) => def.kind.read(text).expect("a test reads every fixed default"),
                    DefaultValue::Derived { of, .. } => of(&Facts { machine, disk, known: &known }),
                };
                known.push((def.key, value.clone()));
                (value, Origin::Default)
            }
        };
        effective.push(Effective { def, value, origin });
    }
    effective
}

/// Keys and texts of a TOML file. Tables and dotted keys mean the same; numbers, booleans and arrays of numbers are read as their texts.
fn read_file(path: &Path) -> Result<Vec<(String, String)>, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingsError::FileUnreadable { path: path.to_owned(), source })?;
    let syntax = |what| SettingsError::FileSyntax { path: path.to_owned(), what };
    let root: toml::Table = text.parse().map_err(|error: toml::de::Error| syntax(error.to_string().trim_end().to_owned()))?;
    let mut found = Vec::new();
    flatten("", &root, &mut found).map_err(syntax)?;
    Ok(found)
}

fn flatten(front: &str, table: &toml::Table, found: &mut Vec<(String, String)>) -> Result<(), String> {
    for (name, value) in table {
        let key = if front.is_empty() { name.clone() } else { format!("{front}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, found)?,
            toml::Value::Array(items) => {
                let texts: Option<Vec<String>> = items.iter().map(plain).collect();
                found.push((
                    key.clone(),
                    texts.ok_or_else(|| format!("'{key}' is a list of something else than numbers or words"))?.join(","),
                ));
            }
            other => found.push((key.clone(), plain(other).ok_or_else(|| format!("'{key}' has a value of a kind that no setting takes"))?)),
        }
    }
    Ok(())
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        _ => None,
    }
}

/// The existing key with the fewest edits from `wrong`.
fn nearest(wrong: &str) -> &'static str {
    TABLE.iter().map(|def| def.key).min_by_key(|key| edits(wrong, key)).unwrap_or("data.dir")
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Loaded {
    /// The typed settings, or why these values cannot go together.
    pub fn settings(&self, machine: &Machine) -> Result<Settings, SettingsError> {
        let settings = self.typed()?;
        self.agree(&settings, machine)?;
        Ok(settings)
    }

    /// The effective value of `key` as text. Panics if there is no such setting.
    pub fn text(&self, key: &str) -> String {
        let found = self.entry(key);
        found.def.kind.show(&found.value)
    }

    fn entry(&self, key: &str) -> &Effective {
        self.effective.iter().find(|effective| effective.def.key == key).unwrap_or_else(|| panic!("no setting '{key}' in the table"))
    }
    fn number(&self, key: &str) -> u64 {
        match self.entry(key).value {
            Value::Number(number) => number,
            ref other => panic!("setting {key} is {other:?}, not a number"),
        }
    }
    fn number32(&self, key: &str) -> u32 {
        u32::try_from(self.number(key)).unwrap_or_else(|_| panic!("the range of {key} in the table is above 32 bits"))
    }
    fn space(&self, key: &str) -> SpaceMark {
        match self.entry(key).value {
            Value::Space(mark) => mark,
            ref other => panic!("setting {key} is {other:?}, not an amount of space"),
        }
    }
    fn flag(&self, key: &str) -> bool {
        matches!(self.entry(key).value, Value::Flag(true))
    }
    fn address(&self, key: &str) -> SocketAddr {
        match self.entry(key).value {
            Value::Address(address) => address,
            ref other => panic!("setting {key} is {other:?}, not an address"),
        }
    }
    fn address_or_none(&self, key: &str) -> Option<SocketAddr> {
        match self.entry(key).value {
            Value::Address(address) => Some(address),
            _ => None,
        }
    }

    fn typed(&self) -> Result<Settings, SettingsError> {
        let data_dir = PathBuf::from(self.text("data.dir"));
        if data_dir.as_os_str().is_empty() {
            return Err(SettingsError::NoDataDir);
        }
        let unpinned = self.flag("unpinned");
        let cpus = match &self.entry("cpus").value {
            Value::Cpus(cpus) if !unpinned => cpus.clone(),
            _ => Vec::new(),
        };
        let listen = self.address("listen");
        let advertise = match self.text("advertise") {
            host if !host.is_empty() => host,
            _ if listen.ip().is_unspecified() => {
                return Err(SettingsError::Disagree(format!(
                    "listen is {listen}, which no client can connect to by that name; say --advertise HOST (the name or address clients use)"
                )));
            }
            _ => listen.ip().to_string(),
        };
        Ok(Settings {
            data_dir,
            node_id: self.number32("node.id"),
            listen,
            advertise,
            admin_listen: self.address("admin.listen"),
            cluster_listen: self.address_or_none("cluster.listen"),
            cluster_join: self.text("cluster.join").split(',').filter(|seed| !seed.is_empty()).map(str::to_owned).collect(),
            rack: self.text("rack"),
            cluster_connections_max: self.number("cluster.connections.max") as usize,
            cluster_receive_bytes_max: self.number("cluster.receive.bytes.max") as usize,
            cpus,
            shards: self.number("shards") as u16,
            unpinned,
            spin: match self.text("spin").as_str() {
                "always" => Spin::Always,
                "never" => Spin::Never,
                _ => Spin::Adaptive { us: self.number("adaptive.us") },
            },
            groups_per_shard: self.number32("groups.per.shard"),
            segment_bytes: self.number("segment.bytes"),
            block_bytes_max: self.number32("block.bytes.max"),
            writes_in_flight_max: self.number32("writes.in.flight.max"),
            pool_segments: self.number32("pool.segments"),
            memory_bytes: self.number("memory.bytes") as usize,
            memory_prefault: self.flag("memory.prefault"),
            scrub_bytes_per_second: self.number("scrub.bytes.per.second"),
            scrub_interval_us: self.number("scrub.interval"),
            sorter_segments: self.number32("sorter.segments"),
            sorter_bytes_per_second: self.number("sorter.bytes.per.second"),
            catchup_bytes_per_second: self.number("replica.catchup.bytes.per.second"),
            sorter_run_bytes: self.number("sorter.run.bytes"),
            sorter_live_percent: self.number("sorter.live.percent"),
            sorter_debt_bytes: self.number("sorter.debt.bytes"),
            index_bytes_max: self.number("index.bytes.max"),
            tail_cache_bytes: self.number("tail.cache.bytes") as usize,
            receive_bytes_max: self.number("receive.bytes.max") as usize,
            frame_max_bytes: self.number32("frame.max.bytes"),
            batch_max_bytes: self.number32("batch.max.bytes"),
            record_max_bytes: self.number32("record.max.bytes"),
            key_max_bytes: self.number32("key.max.bytes"),
            headers_max: self.number32("headers.max"),
            headers_bytes_max: self.number32("headers.bytes.max"),
            entries_max: self.number32("entries.max"),
            connections_max: self.number("connections.max") as usize,
            producers_max: self.number("producers.max") as usize,
            producer_expiry_us: self.number("producer.expiry"),
            group_expiry_us: self.number("group.expiry"),
            connection_idle_timeout_us: self.number("connection.idle.timeout"),
            keepalive_interval_us: self.number("keepalive.interval"),
            connection_send_queue_bytes: self.number("connection.send.queue.bytes") as usize,
            partial_frame_timeout_us: self.number("partial.frame.timeout"),
            credit_max_bytes: self.number32("credit.max.bytes"),
            fetch_wait_max_us: self.number("fetch.wait.max"),
            disk_warn_free: self.space("disk.warn.free"),
            disk_slow_free: self.space("disk.slow.free"),
            disk_refuse_free: self.space("disk.refuse.free"),
            throttle_time_us: self.number("throttle.time"),
            shutdown_timeout_us: self.number("shutdown.timeout"),
            log_level: self.text("log.level"),
            log_format: if self.text("log.format") == "json" { LogFormat::Json } else { LogFormat::Text },
        })
    }

    /// Checks that no single range can make: settings against each other and against the machine.
    fn agree(&self, s: &Settings, machine: &Machine) -> Result<(), SettingsError> {
        let refuse = |what: String| Err(SettingsError::Disagree(what));
        let named = |key: &str| format!("{key}={}", self.text(key));
        if s.unpinned && self.entry("cpus").origin != Origin::Default {
            return refuse("cpus and unpinned exclude each other; keep one of --cpus and --unpinned".to_owned());
        }
        if !s.unpinned {
            if let Some(cpu) = s.cpus.iter().find(|cpu| !machine.cpus.contains(cpu)) {
                let allowed = Kind::Cpus.show(&Value::Cpus(machine.cpus.clone()));
                return refuse(format!(
                    "cpus names core {cpu}, but this process may only run on {allowed}; change --cpus or the process's affinity"
                ));
            }
            if s.cpus.len() != s.shards as usize {
                return match self.entry("cpus").origin {
                    Origin::Default => refuse(format!(
                        "shards={} but only {} cores are available; lower --shards, or add --unpinned (for tests: latencies suffer)",
                        s.shards,
                        machine.cpus.len()
                    )),
                    _ => refuse(format!("cpus names {} cores for shards={}; each shard needs one of its own", s.cpus.len(), s.shards)),
                };
            }
        }
        if s.listen.port() != 0 && s.listen.port() as u32 + s.shards as u32 > u32::from(u16::MAX) {
            return refuse(format!("listen={} leaves no room for a port per shard above it; choose a lower port", s.listen));
        }
        let shard_ports = u32::from(s.listen.port())..=u32::from(s.listen.port()) + u32::from(s.shards);
        if s.listen.port() != 0 && shard_ports.contains(&u32::from(s.admin_listen.port())) && overlap(s.listen, s.admin_listen) {
            return refuse(format!(
                "admin.listen={} collides with the client ports {} to {} (one per shard); choose another",
                s.admin_listen,
                shard_ports.start(),
                shard_ports.end()
            ));
        }
        self.agree_cluster(s).map_err(SettingsError::Disagree)?;
        if !s.segment_bytes.is_multiple_of(1 << 20) {
            return refuse(format!("{} is not a multiple of 1MiB", named("segment.bytes")));
        }
        if !s.block_bytes_max.is_multiple_of(4096) {
            return refuse(format!("{} is not a multiple of 4KiB", named("block.bytes.max")));
        }
        // What the log room asks of a segment: its header page and four of the largest blocks; a batch above block.bytes.max has a block of its own.
        let block_bytes_most = u64::from(s.block_bytes_max.max(s.batch_max_bytes + (8 << 10)));
        if s.segment_bytes < 4 * block_bytes_most + (8 << 10) {
            return refuse(format!(
                "{} has no room for four of the largest batches or blocks; raise it or lower {} or {}",
                named("segment.bytes"),
                named("batch.max.bytes"),
                named("block.bytes.max")
            ));
        }
        if u64::from(s.batch_max_bytes) + (64 << 10) > u64::from(s.frame_max_bytes) {
            return refuse(format!(
                "{} does not fit into {} (64KiB are for the rest of the frame)",
                named("batch.max.bytes"),
                named("frame.max.bytes")
            ));
        }
        if s.record_max_bytes > s.batch_max_bytes {
            return refuse(format!(
                "{} is above {}; a record has to fit into a batch",
                named("record.max.bytes"),
                named("batch.max.bytes")
            ));
        }
        if s.key_max_bytes > s.record_max_bytes || s.headers_bytes_max > s.record_max_bytes {
            return refuse(format!(
                "{} and {} have to be within {}",
                named("key.max.bytes"),
                named("headers.bytes.max"),
                named("record.max.bytes")
            ));
        }
        // Blocks under way and the open one, each of the largest size, and room for footers and a few reads.
        let working = u64::from(s.writes_in_flight_max + 1) * block_bytes_most + (8 << 20);
        if (s.tail_cache_bytes as u64) + working > s.memory_bytes as u64 {
            return refuse(format!(
                "{} and {} for open blocks and reads do not fit into {}; raise memory.bytes or lower tail.cache.bytes",
                named("tail.cache.bytes"),
                Kind::Bytes.show(&Value::Number(working)),
                named("memory.bytes")
            ));
        }
        let prefaulted = (s.memory_bytes as u64).saturating_mul(u64::from(s.shards));
        if s.memory_prefault && prefaulted > machine.memory_bytes {
            return refuse(format!(
                "{} for each of {} shards is more than the {} this process may use; lower it, or set memory.prefault=false",
                named("memory.bytes"),
                s.shards,
                Kind::Bytes.show(&Value::Number(machine.memory_bytes))
            ));
        }
        if (s.receive_bytes_max as u64) < u64::from(s.frame_max_bytes) {
            return refuse(format!("{} cannot hold one frame of {}", named("receive.bytes.max"), named("frame.max.bytes")));
        }
        // Where the file system cannot be asked, marks in per cent are compared on one of a TiB.
        let total_bytes = (machine.disk_of)(&s.data_dir).map_or(1 << 40, |disk| disk.total_bytes);
        let marks = [("disk.refuse.free", s.disk_refuse_free), ("disk.slow.free", s.disk_slow_free), ("disk.warn.free", s.disk_warn_free)];
        for [(lower, first), (upper, second)] in [[marks[0], marks[1]], [marks[1], marks[2]]] {
            if first.of(total_bytes) > second.of(total_bytes) {
                return refuse(format!("{} is above {}; producers are warned, then slowed down, then refused", named(lower), named(upper)));
            }
        }
        let sorted_together = u64::from(s.sorter_segments) * s.segment_bytes;
        if s.sorter_debt_bytes < 2 * sorted_together {
            return refuse(format!(
                "{} is less than twice {} of {}, and the sorter begins with so many; raise the first or lower the second",
                named("sorter.debt.bytes"),
                named("sorter.segments"),
                named("segment.bytes")
            ));
        }
        if s.keepalive_interval_us >= s.connection_idle_timeout_us {
            return refuse(format!("{} has to be below {}", named("keepalive.interval"), named("connection.idle.timeout")));
        }
        Ok(())
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified()
}

impl Settings {
    /// The marks of free space.
    pub fn disk_marks(&self) -> DiskMarks {
        DiskMarks {
            warn: self.disk_warn_free,
            slow: self.disk_slow_free,
            refuse: self.disk_refuse_free,
            segment_bytes: self.segment_bytes,
            shards: self.shards,
        }
    }

    /// Whether clients of other machines can connect (the listeners go beyond loopback).
    pub fn is_exposed(&self) -> bool {
        !self.listen.ip().is_loopback()
    }
}
