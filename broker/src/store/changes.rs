//! A list of changes that are written as one.

use bytes::Bytes;

use super::Family;
use weft_proto::GroupId;

/// Changes to the store that are written together or not at all.
///
/// Keys and small values lie in one buffer, payloads are shared: adding an entry allocates
/// nothing of its own.
#[derive(Debug, Default)]
pub struct Changes {
    buffer: Vec<u8>,
    list: Vec<Stored>,
    afterwards: Vec<Afterwards>,
    body_bytes: usize,
}

/// What happens once the changes are on disk, not before: a lost marker and a deleted file
/// together would be a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// Free the files of a log that hold nothing above an index.
    DropFiles(GroupId, u64),
    /// Delete a log.
    DropGroup(GroupId),
}

#[derive(Debug)]
enum Stored {
    /// The key ends and the head of the value begins at `split`; the head ends at `end`.
    Put {
        family: Family,
        start: usize,
        split: usize,
        end: usize,
        body: Bytes,
    },
    Delete {
        family: Family,
        start: usize,
        end: usize,
    },
}

/// One change. The value of a put is head and body, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Sets the value of a key.
    Put { family: Family, key: &'a [u8], head: &'a [u8], body: &'a Bytes },
    /// Removes a key.
    Delete { family: Family, key: &'a [u8] },
}

impl Changes {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a small value.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.put_parts(family, key, value, Bytes::new());
    }

    /// Sets a value of two parts; the body is not copied before the engine does.
    pub fn put_parts(&mut self, family: Family, key: &[u8], head: &[u8], body: Bytes) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(key);
        let split = self.buffer.len();
        self.buffer.extend_from_slice(head);
        self.body_bytes += body.len();
        self.list.push(Stored::Put { family, start, split, end: self.buffer.len(), body });
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(key);
        self.list.push(Stored::Delete { family, start, end: self.buffer.len() });
    }

    /// Removes the entries `from` to `to` of a log, both included, one by one: a range delete
    /// would burden every later read.
    pub fn delete_entries(&mut self, group: GroupId, from: u64, to: u64) {
        for index in from..=to {
            self.delete(Family::Log(group), &index.to_be_bytes());
        }
    }

    /// Frees the files up to and with `index` of a log, once these changes are on disk.
    pub fn drop_files(&mut self, group: GroupId, index: u64) {
        self.afterwards.push(Afterwards::DropFiles(group, index));
    }

    /// Deletes a log, once these changes are on disk. Nothing may be appended to it any more.
    pub fn drop_group(&mut self, group: GroupId) {
        self.afterwards.push(Afterwards::DropGroup(group));
    }

    /// Returns what happens afterwards.
    pub(crate) fn afterwards(&self) -> &[Afterwards] {
        &self.afterwards
    }

    /// Returns how many bytes the changes hold.
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.body_bytes
    }

    /// Returns how many changes there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Says whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Lists the changes in order.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.list.iter().map(|stored| match stored {
            Stored::Put { family, start, split, end, body } => Change::Put {
                family: *family,
                key: &self.buffer[*start..*split],
                head: &self.buffer[*split..*end],
                body,
            },
            Stored::Delete { family, start, end } => {
                Change::Delete { family: *family, key: &self.buffer[*start..*end] }
            }
        })
    }
}
