//! `queue ack`, `nack`, `extend`, `release`, `reject`: settles messages by their tokens, from whatever process.

use super::args::Tokens;
use crate::args::Format;
use crate::failure::Failure;
use crate::output::show;
use serde_json::{Value, json};
use std::process::ExitCode;
use tramline_client::{Client, LeaseToken, QueueConsumerConfig, Settle};

/// What was done, as one says it of messages.
pub fn word(settle: &Settle) -> &'static str {
    match settle {
        Settle::Ack => "acknowledged",
        Settle::Nack { .. } => "nacked",
        Settle::Extend(_) => "extended",
        Settle::Release => "released",
        Settle::Reject { .. } => "rejected",
    }
}

/// Runs the verb; exit code 1 where one of them was refused.
pub fn run(client: &Client, format: Format, tokens: &Tokens, settle: &Settle) -> Result<ExitCode, Failure> {
    let mut consumer = client.queue_consumer(&tokens.name, QueueConsumerConfig::default())?;
    let settlements: Vec<_> = tokens.tokens.iter().map(|token| (*token, settle.clone())).collect();
    let results: Vec<_> = consumer.settle(&settlements)?.into_iter().map(|result| result.map_err(Failure::from)).collect();
    for failure in results.iter().filter_map(|result| result.as_ref().err()) {
        eprint!("{}", failure.render(format));
    }
    let done: Vec<(LeaseToken, Option<&Failure>)> =
        tokens.tokens.iter().zip(&results).map(|(token, result)| (*token, result.as_ref().err())).collect();
    show(format, || text(settle, &done), || json(&tokens.name, settle, &done))?;
    Ok(if results.iter().all(Result::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(settle: &Settle, done: &[(LeaseToken, Option<&Failure>)]) -> String {
    done.iter().filter(|(_, failure)| failure.is_none()).map(|(token, _)| format!("{} {token}\n", word(settle))).collect()
}

fn json(queue: &str, settle: &Settle, done: &[(LeaseToken, Option<&Failure>)]) -> Value {
    let told = |(token, failure): &(LeaseToken, Option<&Failure>)| json!({"token": token.to_string(), "done": failure.is_none(), "code": failure.map(|failure| failure.code.as_str())});
    json!({"queue": queue, "action": word(settle), "messages": done.iter().map(told).collect::<Value>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_its_result() {
        let token = LeaseToken { partition_uid: 31, offset: 672, lease: 7 };
        let failure = Failure::local("lease_lost", "too late");
        let done = [(token, None), (token, Some(&failure))];
        assert_eq!(text(&Settle::Ack, &done), "acknowledged 1f-2a0-7\n");
        let value = json("q", &Settle::NACK, &done);
        assert_eq!(value["action"], "nacked");
        assert_eq!(
            value["messages"],
            json!([{"token": "1f-2a0-7", "done": true, "code": null}, {"token": "1f-2a0-7", "done": false, "code": "lease_lost"}])
        );
    }
}
