//! Predicates over payloads, in the Common Expression Language: `data` is the parsed JSON, `ce` a map
//! of the attributes as text.
//!
//! The crate `cel` has no budget of steps, so what an expression may cost is decided when it is
//! compiled (`bounds`), from the size of the payload (`Weight`), and by counting how often a
//! large payload is looked up (`payload`).

mod bounds;
mod payload;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use ::cel::parser::{Expression, Parser};
use ::cel::{Context, Env, Value};
use bounds::Weight;
pub(super) use payload::Payload;

use super::cesql::{ParseError, Place};

/// Longest expression, in bytes.
pub const SOURCE_BYTES_MAX: usize = 4_096;
/// How deep expressions may be nested.
pub const DEPTH_MAX: u16 = 24;
/// Parts of one expression, once its macros are expanded.
pub const NODES_MAX: usize = 512;
/// `all`, `exists`, `exists_one`, `filter` and `map` within each other at most.
pub const LOOPS_DEPTH_MAX: usize = 3;
/// Bytes of payload times what an expression may do with each of them.
pub const WORK_MAX: usize = 8 << 20;

/// A compiled predicate.
#[derive(Debug)]
pub(super) struct Predicate {
    expression: Expression,
    weight: Weight,
}

impl Predicate {
    /// Compiles an expression, and refuses what could take too long or names what is not there.
    pub(super) fn compile(source: &str) -> Result<Self, ParseError> {
        let at = |offset, message: String| ParseError { place: Place::of(source, offset), message };
        if source.len() > SOURCE_BYTES_MAX {
            let length = source.len();
            let message =
                format!("the expression has {length} bytes, more than {SOURCE_BYTES_MAX}");
            return Err(at(0, message));
        }
        bounds::check_nesting(source).map_err(|(offset, message)| at(offset, message))?;
        // A parser of that size may have a bug; a filter must not end a node.
        let parser = Parser::default().max_recursion_depth(DEPTH_MAX);
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse_with_source_info(source)));
        let Ok(parsed) = parsed else { return Err(at(0, "it cannot be parsed".to_owned())) };
        let (expression, info) = parsed.map_err(|errors| match errors.errors.first() {
            Some(error) => at(payload::offset_of(source, error.pos), error.msg.clone()),
            None => at(0, "it is no expression".to_owned()),
        })?;
        let weight = bounds::measure(&expression).map_err(|problem| {
            let (start, _) = info.offset_for(problem.id).unwrap_or_default();
            at(payload::byte_of(source, start), problem.message)
        })?;
        Ok(Self { expression, weight })
    }

    /// Whether it is true of an event.
    ///
    /// # Errors
    ///
    /// What went wrong, as a sentence. A filter takes it for false.
    pub(super) fn test(&self, payload: &Payload) -> Result<bool, String> {
        let lookups = self.weight.lookups(payload.bytes)?;
        let resolver = payload.resolver(lookups);
        let mut context = Context::with_env(Arc::clone(env()));
        context.set_variable_resolver(&resolver);
        let value = catch_unwind(AssertUnwindSafe(|| Value::resolve(&self.expression, &context)));
        match value {
            Ok(Ok(Value::Bool(value))) => Ok(value),
            Ok(Ok(value)) => Err(format!("the value is of type {} and no bool", value.type_of())),
            Ok(Err(_)) if resolver.is_used_up() => {
                Err(format!("data is looked up too often for {} bytes of it", payload.bytes))
            }
            Ok(Err(error)) => Err(shortened(error.to_string())),
            Err(_) => Err("the evaluation broke off".to_owned()),
        }
    }
}

/// The standard functions; which of them a filter may call is decided in `bounds`.
fn env() -> &'static Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| Arc::new(Env::stdlib()))
}

/// Errors may carry values, and values may be as long as payloads.
fn shortened(mut text: String) -> String {
    const LEN: usize = 200;
    if text.len() > LEN {
        text.truncate((0..=LEN).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests;
