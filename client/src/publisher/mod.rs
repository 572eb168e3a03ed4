//! Publishing.
mod window;
