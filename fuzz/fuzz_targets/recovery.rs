//! A shard's directory whose segment files were spoiled: the start does not panic, loop, or believe what does not check; nor does `inspect`, nor the
//! shard that works over what was found.
#![no_main]

use tramline_fuzz::{Input, bases, checks, edits, node};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let base = &bases()[usize::from(choice >> 1) % bases().len()];
    let is_honest = choice & 1 == 0;
    let mut disk = base.disk();
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        match (is_honest, input.byte() % 8) {
            (true, _) | (false, 0) => edits::decay(&mut disk, &mut input),
            (false, 1) => edits::forge_segment_header(&mut disk, &mut input),
            (false, 2) => edits::forge_footer(&mut disk, &mut input),
            (false, _) => edits::forge_block(&mut disk, &mut input),
        }
    }
    checks::inspect(&mut disk, &mut input);
    if let Some(found) = checks::start(base, &mut disk, is_honest) {
        node::run(base, &mut disk, found);
    }
});
