//! Who should have which partition: the assignors.
//!
//! Topics with the same subscribers are one **class**: their partitions are interchangeable. Both assignors are one procedure, `Uniform`
//! begins with nothing and `Sticky` with what was:
//!
//! 1. keep: a partition stays with the member that had it, if that one subscribes to its topic still;
//! 2. deal: the others go to the subscriber with the least partitions, classes with few subscribers first, who have the least choice;
//! 3. level: within a class a partition moves from the subscriber with the most to that with the least, while they are two or more apart;
//!    again over all classes until none moves one. Each move brings the sum of squares down, so this ends, and `BALANCE_ROUNDS_MAX` bounds
//!    it.
//!
//! Invariants: every partition of a topic with a subscriber has one; with one class (everybody subscribes to the same topics) nobody has
//! two more than anybody else, and no more partitions moved than that takes; the same input gives the same output (members count by their
//! numbers, which `group.rs` gives them).
//!
//! Cost: members and partitions, times the logarithm of the members; with many classes, the subscribers of all of them once per round.
//!
//! Not here: when what is decided becomes a grant (`group.rs`).

use super::{BALANCE_ROUNDS_MAX, PartitionsOf};
use crate::ids::PartitionUid;
use std::collections::{BTreeMap, BTreeSet};

/// Who had a partition: the member's number, and whether it holds it (to take away what it was only to get costs nothing).
pub(super) type Previous = Option<(usize, bool)>;

/// Topics with the same subscribers.
struct Class {
    /// Numbers of members, ascending. What is numbered by their places in here is called a slot.
    subscribers: Vec<usize>,
    /// By slot. What is taken away first stands last.
    has: Vec<Vec<PartitionUid>>,
    free: Vec<PartitionUid>,
}

/// The partitions of each member, by its number: its place in `topics`, which has the topics of each.
pub(super) fn assign(
    topics: &[&[String]],
    partitions_of: PartitionsOf<'_>,
    previous: &dyn Fn(PartitionUid) -> Previous,
) -> Vec<Vec<PartitionUid>> {
    let mut load = vec![0; topics.len()];
    let mut classes: Vec<Class> = classes(topics, partitions_of);
    for class in &mut classes {
        keep(class, previous, &mut load);
    }
    for class in &mut classes {
        deal(class, &mut load);
    }
    for _round in 0..BALANCE_ROUNDS_MAX {
        let moved: usize = classes.iter_mut().map(|class| level(class, &mut load)).sum();
        if moved == 0 {
            break;
        }
    }
    let mut targets: Vec<Vec<PartitionUid>> = load.iter().map(|count| Vec::with_capacity(*count)).collect();
    for class in classes {
        for (subscriber, has) in class.subscribers.into_iter().zip(class.has) {
            targets[subscriber].extend(has);
        }
    }
    targets
}

/// All partitions in `free`, those with the fewest subscribers first.
fn classes(topics: &[&[String]], partitions_of: PartitionsOf<'_>) -> Vec<Class> {
    // Mostly all have the same list: then a thousand lists of a hundred names are compared with one.
    let mut lists: BTreeMap<&[String], Vec<usize>> = BTreeMap::new();
    for (member, list) in topics.iter().enumerate() {
        lists.entry(list).or_default().push(member);
    }
    let mut by_topic: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (list, members) in &lists {
        list.iter().for_each(|topic| by_topic.entry(topic).or_default().extend(members));
    }
    let mut by_subscribers: BTreeMap<(usize, Vec<usize>), Vec<PartitionUid>> = BTreeMap::new();
    for (topic, mut subscribers) in by_topic {
        subscribers.sort_unstable();
        partitions_of(topic, by_subscribers.entry((subscribers.len(), subscribers)).or_default());
    }
    let class = |((_, subscribers), mut free): ((usize, Vec<usize>), Vec<PartitionUid>)| {
        free.sort_unstable();
        Class { has: vec![Vec::new(); subscribers.len()], subscribers, free }
    };
    by_subscribers.into_iter().filter(|(_, partitions)| !partitions.is_empty()).map(class).collect()
}

fn keep(class: &mut Class, previous: &dyn Fn(PartitionUid) -> Previous, load: &mut [usize]) {
    let mut not_held = Vec::new();
    let (subscribers, has) = (&class.subscribers, &mut class.has);
    class.free.retain(|partition| {
        let Some((member, is_held)) = previous(*partition) else { return true };
        let Ok(slot) = subscribers.binary_search(&member) else { return true };
        load[member] += 1;
        if is_held {
            has[slot].push(*partition)
        } else {
            not_held.push((slot, *partition))
        }
        false
    });
    not_held.into_iter().for_each(|(slot, partition)| has[slot].push(partition));
}

fn deal(class: &mut Class, load: &mut [usize]) {
    if class.free.is_empty() {
        return;
    }
    let mut by_load: BTreeSet<(usize, usize)> = class.subscribers.iter().enumerate().map(|(slot, member)| (load[*member], slot)).collect();
    for partition in class.free.drain(..) {
        let (least, slot) = by_load.pop_first().expect("a class has a subscriber");
        class.has[slot].push(partition);
        by_load.insert((least + 1, slot));
    }
    by_load.into_iter().for_each(|(count, slot)| load[class.subscribers[slot]] = count);
}

/// Answers how many partitions it moved.
fn level(class: &mut Class, load: &mut [usize]) -> usize {
    let loads = || class.subscribers.iter().enumerate().map(|(slot, member)| (load[*member], slot));
    let gives = |slot: usize| !class.has[slot].is_empty();
    let most = loads().filter(|(_, slot)| gives(*slot)).max();
    if most.is_none_or(|(most, _)| loads().all(|(count, _)| most < count + 2)) {
        return 0;
    }
    let mut all: BTreeSet<(usize, usize)> = loads().collect();
    let mut givers: BTreeSet<(usize, usize)> = loads().filter(|(_, slot)| gives(*slot)).collect();
    let mut moved = 0;
    while let (Some(&(most, from)), Some(&(least, to))) = (givers.last(), all.first())
        && most >= least + 2
    {
        let partition = class.has[from].pop().expect("a giver has something");
        class.has[to].push(partition);
        all.remove(&(most, from));
        all.insert((most - 1, from));
        givers.remove(&(most, from));
        if !class.has[from].is_empty() {
            givers.insert((most - 1, from));
        }
        all.remove(&(least, to));
        all.insert((least + 1, to));
        givers.remove(&(least, to));
        givers.insert((least + 1, to));
        moved += 1;
    }
    all.into_iter().for_each(|(count, slot)| load[class.subscribers[slot]] = count);
    moved
}
