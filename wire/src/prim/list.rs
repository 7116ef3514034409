//! Lists of bodies: decoded in place, encoded from slices or item by item.
//!
//! Invariant: a list that came from bytes was walked whole when it was decoded, so its iterator cannot fail; a declared
//! count is compared with the bytes that are there before the walk.
//! Not here: what the items are.

use super::{DecodeError, Item, Reader};
use std::fmt;
use std::marker::PhantomData;

/// A list of a body: either bytes that were validated when they were decoded, or a slice that is to be encoded.
pub struct List<'a, T> {
    repr: Repr<'a, T>,
}

enum Repr<'a, T> {
    Wire { items: &'a [u8], count: u32 },
    Slice(&'a [T]),
}

impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for List<'_, T> {}
impl<T> Clone for Repr<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Repr<'_, T> {}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        List { repr: Repr::Slice(&[]) }
    }
}

impl<'a, T> List<'a, T> {
    /// A list to encode.
    pub const fn of(items: &'a [T]) -> List<'a, T> {
        List { repr: Repr::Slice(items) }
    }
    /// Number of items.
    pub const fn len(&self) -> usize {
        match &self.repr {
            Repr::Wire { count, .. } => *count as usize,
            Repr::Slice(items) => items.len(),
        }
    }
    /// Whether there is no item.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// Goes through the items; cannot fail.
    #[inline]
    pub fn iter(&self) -> ListIter<'a, T> {
        match self.repr {
            Repr::Wire { items, count } => ListIter { repr: IterRepr::Wire { from: Reader::new(items), left: count } },
            Repr::Slice(items) => ListIter { repr: IterRepr::Slice(items.iter()) },
        }
    }

    /// The first item of the list at the end of a body `B`, in front of which all has a fixed size. Nothing else of the body is looked at; `None` where there is none.
    #[inline]
    pub(crate) fn first_of<B: Item<'a>>(body: &'a [u8]) -> Option<T> {
        let mut from = Reader::new(body);
        from.take(B::BYTES_MIN - <Self as Item<'a>>::BYTES_MIN).ok()?;
        (from.u32().ok()? > 0).then(|| T::read(&mut from).ok()).flatten()
    }
}

impl<'a, T: Item<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;
    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Item<'a>> IntoIterator for &List<'a, T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;
    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Item<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Item<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &List<'a, T>) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a>> Item<'a> for List<'a, T> {
    const BYTES_MIN: usize = 4;
    fn read(from: &mut Reader<'a>) -> Result<List<'a, T>, DecodeError> {
        let count = from.u32()?;
        let items = from.rest();
        let needed = (count as usize).saturating_mul(T::BYTES_MIN);
        if needed > items.len() {
            return Err(DecodeError::Short { needed, left: items.len() });
        }
        for _ in 0..count {
            T::read(from)?;
        }
        let items = &items[..items.len() - from.rest().len()];
        Ok(List { repr: Repr::Wire { items, count } })
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&count_u32(self.len()).to_le_bytes());
        match self.repr {
            Repr::Wire { items, .. } => to.extend_from_slice(items),
            Repr::Slice(items) => items.iter().for_each(|item| item.write(to)),
        }
    }
}

fn count_u32(count: usize) -> u32 {
    assert!(count <= u32::MAX as usize, "a list of {count} items cannot be encoded");
    count as u32
}

/// The items of a [`List`].
pub struct ListIter<'a, T> {
    repr: IterRepr<'a, T>,
}

enum IterRepr<'a, T> {
    Wire { from: Reader<'a>, left: u32 },
    Slice(std::slice::Iter<'a, T>),
}

impl<'a, T: Item<'a>> Iterator for ListIter<'a, T> {
    type Item = T;
    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.repr {
            IterRepr::Wire { left: 0, .. } => None,
            IterRepr::Wire { from, left } => {
                *left -= 1;
                // The same bytes were read by `List::read`, which refused them if they do not decode.
                let item = T::read(from);
                debug_assert!(item.is_ok(), "a validated list does not decode");
                item.ok()
            }
            IterRepr::Slice(items) => items.next().copied(),
        }
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match &self.repr {
            IterRepr::Wire { left, .. } => *left as usize,
            IterRepr::Slice(items) => items.len(),
        };
        (len, Some(len))
    }
}

impl<'a, T: Item<'a>> ExactSizeIterator for ListIter<'a, T> {}

/// Writes a list item by item, straight into the body: the count is filled in at the end.
#[derive(Debug)]
#[must_use = "call finish, else the list has no count"]
pub struct ListWriter<T> {
    count_at: usize,
    count: u32,
    item: PhantomData<fn(T)>,
}

impl<T> ListWriter<T> {
    /// Leaves room for the count.
    pub fn begin(out: &mut Vec<u8>) -> ListWriter<T> {
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        ListWriter { count_at, count: 0, item: PhantomData }
    }
    /// Appends one item.
    #[inline]
    pub fn push<'a>(&mut self, out: &mut Vec<u8>, item: &T)
    where
        T: Item<'a>,
    {
        self.count += 1;
        item.write(out);
    }
    /// Items so far.
    pub const fn len(&self) -> usize {
        self.count as usize
    }
    /// Whether there is no item yet.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Fills the count in. `out` is the whole buffer that `begin` was given.
    pub fn finish(self, out: &mut [u8]) {
        out[self.count_at..self.count_at + 4].copy_from_slice(&self.count.to_le_bytes());
    }
}
