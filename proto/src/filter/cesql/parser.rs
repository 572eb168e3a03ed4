//! Reads expressions: recursive descent over the levels of precedence, everything bounded.
//!
//! AND, OR and XOR share one level and go from left to right, as the text of the specification says;
//! its grammar would go from right to left. NOT binds tighter than anything but a function.

use super::ast::{Call, Connective, Level, Node, Operator};
use super::error::{ParseError, Place};
use super::function::Function;
use super::lexer::{self, Kind, Token};
use super::like::Pattern;
use super::value::Value;
use super::{DEPTH_MAX, NODES_MAX, SOURCE_BYTES_MAX, Warning};

type Parsed<T> = Result<T, ParseError>;

const OPERAND: &str = "an attribute, a literal, a function, NOT, EXISTS, - or (";

/// Reads a whole expression.
pub(super) fn parse(source: &str) -> Parsed<(Node, Vec<Warning>)> {
    let here = |message| Err(ParseError { place: Place::of(source, 0), message });
    if source.len() > SOURCE_BYTES_MAX {
        let length = source.len();
        return here(format!("the expression has {length} bytes, more than {SOURCE_BYTES_MAX}"));
    }
    let token = lexer::next(source, 0)?;
    let mut parser = Parser { source, token, nodes: 0, warnings: Vec::new() };
    let (root, _) = parser.expression(1)?;
    match parser.token.kind {
        Kind::End => Ok((root, parser.warnings)),
        _ => Err(parser.expected("an operator or the end")),
    }
}

struct Parser<'s> {
    source: &'s str,
    /// The next word.
    token: Token<'s>,
    nodes: usize,
    warnings: Vec<Warning>,
}

/// An expression and how deep it is.
type Deep = (Node, usize);

impl<'s> Parser<'s> {
    fn take(&mut self) -> Parsed<Token<'s>> {
        let next = lexer::next(self.source, self.token.end)?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn error(&self, at: usize, message: String) -> ParseError {
        ParseError { place: Place::of(self.source, at), message }
    }

    fn expected(&self, what: &str) -> ParseError {
        self.error(self.token.start, format!("expected {what}, found {}", self.token.kind))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.token.kind, Kind::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.token.kind, Kind::Sign(found) if found == sign)
    }

    fn expect_sign(&mut self, sign: &str, what: &str) -> Parsed<()> {
        if !self.is_sign(sign) {
            return Err(self.expected(what));
        }
        self.take().map(drop)
    }

    fn warn(&mut self, at: usize, message: &str) {
        let place = Place::of(self.source, at);
        self.warnings.push(Warning { place, message: message.to_owned() });
    }

    /// Counts a node that is as deep as its parts say.
    fn node(&mut self, at: usize, depth: usize) -> Parsed<usize> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let message = format!("the expression has more than {NODES_MAX} parts");
            return Err(self.error(at, message));
        }
        self.deep(at, depth)
    }

    fn deep(&self, at: usize, depth: usize) -> Parsed<usize> {
        if depth > DEPTH_MAX {
            let message = format!("the expression is nested deeper than {DEPTH_MAX}");
            return Err(self.error(at, message));
        }
        Ok(depth)
    }

    /// `outer` is how many expressions this one is in, itself counted: it bounds the recursion here.
    fn expression(&mut self, outer: usize) -> Parsed<Deep> {
        let at = self.token.start;
        self.deep(at, outer)?;
        let (first, mut depth) = self.binary(outer, Level::Comparison)?;
        let mut rest: Vec<(Connective, Node)> = Vec::new();
        while let Some(connective) = self.connective() {
            let place = self.take()?.start;
            if rest.last().is_some_and(|(last, _)| *last != connective)
                && !self.warnings.iter().any(|warning| warning.message == MIXED)
            {
                self.warn(place, MIXED);
            }
            let (node, deep) = self.binary(outer, Level::Comparison)?;
            self.nodes += 1;
            depth = depth.max(deep);
            rest.push((connective, node));
        }
        if rest.is_empty() {
            return Ok((first, depth));
        }
        let depth = self.node(at, depth + 1)?;
        Ok((Node::Logic(Box::new(first), rest), depth))
    }

    fn connective(&self) -> Option<Connective> {
        [Connective::And, Connective::Or, Connective::Xor]
            .into_iter()
            .find(|connective| self.is_word(connective.as_str()))
    }

    fn operator(&self, level: Level) -> Option<Operator> {
        let Kind::Sign(sign) = self.token.kind else { return None };
        let operator = match sign {
            "*" => Operator::Multiply,
            "/" => Operator::Divide,
            "%" => Operator::Remainder,
            "+" => Operator::Add,
            "-" => Operator::Subtract,
            "=" => Operator::Equal,
            "!=" | "<>" => Operator::NotEqual,
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            ">" => Operator::Greater,
            ">=" => Operator::GreaterOrEqual,
            _ => return None,
        };
        (operator.level() == level).then_some(operator)
    }

    /// A chain of one level of operators, from left to right.
    fn binary(&mut self, outer: usize, level: Level) -> Parsed<Deep> {
        let tighter = match level {
            Level::Comparison => Level::Sum,
            Level::Sum => Level::Product,
            _ => Level::Postfix,
        };
        let next = |parser: &mut Self| match tighter {
            Level::Postfix => parser.postfix(outer),
            level => parser.binary(outer, level),
        };
        let at = self.token.start;
        let is_not = self.is_word("NOT");
        let (mut left, mut depth) = next(self)?;
        while let Some(operator) = self.operator(level) {
            if is_not && matches!(left, Node::Not(_)) {
                self.warn(at, NOT_BINDS_TIGHT);
            }
            self.take()?;
            let (right, deep) = next(self)?;
            depth = self.node(at, depth.max(deep) + 1)?;
            left = Node::Binary(operator, Box::new([left, right]));
        }
        Ok((left, depth))
    }

    /// An operand, and LIKE and IN behind it.
    fn postfix(&mut self, outer: usize) -> Parsed<Deep> {
        let at = self.token.start;
        let is_not = self.is_word("NOT");
        let (mut value, mut depth) = self.prefix(outer)?;
        loop {
            let negated = self.is_word("NOT");
            if !negated && !self.is_word("LIKE") && !self.is_word("IN") {
                return Ok((value, depth));
            }
            if is_not && matches!(value, Node::Not(_)) {
                self.warn(at, NOT_BINDS_TIGHT);
            }
            if negated {
                self.take()?;
            }
            let inner = Box::new(value);
            if self.is_word("LIKE") {
                self.take()?;
                let Kind::Text(text, quote) = self.token.kind else {
                    return Err(self.expected("a string literal as the pattern of LIKE"));
                };
                self.take()?;
                let pattern = Pattern::new(&lexer::unescape(text, quote));
                depth = self.node(at, depth + 1)?;
                value = Node::Like { value: inner, pattern, negated };
            } else if self.is_word("IN") {
                self.take()?;
                self.expect_sign("(", "( and the elements of a set")?;
                let (set, deep) = self.list(outer)?;
                depth = self.node(at, depth.max(deep) + 1)?;
                value = Node::In { value: inner, set, negated };
            } else {
                return Err(self.expected("LIKE or IN behind NOT"));
            }
        }
    }

    /// Expressions up to the closing parenthesis, at least one.
    fn list(&mut self, outer: usize) -> Parsed<(Vec<Node>, usize)> {
        let (mut nodes, mut depth) = (Vec::new(), 0);
        loop {
            let (node, deep) = self.expression(outer + 1)?;
            depth = depth.max(deep);
            nodes.push(node);
            if self.is_sign(")") {
                self.take()?;
                return Ok((nodes, depth));
            }
            self.expect_sign(",", "an operator, a comma or )")?;
        }
    }

    /// NOT, minus and what they are about.
    fn prefix(&mut self, outer: usize) -> Parsed<Deep> {
        let at = self.token.start;
        self.deep(at, outer)?;
        if self.is_word("NOT") {
            self.take()?;
            let (inner, depth) = self.prefix(outer + 1)?;
            let depth = self.node(at, depth + 1)?;
            return Ok((Node::Not(Box::new(inner)), depth));
        }
        let signed = self.is_sign("-") || self.is_sign("+");
        if signed {
            let sign = self.take()?;
            // A sign that touches digits is part of the number.
            if let Kind::Digits(digits) = self.token.kind
                && self.token.start == sign.end
            {
                let sign = self.source.get(sign.start..sign.end).unwrap_or_default();
                return self.number(at, &format!("{sign}{digits}"));
            }
            if sign.kind == Kind::Sign("+") {
                return Err(self.expected("digits right behind +"));
            }
            let (inner, depth) = self.prefix(outer + 1)?;
            let depth = self.node(at, depth + 1)?;
            return Ok((Node::Negate(Box::new(inner)), depth));
        }
        self.atom(outer)
    }

    fn number(&mut self, at: usize, text: &str) -> Parsed<Deep> {
        let Ok(value) = text.parse() else {
            return Err(self.error(at, format!("{text} is no 32-bit integer")));
        };
        self.take()?;
        Ok((Node::Literal(Value::Integer(value)), self.node(at, 1)?))
    }

    fn atom(&mut self, outer: usize) -> Parsed<Deep> {
        let at = self.token.start;
        match self.token.kind {
            Kind::Digits(digits) => self.number(at, digits),
            Kind::Text(text, quote) => {
                self.take()?;
                let text = lexer::unescape(text, quote);
                Ok((Node::Literal(Value::Text(text.into())), self.node(at, 1)?))
            }
            Kind::Sign("(") => {
                self.take()?;
                let inner = self.expression(outer + 1)?;
                self.expect_sign(")", "an operator or )")?;
                Ok(inner)
            }
            Kind::Word(word) => self.word(outer, at, word),
            Kind::Sign(_) | Kind::End => Err(self.expected(OPERAND)),
        }
    }

    fn word(&mut self, outer: usize, at: usize, word: &'s str) -> Parsed<Deep> {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        if ["AND", "OR", "XOR", "LIKE", "IN"].into_iter().any(is) {
            return Err(self.expected(OPERAND));
        }
        self.take()?;
        if is("TRUE") || is("FALSE") {
            return Ok((Node::Literal(Value::Boolean(is("TRUE"))), self.node(at, 1)?));
        }
        if is("EXISTS") {
            let name = self.attribute()?;
            return Ok((Node::Exists(name), self.node(at, 1)?));
        }
        if self.is_sign("(") {
            if !word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                || word.starts_with('_')
            {
                return Err(self.error(at, format!("{word:?} is no name of a function")));
            }
            self.take()?;
            let (arguments, depth) = if self.is_sign(")") {
                self.take()?;
                (Vec::new(), 0)
            } else {
                self.list(outer)?
            };
            let name: Box<str> = word.to_ascii_uppercase().into();
            let function = Function::find(&name, arguments.len());
            let depth = self.node(at, depth + 1)?;
            return Ok((Node::Call(Call { name, function, arguments }), depth));
        }
        let name = self.name(at, word)?;
        Ok((Node::Attribute(name), self.node(at, 1)?))
    }

    /// The attribute behind EXISTS.
    fn attribute(&mut self) -> Parsed<Box<str>> {
        let at = self.token.start;
        let (Kind::Word(word) | Kind::Digits(word)) = self.token.kind else {
            return Err(self.expected("the name of an attribute"));
        };
        let is_keyword = KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword));
        if is_keyword || matches!(self.token.kind, Kind::Digits(_)) {
            return Err(self.expected("the name of an attribute"));
        }
        self.take()?;
        self.name(at, word)
    }

    fn name(&self, at: usize, word: &str) -> Parsed<Box<str>> {
        if word.contains('_') {
            let message = format!("{word:?} is no attribute: names are letters and digits");
            return Err(self.error(at, message));
        }
        Ok(word.to_ascii_lowercase().into())
    }
}

const KEYWORDS: [&str; 9] = ["AND", "OR", "XOR", "NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE"];

const MIXED: &str = "AND, OR and XOR bind alike and go from left to right here, unlike in SQL: \
                     write parentheses";
const NOT_BINDS_TIGHT: &str = "NOT binds tighter than any operator here, unlike in SQL: it is \
                               about the next value alone; write parentheses behind it";
