//! The header `traceparent`.

use std::fmt;
use std::str::FromStr;

/// Length of version 00; what is added later comes after it.
const LEN: usize = 55;
const SAMPLED: u8 = 1;

/// A span of a trace, as the next one names its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; not all zero.
    pub trace: [u8; 16],
    /// The span; not all zero.
    pub span: [u8; 8],
    /// Whether whoever began it may have recorded it.
    pub sampled: bool,
}

/// The text is no `traceparent`. Whoever gets such a header behaves as if there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTraceParent;

impl fmt::Display for NoTraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no traceparent of W3C trace context")
    }
}

impl std::error::Error for NoTraceParent {}

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    /// Reads version 00, and of a later one what 00 has.
    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        read(text.as_bytes()).ok_or(NoTraceParent)
    }
}

fn read(text: &[u8]) -> Option<TraceParent> {
    let [version] = hex::<1>(text.get(..2)?)?;
    let is_long = match version {
        0xff => return None,
        0 => text.len() == LEN,
        // What follows is separated, and not understood.
        _ => text.get(LEN).is_none_or(|&byte| byte == b'-'),
    };
    let separated = [2, 35, 52].iter().all(|&at| text.get(at) == Some(&b'-'));
    if !is_long || !separated {
        return None;
    }
    let trace = hex::<16>(text.get(3..35)?)?;
    let span = hex::<8>(text.get(36..52)?)?;
    let [flags] = hex::<1>(text.get(53..LEN)?)?;
    let is_valid = trace != [0; 16] && span != [0; 8];
    is_valid.then_some(TraceParent { trace, span, sampled: flags & SAMPLED != 0 })
}

/// Lower case only, as the header wants it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// As version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(if self.sampled { "-01" } else { "-00" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn what_the_recommendation_allows_is_read_and_nothing_else() {
        let good = |text: String, sampled| {
            let parent: TraceParent = text.parse().unwrap();
            assert_eq!(parent.to_string(), format!("00-{TRACE}-{SPAN}-0{sampled}"), "{text}");
        };
        good(format!("00-{TRACE}-{SPAN}-01"), 1);
        good(format!("00-{TRACE}-{SPAN}-00"), 0);
        good(format!("00-{TRACE}-{SPAN}-ff"), 1);
        good(format!("00-{TRACE}-{SPAN}-fe"), 0);
        good(format!("01-{TRACE}-{SPAN}-01"), 1);
        good(format!("cc-{TRACE}-{SPAN}-01-what-comes-later"), 1);

        for text in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("00-{TRACE}-{SPAN}-01-later"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01.later"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}_01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", &TRACE[..31]),
            format!("00-{TRACE}-{}-01", &SPAN[..15]),
            format!("00-{}é-{SPAN}-01", &TRACE[..30]),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(NoTraceParent), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace: [u8; 16], span: [u8; 8], sampled: bool) {
            let parent = TraceParent { trace, span, sampled };
            let read = parent.to_string().parse::<TraceParent>();
            let is_valid = trace != [0; 16] && span != [0; 8];
            prop_assert_eq!(read.ok(), is_valid.then_some(parent));
        }

        #[test]
        fn no_text_ends_the_process(text in ".{0,80}") {
            _ = text.parse::<TraceParent>();
        }

        #[test]
        fn one_changed_byte_never_gives_another_trace(at in 0_usize..55, byte in 0x20_u8..0x7f) {
            let mut text = format!("00-{TRACE}-{SPAN}-01").into_bytes();
            text[at] = byte;
            let text = String::from_utf8(text).unwrap();
            if let Ok(parent) = text.parse::<TraceParent>() {
                let written = parent.to_string();
                prop_assert_eq!(&written[3..52], &text[3..52]);
            }
        }
    }
}
