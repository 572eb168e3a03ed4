//! HTTP/2 frames by hand: what a client library would never send.

use std::io::{self, Write as _};

use tokio::io::{AsyncRead, AsyncReadExt as _};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 32;

/// A frame whose length fits.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    claiming(length, kind, flags, stream, payload)
}

/// A frame that claims to be so long.
pub(crate) fn claiming(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Preface and settings, so that answers need no memory of earlier ones to be read.
pub(crate) fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &setting(1, 0))].concat()
}

pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A header block of literals that leave no trace.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

pub(crate) fn text(block: &mut Vec<u8>, text: &str) {
    number(block, 7, 0, text.len());
    block.write_all(text.as_bytes()).unwrap();
}

/// An integer of HPACK whose first bits share a byte with something else.
pub(crate) fn number(block: &mut Vec<u8>, bits: u8, first: u8, mut value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        block.push(first | u8::try_from(value).unwrap());
        return;
    }
    block.push(first | u8::try_from(most).unwrap());
    value -= most;
    while value >= 128 {
        block.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    block.push(u8::try_from(value).unwrap());
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload).await?;
    Ok(Frame { kind: head[3], flags: head[4], payload })
}

/// Codes of RFC 7541 for what statuses are written with.
const HUFFMAN: &[(&str, char)] = &[
    ("00000", '0'),
    ("00001", '1'),
    ("00010", '2'),
    ("011001", '3'),
    ("011010", '4'),
    ("011011", '5'),
    ("011100", '6'),
    ("011101", '7'),
    ("011110", '8'),
    ("011111", '9'),
    ("00011", 'a'),
    ("00100", 'c'),
    ("100100", 'd'),
    ("00101", 'e'),
    ("100101", 'f'),
    ("100110", 'g'),
    ("100111", 'h'),
    ("00110", 'i'),
    ("101000", 'l'),
    ("101001", 'm'),
    ("101010", 'n'),
    ("00111", 'o'),
    ("101011", 'p'),
    ("101100", 'r'),
    ("01000", 's'),
    ("01001", 't'),
    ("101101", 'u'),
    ("1110111", 'v'),
    ("1111000", 'w'),
    ("1111010", 'y'),
    ("010110", '-'),
];

fn huffman(bytes: &[u8]) -> String {
    let bits: Vec<_> = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let bits = bits.concat();
    let (mut rest, mut text) = (bits.as_str(), String::new());
    while let Some((code, letter)) = HUFFMAN.iter().find(|(code, _)| rest.starts_with(code)) {
        text.push(*letter);
        rest = &rest[code.len()..];
    }
    text
}

/// The value of a field in a block that refers to nothing before it: `:status`, `grpc-status`.
pub(crate) fn field(mut block: &[u8], wanted: &str) -> Option<String> {
    while let Some(&first) = block.first() {
        if first & 0x80 != 0 {
            let index = take_number(&mut block, 7);
            let status =
                ["200", "204", "206", "304", "400", "404", "500"].get(index.wrapping_sub(8));
            if let (":status", Some(status)) = (wanted, status) {
                return Some((*status).to_owned());
            }
            continue;
        }
        if first & 0xe0 == 0x20 {
            take_number(&mut block, 5);
            continue;
        }
        let index = take_number(&mut block, if first & 0x40 != 0 { 6 } else { 4 });
        let name = match index {
            0 => take_text(&mut block),
            8..=14 => ":status".to_owned(),
            _ => String::new(),
        };
        let value = take_text(&mut block);
        if name == wanted {
            return Some(value);
        }
    }
    None
}

fn take_number(block: &mut &[u8], bits: u8) -> usize {
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(block[0]) & most;
    *block = &block[1..];
    let mut shift = 0;
    while value >= most {
        let byte = block[0];
        *block = &block[1..];
        value += usize::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            break;
        }
    }
    value
}

fn take_text(block: &mut &[u8]) -> String {
    let is_huffman = block[0] & 0x80 != 0;
    let length = take_number(block, 7);
    let (text, rest) = block.split_at(length);
    *block = rest;
    if is_huffman { huffman(text) } else { String::from_utf8_lossy(text).into_owned() }
}
