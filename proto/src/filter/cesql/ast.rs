//! The tree of an expression. Names are folded, patterns compiled and functions found when it is made.

use super::function::Function;
use super::like::Pattern;
use super::value::Value;

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Literal(Value<'static>),
    /// An attribute, in lower case.
    Attribute(Box<str>),
    Exists(Box<str>),
    Not(Box<Self>),
    Negate(Box<Self>),
    Binary(Operator, Box<[Self; 2]>),
    /// A chain of one level, from left to right: flat, so that long ones are not deep.
    Logic(Box<Self>, Vec<(Connective, Self)>),
    Like {
        value: Box<Self>,
        pattern: Pattern,
        negated: bool,
    },
    In {
        value: Box<Self>,
        set: Vec<Self>,
        negated: bool,
    },
    Call(Call),
}

/// The call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// As it was written, in upper case.
    pub(super) name: Box<str>,
    /// Nothing: no function has this name and so many arguments.
    pub(super) function: Option<Function>,
    pub(super) arguments: Vec<Node>,
}

/// What stands between two expressions and does not shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Multiply,
    Divide,
    Remainder,
    Add,
    Subtract,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    /// How tightly it binds.
    pub(super) fn level(self) -> Level {
        match self {
            Self::Multiply | Self::Divide | Self::Remainder => Level::Product,
            Self::Add | Self::Subtract => Level::Sum,
            _ => Level::Comparison,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// Levels of precedence, the loosest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Logic,
    Comparison,
    Sum,
    Product,
    /// LIKE and IN.
    Postfix,
    /// NOT and minus.
    Prefix,
    Atom,
}

/// AND, OR and XOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connective {
    And,
    Or,
    Xor,
}

impl Connective {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Xor => "XOR",
        }
    }
}
