//! Numbers that identify or order things.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The plain number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }
    };
}

number! {
    /// Place of an event in its partition: dense from 0, never reused.
    Offset(u64)
}
number! {
    /// Number of a partition within its stream, from 0.
    PartitionId(u32)
}
number! {
    /// Identity of a partition in the whole cluster; never reused, whatever happens to its stream.
    PartitionUid(u64)
}
number! {
    /// Identity of a catalog resource; a resource that is deleted and created again has a new one.
    ResourceUid(u64)
}
number! {
    /// A Raft group. Group 0 is the catalog.
    GroupId(u32)
}
number! {
    /// One broker process; never reused.
    NodeId(u64)
}
number! {
    /// Rises when an owner is replaced; what an older owner sends is fenced.
    Epoch(u64)
}
number! {
    /// Number of a batch among those of one producer in one partition, from 1.
    Sequence(u64)
}
number! {
    /// Version of the catalog: rises with each change of any resource.
    Generation(u64)
}
number! {
    /// Number of a schema version, unique in the cluster; 0 stands for "no schema".
    SchemaId(u32)
}

impl Offset {
    /// The offset `count` places further, unless that is beyond the last number.
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(offset) => Some(Self(offset)),
            None => None,
        }
    }
}

impl GroupId {
    /// The group that keeps the catalog.
    pub const CATALOG: Self = Self(0);
}
