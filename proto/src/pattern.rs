//! Patterns of names: text in which `*` stands for any run of characters.

use std::fmt;

/// Stars in one pattern.
const STARS_MAX: usize = 4;
/// Bytes of one pattern.
const BYTES_MAX: usize = 256;

/// A pattern: matches as a whole, never a part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// When it is empty, longer than 256 bytes, or has more than 4 stars.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError("the pattern is empty; * matches everything".to_owned()));
        }
        if text.len() > BYTES_MAX {
            let length = text.len();
            return Err(PatternError(format!(
                "the pattern has {length} bytes, more than {BYTES_MAX}"
            )));
        }
        if text.bytes().filter(|&byte| byte == b'*').count() > STARS_MAX {
            return Err(PatternError(format!("the pattern has more than {STARS_MAX} stars")));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches every text.
    pub fn is_all(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether it matches this text and no other.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it matches a text. Takes time in proportion to the text.
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(head) else { return false };
        // Each part between stars is best taken where it is found first; the last one ends the text.
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*') {
            let Some(found) = text.find(part) else { return false };
            text = text.get(found + part.len()..).unwrap_or_default();
        }
        text.ends_with(tail)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    #[test]
    fn a_star_is_any_run_and_the_rest_is_literal() {
        for (text, yes, no) in [
            ("*", &["", "a", "a*b"][..], &[][..]),
            ("a", &["a"], &["", "aa", "A", "a "]),
            ("a*", &["a", "ab"], &["", "ba"]),
            ("*a", &["a", "ba", "aa"], &["ab", ""]),
            ("a*a", &["aa", "aba", "aaa"], &["a", "ab"]),
            ("a*b*c", &["abc", "axbxc", "abcbc"], &["ac", "acb", "bc"]),
            ("a.b", &["a.b"], &["axb"]),
            ("**", &["", "x"], &[]),
        ] {
            for one in yes {
                assert!(pattern(text).matches(one), "{text} {one}");
            }
            for one in no {
                assert!(!pattern(text).matches(one), "{text} {one}");
            }
        }
        assert!(pattern("**").is_all() && !pattern("a*").is_all() && pattern("a").is_exact());
    }

    #[test]
    fn what_is_too_much_is_refused() {
        for wrong in ["", &"a".repeat(257), "*a*a*a*a*"] {
            assert!(Pattern::new(wrong).is_err(), "{wrong}");
        }
    }

    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some(b'*'), _) => {
                oracle(&pattern[1..], text) || (!text.is_empty() && oracle(pattern, &text[1..]))
            }
            (Some(one), Some(other)) => one == other && oracle(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab*]{1,8}", name in "[ab]{0,8}") {
            prop_assume!(Pattern::new(&text).is_ok());
            prop_assert_eq!(pattern(&text).matches(&name), oracle(text.as_bytes(), name.as_bytes()));
        }
    }
}
