//! The words of an expression.

use std::fmt;

use super::error::{ParseError, Place};

/// A word and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'s> {
    pub(super) kind: Kind<'s>,
    /// Bytes before it.
    pub(super) start: usize,
    /// Bytes up to its end.
    pub(super) end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'s> {
    /// A keyword, the name of an attribute or of a function: letters, digits and `_`.
    Word(&'s str),
    /// Digits only.
    Digits(&'s str),
    /// What stands between the quotes, escapes and all, and the quote.
    Text(&'s str, char),
    /// An operator, a parenthesis or a comma.
    Sign(&'static str),
    End,
}

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Digits(text) => write!(f, "{text:?}"),
            Self::Text(..) => f.write_str("a string"),
            Self::Sign(sign) => write!(f, "{sign:?}"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// Two characters first: `<=` is no `<`.
const SIGNS: [&str; 15] =
    ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ",", "+", "-", "*", "/", "%"];

/// The word that begins at or behind a byte.
pub(super) fn next(source: &str, from: usize) -> Result<Token<'_>, ParseError> {
    let rest = source.get(from..).unwrap_or_default();
    let text = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    let start = from + rest.len() - text.len();
    let token = |kind, length| Token { kind, start, end: start + length };
    let Some(first) = text.chars().next() else { return Ok(token(Kind::End, 0)) };
    if first.is_ascii_alphanumeric() || first == '_' {
        let is_word = |one: char| one.is_ascii_alphanumeric() || one == '_';
        let length = text.find(|one| !is_word(one)).unwrap_or(text.len());
        let word = text.get(..length).unwrap_or_default();
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let kind = if is_number { Kind::Digits(word) } else { Kind::Word(word) };
        return Ok(token(kind, length));
    }
    if matches!(first, '\'' | '"') {
        return match quoted(text, first) {
            Some(inner) => Ok(token(Kind::Text(inner, first), inner.len() + 2)),
            None => Err(ParseError {
                place: Place::of(source, start),
                message: format!("the string that begins here does not end; expected {first}"),
            }),
        };
    }
    match SIGNS.into_iter().find(|sign| text.starts_with(sign)) {
        Some(sign) => Ok(token(Kind::Sign(sign), sign.len())),
        None => Err(ParseError {
            place: Place::of(source, start),
            message: format!("{first:?} has no meaning here"),
        }),
    }
}

/// What stands between a quote and the next that is neither escaped nor doubled.
fn quoted(text: &str, quote: char) -> Option<&str> {
    let inner = text.get(1..)?;
    let mut characters = inner.char_indices().peekable();
    while let Some((at, one)) = characters.next() {
        if one == '\\' {
            characters.next()?;
        } else if one == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return inner.get(..at);
        }
    }
    None
}

/// Undoes the escapes of a string: only its own quote is escaped, by a backslash or by doubling.
/// Any other backslash stays, for LIKE to read.
pub(super) fn unescape(inner: &str, quote: char) -> String {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(one) = rest.next() {
        if one == '\\' {
            match rest.next() {
                Some(next) if next == quote => text.push(quote),
                Some(next) => text.extend([one, next]),
                None => text.push(one),
            }
        } else {
            text.push(one);
            if one == quote {
                rest.next();
            }
        }
    }
    text
}

/// Writes text as a string that reads as this text. Nothing when no string does: it ends in a lone
/// backslash, say.
pub(super) fn escape(text: &str) -> Option<String> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let mut escaped = String::with_capacity(text.len() + 2);
        escaped.push(quote);
        let mut rest = text.chars();
        while let Some(one) = rest.next() {
            if one == '\\' {
                escaped.extend([one, rest.next().filter(|next| *next != quote)?]);
            } else {
                if one == quote {
                    escaped.push('\\');
                }
                escaped.push(one);
            }
        }
        escaped.push(quote);
        Some(escaped)
    })
}
