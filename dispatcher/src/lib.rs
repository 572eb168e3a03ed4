//! Launches functions from streams and delivers events to them.

pub mod delivery;
pub mod scale;
