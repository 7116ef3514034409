//! Names of those who have messages of a queue, or had them last, and how many each has.
//!
//! Not here: what they may have (`pick.rs`).

use std::collections::BTreeMap;

#[derive(Debug, Default)]
struct Consumer {
    name: Box<[u8]>,
    /// Messages that name it.
    named: u32,
    /// Of these, leased ones.
    leased: u32,
}

/// Consumers by a small number; 0 is nobody.
#[derive(Debug)]
pub struct Consumers {
    list: Vec<Consumer>,
    by_name: BTreeMap<Box<[u8]>, u16>,
    free: Vec<u16>,
}

impl Default for Consumers {
    fn default() -> Consumers {
        Consumers { list: vec![Consumer::default()], by_name: BTreeMap::new(), free: Vec::new() }
    }
}

impl Consumers {
    /// The number of `name`; of nobody when it is empty, or when 65,535 are known.
    pub fn number(&mut self, name: &[u8]) -> u16 {
        if name.is_empty() {
            return 0;
        }
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.list.len() <= usize::from(u16::MAX) => {
                self.list.push(Consumer::default());
                (self.list.len() - 1) as u16
            }
            None => return 0,
        };
        self.list[usize::from(number)] = Consumer { name: name.into(), named: 0, leased: 0 };
        self.by_name.insert(name.into(), number);
        number
    }

    /// The name of a number.
    pub fn name(&self, number: u16) -> &[u8] {
        &self.list[usize::from(number)].name
    }

    /// Drops a name, of names nobody asks for again; `None` without any.
    pub fn pop(&mut self) -> Option<()> {
        let consumer = self.list.pop()?;
        self.by_name.remove(&consumer.name);
        Some(())
    }

    /// Messages that `name` has under a lease.
    pub fn leased(&self, name: &[u8]) -> u32 {
        let number = if name.is_empty() { Some(&0) } else { self.by_name.get(name) };
        number.map_or(0, |number| self.list[usize::from(*number)].leased)
    }

    /// A message names `number`.
    pub fn enter(&mut self, number: u16, is_leased: bool) {
        let consumer = &mut self.list[usize::from(number)];
        consumer.named += 1;
        consumer.leased += u32::from(is_leased);
    }

    /// A message does not name `number` any more.
    pub fn leave(&mut self, number: u16, is_leased: bool) {
        let consumer = &mut self.list[usize::from(number)];
        consumer.named -= 1;
        consumer.leased -= u32::from(is_leased);
        if consumer.named == 0 && number != 0 {
            let name = std::mem::take(&mut consumer.name);
            self.by_name.remove(&name);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_as_long_as_a_message_names_it() {
        let mut consumers = Consumers::default();
        let a = consumers.number(b"a");
        consumers.enter(a, true);
        assert_eq!((consumers.number(b"a"), consumers.name(a), consumers.leased(b"a")), (a, &b"a"[..], 1));
        consumers.enter(a, false);
        consumers.leave(a, true);
        assert_eq!(consumers.leased(b"a"), 0);
        consumers.leave(a, false);
        assert_eq!(consumers.number(b"b"), a, "its number is free again");
        assert_eq!(consumers.number(b""), 0);
    }
}
