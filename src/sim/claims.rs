//! What is known of committed offsets, and what follows from it for whoever reads them.
//!
//! Each try to commit carries a text that names it, so whoever reads an offset knows which try it was. Of two tries it is often known which one the node
//! takes in first (`Register::is_before`): that with the lower assignment epoch, for from the higher one on the lower is refused; of one epoch that
//! which was known to hold before the other was sent, that of an earlier process, and that which was sent first on their connection.
//!
//! Checked: nothing is read that comes before what was acknowledged, or seen, when the question was sent (so nothing acknowledged is lost, and no
//! offset goes back but by a later commit); what is read is the offset and the text of one try that was not refused; once an epoch was
//! acknowledged, by a commit or by a claim, lower ones are refused; and nobody is refused as stale who has the highest epoch that was ever sent.
//!
//! Not here: who may own a partition (`groups.rs`), who commits (`members.rs`).

use super::Check;
use std::collections::BTreeMap;
use tramline_wire::group::OFFSET_NONE;

/// A partition as one group sees it: uid of the group, and of the partition.
pub(super) type Place = (u64, u64);

#[derive(Clone, Copy, Debug)]
struct Try {
    epoch: u64,
    offset: u64,
    conn: u64,
    /// Number of the process that it was sent to.
    life: u64,
    sent_us: u64,
    /// When it was known to hold.
    known_us: Option<u64>,
    is_refused: bool,
}

/// One partition of one group.
#[derive(Debug, Default)]
struct Register {
    /// By number.
    tries: Vec<Try>,
    /// Those that hold, and that no other one that holds comes after: one, but for epoch 0, which many may use.
    newest: Vec<usize>,
    /// No lower epoch than this is taken in any more.
    fence: u64,
    /// The highest epoch that anybody has sent.
    sent_epoch: u64,
}

/// What was known when a question was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    pub(super) place: Place,
    pub(super) epoch: u64,
    newest: Vec<usize>,
    fence: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Claims {
    registers: BTreeMap<Place, Register>,
    /// The disk has decayed: an offset may be that of any commit, or none.
    pub(super) decayed: bool,
}

/// The text of a try: its number, and a filling by which texts have many lengths.
pub(super) fn text_of(number: usize) -> String {
    format!("{number}{}", ".".repeat(number * 37 % 150))
}

impl Register {
    /// Whether `a` is certainly taken in before `b`, if both are. Not for two that are the same.
    fn is_before(&self, a: usize, b: usize) -> bool {
        let (first, second) = (&self.tries[a], &self.tries[b]);
        if first.epoch != second.epoch {
            return first.epoch < second.epoch;
        }
        let was_known = first.known_us.is_some_and(|known_us| known_us <= second.sent_us);
        first.life < second.life || first.conn == second.conn && a < b || was_known
    }

    fn holds(&mut self, number: usize, now_us: u64) {
        self.tries[number].known_us.get_or_insert(now_us);
        self.fence = self.fence.max(self.tries[number].epoch);
        if self.newest.iter().any(|newest| *newest == number || self.is_before(number, *newest)) {
            return;
        }
        let mut newest = std::mem::take(&mut self.newest);
        newest.retain(|other| !self.is_before(*other, number));
        newest.push(number);
        self.newest = newest;
    }

    /// Whether a question may be answered with a try, as far as is known.
    fn may_show(&self, before: &Before, number: usize) -> bool {
        !self.tries[number].is_refused && !before.newest.iter().any(|newest| self.is_before(number, *newest))
    }

    fn tell(&self, numbers: &[usize]) -> String {
        let tell = |number: &usize| format!("{number} (offset {}, epoch {})", self.tries[*number].offset, self.tries[*number].epoch);
        numbers.iter().map(tell).collect::<Vec<_>>().join(", ")
    }
}

impl Claims {
    /// A commit is being sent. Answers its number: its text names it.
    pub(super) fn on_sent(&mut self, (place, epoch): (Place, u64), offset: u64, (conn, life): (u64, u64), now_us: u64) -> usize {
        let register = self.registers.entry(place).or_default();
        register.tries.push(Try { epoch, offset, conn, life, sent_us: now_us, known_us: None, is_refused: false });
        register.tries.len() - 1
    }

    /// What is known while a question or a commit is being sent.
    pub(super) fn before(&mut self, place: Place, epoch: u64) -> Before {
        let register = self.registers.entry(place).or_default();
        register.sent_epoch = register.sent_epoch.max(epoch);
        Before { place, epoch, newest: register.newest.clone(), fence: register.fence }
    }

    /// The commit `number` is acknowledged.
    pub(super) fn on_committed(&mut self, before: &Before, number: usize, now_us: u64) -> Check {
        self.check_fence(before, "a commit")?;
        self.registers.get_mut(&before.place).expect("sent before").holds(number, now_us);
        Ok(())
    }

    fn check_fence(&self, before: &Before, what: &str) -> Check {
        let (Before { place, epoch, fence, .. }, decayed) = (before, self.decayed);
        if epoch < fence && !decayed {
            return Err(format!("{place:?}: {what} of epoch {epoch} is taken, and epoch {fence} was acknowledged before it was sent"));
        }
        Ok(())
    }

    /// The commit `number` was certainly not taken.
    pub(super) fn on_refused(&mut self, place: Place, number: usize) {
        self.registers.get_mut(&place).expect("sent before").tries[number].is_refused = true;
    }

    /// A commit or a claim was refused as stale.
    pub(super) fn on_stale(&self, place: Place, epoch: u64) -> Check {
        let sent_epoch = self.registers.get(&place).map_or(0, |register| register.sent_epoch);
        if epoch >= sent_epoch && !self.decayed {
            return Err(format!("{place:?}: epoch {epoch} is refused as stale, and nobody has sent a higher one ({sent_epoch})"));
        }
        Ok(())
    }

    /// A question was answered.
    pub(super) fn on_fetched(&mut self, before: &Before, offset: u64, text: &str, now_us: u64) -> Check {
        let place = before.place;
        if before.epoch > 0 {
            self.check_fence(before, "a claim")?;
        }
        let register = self.registers.get_mut(&place).expect("asked before");
        register.fence = register.fence.max(before.epoch);
        if offset == OFFSET_NONE {
            return if text.is_empty() { self.on_none(before) } else { Err(format!("{place:?}: no offset, and the text {text:?}")) };
        }
        let number = text.split('.').next().and_then(|number| number.parse::<usize>().ok());
        let Some(number) = number.filter(|number| register.tries.get(*number).is_some_and(|found| found.offset == offset)) else {
            return Err(format!("{place:?}: offset {offset} with the text {text:?} is committed, and nobody did that"));
        };
        if text != text_of(number) {
            return Err(format!("{place:?}: commit {number} had the text {:?} and has {text:?}", text_of(number)));
        }
        if self.decayed {
            return Ok(());
        }
        if !register.may_show(before, number) {
            let (shown, newest) = (register.tell(&[number]), register.tell(&before.newest));
            let refused = if register.tries[number].is_refused { ", which was refused" } else { "" };
            return Err(format!("{place:?}: the committed offset is that of commit {shown}{refused}, and had been that of {newest}"));
        }
        // What was seen holds; it came behind what had been the newest then, and is the newest now unless others came since.
        if !before.newest.contains(&number) && before.newest == register.newest {
            register.tries[number].known_us.get_or_insert(now_us);
            register.fence = register.fence.max(register.tries[number].epoch);
            register.newest = vec![number];
        }
        Ok(())
    }

    fn on_none(&mut self, before: &Before) -> Check {
        let register = &self.registers[&before.place];
        let forgets = |number: &usize| register.tries[*number].offset == OFFSET_NONE && register.may_show(before, *number);
        if self.decayed || before.newest.is_empty() || (0..register.tries.len()).any(|number| forgets(&number)) {
            return Ok(());
        }
        Err(format!("{:?}: no offset is committed, and had been that of {}", before.place, register.tell(&before.newest)))
    }

    /// An offset was told without its text.
    pub(super) fn on_described(&mut self, before: &Before, offset: u64) -> Check {
        if offset == OFFSET_NONE {
            return self.on_none(before);
        }
        let register = &self.registers[&before.place];
        let is_it = |number: &usize| register.tries[*number].offset == offset && register.may_show(before, *number);
        if self.decayed || (0..register.tries.len()).any(|number| is_it(&number)) {
            return Ok(());
        }
        Err(format!("{:?}: described with offset {offset}, and had been that of {}", before.place, register.tell(&before.newest)))
    }

    /// Everything that anybody ever asked about.
    pub(super) fn places(&self) -> Vec<Place> {
        self.registers.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (1, 2);

    /// One commit of `epoch`, acknowledged or not; answers its number.
    fn commit(claims: &mut Claims, (epoch, offset): (u64, u64), conn: u64, now_us: u64, is_acked: bool) -> usize {
        let before = claims.before(PLACE, epoch);
        let number = claims.on_sent((PLACE, epoch), offset, (conn, 0), now_us);
        if is_acked {
            claims.on_committed(&before, number, now_us + 1).unwrap();
        }
        number
    }

    #[test]
    fn what_was_acknowledged_is_read_or_something_later() {
        let mut claims = Claims::default();
        let first = commit(&mut claims, (5, 10), 1, 0, true);
        let second = commit(&mut claims, (5, 20), 1, 10, true);
        let open = commit(&mut claims, (5, 30), 1, 20, false);
        let before = claims.before(PLACE, 0);
        assert!(claims.on_fetched(&before, 10, &text_of(first), 30).is_err(), "it went back");
        assert!(claims.on_fetched(&before, OFFSET_NONE, "", 30).is_err(), "it is gone");
        assert!(claims.on_fetched(&before, 20, "", 30).is_err() && claims.on_fetched(&before, 20, "1", 30).is_err(), "the text is another");
        assert!(claims.on_fetched(&before, 21, &text_of(second), 30).is_err(), "nobody committed that");
        assert_eq!(claims.on_fetched(&before, 20, &text_of(second), 30), Ok(()));
        assert_eq!(claims.on_fetched(&before, 30, &text_of(open), 31), Ok(()), "its answer is under way");
        let before = claims.before(PLACE, 0);
        assert!(claims.on_fetched(&before, 20, &text_of(second), 40).is_err(), "a later one was seen");
    }

    #[test]
    fn from_a_claim_on_lower_epochs_are_refused() {
        let mut claims = Claims::default();
        let old = claims.before(PLACE, 5);
        let number = claims.on_sent((PLACE, 5), 10, (1, 0), 0);
        let claim = claims.before(PLACE, 7);
        assert_eq!(claims.on_fetched(&claim, OFFSET_NONE, "", 5), Ok(()));
        assert_eq!(claims.on_committed(&old, number, 6), Ok(()), "it was sent before the claim was answered");
        let late = claims.before(PLACE, 5);
        let number = claims.on_sent((PLACE, 5), 11, (1, 0), 7);
        assert!(claims.on_committed(&late, number, 8).is_err());
        assert_eq!(claims.on_stale(PLACE, 5), Ok(()));
        assert!(claims.on_stale(PLACE, 7).is_err(), "the highest of all");
    }

    #[test]
    fn what_is_forgotten_is_gone_and_what_was_refused_is_not_there() {
        let mut claims = Claims::default();
        commit(&mut claims, (5, 10), 1, 0, true);
        let refused = commit(&mut claims, (5, 12), 1, 5, false);
        claims.on_refused(PLACE, refused);
        let before = claims.before(PLACE, 0);
        assert!(claims.on_fetched(&before, 12, &text_of(refused), 6).is_err());
        commit(&mut claims, (5, OFFSET_NONE), 1, 10, true);
        let before = claims.before(PLACE, 0);
        assert_eq!(claims.on_fetched(&before, OFFSET_NONE, "", 20), Ok(()));
        assert!(claims.on_fetched(&before, 10, &text_of(0), 20).is_err());
        assert!(claims.on_described(&before, 10).is_err());
    }
}
