//! What an expression may cost, decided when it is compiled.
//!
//! A loop goes through a part of `data`, or of the element of the loop around it: however loops are
//! nested, each element is then looked at once per level.

use ::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, operators};
use ::cel::parser::Expression;

use super::{DEPTH_MAX, LOOPS_DEPTH_MAX, NODES_MAX, WORK_MAX};

/// What is wrong, and with which part.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) id: u64,
    pub(super) message: String,
}

/// What an expression does to each byte of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Parts inside of loops.
    in_loops: usize,
    /// Additions: each may copy all that was added before.
    additions: usize,
    /// How often `data` is named.
    mentions: usize,
}

impl Weight {
    /// How often `data` may be looked up in a payload of so many bytes.
    pub(super) fn lookups(self, bytes: usize) -> Result<usize, String> {
        let copies = self.additions.saturating_mul(self.additions + 1) / 2;
        let work = bytes.saturating_mul(self.in_loops + copies);
        if work > WORK_MAX {
            return Err(format!("the payload of {bytes} bytes is too large for this expression"));
        }
        Ok(self.mentions.saturating_add(WORK_MAX / bytes.max(1)))
    }
}

/// Brackets and choices that are open at the same time, before anything recursive sees the text.
pub(super) fn check_nesting(source: &str) -> Result<(), (usize, String)> {
    let (mut depth, mut choices, mut quote) = (0_usize, 0_usize, None);
    let mut rest = source.char_indices();
    while let Some((at, one)) = rest.next() {
        match (quote, one) {
            (Some(_), '\\') => drop(rest.next()),
            (Some(open), one) => quote = Some(open).filter(|&open| open != one),
            (None, '\'' | '"') => quote = Some(one),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, '?') => choices += 1,
            _ => {}
        }
        if depth + choices > usize::from(DEPTH_MAX) {
            let message = format!("the expression is nested deeper than {DEPTH_MAX}");
            return Err((at, message));
        }
    }
    Ok(())
}

/// Checks a whole expression.
pub(super) fn measure(expression: &Expression) -> Result<Weight, Problem> {
    let mut walk = Walk { weight: Weight::default(), nodes: 0, variables: Vec::new(), loops: 0 };
    walk.expression(expression)?;
    Ok(walk.weight)
}

struct Walk<'e> {
    weight: Weight,
    nodes: usize,
    /// Names of loops, the innermost last.
    variables: Vec<&'e str>,
    loops: usize,
}

const TYPES: [&str; 9] =
    ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type"];

const FUNCTIONS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "type",
    "dyn",
    "has",
];

const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

impl<'e> Walk<'e> {
    fn expression(&mut self, expression: &'e Expression) -> Result<(), Problem> {
        let problem = |message| Err(Problem { id: expression.id, message });
        self.nodes += 1;
        if self.loops > 0 {
            self.weight.in_loops += 1;
        }
        if self.nodes > NODES_MAX {
            return problem(format!("the expression has more than {NODES_MAX} parts"));
        }
        match &expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => match name.as_str() {
                "data" => {
                    self.weight.mentions += 1;
                    Ok(())
                }
                "ce" => Ok(()),
                name if self.variables.contains(&name) || TYPES.contains(&name) => Ok(()),
                name => problem(format!("there is no {name:?} here, only data and ce")),
            },
            Expr::Select(select) => self.expression(&select.operand),
            Expr::Call(call) => self.call(expression.id, call),
            Expr::List(list) => list.elements.iter().try_for_each(|one| self.expression(one)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key)?;
                    self.expression(&entry.value)
                }
                EntryExpr::StructField(_) => problem("messages cannot be made here".to_owned()),
            }),
            Expr::Comprehension(inner) => self.comprehension(expression.id, inner),
            Expr::Struct(_) | Expr::Unspecified => {
                problem("messages cannot be made here".to_owned())
            }
        }
    }

    fn call(&mut self, id: u64, call: &'e CallExpr) -> Result<(), Problem> {
        let name = call.func_name.as_str();
        let is_known = OPERATORS.contains(&name)
            || FUNCTIONS.contains(&name)
            || name == operators::NOT_STRICTLY_FALSE;
        if !is_known {
            let message =
                format!("there is no function {name:?}; there are {}", FUNCTIONS.join(", "));
            return Err(Problem { id, message });
        }
        if name == operators::ADD {
            self.weight.additions += 1;
        }
        call.target.iter().try_for_each(|target| self.expression(target))?;
        call.args.iter().try_for_each(|argument| self.expression(argument))
    }

    fn comprehension(&mut self, id: u64, inner: &'e ComprehensionExpr) -> Result<(), Problem> {
        let problem = |message| Err(Problem { id, message });
        if self.loops >= LOOPS_DEPTH_MAX {
            return problem(format!("more than {LOOPS_DEPTH_MAX} loops within each other"));
        }
        let root = root_of(&inner.iter_range);
        let is_good = match (self.variables.last(), &inner.iter_range.expr) {
            (Some(innermost), _) => root == Some(innermost),
            (None, Expr::List(_)) => true,
            (None, _) => matches!(root, Some("data" | "ce")),
        };
        if !is_good {
            return problem(match self.variables.last() {
                Some(around) => format!("a loop within a loop goes through a part of {around:?}"),
                None => {
                    "a loop goes through a part of data, or a list that is written here".to_owned()
                }
            });
        }
        self.expression(&inner.iter_range)?;
        self.expression(&inner.accu_init)?;
        self.loops += 1;
        let outer = self.variables.len();
        self.variables.extend(inner.iter_var2.as_deref());
        self.variables.push(&inner.accu_var);
        self.variables.push(&inner.iter_var);
        let additions = self.weight.additions;
        for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
            self.expression(part)?;
        }
        self.variables.truncate(outer);
        self.loops -= 1;
        if let Expr::List(_) = inner.accu_init.expr {
            // The one addition that collects is done in place.
            self.weight.additions = self.weight.additions.saturating_sub(1).max(additions);
            let kept = kept(&inner.loop_step, &inner.accu_var);
            if !kept.is_some_and(|kept| names_only(kept, &inner.iter_var)) {
                return problem(format!("map keeps only what is made of {:?}", inner.iter_var));
            }
        }
        Ok(())
    }
}

/// Where a path of members and elements begins.
fn root_of(expression: &Expression) -> Option<&str> {
    match &expression.expr {
        Expr::Ident(name) => Some(name),
        Expr::Select(select) if !select.test => root_of(&select.operand),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [list, index] if matches!(index.expr, Expr::Literal(_)) => root_of(list),
            _ => None,
        },
        _ => None,
    }
}

/// What a step of `map` or `filter` adds to the list.
fn kept<'e>(step: &'e Expression, list: &str) -> Option<&'e Expression> {
    let Expr::Call(call) = &step.expr else { return None };
    match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::CONDITIONAL, [_, then, _]) => kept(then, list),
        (operators::ADD, [to, added]) if matches!(&to.expr, Expr::Ident(name) if name == list) => {
            match &added.expr {
                Expr::List(added) => match added.elements.as_slice() {
                    [one] => Some(one),
                    _ => None,
                },
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether an expression names nothing but one variable, and has no loops of its own.
fn names_only(expression: &Expression, variable: &str) -> bool {
    match &expression.expr {
        Expr::Literal(_) => true,
        Expr::Ident(name) => name == variable || TYPES.contains(&name.as_str()),
        Expr::Select(select) => names_only(&select.operand, variable),
        Expr::Call(call) => {
            call.target.iter().all(|target| names_only(target, variable))
                && call.args.iter().all(|argument| names_only(argument, variable))
        }
        _ => false,
    }
}
