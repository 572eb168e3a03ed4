//! A lease as one opaque word, that says all that any node needs to settle it. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::{Buf as _, BufMut as _};
use prost::encoding::{decode_varint, encode_varint};
use weft_proto::{internal, v1};

use crate::entry::Member;

/// Of the form of tokens; another one is refused.
const VERSION: u8 = 2;

/// The name of a member for one act of lending: nobody can guess it.
pub(super) type MemberKey = [u8; 16];

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Of which subscription, by its uid.
    pub(super) subscription: u64,
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) lease: u64,
    pub(super) offset: u64,
    pub(super) attempt: u32,
    pub(super) redriven: bool,
    /// The replay job that it is for, by its uid; 0 for none.
    pub(super) replay_job: u64,
    pub(super) member: MemberKey,
}

impl Token {
    /// Writes it.
    pub(super) fn encode(&self) -> String {
        let mut bytes = vec![VERSION, self.redriven.into()];
        bytes.put_slice(&self.member);
        for number in [
            self.subscription,
            self.partition.into(),
            self.epoch,
            self.lease,
            self.offset,
            self.attempt.into(),
            self.replay_job,
        ] {
            encode_varint(number, &mut bytes);
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads one.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (&redriven, rest) = rest.split_first().filter(|(flag, _)| **flag < 2)?;
        let (member, mut rest) = rest.split_first_chunk()?;
        let mut number = || decode_varint(&mut rest).ok();
        let token = Self {
            subscription: number()?,
            partition: u32::try_from(number()?).ok()?,
            epoch: number()?,
            lease: number()?,
            offset: number()?,
            attempt: u32::try_from(number()?).ok()?,
            replay_job: number()?,
            redriven: redriven == 1,
            member: *member,
        };
        (!rest.has_remaining()).then_some(token)
    }

    /// As those are told who settle it.
    pub(super) fn range(&self) -> v1::SettledRange {
        v1::SettledRange {
            partition: self.partition,
            epoch: self.epoch,
            first: self.lease,
            last: self.lease,
            redriven: self.redriven,
            replay_job: self.replay_job,
        }
    }

    /// As a new leader is told.
    pub(super) fn held(&self) -> internal::HeldLeases {
        internal::HeldLeases {
            epoch: self.epoch,
            first_lease: self.lease,
            first_offset: self.offset,
            count: 1,
            attempt: self.attempt,
            redriven: self.redriven,
            // Leaders do not tell: a lock outlives one of them.
            last: self.epoch,
            replay_job: self.replay_job,
        }
    }

    /// Whether leases of a range are meant to be this one, too.
    pub(super) fn is_in(&self, range: &v1::SettledRange) -> bool {
        (range.epoch, range.redriven, range.replay_job)
            == (self.epoch, self.redriven, self.replay_job)
            && (range.first..=range.last).contains(&self.lease)
    }
}

/// The member's name.
pub(super) fn member(key: MemberKey) -> Member {
    // Far shorter than names may be.
    Member::new(format!("pull-{:032x}", u128::from_be_bytes(key))).unwrap_or_default()
}

/// A lock, read and written again, for `tests/fuzz`.
#[cfg(feature = "fuzzing")]
pub fn lock_again(text: &str) -> Option<String> {
    Some(Token::decode(text)?.encode())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn a_token_survives(
            (subscription, partition, epoch, lease) in any::<(u64, u32, u64, u64)>(),
            (offset, attempt, redriven, member) in any::<(u64, u32, bool, [u8; 16])>(),
            replay_job in any::<u64>(),
        ) {
            let token =
                Token { subscription, partition, epoch, lease, offset, attempt, redriven, replay_job, member };
            prop_assert_eq!(Token::decode(&token.encode()), Some(token));
        }

        #[test]
        fn hostile_tokens_are_read_or_refused(text in "[A-Za-z0-9_=-]{0,60}") {
            if let Some(token) = Token::decode(&text) {
                prop_assert!(Token::decode(&token.encode()) == Some(token));
            }
        }
    }
}
