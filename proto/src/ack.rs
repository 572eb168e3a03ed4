//! When an append is acknowledged.

use crate::{Error, Result, v1};

/// When an append is acknowledged. Nobody reads an event before it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckLevel {
    /// Once a majority of the replicas has it on disk: nothing short of the loss of a majority of
    /// disks takes it back.
    #[default]
    Durable,
    /// Once a majority of the replicas has it in memory: no single fault takes it back. It is lost
    /// if, before their disks have it, so many of those replicas die, lose power or are cut off that
    /// none of them is left to lead: of three replicas two, within moments.
    Replicated,
}

impl AckLevel {
    /// From the wire.
    ///
    /// # Errors
    ///
    /// `Invalid` for a level that this release does not know: it may promise more than those it
    /// does.
    pub fn from_wire(level: i32) -> Result<Self> {
        match v1::AckLevel::try_from(level) {
            Ok(v1::AckLevel::Unspecified | v1::AckLevel::Durable) => Ok(Self::Durable),
            Ok(v1::AckLevel::Replicated) => Ok(Self::Replicated),
            Err(_unknown) => {
                let message = format!("there is no acknowledgement level {level}");
                Err(Error::invalid(message).with_field("ack"))
            }
        }
    }

    /// To the wire.
    pub const fn to_wire(self) -> v1::AckLevel {
        match self {
            Self::Durable => v1::AckLevel::Durable,
            Self::Replicated => v1::AckLevel::Replicated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_survive_the_wire_and_none_means_durable() {
        for level in [AckLevel::Durable, AckLevel::Replicated] {
            assert_eq!(AckLevel::from_wire(level.to_wire().into()).unwrap(), level);
        }
        assert_eq!(AckLevel::from_wire(0).unwrap(), AckLevel::Durable);
        assert_eq!(AckLevel::from_wire(3).unwrap_err().field(), Some("ack"));
    }
}
