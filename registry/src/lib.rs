//! Schemas and their checks: a pure library.
