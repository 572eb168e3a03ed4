//! Bytes to [`Document`], in one pass.

use super::UNESCAPED;
use super::{DEPTH_MAX, Document, Kind, Problem, ProblemKind, SCANNED_MEMBERS_MAX, Slot, Span};

/// A refusal before its line and column are worked out.
struct Fault(ProblemKind, usize, &'static str);

type Parsed<T> = Result<T, Fault>;

impl<'a> Document<'a> {
    /// Parses `bytes` as exactly one JSON text.
    ///
    /// # Errors
    ///
    /// Anything RFC 8259 does not allow, and: a duplicate key, nesting beyond
    /// [`DEPTH_MAX`](crate::DEPTH_MAX), a number that no double can hold, a lone surrogate.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let refuse = |Fault(kind, at, expected)| Problem::new(kind, bytes, at, expected);
        if bytes.len() >= UNESCAPED as usize {
            return Err(refuse(Fault(ProblemKind::TooLong, 0, "longer than two gibibytes")));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Fault(ProblemKind::Encoding, error.valid_up_to(), "not UTF-8"))
            .map_err(refuse)?;
        let document = Document {
            text,
            unescaped: String::new(),
            slots: Vec::with_capacity(16 + bytes.len() / 24),
            index: Vec::new(),
        };
        let mut parser = Parser { bytes, at: 0, document };
        parser.whole().map_err(refuse)?;
        Ok(parser.document)
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    document: Document<'a>,
}

/// Lengths and offsets stay below 2^31, checked once in [`Document::parse`].
#[expect(clippy::cast_possible_truncation, reason = "the text is shorter than 2^31 bytes")]
const fn small(number: usize) -> u32 {
    number as u32
}

fn syntax<T>(at: usize, expected: &'static str) -> Parsed<T> {
    Err(Fault(ProblemKind::Syntax, at, expected))
}

impl Parser<'_> {
    fn whole(&mut self) -> Parsed<()> {
        if self.bytes.starts_with(b"\xef\xbb\xbf") {
            return syntax(0, "unexpected byte order mark");
        }
        self.space();
        self.value(Span::default(), 0)?;
        self.space();
        if self.at < self.bytes.len() {
            syntax(self.at, "unexpected text after the value")
        } else {
            Ok(())
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn push(&mut self, kind: Kind, key: Span, text: Span, bits: u64) {
        let next = small(self.document.slots.len()) + 1;
        self.document.slots.push(Slot { kind, next, key, text, bits });
    }

    fn value(&mut self, key: Span, depth: usize) -> Parsed<()> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                let text = self.string()?;
                self.push(Kind::String, key, text, 0);
                Ok(())
            }
            Some(b'{') => self.object(key, depth),
            Some(b'[') => self.array(key, depth),
            Some(b'-' | b'0'..=b'9') => self.number(key),
            Some(b't') => self.word(b"true", Kind::True, key),
            Some(b'f') => self.word(b"false", Kind::False, key),
            Some(b'n') => self.word(b"null", Kind::Null, key),
            Some(_) => syntax(self.at, "expected a value"),
            None => syntax(self.at, "unexpected end"),
        }
    }

    fn word(&mut self, word: &'static [u8], kind: Kind, key: Span) -> Parsed<()> {
        if !self.bytes[self.at..].starts_with(word) {
            return syntax(self.at, "expected a value");
        }
        self.push(kind, key, Span { start: small(self.at), len: small(word.len()) }, 0);
        self.at += word.len();
        Ok(())
    }

    fn open(&mut self, kind: Kind, key: Span, depth: usize) -> Parsed<usize> {
        if depth == DEPTH_MAX {
            return Err(Fault(ProblemKind::TooDeep, self.at, "nested deeper than 128"));
        }
        let slot = self.document.slots.len();
        self.push(kind, key, Span { start: small(self.at), len: 0 }, 0);
        self.at += 1;
        self.space();
        Ok(slot)
    }

    fn close(&mut self, slot: usize, count: u32, index: usize) {
        self.at += 1;
        let next = small(self.document.slots.len());
        let slot = &mut self.document.slots[slot];
        slot.next = next;
        slot.text.len = small(self.at) - slot.text.start;
        slot.bits = u64::from(count) | (index as u64) << 32;
    }

    fn array(&mut self, key: Span, depth: usize) -> Parsed<()> {
        let slot = self.open(Kind::Array, key, depth)?;
        let mut count = 0;
        if self.peek() != Some(b']') {
            loop {
                self.value(Span::default(), depth + 1)?;
                count += 1;
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => break,
                    Some(_) => return syntax(self.at, "expected a comma or the end of the array"),
                    None => return syntax(self.at, "unexpected end in an array"),
                }
                self.space();
            }
        }
        self.close(slot, count, 0);
        Ok(())
    }

    fn object(&mut self, key: Span, depth: usize) -> Parsed<()> {
        let slot = self.open(Kind::Object, key, depth)?;
        let mut count = 0;
        let mut index = 0;
        // One bit per seen name: only names that share a bit need a closer look.
        let mut seen = 0_u64;
        if self.peek() != Some(b'}') {
            loop {
                let name = self.name()?;
                if count < SCANNED_MEMBERS_MAX {
                    self.refuse_duplicate(slot, name, &mut seen)?;
                }
                self.value(name, depth + 1)?;
                count += 1;
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break,
                    Some(_) => return syntax(self.at, "expected a comma or the end of the object"),
                    None => return syntax(self.at, "unexpected end in an object"),
                }
                self.space();
            }
        }
        if count > SCANNED_MEMBERS_MAX {
            index = self.sort_members(slot)?;
        }
        self.close(slot, count, index);
        Ok(())
    }

    /// A member's name and the colon after it.
    fn name(&mut self) -> Parsed<Span> {
        match self.peek() {
            Some(b'"') => self.at += 1,
            Some(_) => return syntax(self.at, "expected a name in quotes"),
            None => return syntax(self.at, "unexpected end in an object"),
        }
        let name = self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return syntax(self.at, "expected a colon");
        }
        self.at += 1;
        self.space();
        Ok(name)
    }

    fn refuse_duplicate(&self, object: usize, name: Span, seen: &mut u64) -> Parsed<()> {
        let text = self.document.str(name).as_bytes();
        let first = text.first().copied().unwrap_or(0);
        let last = text.last().copied().unwrap_or(0);
        let mix = name.len.wrapping_mul(31) ^ u32::from(first).wrapping_mul(5) ^ u32::from(last);
        let bit = 1_u64 << (mix & 63);
        if *seen & bit == 0 {
            *seen |= bit;
            return Ok(());
        }
        let slots = &self.document.slots;
        let mut member = object + 1;
        while member < slots.len() {
            let key = slots[member].key;
            if key.len == name.len && self.document.str(key).as_bytes() == text {
                return Err(self.duplicate(name));
            }
            member = slots[member].next as usize;
        }
        Ok(())
    }

    /// Indexes a large object by name; neighbours with one name are duplicates.
    fn sort_members(&mut self, object: usize) -> Parsed<usize> {
        let start = self.document.index.len();
        let mut index = std::mem::take(&mut self.document.index);
        let mut member = object + 1;
        while member < self.document.slots.len() {
            index.push(small(member));
            member = self.document.slots[member].next as usize;
        }
        let document = &self.document;
        index[start..].sort_unstable_by(|a, b| document.key(*a).cmp(document.key(*b)));
        let duplicate = index[start..]
            .windows(2)
            .find(|pair| document.key(pair[0]) == document.key(pair[1]))
            .map(|pair| document.slot(pair[0].max(pair[1])).key);
        self.document.index = index;
        duplicate.map_or(Ok(start), |name| Err(self.duplicate(name)))
    }

    fn duplicate(&self, name: Span) -> Fault {
        // An escaped name has no place of its own in the text; then the reading position will do.
        let at = if name.start & UNESCAPED == 0 { name.start as usize - 1 } else { self.at };
        Fault(ProblemKind::DuplicateKey, at, "duplicate key")
    }

    /// Reads on from the opening quote to behind the closing one.
    fn string(&mut self) -> Parsed<Span> {
        let start = self.at;
        self.at = self.plain_until(start);
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Span { start: small(start), len: small(self.at - 1 - start) });
        }
        self.escaped_string(start)
    }

    /// First quote, backslash or control character at or after `at`; eight bytes at a time.
    fn plain_until(&self, mut at: usize) -> usize {
        const ONES: u64 = u64::MAX / 255;
        const HIGH: u64 = ONES * 0x80;
        let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
        while let Some(word) = self.bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let word = u64::from_le_bytes(*word);
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
            // A borrow can only mark bytes above a real hit, and the lowest mark is taken.
            let hits = zero_byte(word ^ (ONES * u64::from(b'"')))
                | zero_byte(word ^ (ONES * u64::from(b'\\')))
                | control;
            if hits != 0 {
                return at + hits.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
        while let Some(0x20..=0x21 | 0x23..=0x5b | 0x5d..) = self.bytes.get(at) {
            at += 1;
        }
        at
    }

    #[cold]
    fn escaped_string(&mut self, start: usize) -> Parsed<Span> {
        let unescaped = self.document.unescaped.len();
        let mut copied = start;
        loop {
            self.at = self.plain_until(self.at);
            match self.peek() {
                Some(b'"') => {
                    self.document.unescaped.push_str(&self.document.text[copied..self.at]);
                    self.at += 1;
                    let len = self.document.unescaped.len() - unescaped;
                    return Ok(Span { start: small(unescaped) | UNESCAPED, len: small(len) });
                }
                Some(b'\\') => {
                    self.document.unescaped.push_str(&self.document.text[copied..self.at]);
                    let character = self.escape()?;
                    self.document.unescaped.push(character);
                    copied = self.at;
                }
                Some(_) => return syntax(self.at, "control character in a string"),
                None => return syntax(self.at, "unexpected end in a string"),
            }
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        let at = self.at;
        self.at += 2;
        Ok(match self.bytes.get(at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let high = self.hex()?;
                let code = match high {
                    0xd800..=0xdbff if self.bytes[self.at..].starts_with(b"\\u") => {
                        self.at += 2;
                        let low = self.hex()?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return syntax(at, "lone surrogate in a string");
                        }
                        0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                    }
                    _ => high,
                };
                match char::from_u32(code) {
                    Some(character) => character,
                    None => return syntax(at, "lone surrogate in a string"),
                }
            }
            _ => return syntax(at, "unknown escape in a string"),
        })
    }

    fn hex(&mut self) -> Parsed<u32> {
        let mut code = 0;
        for at in self.at..self.at + 4 {
            let digit = self.bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
            let Some(digit) = digit else { return syntax(at, "expected four hexadecimal digits") };
            code = code * 16 + digit;
        }
        self.at += 4;
        Ok(code)
    }

    fn number(&mut self, key: Span) -> Parsed<()> {
        let start = self.at;
        let negative = self.bytes[start] == b'-';
        self.at += usize::from(negative);
        let first_digit = self.at;
        let mut whole = Some(0_u64);
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            let digit = u64::from(digit - b'0');
            whole = whole.and_then(|n| n.checked_mul(10)).and_then(|n| n.checked_add(digit));
            self.at += 1;
        }
        let digits = self.at - first_digit;
        if digits == 0 {
            return syntax(self.at, "expected a digit");
        }
        if digits > 1 && self.bytes[first_digit] == b'0' {
            return syntax(first_digit, "number with a leading zero");
        }
        let integer = !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        if !integer {
            self.fraction_and_exponent()?;
        }
        let text = Span { start: small(start), len: small(self.at - start) };
        let integer = if integer { whole } else { None };
        match integer {
            Some(whole) if !negative => self.push(Kind::Unsigned, key, text, whole),
            // Minus zero is a float, as it is for serde_json.
            Some(whole @ 1..=0x8000_0000_0000_0000) => {
                self.push(Kind::Negative, key, text, whole.wrapping_neg());
            }
            _ => {
                let number = self.document.str(text).parse().unwrap_or(f64::INFINITY);
                if !f64::is_finite(number) {
                    return Err(Fault(ProblemKind::NumberRange, start, "number out of range"));
                }
                self.push(Kind::Float, key, text, number.to_bits());
            }
        }
        Ok(())
    }

    fn fraction_and_exponent(&mut self) -> Parsed<()> {
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Parsed<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { syntax(start, "expected a digit") } else { Ok(()) }
    }
}
