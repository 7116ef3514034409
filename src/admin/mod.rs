//! HTTP for operators: metrics, health, the slowest requests. Runs on the housekeeping thread, never on a shard's.
//!
//! ```text
//!   /metrics  collector asks every shard (2 s), adds up, prometheus.rs writes the text
//!   /livez    200 while this thread answers at all
//!   /readyz   200 when every shard is ready and answers; else 503 with one line per reason
//!   /slow     the slowest requests of the last hour with their stages, JSON
//!   /histograms, /histograms/SHARD
//!             all timings since the start of all shards together, or of one, as a log of HDR histograms
//!   /         what is here
//! ```
//!
//! Invariants: nothing here touches a shard's state: numbers come as snapshots, states from `metrics::Health`; a shard that does not answer delays
//! a page by two seconds at most and never fails it; pages only read.
//!
//! Not here: the thread, its cores, the listener (`runtime/housekeeping.rs`); what is counted (`metrics`).

pub mod collector;
mod histograms;
pub mod prometheus;
#[cfg(test)]
mod tests;

use crate::config::{DiskMarks, DiskSize};
use crate::constants;
use crate::metrics::{Health, Interval, RequestClass, SnapshotSource, Stage};
use axum::extract::{Path as InPath, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use collector::Collector;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// What the pages need to know of the node besides its shards.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Asks for its file system.
    pub disk_of: fn(&Path) -> Option<DiskSize>,
    /// How much of it has to stay free.
    pub disk_marks: DiskMarks,
    /// When the process started.
    pub started: Instant,
    /// Log messages counted instead of written.
    pub suppressed: fn() -> u64,
}

/// State of the pages, one per process.
#[derive(Debug)]
pub struct Admin {
    health: Arc<Health>,
    node: NodeFacts,
    /// Locked for the length of one collection: pages that need one queue up behind each other.
    collector: Mutex<Collector>,
}

impl Admin {
    /// Pages over these shards. `wait` is how long a shard may take to answer (`constants::SNAPSHOT_WAIT_MS`).
    pub fn new(health: Arc<Health>, source: Arc<dyn SnapshotSource>, node: NodeFacts, wait: Duration) -> Admin {
        let collector = Mutex::new(Collector::new(source, Arc::clone(&health), wait));
        Admin { health, node, collector }
    }

    /// The routes.
    pub fn router(self: Arc<Admin>) -> axum::Router {
        axum::Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/slow", get(slow))
            .route("/histograms", get(histograms_of_all))
            .route("/histograms/{shard}", get(histograms_of_shard))
            .fallback(async || (StatusCode::NOT_FOUND, "no such page; see /\n"))
            .with_state(self)
    }

    /// Why the node is not ready; empty when it is.
    async fn reasons(&self) -> Vec<String> {
        let known = self.health.reasons();
        if !known.is_empty() {
            return known;
        }
        let silent = self.collector.lock().await.silent_shards().await;
        silent.iter().map(|shard| format!("shard {shard} has not answered for 2 seconds")).collect()
    }
}

async fn index() -> Html<String> {
    Html(format!(
        "<!doctype html><meta charset=\"utf-8\"><title>Tramline</title><h1>Tramline {}</h1><ul>\
         <li><a href=\"/metrics\">/metrics</a> numbers for Prometheus\
         <li><a href=\"/readyz\">/readyz</a> whether every shard serves\
         <li><a href=\"/livez\">/livez</a> whether the process answers\
         <li><a href=\"/slow\">/slow</a> slowest requests of the last hour\
         <li><a href=\"/histograms\">/histograms</a> all timings as a log of HDR histograms; /histograms/0 those of shard 0</ul>\n",
        constants::VERSION
    ))
}

async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let reasons = admin.reasons().await;
    match reasons.is_empty() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let text = {
        let mut collector = admin.collector.lock().await;
        collector.collect().await;
        prometheus::page(&collector, &admin.health, &admin.node)
    };
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

async fn slow(State(admin): State<Arc<Admin>>) -> Response {
    let mut collector = admin.collector.lock().await;
    collector.collect().await;
    let mut found: Vec<_> = collector.slowest().collect();
    found.sort_by_key(|(_, request)| std::cmp::Reverse(request.total_ns()));
    let page: Vec<serde_json::Value> = found
        .into_iter()
        .map(|(shard, request)| {
            let stages = Stage::ALL.iter().zip(request.stamps.stages());
            let times = stages.filter_map(|(stage, ns)| Some((format!("{}_us", stage.name()), serde_json::json!(ns? as f64 / 1e3))));
            let mut object: serde_json::Map<String, serde_json::Value> = times.collect();
            object.insert("shard".to_owned(), shard.0.into());
            object.insert("kind".to_owned(), RequestClass::name(request.class).into());
            object.insert("utc_us".to_owned(), request.utc_us.into());
            object.insert("bytes".to_owned(), request.bytes.into());
            object.into()
        })
        .collect();
    ([(header::CONTENT_TYPE, "application/json")], serde_json::Value::from(page).to_string() + "\n").into_response()
}

async fn histograms_of_all(State(admin): State<Arc<Admin>>) -> Response {
    histograms(&admin, None).await
}

async fn histograms_of_shard(State(admin): State<Arc<Admin>>, InPath(shard): InPath<u16>) -> Response {
    histograms(&admin, Some(shard)).await
}

async fn histograms(admin: &Admin, shard: Option<u16>) -> Response {
    let mut timings = Interval::new();
    {
        let mut collector = admin.collector.lock().await;
        collector.collect().await;
        let shards = collector.shards();
        if let Some(shard) = shard.filter(|shard| usize::from(*shard) >= shards.len()) {
            return (StatusCode::NOT_FOUND, format!("there is no shard {shard}: they are 0 to {}\n", shards.len() - 1)).into_response();
        }
        let wanted = shards.iter().enumerate().filter(|(number, _)| shard.is_none_or(|shard| usize::from(shard) == *number));
        wanted.for_each(|(_, totals)| timings.add(&totals.timings));
    }
    let lasted = admin.node.started.elapsed();
    match histograms::log(&timings, SystemTime::now() - lasted, lasted) {
        Ok(log) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], log).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the histograms cannot be written: {error}\n")).into_response(),
    }
}
