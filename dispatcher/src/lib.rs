//! Launches functions from streams and delivers events to them.
