//! Launches functions from streams and delivers events to them.

mod clock;
pub mod delivery;
pub mod launch;
pub mod push;
pub mod scale;
