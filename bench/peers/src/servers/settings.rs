//! The settings of each broker: what it is started with, and the same in words for the report.
//!
//! The rule: the makers' defaults, loopback only, and what the class of durability asks for; nothing tuned for one peer alone. Not here: the clients'
//! settings (`adapters/`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Program, Setup};
use crate::fault::{Fallible, Told, fault};
use crate::kinds::{Class, PeerKind};
use crate::peer::Reach;

/// Where Debian puts RabbitMQ's own start script. The one in the PATH changes the user.
const RABBIT_SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The broker's settings in words.
pub fn told(kind: PeerKind, class: Class) -> &'static str {
    match (kind, class) {
        (PeerKind::Tramline, Class::Synced) => "one shard per broker core, level `durable` (its default)",
        (PeerKind::Tramline, Class::Memory) => "one shard per broker core, level `leader`, `visible.at=leader` on the topics",
        (PeerKind::Nats, Class::Synced) => "JetStream, file storage, `sync_interval: always`",
        (PeerKind::Nats, Class::Memory) => "JetStream, file storage, defaults (syncs by a timer)",
        (PeerKind::Redis, Class::Synced) => "`appendonly yes`, `appendfsync always`, no snapshots",
        (PeerKind::Redis, Class::Memory) => "defaults of the program (no append-only file, snapshots by its default rules)",
        (PeerKind::RabbitStream, _) => "streams over AMQP 0.9.1, defaults",
        (PeerKind::RabbitQuorum, _) => "quorum queues of one member, defaults",
        (PeerKind::Kafka, Class::Synced) => "KRaft, one node, heap 1 GiB, `log.flush.interval.messages=1`, acks=all",
        (PeerKind::Kafka, Class::Memory) => "KRaft, one node, heap 1 GiB, defaults (the operating system writes), acks=all",
    }
}

/// Writes the settings and tells what to start; the broker is the last.
pub(super) fn prepare(reach: &Reach, setup: &Setup, dir: &Path) -> Fallible<Vec<Program>> {
    match reach.kind {
        PeerKind::Tramline => Ok(vec![tramline(reach, setup, dir)]),
        PeerKind::Nats => nats(reach, setup, dir),
        PeerKind::Redis => Ok(vec![redis(reach, dir)]),
        PeerKind::RabbitStream | PeerKind::RabbitQuorum => rabbit(reach, setup, dir),
        PeerKind::Kafka => kafka(reach, setup, dir),
    }
}

fn program(path: impl Into<PathBuf>, arguments: &[&str]) -> Program {
    Program { path: path.into(), arguments: arguments.iter().map(ToString::to_string).collect(), environment: Vec::new() }
}

fn write(path: &Path, text: &str) -> Fallible<String> {
    fs::write(path, text).told(&format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

fn tramline(reach: &Reach, setup: &Setup, dir: &Path) -> Program {
    let shards = crate::machine::cpu_count(&setup.broker_cpus).to_string();
    let (listen, admin) = (format!("127.0.0.1:{}", reach.port), format!("127.0.0.1:{}", admin_port(reach.port)));
    let data = dir.join("data").display().to_string();
    let arguments =
        ["serve", "--data-dir", &data, "--listen", &listen, "--admin", &admin, "--shards", &shards, "--cpus", &setup.broker_cpus];
    program(&setup.tramline, &arguments)
}

/// Below the clients' port: shard i listens on the clients' port + 1 + i, however many there are.
pub(crate) fn admin_port(client_port: u16) -> u16 {
    client_port - 1
}

fn nats(reach: &Reach, setup: &Setup, dir: &Path) -> Fallible<Vec<Program>> {
    let sync = if reach.class == Class::Synced { ", sync_interval: always" } else { "" };
    let store = dir.join("data").display().to_string();
    let text = format!("listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {store:?}{sync} }}\n", reach.port);
    let file = write(&dir.join("nats.conf"), &text)?;
    let tried = Command::new(&setup.nats).args(["-t", "-c", &file]).output().told("cannot start nats-server (run.sh installs it)")?;
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
        return fault(format!(
            "this version of nats-server does not take its settings ({why}); `sync_interval: always` came with 2.10, so an older one cannot sync before it acknowledges: \
             give a newer one with --nats"
        ));
    }
    Ok(vec![program(&setup.nats, &["-c", &file])])
}

fn redis(reach: &Reach, dir: &Path) -> Program {
    let (port, dir) = (reach.port.to_string(), dir.display().to_string());
    let mut arguments = vec!["--bind", "127.0.0.1", "--port", &port, "--dir", &dir, "--protected-mode", "yes"];
    if reach.class == Class::Synced {
        arguments.extend(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    }
    program("redis-server", &arguments)
}

fn rabbit(reach: &Reach, setup: &Setup, dir: &Path) -> Fallible<Vec<Program>> {
    let (port, stream_port, dist_port, epmd_port) = (reach.port, reach.second_port, setup.port_base + 2, setup.port_base + 3);
    let conf = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\nstream.listeners.tcp.1 = 127.0.0.1:{stream_port}\nstream.advertised_host = 127.0.0.1\nstream.advertised_port = {stream_port}\n"
    );
    write(&dir.join("rabbitmq.conf"), &conf)?;
    write(&dir.join("enabled_plugins"), "[rabbitmq_stream].\n")?;
    // A resolver file of its own, so that nothing depends on the name of the machine.
    let at = |name: &str| dir.join(name).display().to_string();
    let environment = [
        ("RABBITMQ_NODENAME", "peers@localhost".to_owned()),
        ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", at("no-environment")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", at("mnesia")),
        ("RABBITMQ_LOG_BASE", at("log")),
        ("RABBITMQ_DIST_PORT", dist_port.to_string()),
        ("ERL_EPMD_PORT", epmd_port.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("HOME", dir.display().to_string()),          // the cookie
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()), // the start script then replaces itself by the broker
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".to_owned()),
    ];
    let environment: Vec<(String, String)> = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    // Started here, or Erlang would leave one behind.
    let epmd = Program { environment: environment.clone(), ..program("epmd", &["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]) };
    Ok(vec![epmd, Program { environment, ..program(RABBIT_SERVER, &[]) }])
}

fn kafka(reach: &Reach, setup: &Setup, dir: &Path) -> Fallible<Vec<Program>> {
    let (port, controller) = (reach.port, reach.second_port);
    let flush = if reach.class == Class::Synced { "log.flush.interval.messages=1\n" } else { "" };
    let data = dir.join("data").display().to_string();
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\nlog.dirs={data}\noffsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n{flush}"
    );
    let file = write(&dir.join("server.properties"), &text)?;
    let jars = format!("{}/*", setup.kafka_libs.display());
    let formatted = Command::new("java")
        .args(["-cp", &jars, "kafka.tools.StorageTool", "format", "-t", "dHJhbWxpbmUtcGVlcnMtMQ", "-c", &file])
        .output()
        .told("cannot start java (run.sh installs it)")?;
    if !formatted.status.success() {
        return fault(format!("Kafka's folder cannot be formatted: {}", String::from_utf8_lossy(&formatted.stderr).trim()));
    }
    Ok(vec![program("java", &["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-cp", &jars, "kafka.Kafka", &file])])
}
