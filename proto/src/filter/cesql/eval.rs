//! Evaluates a tree. What an error does is decided by who collects it: one goes on, one stops.
//!
//! An operand that is missing or failed gives the zero value of the operator or function around it:
//! `1 != 1 / 0` is false in the conformance cases. Except for NOT, whose own cast may fail: there they
//! want `NOT 10` to be true.

use super::ast::{Call, Connective, Node, Operator};
use super::cast;
use super::error::EvalError;
use super::value::{Attributes, Type, Value};

/// The evaluation ends here.
#[derive(Debug)]
pub(super) struct Stop<'a>(EvalError<'a>);

/// Where errors go.
pub(super) trait Errors<'a> {
    /// Takes an error: goes on, or stops with it.
    fn raise(&mut self, error: EvalError<'a>) -> Result<(), Stop<'a>>;

    /// How many it has taken and gone on.
    fn count(&self) -> usize;
}

struct All<'a>(Vec<EvalError<'a>>);

impl<'a> Errors<'a> for All<'a> {
    fn raise(&mut self, error: EvalError<'a>) -> Result<(), Stop<'a>> {
        self.0.push(error);
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

struct First;

impl<'a> Errors<'a> for First {
    fn raise(&mut self, error: EvalError<'a>) -> Result<(), Stop<'a>> {
        Err(Stop(error))
    }

    fn count(&self) -> usize {
        0
    }
}

/// A value, and all errors.
pub(super) fn complete<'a>(
    node: &'a Node,
    event: &'a impl Attributes,
) -> (Value<'a>, Vec<EvalError<'a>>) {
    let mut errors = All(Vec::new());
    let value = match (Run { event, errors: &mut errors }).value(node) {
        Ok(value) => value,
        Err(Stop(error)) => {
            errors.0.push(error);
            Type::Boolean.zero()
        }
    };
    (value, errors.0)
}

/// A value, or the first error.
pub(super) fn fail_fast<'a>(
    node: &'a Node,
    event: &'a impl Attributes,
) -> Result<Value<'a>, EvalError<'a>> {
    (Run { event, errors: &mut First }).value(node).map_err(|Stop(error)| error)
}

struct Run<'e, 'a, A, E> {
    event: &'a A,
    errors: &'e mut E,
}

/// An operand that is there.
type Operand<'a, T> = Result<Option<T>, Stop<'a>>;

impl<'a, A: Attributes, E: Errors<'a>> Run<'_, 'a, A, E> {
    fn raise<T>(&mut self, error: EvalError<'a>, zero: T) -> Result<T, Stop<'a>> {
        self.errors.raise(error).map(|()| zero)
    }

    /// The value of an operand; nothing when it failed.
    fn operand(&mut self, node: &'a Node) -> Operand<'a, Value<'a>> {
        let before = self.errors.count();
        let value = self.value(node)?;
        Ok((self.errors.count() == before).then_some(value))
    }

    fn value(&mut self, node: &'a Node) -> Result<Value<'a>, Stop<'a>> {
        Ok(match node {
            Node::Literal(value) => value.borrowed(),
            Node::Attribute(name) => match self.event.attribute(name) {
                Some(value) => value,
                None => self.raise(EvalError::MissingAttribute(name), Type::Boolean.zero())?,
            },
            Node::Exists(name) => Value::Boolean(self.event.attribute(name).is_some()),
            Node::Not(inner) => Value::Boolean(self.not(inner)?),
            Node::Negate(inner) => Value::Integer(self.negate(inner)?),
            Node::Binary(operator, sides) => self.binary(*operator, sides)?,
            Node::Logic(first, rest) => Value::Boolean(self.logic(first, rest)?),
            Node::Like { value, pattern, negated } => {
                let text = self.operand(value)?.map(cast::text);
                Value::Boolean(text.is_some_and(|text| pattern.matches(&text) != *negated))
            }
            Node::In { value, set, negated } => {
                Value::Boolean(self.is_in(value, set)?.is_some_and(|is_in| is_in != *negated))
            }
            Node::Call(call) => self.call(call)?,
        })
    }

    fn boolean(&mut self, node: &'a Node) -> Operand<'a, bool> {
        match self.operand(node)?.map(cast::boolean) {
            Some(Err(error)) => self.raise(error, None),
            Some(Ok(value)) => Ok(Some(value)),
            None => Ok(None),
        }
    }

    fn integer(&mut self, node: &'a Node) -> Operand<'a, i32> {
        match self.operand(node)?.map(cast::integer) {
            Some(Err(error)) => self.raise(error, None),
            Some(Ok(value)) => Ok(Some(value)),
            None => Ok(None),
        }
    }

    fn not(&mut self, inner: &'a Node) -> Result<bool, Stop<'a>> {
        let Some(value) = self.operand(inner)? else { return Ok(false) };
        let failed = match value {
            // Against the table of casts, but a case of the conformance kit.
            value @ Value::Integer(_) => EvalError::Cast { value, to: Type::Boolean },
            value => match cast::boolean(value) {
                Ok(value) => return Ok(!value),
                Err(error) => error,
            },
        };
        self.raise(failed, true)
    }

    fn negate(&mut self, inner: &'a Node) -> Result<i32, Stop<'a>> {
        let Some(value) = self.integer(inner)? else { return Ok(0) };
        match value.checked_neg() {
            Some(value) => Ok(value),
            None => self.raise(EvalError::Overflow, 0),
        }
    }

    fn logic(&mut self, first: &'a Node, rest: &'a [(Connective, Node)]) -> Result<bool, Stop<'a>> {
        let mut left = self.boolean(first)?;
        for (connective, node) in rest {
            // What failed stays failed: what comes behind is not looked at.
            let Some(known) = left else { break };
            left = match connective {
                Connective::And if !known => left,
                Connective::Or if known => left,
                Connective::And | Connective::Or => self.boolean(node)?,
                Connective::Xor => self.boolean(node)?.map(|value| value != known),
            };
        }
        Ok(left.unwrap_or_default())
    }

    fn binary(&mut self, operator: Operator, sides: &'a [Node; 2]) -> Result<Value<'a>, Stop<'a>> {
        let [left, right] = sides;
        match operator {
            Operator::Equal | Operator::NotEqual => {
                let wanted = operator == Operator::Equal;
                let is_equal = self.is_equal(left, right)?;
                Ok(Value::Boolean(is_equal.is_some_and(|is_equal| is_equal == wanted)))
            }
            _ => {
                // Both are looked at, so that complete evaluation finds the errors of both.
                let (left, right) = (self.integer(left)?, self.integer(right)?);
                let sides = left.zip(right);
                match operator {
                    Operator::Less => Ok(compared(sides, |left, right| left < right)),
                    Operator::LessOrEqual => Ok(compared(sides, |left, right| left <= right)),
                    Operator::Greater => Ok(compared(sides, |left, right| left > right)),
                    Operator::GreaterOrEqual => Ok(compared(sides, |left, right| left >= right)),
                    _ => self.arithmetic(operator, sides).map(Value::Integer),
                }
            }
        }
    }

    fn arithmetic(
        &mut self,
        operator: Operator,
        sides: Option<(i32, i32)>,
    ) -> Result<i32, Stop<'a>> {
        let Some((left, right)) = sides else { return Ok(0) };
        let result = match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide | Operator::Remainder if right == 0 => {
                return self.raise(EvalError::DivisionByZero, 0);
            }
            Operator::Divide => left.checked_div(right),
            // The remainder of the smallest number by -1 is 0, though the quotient does not fit.
            _ => Some(left.wrapping_rem(right)),
        };
        match result {
            Some(result) => Ok(result),
            None => self.raise(EvalError::Overflow, 0),
        }
    }

    /// The left side is cast to the type of the right one.
    fn is_equal(&mut self, left: &'a Node, right: &'a Node) -> Operand<'a, bool> {
        let (left, right) = (self.operand(left)?, self.operand(right)?);
        let Some((left, right)) = left.zip(right) else { return Ok(None) };
        match cast::to(left, right.ty()) {
            Ok(left) => Ok(Some(left == right)),
            Err(error) => self.raise(error, None),
        }
    }

    /// The elements are cast to the type of the left side.
    fn is_in(&mut self, value: &'a Node, set: &'a [Node]) -> Operand<'a, bool> {
        let Some(value) = self.operand(value)? else { return Ok(None) };
        let mut failed = false;
        for element in set {
            let element = self.operand(element)?.map(|element| cast::to(element, value.ty()));
            match element {
                Some(Ok(element)) if element == value => return Ok(Some(true)),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.raise(error, ())?;
                    failed = true;
                }
                None => failed = true,
            }
        }
        // Whether it is in a set that is not known in full cannot be said.
        Ok((!failed).then_some(false))
    }

    fn call(&mut self, call: &'a Call) -> Result<Value<'a>, Stop<'a>> {
        let Some(function) = call.function else {
            let error = EvalError::MissingFunction(&call.name, call.arguments.len());
            return self.raise(error, Type::Boolean.zero());
        };
        let mut arguments = Vec::with_capacity(call.arguments.len());
        let mut failed = false;
        for argument in &call.arguments {
            match self.operand(argument)? {
                Some(value) => arguments.push(value),
                None => failed = true,
            }
        }
        if failed { Ok(function.ty().zero()) } else { function.call(arguments, self.errors) }
    }
}

fn compared(sides: Option<(i32, i32)>, holds: impl Fn(i32, i32) -> bool) -> Value<'static> {
    Value::Boolean(sides.is_some_and(|(left, right)| holds(left, right)))
}
