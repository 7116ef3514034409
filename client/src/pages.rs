//! Answers that come in pages: asked for one after the other, put together.
//!
//! Invariants: items rise from page to page; what a broker says cannot make this go on for ever without items.
//!
//! Not here: how long it may take (the deadline of the calls).

use crate::error::Error;

/// What one reply said.
pub(crate) struct Page<H, T> {
    /// What does not come in pages.
    pub head: H,
    /// Items that rise.
    pub items: Vec<T>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// Asks for what is behind the last item until there is no more. Where the head is of another thing than the one before (deleted and made anew meanwhile), it
/// begins anew. The pages are not of one moment; the head is the last one's.
pub(crate) fn collect<H, T>(
    is_same: impl Fn(&H, &H) -> bool,
    is_before: impl Fn(&T, &T) -> bool,
    mut ask: impl FnMut(Option<&T>) -> Result<Page<H, T>, Error>,
) -> Result<(H, Vec<T>), Error> {
    let mut items: Vec<T> = Vec::new();
    let mut before: Option<H> = None;
    loop {
        let page = ask(items.last())?;
        if before.take().is_some_and(|before| !is_same(&before, &page.head)) {
            items.clear();
            continue;
        }
        let rises = items.last().into_iter().chain(&page.items).is_sorted_by(|a, b| is_before(a, b));
        if !rises || (page.more && page.items.is_empty()) {
            return Err(Error::protocol("the broker", "a page of its answer has nothing, or is not behind the one before".to_owned()));
        }
        items.extend(page.items);
        if !page.more {
            return Ok((page.head, items));
        }
        before = Some(page.head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Collected = Result<(u64, Vec<u32>), Error>;

    /// What came of it, and behind which items was asked.
    fn run(pages: &[(u64, &[u32], bool)]) -> (Collected, Vec<Option<u32>>) {
        let mut asked = Vec::new();
        let mut next = pages.iter();
        let got = collect(
            |a, b| a == b,
            |a, b| a < b,
            |last: Option<&u32>| {
                asked.push(last.copied());
                let (head, items, more) = next.next().expect("asked too often");
                Ok(Page { head: *head, items: items.to_vec(), more: *more })
            },
        );
        (got, asked)
    }

    #[test]
    fn pages_are_put_together_and_begin_anew_with_another_head() {
        let (got, asked) = run(&[(1, &[2, 4], true), (1, &[5], false)]);
        assert_eq!((got.unwrap(), asked), ((1, vec![2, 4, 5]), vec![None, Some(4)]));
        assert_eq!(run(&[(1, &[], false)]).0.unwrap(), (1, vec![]));
        let (got, asked) = run(&[(1, &[2, 4], true), (2, &[9], false), (2, &[1, 3], false)]);
        assert_eq!((got.unwrap(), asked), ((2, vec![1, 3]), vec![None, Some(4), None]));
    }

    #[test]
    fn pages_that_lead_nowhere_are_refused() {
        for pages in
            [&[(1, &[][..], true)][..], &[(1, &[2, 2], false)], &[(1, &[2, 4], true), (1, &[4], false)], &[(1, &[2], true), (1, &[], true)]]
        {
            assert!(run(pages).0.is_err(), "{pages:?}");
        }
    }
}
