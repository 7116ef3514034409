//! The fuzzer's bytes as choices. Past their end every choice is 0, so that each input means something.

/// Numbers at which lengths, counts and positions go wrong.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    7,
    8,
    16,
    39,
    96,
    102,
    103,
    511,
    4095,
    4096,
    4097,
    8192,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_F000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX,
];

/// See the module.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Two bytes as a number.
    pub fn short(&mut self) -> u64 {
        u64::from(self.byte()) | u64::from(self.byte()) << 8
    }

    /// Below `n`; 0 where `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = if n > 256 { self.short() | self.short() << 16 } else { u64::from(self.byte()) };
        if n == 0 { 0 } else { (wide % n as u64) as usize }
    }

    /// What may stand in place of `old`: an edge, a neighbour, a small number, or anything.
    pub fn number(&mut self, old: u64) -> u64 {
        match self.byte() % 8 {
            0 | 1 => EDGES[self.below(EDGES.len())],
            2 => old.wrapping_add(u64::from(self.byte())),
            3 => old.wrapping_sub(u64::from(self.byte())),
            4 => u64::from(self.byte()),
            5 => self.short(),
            6 => old ^ 1 << (self.byte() % 64),
            _ => self.short() | self.short() << 16 | self.short() << 32 | self.short() << 48,
        }
    }

    /// At most `max` bytes.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let wanted = self.below(max + 1);
        let (taken, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
