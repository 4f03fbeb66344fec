//! How dials end: well, badly, or when they are over already.

use super::*;

impl World {
    pub(super) fn complete(&mut self, Dial { ticket, dead, begun, .. }: Dial) {
        if !begun {
            // Its driver is told of it first, and finds the mark of a peer that has gone.
            return self.begin(ticket, dead);
        }
        let shard = ticket.seat().shard();
        let group = self.side_of(ticket.seat());
        let conn = self.connect(group, shard);
        let id = conn.id;
        match self.engine.fulfil(&ticket, conn, self.moment()) {
            Ok(()) => {
                assert!(!dead, "INV-6: fulfilled after the peer hung up");
                self.records[id].pooled = true;
                self.sides[group].opened += 1;
                self.spent.push(ticket);
            }
            Err(conn) => {
                assert!(dead, "refused a connection that lives");
                drop(conn);
                self.fail(ticket, Failure::Peer);
            }
        }
    }

    pub(super) fn fail(
        &mut self,
        ticket: Reservation<Conn, Cause>,
        whose: fn(Cause) -> Failure<Cause>,
    ) {
        self.causes += 1;
        let group = self.side_of(ticket.seat());
        let waiting = self.waiting(group) > 0;
        let alone = match &ticket.goal {
            Goal::Alone(caller) => Some(Arc::clone(caller)),
            _ => None,
        };
        let for_nobody = matches!(ticket.goal, Goal::Adoption);
        assert!(self.engine.abandon(&ticket, whose(self.causes), self.moment()));
        self.spent.push(ticket);
        let told = Found::Failed(self.causes);
        let told = self.callers.iter().filter(|caller| caller.found() == Some(told)).count();
        let expected = match alone {
            Some(alone) => {
                usize::from(self.callers.iter().any(|caller| Arc::ptr_eq(&caller.waiter, &alone)))
            }
            None if for_nobody => 0,
            // Nobody, if idle connections served all that waited, or the breaker's word reached
            // them first.
            None if told == 0 && waiting => {
                usize::from(self.still_waiting(group) && !self.may_be_open(group))
            }
            None => usize::from(waiting),
        };
        assert_eq!(told, expected, "how many were told of a failed dial");
    }

    pub(super) fn complete_late(&mut self, which: u8) {
        if self.spent.is_empty() {
            return;
        }
        let at = usize::from(which) % self.spent.len();
        let ticket = self.spent[at].clone();
        let conn = self.connect(self.side_of(ticket.seat()), ticket.seat().shard());
        assert!(
            self.engine.fulfil(&ticket, conn, self.now).is_err(),
            "INV-1: a dial was fulfilled after it was over"
        );
        assert!(
            !self.engine.abandon(&ticket, Failure::Peer(0), self.now),
            "INV-2: abandoned twice"
        );
    }
}
