//! Storage: one engine, one writer thread, keys.
