//! What a client's stream of messages has at hand: waits for one, and takes all that are there.
//!
//! Not here: what a message is (the adapters).

use std::fmt::Display;

use futures_util::{FutureExt, Stream, StreamExt};

use crate::fault::{Fallible, Told, fault};

/// Hands over each; `what` names the peer in a fault.
pub async fn take<T, E: Display>(
    stream: &mut (impl Stream<Item = Result<T, E>> + Unpin),
    what: &str,
    mut each: impl FnMut(T),
) -> Fallible<()> {
    let mut next = stream.next().await;
    while let Some(message) = next {
        each(message.told(what)?);
        match stream.next().now_or_never() {
            Some(more) => next = more,
            None => return Ok(()),
        }
    }
    fault(format!("{what}: the stream of messages ended"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[test]
    fn what_is_there_is_taken_and_an_end_is_told() {
        let mut got = Vec::new();
        let mut some = stream::iter([Ok::<_, String>(1), Ok(2)]).chain(stream::pending());
        assert!(take(&mut some, "x", |number| got.push(number)).now_or_never().is_some_and(|told| told.is_ok()));
        assert_eq!(got, [1, 2]);
        assert!(take(&mut some, "x", |_| {}).now_or_never().is_none(), "nothing is there: it waits");
        let ended = take(&mut stream::iter([Err::<u8, _>("lost")]), "x", |_| {}).now_or_never();
        assert!(ended.is_some_and(|told| told.is_err_and(|fault| fault.0 == "x: lost")));
        let ended = take(&mut stream::iter([] as [Result<u8, String>; 0]), "x", |_| {}).now_or_never();
        assert!(ended.is_some_and(|told| told.is_err_and(|fault| fault.0.contains("ended"))));
    }
}
