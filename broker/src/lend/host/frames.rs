//! What members say.

use std::time::Duration;

use tokio::sync::oneshot;
use weft_proto::{Epoch, Error, Offset, Reason, Timestamp, internal, v1};

use super::delivery::BLOCKED;
use super::{ASKS_MAX, Ask, Attach, Attached, Host};
use crate::entry::Member;
use crate::lend::link::ended;
use crate::lend::wait;
use crate::lend::{Frame, Request};
use crate::planted::{self, Bug};
use crate::subscription::desk::{Act, LeaseId, MemberId, Old, Settle, Token, Verdict, Whereabouts};
use crate::subscription::{Credit, Failure};

/// Attachments are told apart within so many; the bits above say since when.
const ATTACHMENTS: u64 = (1 << 22) - 1;
/// A lease is kept for so much longer at most, at once.
const EXTEND_MAX: Duration = Duration::from_hours(7 * 24);

impl Host {
    /// Takes what is asked, and what else waits.
    pub(super) fn take(&mut self, first: Ask) {
        let mut next = Some(first);
        for _ in 0..ASKS_MAX {
            match next {
                Some(Ask::Attach(attach)) => self.attach(*attach),
                Some(Ask::Frame(member, request)) => self.handle(member, request),
                Some(Ask::Look(offset, reply)) => self.look(offset, reply),
                None => return,
            }
            next = self.asks.try_recv().ok();
        }
        // The one that was taken last is done as well.
        match next {
            Some(Ask::Attach(attach)) => self.attach(*attach),
            Some(Ask::Frame(member, request)) => self.handle(member, request),
            Some(Ask::Look(offset, reply)) => self.look(offset, reply),
            None => {}
        }
    }

    fn look(&self, offset: Offset, reply: oneshot::Sender<Whereabouts>) {
        if let Some(own) = self.lanes.first() {
            // Whoever asked may have given up.
            _ = reply.send(own.desk.whereabouts(offset));
        }
    }

    fn attach(&mut self, attach: Attach) {
        let Attach { join, answers, reply } = attach;
        let member = self.new_member(join.since);
        // Several at once may settle what a name holds that nobody keeps attached.
        if !join.lingers {
            self.displace(&join.member);
        }
        let now = self.now();
        for lane in &mut self.lanes {
            lane.desk.attach(member, join.member.as_str(), now);
            lane.desk.wants(member, true);
            if join.lingers {
                lane.desk.linger(member);
            }
        }
        let void = join.held.iter().flat_map(|held| self.adopt(member, held)).collect();
        let gone = answers.clone();
        self.leaving.push(Box::pin(async move {
            gone.gone().await;
            member
        }));
        let attached = Attached {
            name: join.member,
            answers,
            credit: Credit::default(),
            is_offered: false,
            is_recalled: false,
            lingers: join.lingers,
            blocked_for: BLOCKED,
        };
        self.members.insert(member, attached);
        // It has to be told the position.
        self.position = None;
        // A member that attaches is behind until it is told otherwise.
        self.caught_up = None;
        tracing::trace!(partition = %self.placement.uid, ?member, "attached");
        self.tell_opened(member, void);
        self.tell_stand(member);
        if reply.send(Ok(member)).is_err() {
            self.leave(member);
        }
    }

    /// A number for an attachment: never used twice, and the higher, the newer its session is.
    fn new_member(&mut self, since: Timestamp) -> MemberId {
        self.next_member = self.next_member.wrapping_add(1) & ATTACHMENTS;
        MemberId((since.as_micros() / 1_000) << ATTACHMENTS.count_ones() | self.next_member)
    }

    /// An older attachment of the same name ends; the new one has what it held.
    fn displace(&mut self, name: &Member) {
        let own = self.members.iter().filter(|(_, attached)| attached.name == *name);
        let displaced: Vec<MemberId> = own.map(|(&member, _)| member).collect();
        for member in displaced {
            let message =
                format!("another member named {name} joined; each needs a name of its own");
            let error = Error::new(Reason::Fenced, message);
            self.answer(member, ended(&error));
            self.members.remove(&member);
        }
    }

    /// Takes leases on; gives those that it did not.
    fn adopt(
        &mut self,
        member: MemberId,
        held: &internal::HeldLeases,
    ) -> Vec<internal::HeldLeases> {
        let now = self.now();
        let Some((_, lane)) = self.lane(held.into()) else {
            return vec![*held];
        };
        let end = lane.end();
        let mut void: Vec<internal::HeldLeases> = Vec::new();
        for number in 0..u64::from(held.count) {
            let lease = LeaseId(held.first_lease.saturating_add(number));
            let token = Token { epoch: Epoch(held.epoch), lease };
            let offset = Offset(held.first_offset.saturating_add(number));
            let old = Old { token, offset, attempt: held.attempt, last: Epoch(held.last) };
            // What is not there cannot have been lent.
            if offset < end && lane.desk.adopt(member, old, now) {
                continue;
            }
            match void.last_mut() {
                Some(run) if run.first_lease.saturating_add(run.count.into()) == lease.0 => {
                    run.count = run.count.saturating_add(1);
                }
                _ => void.push(internal::HeldLeases {
                    first_lease: lease.0,
                    first_offset: offset.get(),
                    count: 1,
                    ..*held
                }),
            }
        }
        void
    }

    fn handle(&mut self, member: MemberId, request: Request) {
        let Some(attached) = self.members.get_mut(&member) else { return };
        match request {
            Request::Credit(credit) => {
                tracing::trace!(partition = %self.placement.uid, ?member, ?credit, "credit");
                attached.credit.add(credit.events, credit.bytes);
                attached.is_offered = false;
                self.want(member);
            }
            Request::Recall(_) => attached.is_recalled = true,
            Request::Settle(settle) => self.settle(member, settle),
            // It came already; the other is no matter of the desk.
            Request::Open(_) | Request::Leave(_) => {}
        }
    }

    /// Gives back what sessions asked for and was not used. It comes after lending: credit that is
    /// called back in the moment in which it arrives would go round between desks for ever. Says
    /// whether anybody did.
    pub(super) fn give_back(&mut self) -> bool {
        let recalled = self.members.iter_mut().filter(|(_, member)| member.is_recalled);
        let given: Vec<_> = recalled
            .map(|(&member, attached)| {
                attached.is_recalled = false;
                attached.is_offered = false;
                (member, attached.credit.take_all())
            })
            .collect();
        let has_given = !given.is_empty();
        for (member, left) in given {
            tracing::trace!(partition = %self.placement.uid, ?member, ?left, "given back");
            self.answer(member, Frame::Returned(left));
            self.want(member);
        }
        has_given
    }

    fn settle(&mut self, member: MemberId, settle: v1::Settle) {
        let mut frame = wait::Frame::new(settle.tag);
        for range in settle.acks {
            self.act(member, range, &Act::Ack, &mut frame);
        }
        for nack in settle.nacks {
            let act = Act::Nack {
                delay: nack.delay_ms.map(Duration::from_millis),
                counted: !nack.uncounted,
                failure: Failure::new(nack.reason),
            };
            self.act(member, nack.leases.unwrap_or_default(), &act, &mut frame);
        }
        for reject in settle.rejects {
            let act = Act::Reject { failure: Failure::new(reject.reason) };
            self.act(member, reject.leases.unwrap_or_default(), &act, &mut frame);
        }
        for extend in settle.extends {
            let by = extend.by_ms.map(|by| Duration::from_millis(by).min(EXTEND_MAX));
            let act = Act::Extend { by };
            self.act(member, extend.leases.unwrap_or_default(), &act, &mut frame);
        }
        self.is_urgent = true;
        if planted::is(Bug::SettledBeforeCommit) {
            return self.answer(member, Frame::Settled(frame.into_settled()));
        }
        if let Some(settled) = self.waits.add(member, frame) {
            self.answer(member, Frame::Settled(settled));
        }
    }

    fn act(
        &mut self,
        member: MemberId,
        range: v1::SettledRange,
        act: &Act,
        frame: &mut wait::Frame,
    ) {
        let now = self.now();
        let Some(attached) = self.members.get(&member) else { return };
        let mut verdicts = Vec::new();
        let name = attached.name.clone();
        let number = if let Some((number, lane)) = self.lane((&range).into()) {
            let settle = Settle {
                member: name.as_str(),
                epoch: Epoch(range.epoch),
                first: LeaseId(range.first),
                last: LeaseId(range.last),
                act,
            };
            lane.desk.settle(&settle, now, &mut verdicts);
            number
        } else {
            verdicts.push((LeaseId(range.first), LeaseId(range.last), Verdict::Unknown));
            0
        };
        if planted::is(Bug::LateAckTaken) && *act == Act::Ack {
            verdicts.retain(|(_, _, verdict)| *verdict != Verdict::Expired);
        }
        frame.take(number, &range, &verdicts);
    }
}
