//! Footers of sealed and of sorted segments: as bytes of their own, and changed in a directory with checksums that fit.
#![no_main]

use tramline::ids::SegmentUid;
use tramline::log::footer::{self, FOOTER_PAGE_BYTES, FooterHeader};
use tramline_fuzz::{Input, bases, checks, edits, node};

/// A page is what its bytes say or refused; a slice is whole or refused.
fn decode(mut input: Input<'_>) {
    let (total, first, count) = (1 + input.below(2000) as u32, input.short() as u32, input.byte() as u32);
    let segment = SegmentUid(input.short());
    let mut bytes = input.rest().to_vec();
    bytes.resize(bytes.len().next_multiple_of(FOOTER_PAGE_BYTES).max(FOOTER_PAGE_BYTES), 0);
    if let Some(header) = FooterHeader::decode(&bytes[..FOOTER_PAGE_BYTES]) {
        let mut page = vec![0; FOOTER_PAGE_BYTES];
        header.encode(&mut page);
        assert_eq!(FooterHeader::decode(&page), Some(header), "what was read is written the same");
    }
    let first = first % total;
    let plan = footer::read_plan(segment, 4 << 20, total, first, 1 + count % (total - first));
    let mut out = Vec::new();
    match footer::decode_slice(&plan, &bytes, &mut out) {
        Ok(()) => assert_eq!(out.len(), plan.count() as usize),
        Err(_) => assert!(out.is_empty()),
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    if choice >= 224 {
        return decode(input);
    }
    let base = &bases()[usize::from(choice) % bases().len()];
    let mut disk = base.disk();
    for _ in 0..6 {
        if input.is_empty() {
            break;
        }
        edits::forge_footer(&mut disk, &mut input);
    }
    checks::inspect(&mut disk, &mut input);
    if let Some(found) = checks::start(base, &mut disk, false) {
        node::run(base, &mut disk, found);
    }
});
