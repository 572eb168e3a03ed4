//! The functions of the language: section 3.5 of the specification.

use std::borrow::Cow;

use super::cast;
use super::error::EvalError;
use super::eval::{Errors, Stop};
use super::value::{Type, Value};

/// A function, found by its name and the number of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Int,
    Bool,
    String,
    Abs,
    Length,
    Concat,
    ConcatWs,
    Lower,
    Upper,
    Trim,
    Left,
    Right,
    Substring,
}

impl Function {
    /// The function of this name, in upper case, with so many arguments.
    pub(super) fn find(name: &str, arguments: usize) -> Option<Self> {
        Some(match (name, arguments) {
            ("INT", 1) => Self::Int,
            ("BOOL", 1) => Self::Bool,
            ("STRING", 1) => Self::String,
            ("ABS", 1) => Self::Abs,
            ("LENGTH", 1) => Self::Length,
            ("CONCAT", _) => Self::Concat,
            ("CONCAT_WS", 1..) => Self::ConcatWs,
            ("LOWER", 1) => Self::Lower,
            ("UPPER", 1) => Self::Upper,
            ("TRIM", 1) => Self::Trim,
            ("LEFT", 2) => Self::Left,
            ("RIGHT", 2) => Self::Right,
            ("SUBSTRING", 2 | 3) => Self::Substring,
            _ => return None,
        })
    }

    /// The type of its value.
    pub(super) fn ty(self) -> Type {
        match self {
            Self::Bool => Type::Boolean,
            Self::Int | Self::Abs | Self::Length => Type::Integer,
            _ => Type::Text,
        }
    }

    /// Calls it with as many arguments as it was found for.
    pub(super) fn call<'a, E: Errors<'a>>(
        self,
        arguments: Vec<Value<'a>>,
        errors: &mut E,
    ) -> Result<Value<'a>, Stop<'a>> {
        let mut arguments = Arguments { left: arguments.into_iter(), errors };
        Ok(match self {
            Self::Int => Value::Integer(arguments.integer()?),
            Self::Bool => Value::Boolean(arguments.boolean()?),
            Self::String => Value::Text(arguments.text()),
            Self::Abs => Value::Integer(arguments.abs()?),
            Self::Length => {
                let length = arguments.text().chars().count();
                Value::Integer(i32::try_from(length).unwrap_or(i32::MAX))
            }
            Self::Concat => Value::Text(arguments.join("")),
            Self::ConcatWs => {
                let delimiter = arguments.text();
                Value::Text(arguments.join(&delimiter))
            }
            Self::Lower => Value::Text(Cow::Owned(arguments.text().to_lowercase())),
            Self::Upper => Value::Text(Cow::Owned(arguments.text().to_uppercase())),
            Self::Trim => Value::Text(part(arguments.text(), |text| text.trim())),
            Self::Left => Value::Text(arguments.left()?),
            Self::Right => Value::Text(arguments.right()?),
            Self::Substring => Value::Text(arguments.substring()?),
        })
    }
}

/// Arguments that are not taken yet, and where errors go.
struct Arguments<'e, 'a, E> {
    left: std::vec::IntoIter<Value<'a>>,
    errors: &'e mut E,
}

impl<'a, E: Errors<'a>> Arguments<'_, 'a, E> {
    fn next(&mut self) -> Value<'a> {
        self.left.next().unwrap_or_else(|| Type::Text.zero())
    }

    fn text(&mut self) -> Cow<'a, str> {
        cast::text(self.next())
    }

    fn integer(&mut self) -> Result<i32, Stop<'a>> {
        let value = self.next();
        cast::integer(value).or_else(|error| self.errors.raise(error).map(|()| 0))
    }

    fn boolean(&mut self) -> Result<bool, Stop<'a>> {
        let value = self.next();
        cast::boolean(value).or_else(|error| self.errors.raise(error).map(|()| false))
    }

    fn join(&mut self, delimiter: &str) -> Cow<'a, str> {
        let mut joined = self.text();
        for value in self.left.by_ref() {
            let joined = joined.to_mut();
            joined.push_str(delimiter);
            joined.push_str(&cast::text(value));
        }
        joined
    }

    fn abs(&mut self) -> Result<i32, Stop<'a>> {
        match self.integer()?.checked_abs() {
            Some(value) => Ok(value),
            None => self.errors.raise(EvalError::Overflow).map(|()| i32::MAX),
        }
    }

    /// Text, and how many characters of it; nothing for all of them.
    fn count(&mut self, name: &'static str) -> Result<(Cow<'a, str>, Option<usize>), Stop<'a>> {
        let (text, count) = (self.text(), self.integer()?);
        let Ok(count) = usize::try_from(count) else {
            let problem = "the number of characters is negative";
            self.errors.raise(EvalError::Function { name, problem })?;
            return Ok((text, None));
        };
        Ok((text, Some(count)))
    }

    fn left(&mut self) -> Result<Cow<'a, str>, Stop<'a>> {
        let (text, count) = self.count("LEFT")?;
        Ok(part(text, |text| match count.and_then(|count| text.char_indices().nth(count)) {
            Some((end, _)) => text.get(..end).unwrap_or_default(),
            None => text,
        }))
    }

    fn right(&mut self) -> Result<Cow<'a, str>, Stop<'a>> {
        let (text, count) = self.count("RIGHT")?;
        Ok(part(text, |text| match count {
            Some(0) => "",
            Some(count) => match text.char_indices().nth_back(count - 1) {
                Some((start, _)) => text.get(start..).unwrap_or_default(),
                None => text,
            },
            None => text,
        }))
    }

    fn substring(&mut self) -> Result<Cow<'a, str>, Stop<'a>> {
        let (text, from) = (self.text(), self.integer()?);
        let count = if self.left.len() > 0 { Some(self.integer()?) } else { None };
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        let from = i64::from(from);
        let start = if from < 0 { length + from } else { from - 1 };
        let problem = match count {
            Some(..0) => Some("the number of characters is negative"),
            _ if from.abs() > length => Some("the position is outside of the text"),
            _ => None,
        };
        if let Some(problem) = problem {
            self.errors.raise(EvalError::Function { name: "SUBSTRING", problem })?;
            return Ok(Cow::Borrowed(""));
        }
        let Ok(start) = usize::try_from(start) else { return Ok(Cow::Borrowed("")) };
        let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
        Ok(part(text, |text| {
            let mut begin = text.chars();
            if start > 0 {
                begin.nth(start - 1);
            }
            let behind = begin.as_str();
            match behind.char_indices().nth(count) {
                Some((end, _)) => behind.get(..end).unwrap_or_default(),
                None => behind,
            }
        }))
    }
}

/// A part of a text, borrowed where the text is.
fn part(text: Cow<'_, str>, of: impl Fn(&str) -> &str) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(of(text)),
        Cow::Owned(text) => Cow::Owned(of(&text).to_owned()),
    }
}
