//! What was delivered of one partition: its batches to messages.
//!
//! Invariants: only listed offsets become messages, each of them once, and in the order in which they are listed; a reply that lists what cannot be is refused whole. Of a batch that is
//! wrong nothing is taken, and it is told; what was leased of it comes back when the lease is over.

use tramline_wire::batch::{BatchView, Batches};
use tramline_wire::queue::{Delivery, Received};

use super::Part;
use crate::config::QueueConsumerConfig;
use crate::core::bad_batch::BadBatch;
use crate::core::codec::Decompressor;
use crate::message::Message;

/// What is wrong with a reply: the connection is of no use.
pub(super) struct Broken(pub String);

/// The messages of an entry, and what was wrong with its batches: an offset, a sentence.
pub(super) type Read = (Vec<Message>, Option<(u64, String)>);

/// One delivery that is looked for.
struct Wanted {
    place: usize,
    delivery: Delivery,
}

/// Reads an entry without an error. `left`: how many deliveries the reply may still have.
pub(super) fn read(
    part: &Part,
    entry: &Received<'_>,
    payload: &[u8],
    decompressor: &mut Decompressor,
    config: &QueueConsumerConfig,
    left: &mut usize,
) -> Result<Read, Broken> {
    let wanted = wanted_of(entry, left)?;
    let mut found: Vec<Option<Message>> = Vec::new();
    found.resize_with(wanted.len(), || None);
    let mut bad = None;
    for batch in Batches::new(payload) {
        let read = batch.map_err(BadBatch::Batch).and_then(|batch| read_batch(part, &batch, &wanted, decompressor, config, &mut found));
        if let Err(wrong) = read {
            bad = Some(wrong.message());
        }
    }
    let missing = wanted.iter().find(|wanted| found[wanted.place].is_none());
    let fault = missing.map(|missing| {
        (missing.delivery.offset, bad.unwrap_or_else(|| format!("no batch of the reply holds offset {}", missing.delivery.offset)))
    });
    Ok((found.into_iter().flatten().collect(), fault))
}

/// The deliveries by offset.
fn wanted_of(entry: &Received<'_>, left: &mut usize) -> Result<Vec<Wanted>, Broken> {
    let mut wanted = Vec::new();
    for (place, delivery) in entry.deliveries.iter().enumerate() {
        *left = left.checked_sub(1).ok_or_else(|| Broken("it delivered more messages than were asked for".to_string()))?;
        if delivery.lease == 0 || delivery.deliveries == 0 {
            return Err(Broken(format!("it delivered offset {} without a lease or a count", delivery.offset)));
        }
        wanted.push(Wanted { place, delivery });
    }
    wanted.sort_unstable_by_key(|wanted| wanted.delivery.offset);
    match wanted.windows(2).find(|pair| pair[0].delivery.offset == pair[1].delivery.offset) {
        Some(pair) => Err(Broken(format!("it delivered offset {} twice", pair[0].delivery.offset))),
        None => Ok(wanted),
    }
}

fn read_batch(
    part: &Part,
    batch: &BatchView<'_>,
    wanted: &[Wanted],
    decompressor: &mut Decompressor,
    config: &QueueConsumerConfig,
    found: &mut [Option<Message>],
) -> Result<(), BadBatch> {
    if config.verify_checksums {
        batch.verify_header()?;
    }
    if batch.partition_uid() != part.uid {
        return Err(BadBatch::OtherPartition { uid: batch.partition_uid() });
    }
    let first = wanted.partition_point(|wanted| wanted.delivery.offset < batch.base_offset());
    let end = wanted.partition_point(|wanted| wanted.delivery.offset < batch.next_offset());
    let mut here = wanted[first..end].iter().peekable();
    if here.peek().is_none() {
        return Ok(());
    }
    if batch.is_control() {
        return Err(BadBatch::Control);
    }
    if config.verify_checksums {
        batch.verify_body()?;
    }
    let values = decompressor
        .decompress(batch.codec(), batch.stored_values(), batch.values_len(), config.batch_values_bytes_max)
        .map_err(BadBatch::Codec)?;
    let mut taken = Vec::new();
    for record in batch.records(values) {
        let record = record?;
        // Offsets rise within a batch, and so do those looked for.
        while here.next_if(|wanted| wanted.delivery.offset < record.offset).is_some() {}
        if let Some(wanted) = here.next_if(|wanted| wanted.delivery.offset == record.offset) {
            taken.push((wanted.place, Message::new(part.index, part.uid, batch.append_time_us(), &record, &wanted.delivery)));
        }
    }
    // Only now: a batch that is wrong further on is wrong.
    for (place, message) in taken {
        found[place] = Some(message);
    }
    Ok(())
}
