//! Decodes bytes as everything there is between nodes and goes through the result, allocating nothing itself. Also a fuzz target's body.

use tramline_wire::frame::{self, Limits};
use tramline_wire::node::*;
use tramline_wire::prim::{Item, List};

/// Goes through a list; its iterator must give as many items as it promised.
fn list<'a, T: Item<'a>>(list: &List<'a, T>) {
    assert_eq!(list.iter().count(), list.len(), "a validated list gave fewer items than it has");
}

/// Goes through an entry: what it gives is all of its bytes, and every sum is right.
fn entry(entry: &CheckedEntry<'_>) {
    let mut bytes = 0;
    for batch in entry.batches() {
        assert_eq!((batch.verify_header(), batch.verify_body(), batch.term()), (Ok(()), Ok(()), entry.term()));
        bytes += batch.len();
    }
    for control in entry.controls() {
        assert!(!control.is_empty(), "a control payload without bytes");
        bytes += 4 + control.len();
    }
    assert_eq!(bytes, entry.payload_bytes(), "batches and control payloads are not all of an entry");
    assert_eq!(entry.change().is_some(), entry.kind() == EntryKind::Raft && bytes > 0);
    assert!(bytes > 0 || entry.kind() == EntryKind::Raft);
}

/// Goes through what was taken of an Append; returns the entries.
pub fn checked(append: &CheckedAppend<'_>) -> usize {
    let (mut entries, mut bytes) = (0, 0);
    for share in append.shares() {
        let base = *share.base();
        let (mut index, mut term, mut share_bytes) = (base.prev_index, base.prev_term, 0);
        for found in share.entries() {
            entry(&found);
            assert!(found.index() == index + 1 && found.term() >= term && found.term() <= base.term);
            (index, term) = (found.index(), found.term());
            share_bytes += found.payload_bytes();
        }
        assert_eq!((index, share_bytes), (share.last_index(), share.payload_bytes()), "entries are missing");
        assert!(share.last_index() < NUMBER_END && base.commit < NUMBER_END);
        entries += share.len();
        bytes += share_bytes;
    }
    assert_eq!(bytes, append.payload_bytes(), "shares are missing");
    entries
}

/// Questions that a reply may have been the answer to.
pub fn questions() -> [Fetch; 2] {
    [
        Fetch { group: 3, uid: 0x0102_0304_0506_0708, first: 1000, end: 2000, max_bytes: 1 << 20 },
        Fetch { group: 3, uid: 0, first: 17, end: 7, max_bytes: 1 << 20 },
    ]
}

fn append(body: &Append<'_>, payload: &[u8]) -> usize {
    list(&body.groups);
    let mut taken = 0;
    for limits in [PayloadLimits::default(), PayloadLimits { batch_bytes_max: 300, entry_bytes_max: 400 }] {
        if let Ok(append) = body.check(payload, &limits) {
            checked(&append);
            taken += 1;
        }
    }
    taken
}

fn piece(body: &Piece<'_>, payload: &[u8]) -> usize {
    let Ok(found) = body.check(payload, &PayloadLimits::default()) else { return 0 };
    let bytes = match found {
        PiecePayload::None => 0,
        PiecePayload::Batches(batches) => batches
            .map(|batch| {
                assert_eq!(batch.partition_uid(), body.uid);
                batch.len()
            })
            .sum(),
        PiecePayload::Items(items) => items.map(|item| 4 + item.len()).sum(),
        PiecePayload::State(state) => state.len(),
    };
    assert_eq!(bytes, payload.len(), "a piece gives fewer bytes than it has");
    1
}

fn fetched(body: &FetchReply<'_>, payload: &[u8]) -> usize {
    list(&body.heads);
    let mut taken = 0;
    for asked in questions() {
        match body.check(&asked, payload, &PayloadLimits::default()) {
            Ok(Fetched::Error(code)) => assert!(!code.is_ok() && payload.is_empty()),
            Ok(Fetched::Batches(batches)) => {
                assert_eq!(batches.map(|batch| batch.len()).sum::<usize>(), payload.len());
            }
            Ok(Fetched::Entry(found)) => {
                entry(&found);
                assert_eq!((found.index(), found.term(), found.payload_bytes()), (asked.first, asked.end, payload.len()));
            }
            Err(_) => continue,
        }
        taken += 1;
    }
    taken
}

/// Decodes `meta` as every body there is between nodes, with this payload; returns how many accepted it, and how many payloads.
pub fn metas(meta: &[u8], payload: &[u8]) -> (usize, usize) {
    let (mut bodies, mut payloads) = (0, 0);
    macro_rules! one {
        ($type:ident) => {
            bodies += $type::decode(meta).is_ok() as usize;
        };
        ($type:ident, $body:ident => $walk:expr) => {
            if let Ok($body) = $type::decode(meta) {
                bodies += 1;
                $walk;
            }
        };
    }
    one!(Hello, body => list(&body.groups));
    one!(HelloReply, body => list(&body.groups));
    one!(Append, body => payloads += append(&body, payload));
    one!(Ack, body => list(&body.groups));
    one!(Beat, body => list(&body.groups));
    one!(Vote);
    one!(VoteReply);
    one!(TimeoutNow);
    one!(CatchUp, body => {
        list(&body.voters);
        list(&body.learners);
    });
    one!(CatchUpReply, body => list(&body.have));
    one!(Piece, body => payloads += piece(&body, payload));
    one!(PieceAck);
    one!(Fetch);
    one!(FetchReply, body => payloads += fetched(&body, payload));
    one!(Call, body => payloads += body.check(payload).is_ok() as usize);
    one!(CallReply, body => payloads += body.check(payload).is_ok() as usize);
    one!(Leaders, body => list(&body.groups));
    one!(Refused, body => body.refusal());
    one!(Activity, body => list(&body.groups));
    one!(Change);
    (bodies, payloads)
}

/// Looks for the first frame of a connection, and decodes its meta as everything there is.
pub fn frame(bytes: &[u8]) {
    for limits in [Limits::PROTOCOL, Limits::BEFORE_HELLO] {
        match peek(bytes, &limits, &Numbers::new()) {
            Ok(Need::More(total)) => {
                assert!(total > bytes.len(), "asks for {total} bytes and has {}", bytes.len());
                assert!(total <= frame::HEADER_BYTES + limits.frame_bytes_max as usize, "asks for more than the limit");
            }
            Ok(Need::Whole(frame, len)) => {
                assert_eq!(len, frame::HEADER_BYTES + frame.meta.len() + frame.payload.len());
                assert!(frame.number == 1 && (frame.payload.is_empty() || frame.kind.has_payload()));
                metas(frame.meta, frame.payload);
            }
            Err(_) => {}
        }
    }
}
