//! What goes wrong between nodes: ways that are cut and mended, processes that are killed, machines that lose power, and the kernels' time-outs.
//!
//! A cut is silent, in one direction or in both. What is lost in it is sent again by the sender's kernel: it comes, in order, some time after the cut
//! is mended, or the connection is given up after `TIMEOUT_US`. A killed process resets its connections a moment later; a machine without power says
//! nothing, and resets what it does not know when it has power again and something comes.
//!
//! Invariants: a fault takes nothing out of the middle of a connection.
//!
//! Not here: when they come (`run.rs`).

use super::peer_pipe::Segment;
use super::peers::{EndState, Packet, TIMEOUT_US};
use super::totals::Event as Counted;
use super::world::{Item, World};

/// A kernel sends again after this, at first; then less and less often.
const AGAIN_US: u64 = 200_000;
/// How late the kernel may reset the connections of a process that was killed: as late as its writes have been seen to land.
const RESET_US: u64 = 100_000;

impl World {
    // --- cuts -------------------------------------------------------------------------------------------------------------------

    /// From now on nothing comes through from one node to the other.
    pub(super) fn cut_way(&mut self, from: usize, to: usize) {
        assert_ne!(from, to, "a node has no way to itself");
        let now_us = self.now_us;
        if self.peers.path(from, to).cut_since_us.is_none() {
            self.peers.path(from, to).cut_since_us = Some(now_us);
            self.totals.note(Counted::WaysCut);
            self.say(|| format!("nothing comes through from node {} to node {}", from + 1, to + 1));
        }
    }

    /// The same for a time.
    pub(super) fn cut_way_for(&mut self, from: usize, to: usize, length_us: u64) {
        self.cut_way(from, to);
        // A longer cut that is there already ends when it was to end.
        if self.peers.path(from, to).cut_since_us == Some(self.now_us) {
            self.plan(length_us, Item::Packet(Packet::Heal { from, to, since_us: self.now_us }));
        }
    }

    pub(super) fn heal_way(&mut self, from: usize, to: usize) {
        if self.peers.path(from, to).cut_since_us.take().is_none() {
            return;
        }
        self.say(|| format!("what node {} sends to node {} comes through again", from + 1, to + 1));
        self.send_again(from, to);
        self.send_again(to, from);
    }

    pub(super) fn heal_all(&mut self) {
        let count = self.nodes.len();
        (0..count * count).for_each(|number| self.heal_way(number / count, number % count));
    }

    /// Something between these nodes works again: kernels find out when they send the next time, what has gone missing on this way or the word of it.
    fn send_again(&mut self, from: usize, to: usize) {
        let now_us = self.now_us;
        let mut again = Vec::new();
        for (wire, state) in &self.peers.wires {
            for side in 0..2 {
                if let Some(since_us) = state.pipes[side].stuck_since_us
                    && (state.ends[side].at.node, state.ends[1 - side].at.node) == (from, to)
                {
                    again.push((*wire, side, since_us));
                }
            }
        }
        for (wire, side, since_us) in again {
            let gap_us = (now_us - since_us).max(AGAIN_US);
            let after = self.peers.path(from, to).dice.within(1..gap_us);
            self.plan(after, Item::Packet(Packet::Again { wire, side }));
        }
    }

    /// A sender's kernel begins to send again and again.
    pub(super) fn begin_stuck(&mut self, wire: u64, side: usize) {
        let since_us = self.now_us;
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        if state.pipes[side].is_abandoned || state.pipes[side].stuck_since_us.is_some() {
            return;
        }
        state.pipes[side].stuck_since_us = Some(since_us);
        self.plan(TIMEOUT_US, Item::Packet(Packet::TimeOut { wire, side, since_us }));
    }

    pub(super) fn on_again(&mut self, wire: u64, side: usize) {
        let Some(state) = self.peers.wires.get(&wire) else { return };
        let (sender, receiver) = (state.ends[side].at.node, state.ends[1 - side].at);
        let is_gone = state.ends[1 - side].state == EndState::Gone;
        if state.pipes[side].is_abandoned || !self.reaches(sender, receiver.node) {
            return;
        }
        if is_gone {
            return self.plan_packet(receiver.node, sender, 0, Packet::Reset { wire, side });
        }
        let is_answered = self.reaches(receiver.node, sender);
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let pipe = &mut state.pipes[side];
        let came: Vec<Segment> = pipe.take_lost().collect();
        pipe.arrived.extend(came);
        if is_answered {
            pipe.stuck_since_us = None;
            pipe.tell_read();
            self.pump(wire, side);
        }
        self.read(wire, side);
        self.end_of_turn_if_running(receiver);
    }

    pub(super) fn on_time_out(&mut self, wire: u64, side: usize, since_us: u64) {
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let pipe = &mut state.pipes[side];
        if pipe.stuck_since_us != Some(since_us) || pipe.is_abandoned {
            return;
        }
        pipe.is_abandoned = true;
        self.totals.note(Counted::PeersTimedOut);
        self.end_for(wire, side);
    }

    /// `side` hears that there is nobody at the other end.
    pub(super) fn on_reset(&mut self, wire: u64, side: usize) {
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let (to, from) = (state.ends[side].at.node, state.ends[1 - side].at.node);
        if !self.reaches(from, to) {
            return;
        }
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        state.pipes[side].is_abandoned = true;
        if state.ends[side].state != EndState::Gone {
            self.totals.note(Counted::PeersReset);
        }
        self.end_for(wire, side);
    }

    /// The kernel of `side` has ended the connection: its process learns that behind what had arrived before.
    fn end_for(&mut self, wire: u64, side: usize) {
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let at = state.ends[side].at;
        match state.ends[side].state {
            EndState::Gone => {}
            // Who accepts was not told yet.
            EndState::Waiting if side == 1 => self.end_wire(wire, side, false),
            _ => {
                state.pipes[1 - side].arrived.push_back(Segment::End);
                self.read(wire, 1 - side);
                self.end_of_turn_if_running(at);
            }
        }
    }

    // --- processes and machines -------------------------------------------------------------------------------------------------

    /// The node's process ends. Where the machine has power, the others hear of it.
    pub(super) fn peers_end(&mut self, node: usize, power: bool) {
        self.peers.dials.retain(|_, dialing| dialing.at.node != node);
        let wires: Vec<u64> = self.peers.wires.keys().copied().collect();
        for wire in wires {
            let Some(state) = self.peers.wires.get_mut(&wire) else { continue };
            let Some(side) = state.ends.iter().position(|end| end.at.node == node) else { continue };
            if !state.is_established {
                self.peers.wires.remove(&wire);
                continue;
            }
            if state.ends[side].state == EndState::Gone && !power {
                continue;
            }
            let other = state.ends[1 - side].at.node;
            state.pipes[side].is_abandoned = true;
            self.end_wire(wire, side, false);
            if !power {
                let dice = &mut self.peers.path(node, other).dice;
                let after = if dice.chance(50) { dice.within(10..200) } else { dice.within(200..RESET_US) };
                self.plan(after, Item::Packet(Packet::Reset { wire, side: 1 - side }));
            }
        }
    }

    /// The machine has power: what others sent to it all the time gets an answer.
    pub(super) fn power_comes_back(&mut self, node: usize) {
        if std::mem::replace(&mut self.nodes[node].has_power, true) {
            return;
        }
        (0..self.nodes.len()).filter(|other| *other != node).for_each(|other| self.send_again(other, node));
    }

    /// The process goes on: what its kernel has for it is read, and what waited goes out.
    pub(super) fn peers_resume(&mut self, node: usize) {
        let of_node = |(wire, state): (&u64, &super::peers::Wire)| {
            let side = state.ends.iter().position(|end| end.at.node == node)?;
            Some((*wire, side, state.ends[side].at))
        };
        let wires: Vec<_> = self.peers.wires.iter().filter_map(of_node).collect();
        for (wire, side, at) in wires {
            self.read(wire, 1 - side);
            self.pump(wire, side);
            self.end_of_turn_if_running(at);
        }
    }
}
