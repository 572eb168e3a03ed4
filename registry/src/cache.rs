//! Compiled schemas by id, bounded in count and bytes; the one used longest ago goes first.

use crate::{Schema, SchemaId};
use std::collections::BTreeMap;

/// A bounded cache of compiled schemas.
///
/// A version never changes, so an entry is never stale. What leaves the cache lives on with those
/// who still hold it.
#[derive(Debug)]
pub struct Cache {
    count_max: usize,
    bytes_max: usize,
    bytes: usize,
    uses: u64,
    entries: BTreeMap<SchemaId, Entry>,
    /// Ids by last use, oldest first.
    by_use: BTreeMap<u64, SchemaId>,
}

#[derive(Debug)]
struct Entry {
    schema: Schema,
    used: u64,
}

impl Cache {
    /// An empty cache; its bytes are those of [`Schema::memory_bytes`], an estimate.
    #[must_use]
    pub fn new(count_max: usize, bytes_max: usize) -> Self {
        let (entries, by_use) = (BTreeMap::new(), BTreeMap::new());
        Self { count_max, bytes_max, bytes: 0, uses: 0, entries, by_use }
    }

    /// The schema, if it is here; counts as a use.
    #[must_use]
    pub fn get(&mut self, id: SchemaId) -> Option<Schema> {
        let entry = self.entries.get_mut(&id)?;
        self.by_use.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, id);
        Some(entry.schema.clone())
    }

    /// Keeps a schema and drops what no longer fits beside it. One that is too large by itself is
    /// not kept.
    pub fn insert(&mut self, id: SchemaId, schema: Schema) {
        self.remove(id);
        let bytes = schema.memory_bytes();
        if bytes > self.bytes_max || self.count_max == 0 {
            return;
        }
        while self.entries.len() >= self.count_max || self.bytes + bytes > self.bytes_max {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            self.remove(*oldest);
        }
        self.uses += 1;
        self.bytes += bytes;
        self.entries.insert(id, Entry { schema, used: self.uses });
        self.by_use.insert(self.uses, id);
    }

    /// The schema, compiled by `compile` if it is not here.
    ///
    /// # Errors
    ///
    /// Those of `compile`; they are not kept.
    pub fn get_or_compile<E>(
        &mut self,
        id: SchemaId,
        compile: impl FnOnce() -> Result<Schema, E>,
    ) -> Result<Schema, E> {
        if let Some(schema) = self.get(id) {
            return Ok(schema);
        }
        let schema = compile()?;
        self.insert(id, schema.clone());
        Ok(schema)
    }

    /// Forgets a schema.
    pub fn remove(&mut self, id: SchemaId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.schema.memory_bytes();
        }
    }

    /// How many schemas are here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes they take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;
    use crate::{Limits, Schema, SchemaId, SchemaProblem};
    use proptest::prelude::*;

    fn schema(padding: usize) -> Schema {
        let text = format!("{{{}}}", " ".repeat(padding));
        Schema::compile(text.as_bytes(), &Limits::default()).unwrap()
    }

    #[test]
    fn least_recently_used_goes_first() {
        let mut cache = Cache::new(2, usize::MAX);
        cache.insert(SchemaId(1), schema(0));
        cache.insert(SchemaId(2), schema(0));

        assert!(cache.get(SchemaId(1)).is_some());
        cache.insert(SchemaId(3), schema(0));

        assert!(cache.get(SchemaId(2)).is_none());
        assert!(cache.get(SchemaId(1)).is_some());
        assert!(cache.get(SchemaId(3)).is_some());
    }

    #[test]
    fn too_large_a_schema_displaces_nothing() {
        let mut cache = Cache::new(8, 2 * schema(0).memory_bytes());
        cache.insert(SchemaId(1), schema(0));

        cache.insert(SchemaId(2), schema(100_000));

        assert!(cache.get(SchemaId(1)).is_some());
        assert!(cache.get(SchemaId(2)).is_none());
    }

    #[test]
    fn compiles_once_and_keeps_no_failure() {
        let mut cache = Cache::new(8, usize::MAX);
        let fail = || Schema::compile(b"{", &Limits::default());

        assert!(cache.get_or_compile(SchemaId(1), fail).is_err());
        assert!(cache.get_or_compile(SchemaId(1), || Ok::<_, SchemaProblem>(schema(0))).is_ok());
        assert!(cache.get_or_compile(SchemaId(1), fail).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bounds_hold_whatever_happens(
            steps in prop::collection::vec((0_u8..3, 0_u32..8, 0_usize..2), 0..64),
        ) {
            let shelf = [schema(0), schema(600)];
            let bytes_max = 2 * shelf[0].memory_bytes() + shelf[1].memory_bytes();
            let mut cache = Cache::new(4, bytes_max);
            for (step, id, size) in steps {
                match step {
                    0 => cache.insert(SchemaId(id), shelf[size].clone()),
                    1 => cache.remove(SchemaId(id)),
                    _ => drop(cache.get(SchemaId(id))),
                }
                let bytes: usize = cache.entries.values().map(|e| e.schema.memory_bytes()).sum();
                prop_assert_eq!(cache.bytes(), bytes);
                prop_assert!(cache.len() <= 4 && bytes <= bytes_max);
                prop_assert_eq!(cache.by_use.len(), cache.len());
            }
        }
    }
}
