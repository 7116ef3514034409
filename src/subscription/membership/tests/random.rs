//! Random operations, with members as they are: they acknowledge late, fall silent and come back, and the group restarts under them.
//!
//! What is checked beside `World::check` is seen with the members' eyes: what a member has put in force, nobody else has.

use super::*;
use proptest::prelude::*;

/// A process that is, was or wants to be a member.
#[derive(Debug, Default)]
struct Process {
    instance: Option<String>,
    id: MemberId,
    /// What it was told last, and with which epoch.
    told: (u64, BTreeMap<PartitionUid, u64>),
    /// What of that it has put in force.
    in_force: (u64, BTreeMap<PartitionUid, u64>),
}

#[derive(Clone, Debug)]
enum Step {
    Join { is_static: bool, topics: u8 },
    Beat { who: usize, puts_in_force: bool, topics: Option<u8> },
    PutInForce { who: usize },
    Leave { who: usize, keep: bool },
    Again { who: usize },
    Wait { ms: u32 },
    Topic { name: u8, grow: bool },
    Restart { checkpoint: usize, replay: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 0usize..100;
    prop_oneof![
        4 => (any::<bool>(), 1u8..8).prop_map(|(is_static, topics)| Step::Join { is_static, topics }),
        12 => (who.clone(), any::<bool>(), prop::option::weighted(0.1, 1u8..8))
            .prop_map(|(who, puts_in_force, topics)| Step::Beat { who, puts_in_force, topics }),
        4 => who.clone().prop_map(|who| Step::PutInForce { who }),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, keep)| Step::Leave { who, keep }),
        1 => who.prop_map(|who| Step::Again { who }),
        3 => (0..SESSION_MS).prop_map(|ms| Step::Wait { ms }),
        1 => (0u8..3, any::<bool>()).prop_map(|(name, grow)| Step::Topic { name, grow }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(checkpoint, replay)| Step::Restart { checkpoint, replay }),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

struct Run {
    world: World,
    processes: Vec<Process>,
    same_topics: bool,
    next_instance: usize,
    /// Where in the log each operation begins.
    operations: Vec<usize>,
}

impl Run {
    fn new(assignor: Assignor, same_topics: bool) -> Run {
        let world = World { assignor, ..World::new(&[("a", 5), ("b", 3)]) };
        Run { world, processes: Vec::new(), same_topics, next_instance: 0, operations: Vec::new() }
    }

    fn names(&self, mask: u8) -> Vec<&'static str> {
        let is_in = |number: &usize| self.same_topics || mask >> number & 1 == 1;
        (0..NAMES.len()).filter(is_in).map(|number| NAMES[number]).collect()
    }

    fn pick(&self, who: usize) -> Option<usize> {
        (!self.processes.is_empty()).then(|| who % self.processes.len())
    }

    /// The group's answer to a heartbeat or a join, as the process hears it.
    fn hear(&mut self, who: usize) {
        let process = &mut self.processes[who];
        let grant = self.world.group.grant(process.id).expect("is a member");
        process.told = (grant.epoch, grant.partitions().collect());
    }

    fn join(&mut self, instance: Option<String>, topics: &[&str]) {
        let id = self.world.join_as(instance.as_deref(), topics).expect("joins");
        self.processes.push(Process { instance, id, ..Process::default() });
        self.hear(self.processes.len() - 1);
    }

    fn beat(&mut self, who: usize, topics: Option<&[&str]>) {
        let process = &self.processes[who];
        let (id, instance) = (process.id, process.instance.clone());
        let heartbeat = Heartbeat { instance: instance.as_deref(), acked_epoch: process.in_force.0, wait_ms: 100, topics };
        match self.world.run(|group, now_us, of, changes| group.heartbeat(now_us, id, &heartbeat, of, changes)) {
            Ok(()) => self.hear(who),
            Err(MembershipError::UnknownMember) => {
                let gone = self.processes.remove(who);
                // It joins again; unless its name is taken meanwhile, which it would be told.
                self.join(gone.instance, topics.unwrap_or(&NAMES));
            }
            Err(MembershipError::Fenced) => {
                self.processes.remove(who);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn put_in_force(&mut self, who: usize) {
        self.processes[who].in_force = self.processes[who].told.clone();
    }

    fn step(&mut self, step: &Step) {
        let before = self.world.log.len();
        match step {
            Step::Join { is_static, topics } => {
                self.next_instance += usize::from(*is_static);
                let instance = is_static.then(|| self.next_instance.to_string());
                self.join(instance, &self.names(*topics));
            }
            Step::Beat { who, puts_in_force, topics } => {
                let Some(who) = self.pick(*who) else { return };
                if *puts_in_force {
                    self.put_in_force(who);
                }
                let names = topics.map(|mask| self.names(mask));
                self.beat(who, names.as_deref());
            }
            Step::PutInForce { who } => {
                let Some(who) = self.pick(*who) else { return };
                self.put_in_force(who);
            }
            Step::Leave { who, keep } => {
                let Some(who) = self.pick(*who) else { return };
                let gone = self.processes.remove(who);
                let answer = self.world.leave(gone.id, gone.instance.as_deref(), *keep);
                assert!(matches!(answer, Ok(()) | Err(MembershipError::UnknownMember | MembershipError::Fenced)), "{answer:?}");
                if *keep && answer.is_ok() && gone.instance.is_some() && who.is_multiple_of(2) {
                    self.join(gone.instance, &NAMES);
                }
            }
            Step::Again { who } => {
                // A second process under the same name, while the first one goes on.
                let Some(who) = self.pick(*who) else { return };
                if let Some(instance) = self.processes[who].instance.clone() {
                    self.join(Some(instance), &NAMES);
                }
            }
            Step::Wait { ms } => {
                self.world.now_us += u64::from(*ms) * 1_000;
                self.world.expire();
                let deadline_us = self.world.group.next_deadline_us();
                assert!(deadline_us.is_none_or(|deadline_us| deadline_us > self.world.now_us));
            }
            Step::Topic { name, grow } => {
                let name = NAMES[usize::from(*name)];
                if *grow {
                    self.world.grow(name, 2)
                } else {
                    drop(self.world.topics.remove(name))
                }
                self.world.partitions_changed();
            }
            Step::Restart { checkpoint, replay } => self.restart(*checkpoint, *replay),
        }
        if self.world.log.len() > before {
            self.operations.push(before);
        }
        self.check();
    }

    /// Goes on from a snapshot as of some operation, and the log from one before that.
    fn restart(&mut self, checkpoint: usize, replay: usize) {
        let at = |pick: usize, operations: &[usize]| if operations.is_empty() { 0 } else { operations[pick % operations.len()] };
        let checkpoint = at(checkpoint, &self.operations);
        let replay = at(replay, &self.operations).min(checkpoint);
        let mut then = Durable::new(FIRST_EPOCH);
        then.apply(&self.world.log[..checkpoint]).expect("makes sense");
        let mut durable = Durable::new(0);
        for payload in encode(UID, &then.snapshot()).into_iter().chain(encode(UID, &self.world.log[replay..])) {
            durable.apply(&decode(&payload).expect("readable").1).expect("makes sense");
        }
        assert_eq!(&durable, self.world.group.durable());
        self.world.group = Group::resume(UID, durable, self.world.now_us);
        let settled_before = self.world.group.durable().clone();
        self.world.partitions_changed();
        if self.same_topics {
            assert_eq!(self.world.group.durable(), &settled_before, "a start moves nothing");
        }
    }

    fn check(&self) {
        // Fenced or dropped processes may believe what they like: their assignment epochs are not the newest.
        let mut owners = BTreeMap::new();
        for process in &self.processes {
            for (partition, epoch) in &process.in_force.1 {
                let newest = self.world.owners[partition];
                if self.world.group.grant(process.id).is_none() {
                    assert!(newest.0 != process.id || self.world.group.owner(*partition).is_none());
                    continue;
                }
                let other = owners.insert(*partition, process.id);
                assert!(other.is_none(), "{partition} is in force at {other:?} and {process:?}");
                let exists = self.world.topics.values().flatten().any(|there| there == partition);
                assert!(newest == (process.id, *epoch) || !exists, "{partition} is in force at {process:?} and went on to {newest:?}");
            }
        }
    }

    /// Everybody who is alive does what it is told: then all is read, and evenly.
    fn settle(&mut self) {
        self.world.partitions_changed();
        for _ in 0..8 {
            // Those who are silent for good time out, which moves partitions again.
            self.world.now_us += SESSION_US / 2;
            for who in (0..self.processes.len()).rev() {
                self.put_in_force(who);
                self.beat(who, None);
                self.check();
            }
            self.world.expire();
        }
        for who in (0..self.processes.len()).rev() {
            self.put_in_force(who);
            self.beat(who, None);
        }
        assert!(self.world.group.is_settled(), "{:#?}", self.world.group);
        assert_eq!(self.world.group.members().count(), self.processes.len());
        let group = &self.world.group;
        for (name, partitions) in &self.world.topics {
            let is_read = group.members().any(|member| member.topics.contains(name));
            assert!(partitions.iter().all(|partition| group.owner(*partition).is_some() == is_read));
        }
        let counts = self.world.counts();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        if let (true, Some(least), Some(most)) = (self.same_topics, least, most) {
            assert!(most - least <= 1, "{counts:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_owned_twice_and_in_the_end_everything_once(
        steps in prop::collection::vec(steps(), 1..80),
        is_uniform in any::<bool>(),
        same_topics in any::<bool>(),
    ) {
        let mut run = Run::new(if is_uniform { Assignor::Uniform } else { Assignor::Sticky }, same_topics);
        steps.iter().for_each(|step| run.step(step));
        run.settle();
    }
}
