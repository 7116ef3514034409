//! Who is at the other end of a connection, as far as the ring has to know: which limits hold, and in whose account its memory is.
//!
//! Invariant: clients and nodes have accounts of their own, so that neither can use up what the others need; connections that other nodes have
//! made do not count against those that we make, or strangers at the port for nodes could keep us from dialing.
//!
//! Not here: what the bytes mean, what is done when an account is used up.

use super::recv::RecvLimits;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// A client, which has connected to us.
    #[default]
    Client,
    /// Another node (or a stranger at its port), which has connected to us.
    NodeAccepted,
    /// Another node, to which we have connected.
    NodeDialed,
}

impl Role {
    /// Whether it came or went through the ports for nodes.
    pub fn is_node(self) -> bool {
        self != Role::Client
    }
}

/// What connections of a role may have.
#[derive(Clone, Copy, Debug)]
pub struct RoleLimits {
    /// Bytes of a connection's receive buffer at first.
    pub recv_bytes_first: usize,
    /// Bytes up to which it may grow: the largest frame with its header.
    pub recv_bytes_max: usize,
    /// Connections at most; one more is accepted and closed at once, or not dialed (see `RingStats`).
    pub conns_max: usize,
}

/// What connections of a role have.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) limits: RecvLimits,
    pub(super) conns_max: usize,
    pub(super) count: usize,
    pub(super) recv_memory_bytes: usize,
    pub(super) refused_count: u64,
}

impl Account {
    fn new(limits: RoleLimits) -> Account {
        let recv = RecvLimits { first: limits.recv_bytes_first, max: limits.recv_bytes_max };
        Account { limits: recv, conns_max: limits.conns_max, count: 0, recv_memory_bytes: 0, refused_count: 0 }
    }
}

/// One account per role.
#[derive(Debug)]
pub(super) struct Accounts([Account; 3]);

impl Accounts {
    /// The limits of nodes hold for those that were accepted and for those that were dialed, each.
    pub(super) fn new(clients: RoleLimits, nodes: RoleLimits) -> Accounts {
        Accounts([Account::new(clients), Account::new(nodes), Account::new(nodes)])
    }
    pub(super) fn of(&self, role: Role) -> &Account {
        &self.0[role as usize]
    }
    pub(super) fn of_mut(&mut self, role: Role) -> &mut Account {
        &mut self.0[role as usize]
    }
    pub(super) fn total_count(&self) -> usize {
        self.0.iter().map(|account| account.count).sum()
    }
}
