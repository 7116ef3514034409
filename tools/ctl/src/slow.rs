//! `slow`: the slowest requests of a node, with the time that each stage took, from the node's admin pages.
//!
//! As with the other verbs: one function asks, pure ones make the text and the JSON. What the page says is not ours: a field that is missing or of another kind
//! is shown as `-`.
//!
//! Not here: which requests are kept, and for how long (the broker's `metrics/stages.rs` and `admin/`).

use crate::args::Global;
use crate::failure::Failure;
use crate::output::show;
use crate::table::Table;
use serde_json::{Value, json};

/// Port of the admin pages where nobody says another.
const ADMIN_PORT: u16 = 7401;
/// More than a page of 256 shards with 32 requests each has.
const PAGE_BYTES_MAX: u64 = 8 << 20;
/// Fields of a request: its stages, in order, and the total.
const STAGES: [&str; 5] = ["parse_us", "append_us", "write_us", "reply_us", "total_us"];

/// `slow`.
pub fn slow(global: &Global, admin: Option<&str>, limit: u16) -> Result<(), Failure> {
    let address = admin.map_or_else(|| beside(&global.server.0[0]), str::to_owned);
    let mut requests = page(global, &address)?;
    requests.truncate(usize::from(limit));
    show(global.format, || text(&requests), || json!({ "requests": requests }))
}

/// The admin pages' usual address on a node's host.
fn beside(server: &str) -> String {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    format!("{host}:{ADMIN_PORT}")
}

fn page(global: &Global, address: &str) -> Result<Vec<Value>, Failure> {
    let url = format!("http://{address}/slow");
    let unreachable = |cause: ureq::Error| match cause {
        ureq::Error::StatusCode(_) | ureq::Error::BodyExceedsLimit(_) => no_page(&url, &cause.to_string()),
        _ => Failure {
            code: "admin_unreachable".to_owned(),
            retriable: true,
            message: format!(
                "{url} does not answer: {cause}; --admin names the address of the node's admin pages, its setting admin.listen"
            ),
        },
    };
    let request = ureq::get(&url).config().timeout_global(Some(global.timeout)).proxy(None).build();
    let mut answer = request.call().map_err(unreachable)?;
    let body = answer.body_mut().with_config().limit(PAGE_BYTES_MAX).read_to_string().map_err(unreachable)?;
    serde_json::from_str(&body).map_err(|cause| no_page(&url, &cause.to_string()))
}

fn no_page(url: &str, cause: &str) -> Failure {
    Failure::local("no_admin_page", format!("{url} is no page of a Tramline node ({cause}); see --admin"))
}

fn text(requests: &[Value]) -> String {
    let mut table =
        Table::new(&["ENDED (UTC)", "KIND", ">SHARD", ">BYTES", ">PARSE us", ">APPEND us", ">WRITE us", ">REPLY us", ">TOTAL us"]);
    for request in requests {
        let number = |field: &str| request[field].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let time = |field: &&str| request[*field].as_f64().map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
        let ended = request["utc_us"].as_i64().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
        let mut cells = vec![
            ended.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            request["kind"].as_str().unwrap_or("-").to_owned(),
            number("shard"),
            number("bytes"),
        ];
        cells.extend(STAGES.iter().map(time));
        table.row(cells);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_looked_for_on_the_servers_host() {
        assert_eq!(beside("10.0.0.1:7410"), "10.0.0.1:7401");
        assert_eq!(beside("[::1]:9000"), "[::1]:7401");
    }

    #[test]
    fn what_a_request_did_not_pass_is_a_dash() {
        let requests = [
            json!({"kind": "produce", "shard": 1, "bytes": 100, "utc_us": 1_700_000_000_000_000_i64, "parse_us": 1.04, "append_us": 2.0, "write_us": 950.5, "reply_us": 3.0, "total_us": 956.54}),
            json!({"kind": "fetch", "shard": 0, "total_us": "odd"}),
        ];
        let text = text(&requests);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["2023-11-14T22:13:20Z", "produce", "1", "100", "1.0", "2.0", "950.5", "3.0", "956.5"]);
        assert_eq!(lines[2], ["-", "fetch", "0", "-", "-", "-", "-", "-", "-"]);
    }
}
