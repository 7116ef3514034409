//! The assignors by themselves: balance, few moves, and the size that they are made for.

use super::super::assign::assign;
use super::*;
use proptest::prelude::*;

/// Partitions of the topic "n" are `1_000_000 n..`.
fn partitions(topic: usize, count: usize) -> impl Iterator<Item = PartitionUid> {
    (0..count).map(move |number| PartitionUid((topic * 1_000_000 + number) as u64))
}

fn lists(topics: &[Vec<usize>]) -> Vec<Vec<String>> {
    let sorted = |list: &Vec<usize>| {
        let mut names: Vec<String> = list.iter().map(usize::to_string).collect();
        names.sort();
        names.dedup();
        names
    };
    topics.iter().map(sorted).collect()
}

/// Targets, when topic `n` has `sizes[n]` partitions and `before` is how it was.
fn targets(topics: &[Vec<String>], sizes: &[usize], before: &[Vec<PartitionUid>]) -> Vec<Vec<PartitionUid>> {
    let topics: Vec<&[String]> = topics.iter().map(Vec::as_slice).collect();
    let owners: BTreeMap<PartitionUid, usize> =
        before.iter().enumerate().flat_map(|(member, list)| list.iter().map(move |partition| (*partition, member))).collect();
    let of = |name: &str, out: &mut Vec<PartitionUid>| {
        let topic = name.parse().expect("a number");
        out.extend(partitions(topic, sizes.get(topic).copied().unwrap_or_default()));
    };
    assign(&topics, &of, &|partition| owners.get(&partition).filter(|member| **member < topics.len()).map(|member| (*member, true)))
}

fn counts(targets: &[Vec<PartitionUid>]) -> Vec<usize> {
    targets.iter().map(Vec::len).collect()
}

fn moved(before: &[Vec<PartitionUid>], after: &[Vec<PartitionUid>]) -> usize {
    let kept = before.iter().zip(after).map(|(before, after)| before.iter().filter(|partition| after.contains(partition)).count());
    before.iter().map(Vec::len).sum::<usize>() - kept.sum::<usize>()
}

#[test]
fn uniform_deals_round_in_the_order_of_ids() {
    let targets = targets(&lists(&[vec![0], vec![0], vec![0]]), &[7], &[]);
    let numbers: Vec<Vec<u64>> = targets.iter().map(|list| list.iter().map(|partition| partition.0).collect()).collect();
    assert_eq!(numbers, [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
}

#[test]
fn those_with_less_choice_come_first() {
    // Topic 0 is everybody's, 1 only of the last one.
    let targets = targets(&lists(&[vec![0], vec![0], vec![0, 1]]), &[4, 2], &[]);
    assert_eq!(counts(&targets), [2, 2, 2]);
    assert!(targets[2].iter().all(|partition| partition.0 >= 1_000_000));
}

#[test]
fn one_more_member_costs_its_share_and_not_more() {
    for (members, count) in [(1, 10), (3, 10), (4, 100), (9, 9), (7, 3)] {
        let topics = lists(&vec![vec![0]; members + 1]);
        let before = targets(&topics[..members], &[count], &[]);
        let after = targets(&topics, &[count], &before);
        assert_eq!(moved(&before, &after), count / (members + 1), "{members} members, {count} partitions");
        let back = targets(&topics[..members], &[count], &after);
        assert_eq!(moved(&after[..members], &back), 0, "who stays keeps what it has");
    }
}

#[test]
fn what_was_only_to_come_is_taken_away_first() {
    let topics = lists(&[vec![0], vec![0]]);
    let topics: Vec<&[String]> = topics.iter().map(Vec::as_slice).collect();
    let of = |_: &str, out: &mut Vec<PartitionUid>| out.extend(partitions(0, 4));
    // All four are the first one's, but it holds 2 and 3 only.
    let targets = assign(&topics, &of, &|partition| Some((0, partition.0 >= 2)));
    assert_eq!(targets, [vec![PartitionUid(2), PartitionUid(3)], vec![PartitionUid(1), PartitionUid(0)]]);
}

#[test]
fn a_chain_of_topics_is_levelled_through_those_between() {
    // Each topic has two subscribers, neighbours; all partitions are of the first topic.
    let topics = lists(&[vec![0], vec![0, 1], vec![1, 2], vec![2]]);
    let before = vec![partitions(0, 8).collect(), partitions(1, 8).collect(), partitions(2, 8).collect(), Vec::new()];
    let targets = targets(&topics, &[8, 8, 8], &before);
    // From neighbour to neighbour it goes down by one at most: a single move does not make that better.
    assert_eq!(counts(&targets), [7, 6, 6, 5]);
}

#[test]
fn ten_thousand_partitions_of_a_thousand_members() {
    let topics = lists(&vec![(0..TOPICS_PER_MEMBER_MAX).collect(); MEMBERS_MAX]);
    let sizes = [100; TOPICS_PER_MEMBER_MAX];
    let first = targets(&topics, &sizes, &[]);
    assert!(counts(&first).iter().all(|count| *count == 10));
    let all_at_one = vec![first.concat()];
    let spread = targets(&topics, &sizes, &all_at_one);
    assert!(counts(&spread).iter().all(|count| *count == 10));
    let fewer = targets(&topics[..999], &sizes, &spread);
    assert_eq!(moved(&spread[..999], &fewer), 0);
    assert_eq!(counts(&fewer).iter().filter(|count| **count == 11).count(), 10);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Everything goes to somebody who wants it; no single move would bring balance; what was need not move to reach that again.
    #[test]
    fn no_single_move_would_help(
        subscriptions in prop::collection::vec(prop::collection::vec(0usize..4, 1..4), 1..8),
        sizes in prop::collection::vec(0usize..20, 4),
        members_before in 1usize..8,
    ) {
        let topics = lists(&subscriptions);
        let before = targets(&topics[..members_before.min(topics.len())], &sizes, &[]);
        let after = targets(&topics, &sizes, &before);
        let load = counts(&after);
        let wants = |member: usize, partition: &PartitionUid| topics[member].contains(&(partition.0 / 1_000_000).to_string());
        let mut all: Vec<PartitionUid> = after.concat();
        all.sort();
        let wanted: Vec<PartitionUid> = (0..4)
            .filter(|topic| subscriptions.iter().any(|list| list.contains(topic)))
            .flat_map(|topic| partitions(topic, sizes[topic]))
            .collect();
        prop_assert_eq!(all, wanted);
        for (member, list) in after.iter().enumerate() {
            for partition in list {
                prop_assert!(wants(member, partition));
                prop_assert!((0..load.len()).all(|other| !wants(other, partition) || load[member] < load[other] + 2), "{load:?}");
            }
        }
        prop_assert_eq!(moved(&after, &targets(&topics, &sizes, &after)), 0);
    }
}
