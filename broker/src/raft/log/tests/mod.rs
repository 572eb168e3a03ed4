//! The log against openraft's own suite, against a model, and against damage.

mod damage;
mod durability;
mod model;
mod pledge;
mod reading;
mod suite;
mod support;
