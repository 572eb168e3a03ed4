//! How RocksDB is tuned, and why.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options};

/// How much memory and disk the store may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// A broker that owns its machine.
    #[default]
    Normal,
    /// Several brokers on a laptop.
    Small,
}

struct Sizes {
    memtable: usize,
    all_memtables: usize,
    /// What few records go to, the catalog's for one, keeps old files alive until it is flushed: at
    /// this size.
    wal: u64,
    /// All that a flush lets go: what is written anew costs the kernel a fresh page, and that costs
    /// more than the copy into it.
    recycled_wals: usize,
    cache: usize,
}

impl Profile {
    const fn sizes(self) -> Sizes {
        match self {
            Self::Normal => Sizes {
                memtable: 16 << 20,
                all_memtables: 256 << 20,
                wal: 256 << 20,
                recycled_wals: 16,
                cache: 64 << 20,
            },
            Self::Small => Sizes {
                memtable: 4 << 20,
                all_memtables: 32 << 20,
                wal: 64 << 20,
                recycled_wals: 8,
                cache: 8 << 20,
            },
        }
    }
}

/// Options that stay equal for every open and every new log.
pub(super) struct Tuned {
    pub(super) db: Options,
    cache: Cache,
    memtable: usize,
}

impl Tuned {
    /// `direct_io`: whether the file system lets writes pass by the page cache.
    pub(super) fn new(profile: Profile, direct_io: bool) -> Self {
        let sizes = profile.sizes();
        let mut db = Options::default();
        db.create_if_missing(true);
        db.create_missing_column_families(true);
        db.set_paranoid_checks(true);

        // Durability. Point-in-time recovery drops a torn tail and stops at damage; what it
        // forgets is found by the chain of the log, and by asking peers.
        db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        // Overwriting an old file needs no new blocks: syncs are faster and steadier. RocksDB
        // turns it off silently under two other recovery modes.
        db.set_recycle_log_file_num(sizes.recycled_wals);
        db.set_track_and_verify_wals_in_manifest(true);
        db.set_manual_wal_flush(false);
        db.set_atomic_flush(false);

        // One thread writes, so what helps many writers only costs.
        db.set_allow_concurrent_memtable_write(false);
        db.set_enable_pipelined_write(false);
        db.set_unordered_write(false);

        // What is flushed is rarely read soon: the newest entries are in memory. Through the page
        // cache it would cost a copy, and push out what is read.
        db.set_use_direct_io_for_flush_and_compaction(direct_io);
        db.set_max_background_jobs(2);
        db.set_db_write_buffer_size(sizes.all_memtables);
        db.set_max_total_wal_size(sizes.wal);
        db.set_bytes_per_sync(1 << 20);
        db.set_avoid_unnecessary_blocking_io(true);
        db.set_advise_random_on_open(false);
        db.set_max_open_files(-1);
        db.set_keep_log_file_num(2);
        db.set_stats_dump_period_sec(0);
        db.set_stats_persist_period_sec(0);
        Self { db, cache: Cache::new_lru_cache(sizes.cache), memtable: sizes.memtable }
    }

    /// Returns the options of a log, or of everything else.
    pub(super) fn for_family(&self, is_log: bool) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_size(self.memtable);
        options.set_max_write_buffer_number(6);
        // One compression on all levels, and no file ever grows old: a file moves down a level
        // only if nothing about it has to change.
        options.set_compression_type(DBCompressionType::None);
        options.set_ttl(0);
        options.set_periodic_compaction_seconds(0);
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        if is_log {
            options.set_target_file_size_base(64 << 20);
            options.set_level_zero_file_num_compaction_trigger(2);
            options.set_level_zero_slowdown_writes_trigger(64);
            options.set_level_zero_stop_writes_trigger(128);
            table.set_block_size(64 << 10);
            table.set_cache_index_and_filter_blocks(true);
        } else {
            options.set_target_file_size_base(16 << 20);
            table.set_block_size(16 << 10);
            // Whoever begins a subject asks whether there is a record of it, and there is none.
            table.set_bloom_filter(10.0, false);
        }
        options.set_block_based_table_factory(&table);
        options
    }
}
