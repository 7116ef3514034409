//! Hostile input between nodes: every byte flipped, every prefix, random bytes. Nothing panics, no flipped bit of an Append is taken.

mod common;

use common::{node_mend, node_samples, node_walk};
use proptest::collection::vec;
use proptest::prelude::*;
use tramline_wire::frame::Limits;
use tramline_wire::node::*;

/// Everything that a receiver does with the first frame of a connection, up to what it may store.
fn take(bytes: &[u8]) -> Result<(), String> {
    let told = |error: NodeError| error.to_string();
    let frame = match peek(bytes, &Limits::PROTOCOL, &Numbers::new()).map_err(told)? {
        Need::Whole(frame, len) if len == bytes.len() => frame,
        Need::Whole(..) => return Err("bytes follow the frame".to_owned()),
        Need::More(_) => return Err("bytes are missing".to_owned()),
    };
    let (limits, [range, entry]) = (PayloadLimits::default(), node_walk::questions());
    match frame.kind {
        Kind::Append => {
            let append = Append::decode(frame.meta).map_err(|error| error.to_string())?;
            append.check(frame.payload, &limits).map(|append| node_walk::checked(&append)).map_err(told)?;
        }
        Kind::Piece => {
            let piece = Piece::decode(frame.meta).map_err(|error| error.to_string())?;
            piece.check(frame.payload, &limits).map_err(told)?;
        }
        Kind::FetchReply => {
            let reply = FetchReply::decode(frame.meta).map_err(|error| error.to_string())?;
            let asked = if reply.heads.is_empty() { range } else { entry };
            reply.check(&asked, frame.payload, &limits).map_err(told)?;
        }
        Kind::Call => Call::decode(frame.meta).map_err(|error| error.to_string())?.check(frame.payload).map_err(told)?,
        Kind::CallReply => CallReply::decode(frame.meta).map_err(|error| error.to_string())?.check(frame.payload).map_err(told)?,
        _ => assert!(frame.payload.is_empty() && node_walk::metas(frame.meta, &[]).0 > 0),
    }
    Ok(())
}

#[test]
fn samples_are_taken_and_with_any_bit_flipped_they_are_not() {
    for sample in node_samples::all() {
        let mut bytes = sample.frame();
        assert_eq!(take(&bytes), Ok(()), "{}", sample.name);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(take(&bytes).is_err(), "{}: bit {} of byte {} flipped unnoticed", sample.name, bit % 8, bit / 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn no_prefix_of_a_sample_is_taken() {
    for sample in node_samples::all() {
        let bytes = sample.frame();
        for cut in 0..bytes.len() {
            let error = take(&bytes[..cut]).expect_err("cut");
            assert_eq!(error, "bytes are missing", "{} of {} bytes of {}", cut, bytes.len(), sample.name);
            node_walk::frame(&bytes[..cut]);
        }
        for cut in 0..sample.meta.len() {
            node_walk::metas(&sample.meta[..cut], &sample.payload);
        }
        for cut in 0..sample.payload.len() {
            node_walk::metas(&sample.meta, &sample.payload[..cut]);
        }
    }
}

#[test]
fn every_byte_of_a_meta_set_to_anything_with_right_sums_never_panics() {
    for sample in node_samples::all() {
        for at in 0..sample.meta.len() {
            for value in [0, 1, 2, 3, 5, 0x7f, 0x80, 0xff] {
                let (mut meta, mut payload) = (sample.meta.clone(), sample.payload.clone());
                meta[at] = value;
                node_walk::metas(&meta, &payload);
                node_mend::sums(sample.kind, &mut meta, &mut payload);
                node_walk::metas(&meta, &payload);
                node_walk::frame(&node_mend::frame(sample.kind, &meta, &payload));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600), payload in vec(any::<u8>(), 0..300)) {
        node_walk::frame(&bytes);
        node_walk::metas(&bytes, &payload);
    }

    #[test]
    fn arbitrary_bodies_of_small_numbers_never_panic(
        bytes in vec(prop_oneof![8 => Just(0u8), 4 => 0u8..5, 1 => any::<u8>()], 0..200), kind in prop::sample::select(Kind::ALL),
    ) {
        let (mut meta, mut payload) = (bytes.clone(), bytes);
        node_walk::metas(&meta, &payload);
        node_mend::sums(kind, &mut meta, &mut payload);
        node_walk::metas(&meta, &payload);
        node_walk::frame(&node_mend::frame(kind, &meta, &payload));
    }

    #[test]
    fn damaged_payloads_with_right_sums_never_panic(
        which: prop::sample::Index, damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index,
    ) {
        let samples: Vec<_> = node_samples::all().into_iter().filter(|sample| !sample.payload.is_empty()).collect();
        let sample = &samples[which.index(samples.len())];
        let (mut meta, mut payload) = (sample.meta.clone(), sample.payload.clone());
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        node_mend::sums(sample.kind, &mut meta, &mut payload);
        node_walk::metas(&meta, &payload);
        payload.truncate(cut.index(payload.len()));
        node_walk::metas(&meta, &payload);
    }
}
