//! The corpora that are kept: one text file per target, one input per line in hexadecimal digits.
//!
//! What stands behind `#` says why a line is kept; such a line is never thrown away.

use std::io;
use std::path::{Path, PathBuf};

/// Bytes of the inputs that are kept of one target, besides those with a reason: replaying all of
/// them is a matter of seconds.
const BYTES_MAX: usize = 20_000;

/// An input, and why it is kept if a person said so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// The bytes.
    pub input: Vec<u8>,
    /// The reason; empty for what a fuzzer chose.
    pub reason: String,
}

/// The file of a target.
pub fn file(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{target}.hex"))
}

/// Reads the corpus of a target; none is an empty one.
pub fn read(target: &str) -> io::Result<Vec<Kept>> {
    let text = match std::fs::read_to_string(file(target)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let line = |(number, line): (usize, &str)| {
        let (digits, reason) = line.split_once('#').unwrap_or((line, ""));
        let input = decode(digits.trim()).ok_or_else(|| {
            let message = format!("line {} of the corpus of {target} is not hex", number + 1);
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        Ok(Kept { input, reason: reason.trim().to_owned() })
    };
    text.lines().enumerate().map(line).collect()
}

/// Writes the corpus of a target: what has a reason, then the shortest of the others.
pub fn write(target: &str, inputs: Vec<Vec<u8>>) -> io::Result<()> {
    let mut kept: Vec<Kept> =
        read(target)?.into_iter().filter(|kept| !kept.reason.is_empty()).collect();
    let mut inputs: Vec<Vec<u8>> =
        inputs.into_iter().filter(|input| kept.iter().all(|kept| kept.input != *input)).collect();
    inputs.sort_by_key(|input| (input.len(), input.clone()));
    inputs.dedup();
    let mut bytes = 0;
    let fits = inputs.into_iter().take_while(|input| {
        bytes += input.len();
        bytes <= BYTES_MAX
    });
    kept.extend(fits.map(|input| Kept { input, reason: String::new() }));
    let mut text = String::new();
    for Kept { input, reason } in kept {
        input.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        if !reason.is_empty() {
            text.push_str(&format!(" # {reason}"));
        }
        text.push('\n');
    }
    let file = file(target);
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(file, text)
}

fn decode(digits: &str) -> Option<Vec<u8>> {
    let digit =
        |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}
