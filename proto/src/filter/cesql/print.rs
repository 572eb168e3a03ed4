//! Writes a tree as text that parses to the same tree.

use std::fmt::{self, Formatter};

use super::ast::{Level, Node};
use super::lexer;
use super::value::Value;

pub(super) fn write(f: &mut Formatter<'_>, node: &Node) -> fmt::Result {
    match node {
        Node::Literal(Value::Boolean(value)) => f.write_str(if *value { "TRUE" } else { "FALSE" }),
        Node::Literal(Value::Integer(value)) => write!(f, "{value}"),
        Node::Literal(Value::Text(text)) => string(f, text),
        Node::Attribute(name) => f.write_str(name),
        Node::Exists(name) => write!(f, "EXISTS {name}"),
        Node::Not(inner) => {
            f.write_str("NOT ")?;
            within(f, inner, Level::Prefix)
        }
        Node::Negate(inner) => {
            // With the space it is no literal.
            f.write_str("- ")?;
            within(f, inner, Level::Prefix)
        }
        Node::Binary(operator, sides) => {
            let [left, right] = &**sides;
            let level = operator.level();
            within(f, left, level)?;
            write!(f, " {} ", operator.as_str())?;
            within(f, right, above(level))
        }
        Node::Logic(first, rest) => {
            within(f, first, Level::Comparison)?;
            for (connective, node) in rest {
                write!(f, " {} ", connective.as_str())?;
                within(f, node, Level::Comparison)?;
            }
            Ok(())
        }
        Node::Like { value, pattern, negated } => {
            within(f, value, Level::Postfix)?;
            f.write_str(if *negated { " NOT LIKE " } else { " LIKE " })?;
            string(f, pattern.source())
        }
        Node::In { value, set, negated } => {
            within(f, value, Level::Postfix)?;
            f.write_str(if *negated { " NOT IN " } else { " IN " })?;
            list(f, set)
        }
        Node::Call(call) => {
            f.write_str(&call.name)?;
            list(f, &call.arguments)
        }
    }
}

fn list(f: &mut Formatter<'_>, nodes: &[Node]) -> fmt::Result {
    f.write_str("(")?;
    for (place, node) in nodes.iter().enumerate() {
        if place > 0 {
            f.write_str(", ")?;
        }
        write(f, node)?;
    }
    f.write_str(")")
}

/// A part, in parentheses where it binds more loosely than its place.
fn within(f: &mut Formatter<'_>, node: &Node, least: Level) -> fmt::Result {
    if level(node) >= least {
        return write(f, node);
    }
    f.write_str("(")?;
    write(f, node)?;
    f.write_str(")")
}

fn level(node: &Node) -> Level {
    match node {
        Node::Logic(..) => Level::Logic,
        Node::Binary(operator, _) => operator.level(),
        Node::Like { .. } | Node::In { .. } => Level::Postfix,
        Node::Not(_) | Node::Negate(_) => Level::Prefix,
        Node::Literal(_) | Node::Attribute(_) | Node::Exists(_) | Node::Call(_) => Level::Atom,
    }
}

fn above(level: Level) -> Level {
    match level {
        Level::Logic => Level::Comparison,
        Level::Comparison => Level::Sum,
        Level::Sum => Level::Product,
        Level::Product => Level::Postfix,
        Level::Postfix => Level::Prefix,
        Level::Prefix | Level::Atom => Level::Atom,
    }
}

fn string(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    // Text that came from an expression can be written as one.
    f.write_str(&lexer::escape(text).ok_or(fmt::Error)?)
}
