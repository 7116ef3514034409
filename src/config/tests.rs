//! Tests of settings: origins, refusals, agreement, the document.

use super::*;
use std::collections::HashSet;

fn machine() -> Machine {
    Machine { cpus: vec![0, 1, 2, 3], memory_bytes: 16 << 30, disk_of: |_| Some(DiskSize { total_bytes: 100 << 30, free_bytes: 50 << 30 }) }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect()
}

fn flags(list: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let mut flags = pairs(list);
    flags.push(("data.dir".to_owned(), "d".to_owned()));
    load(&Sources { flags, ..Sources::default() }, &machine())?.settings(&machine())
}

#[test]
fn defaults_of_a_common_machine() {
    let settings = flags(&[]).unwrap();
    assert_eq!((settings.shards, settings.cpus.as_slice()), (3, [0, 1, 2].as_slice()));
    assert_eq!((settings.segment_bytes, settings.memory_bytes, settings.tail_cache_bytes), (256 << 20, 512 << 20, 256 << 20));
    assert_eq!((settings.spin, settings.listen.to_string().as_str()), (Spin::Adaptive { us: 50 }, "127.0.0.1:7410"));
    assert_eq!((settings.advertise.as_str(), settings.log_format), ("127.0.0.1", LogFormat::Text));
    assert_eq!(settings.connection_idle_timeout_us, 600_000_000);
}

#[test]
fn small_machines_get_small_numbers() {
    let small = Machine { cpus: vec![5], memory_bytes: 1 << 30, disk_of: |_| Some(DiskSize { total_bytes: 3 << 30, free_bytes: 1 << 30 }) };
    let sources = Sources { flags: pairs(&[("data.dir", "d")]), ..Sources::default() };
    let settings = load(&sources, &small).unwrap().settings(&small).unwrap();
    assert_eq!((settings.shards, settings.cpus.as_slice()), (1, [5].as_slice()));
    assert_eq!((settings.segment_bytes, settings.memory_bytes, settings.tail_cache_bytes), (32 << 20, 256 << 20, 128 << 20));
    let cramped = Machine { disk_of: |_| Some(DiskSize { total_bytes: 512 << 20, free_bytes: 1 << 20 }), ..small.clone() };
    let settings = load(&sources, &cramped).unwrap().settings(&cramped).unwrap();
    assert_eq!((settings.segment_bytes, settings.batch_max_bytes), (16 << 20, 2 << 20));
    let tiny = Machine { memory_bytes: 64 << 20, disk_of: |_| None, ..small };
    let settings = load(&sources, &tiny).unwrap().settings(&tiny).unwrap();
    assert_eq!((settings.segment_bytes, settings.memory_bytes, settings.tail_cache_bytes), (256 << 20, 64 << 20, 32 << 20));
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    std::fs::write(&file, "data.dir = \"f\"\ncpus = [1, 2]\nunpinned = false\n[segment]\nbytes = \"64MiB\"\n[pool]\nsegments = 5\n[admin]\nlisten = \"127.0.0.1:1\"\n")
        .unwrap();
    let sources = Sources {
        flags: pairs(&[("pool.segments", "7")]),
        environment: pairs(&[
            ("TRAMLINE_SEGMENT_BYTES", "32MiB"),
            ("TRAMLINE_POOL_SEGMENTS", "6"),
            ("TRAMLINE_SEGMENT_BITES", "1"),
            ("TRAMLINE_SERVER", "x"),
            ("HOME", "/"),
        ]),
        file: Some(file),
    };
    let loaded = load(&sources, &machine()).unwrap();
    let origin = |key: &str| (loaded.text(key), loaded.entry(key).origin);
    assert_eq!(origin("pool.segments"), ("7".to_owned(), Origin::Flag));
    assert_eq!(origin("segment.bytes"), ("32MiB".to_owned(), Origin::Environment));
    assert_eq!(origin("admin.listen"), ("127.0.0.1:1".to_owned(), Origin::File));
    assert_eq!(origin("cpus"), ("1,2".to_owned(), Origin::File));
    assert_eq!(origin("shards"), ("2".to_owned(), Origin::Default), "as many as cpus names");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("TRAMLINE_SEGMENT_BITES"));
    assert_eq!(loaded.settings(&machine()).unwrap().cpus, [1, 2]);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_one() {
    let error = flags(&[("segment.byte", "1MiB")]).unwrap_err().to_string();
    assert!(error.contains("unknown setting 'segment.byte' (flag)") && error.contains("'segment.bytes'"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    for (text, expected) in [
        ("[log]\nlevle = \"warn\"\n", "unknown setting 'log.levle' (file); did you mean 'log.level'?"),
        ("a = ", "is not valid"),
        ("shards = 1.5\n", "'shards' has a value of a kind that no setting takes"),
        ("keepalive.interval = 30\n", "setting keepalive.interval (file): '30' is not a time span"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = load(&Sources { file: Some(file.clone()), ..Sources::default() }, &machine()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let missing = Sources { file: Some(dir.path().join("none")), ..Sources::default() };
    assert!(load(&missing, &machine()).unwrap_err().to_string().contains("cannot read the settings file"));
}

#[test]
fn values_that_do_not_fit_are_refused_with_a_sentence() {
    for (list, expected) in [
        (&[("shards", "0")][..], "setting shards (flag): '0' is outside of 1 to 256"),
        (&[("segment.bytes", "1MiB")], "'1MiB' is outside of 16MiB to 2GiB"),
        (&[("segment.bytes", "17825793")], "is not a multiple of 1MiB"),
        (&[("segment.bytes", "16MiB"), ("batch.max.bytes", "4MiB")], "no room for four of the largest batches"),
        (&[("block.bytes.max", "65537")], "is not a multiple of 4KiB"),
        (&[("shards", "5")], "shards=5 but only 4 cores are available"),
        (&[("shards", "2"), ("cpus", "0")], "cpus names 1 cores for shards=2"),
        (&[("cpus", "9")], "cpus names core 9, but this process may only run on 0,1,2,3"),
        (&[("cpus", "0"), ("unpinned", "true")], "exclude each other"),
        (&[("listen", "0.0.0.0:7410")], "say --advertise HOST"),
        (&[("listen", "127.0.0.1:65534")], "leaves no room for a port per shard"),
        (&[("listen", "127.0.0.1:7400")], "collides with the client ports 7400 to 7403"),
        (&[("cluster.listen", "127.0.0.1:65534")], "cluster.listen=127.0.0.1:65534 leaves no room for a port for each of 3 shards"),
        (
            &[("cluster.listen", "127.0.0.1:7408")],
            "7408 to 7410 (cluster.listen=127.0.0.1:7408, one per shard) collide with those of listen=127.0.0.1:7410",
        ),
        (&[("cluster.listen", "127.0.0.1:7413")], "collide with those of listen="),
        (&[("cluster.listen", "127.0.0.1:7401")], "collide with those of admin.listen=127.0.0.1:7401"),
        (&[("cluster.listen", "[::]:7700")], "no other node can connect to by that name; say --advertise ADDRESS"),
        (&[("cluster.listen", "0.0.0.0:7700"), ("advertise", "broker-1")], "advertise is broker-1, which is no IP address"),
        (&[("cluster.listen", "0.0.0.0:7700"), ("advertise", "0.0.0.0")], "name the address in --cluster-listen ADDRESS:7700"),
        (&[("cluster.join", "10.0.0.1:7700")], "say --cluster-listen HOST:7700 too"),
        (&[("cluster.join", "10.0.0.1")], "setting cluster.join (flag): '10.0.0.1' is not HOST:PORT of another node"),
        (&[("node.id", "0")], "'0' is outside of 1 to 1000000"),
        (&[("rack", "row 7")], "'row 7' is not the name of a rack"),
        (&[("cluster.listen", "7700")], "'7700' is not HOST:PORT"),
        (&[("batch.max.bytes", "2MiB"), ("frame.max.bytes", "2MiB")], "does not fit into"),
        (&[("record.max.bytes", "5MiB")], "a record has to fit into a batch"),
        (&[("tail.cache.bytes", "511MiB")], "do not fit into memory.bytes=512MiB"),
        (&[("memory.bytes", "17GiB"), ("shards", "1")], "set memory.prefault=false"),
        (&[("disk.refuse.free", "90GiB")], "disk.refuse.free=90GiB is above disk.slow.free=5%,8GiB"),
        (&[("disk.slow.free", "50%")], "warned, then slowed down, then refused"),
        (&[("disk.warn.free", "ten")], "'ten' is no amount of space"),
        (&[("sorter.debt.bytes", "1GiB")], "less than twice sorter.segments=16"),
        (&[("keepalive.interval", "20m")], "has to be below"),
        (&[("log.level", "loud")], "'loud' is not one of error, warn"),
        (&[("pool.segments", "1"), ("pool.segments", "2")], "given by two flags"),
    ] {
        let error = flags(list).unwrap_err().to_string();
        assert!(error.contains(expected), "{list:?}: {error}");
    }
    let none = load(&Sources::default(), &machine()).unwrap();
    assert!(none.settings(&machine()).unwrap_err().to_string().contains("--data-dir DIR"));
}

#[test]
fn more_shards_than_cores_only_unpinned() {
    let settings = flags(&[("shards", "9"), ("unpinned", "true")]).unwrap();
    assert_eq!((settings.shards, settings.cpus.len()), (9, 0));
}

#[test]
fn nodes_have_ports_of_their_own_when_they_are_asked_for() {
    assert_eq!(flags(&[]).unwrap().cluster_listen, None);
    for address in ["127.0.0.1:7700", "127.0.0.1:0", "127.0.0.1:7414", "127.0.0.1:7402", "127.0.0.2:7410"] {
        let settings = flags(&[("cluster.listen", address)]).unwrap();
        assert_eq!(settings.cluster_listen, Some(address.parse().unwrap()));
        assert!(!settings.is_exposed());
    }
}

#[test]
fn other_nodes_are_told_an_ip_address() {
    assert_eq!(flags(&[]).unwrap().cluster_host(), None);
    for (list, expected) in [
        (&[("cluster.listen", "127.0.0.1:7700"), ("advertise", "broker-1")][..], "127.0.0.1"),
        (&[("cluster.listen", "0.0.0.0:7700"), ("advertise", "10.0.0.1")], "10.0.0.1"),
        (&[("cluster.listen", "[::]:7700"), ("advertise", "fd00::1")], "fd00::1"),
    ] {
        assert_eq!(flags(list).unwrap().cluster_host().unwrap().to_string(), expected);
    }
}

#[test]
fn a_node_has_a_number_a_rack_and_nodes_to_ask() {
    let alone = flags(&[]).unwrap();
    assert_eq!((alone.node_id, alone.rack.as_str(), alone.cluster_join.len()), (1, "", 0));
    let list = [("node.id", "7"), ("rack", "b2"), ("cluster.listen", "127.0.0.1:7700"), ("cluster.join", "broker-1:7700, 10.0.0.2:7700")];
    let node = flags(&list).unwrap();
    assert_eq!((node.node_id, node.rack.as_str()), (7, "b2"));
    assert_eq!(node.cluster_join, ["broker-1:7700", "10.0.0.2:7700"]);
}

#[test]
fn an_open_listener_needs_a_name_and_is_known_as_open() {
    let settings = flags(&[("listen", "0.0.0.0:7410"), ("advertise", "broker-1")]).unwrap();
    assert!(settings.is_exposed());
    assert_eq!(settings.advertise, "broker-1");
    assert!(!flags(&[]).unwrap().is_exposed());
}

#[test]
fn the_table_is_sound() {
    let mut seen = HashSet::new();
    for def in TABLE {
        assert!(seen.insert(def.key), "{} stands twice", def.key);
        assert!(
            seen.insert(def.flag.unwrap_or(def.key)) || def.flag == Some(def.key) || def.flag.is_none(),
            "flag {:?} stands twice",
            def.flag
        );
        assert!(def.doc.ends_with('.') && !def.doc.contains('|'), "{}: a meaning is a sentence that fits into a table", def.key);
        assert!(!TABLE.iter().any(|other| other.key.starts_with(&format!("{}.", def.key))), "{} is the front of another key", def.key);
        if let DefaultValue::Fixed(text) = def.default {
            let value = read(def, text, Origin::Default).unwrap();
            assert_eq!(def.kind.show(&value), text, "{}: the default in its shortest form", def.key);
        }
    }
    let mut envs: Vec<String> = TABLE.iter().map(|def| env_name(def.key)).collect();
    envs.sort();
    envs.dedup();
    assert_eq!(envs.len(), TABLE.len(), "two keys have one environment name");
}

#[test]
fn the_printed_forms_hold_every_setting_and_the_file_form_reads_back() {
    let loaded = load(&Sources { flags: pairs(&[("data.dir", "d"), ("shards", "2")]), ..Sources::default() }, &machine()).unwrap();
    let printed = [show::table(&loaded.effective, 0), show::json(&loaded.effective), show::toml(&loaded.effective)];
    for def in TABLE {
        assert!(printed.iter().all(|text| text.contains(def.key)), "{}", def.key);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    let uncommented =
        printed[2].lines().map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = \"")).unwrap_or(line)).collect::<Vec<_>>();
    std::fs::write(&file, uncommented.join("\n")).unwrap();
    let again = load(&Sources { file: Some(file), ..Sources::default() }, &machine()).unwrap();
    assert_eq!(again.settings(&machine()).unwrap(), loaded.settings(&machine()).unwrap());
}
