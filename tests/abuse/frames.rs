//! HTTP/2 below requests: floods, broken frames, broken windows, broken headers. The same on all
//! three ports, for all of them speak it.

use crate::attack::{Case, case, compare, http2};
use crate::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, block, claiming, frame,
    hello, number, setting, text,
};
use crate::ports::address;
use crate::server::{Server, Setup};

const OPEN: u8 = END_HEADERS;
const WHOLE: u8 = END_HEADERS | END_STREAM;
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
/// Far beyond every limit of a count.
const MANY: u32 = 5_000;

const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "x")];

fn get() -> Vec<u8> {
    block(GET)
}

/// The frames after a proper beginning.
fn sent(frames: &[Vec<u8>]) -> Vec<u8> {
    [hello(), frames.concat()].concat()
}

fn many(frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let frames: Vec<u8> = (0..MANY).flat_map(frames).collect();
    [hello(), frames].concat()
}

fn request(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    sent(&[request(WHOLE, 1, &block(&[GET, fields].concat()))])
}

fn floods() -> Vec<Case> {
    let (get, one) = (get(), 1_u32.to_be_bytes());
    let malformed = block(&[GET, &[("connection", "close")]].concat());
    let odd = |number: u32| 2 * number + 1;
    let mut headless = sent(&[request(0, 1, &get)]);
    let mut empty = headless.clone();
    for _ in 0..MANY {
        empty.extend(frame(CONTINUATION, 0, 1, b""));
    }
    let filler: Vec<u8> = block(&[("x", &"y".repeat(16_000))]);
    for _ in 0..200 {
        headless.extend(frame(CONTINUATION, 0, 1, &filler));
    }
    let data = |_number| frame(DATA, 0, 1, b"");
    let padding = |_number| frame(DATA, PADDED, 1, &[255; 256]);
    let opened = |flood: Vec<u8>| {
        [hello(), request(OPEN, 1, &get), flood[hello().len()..].to_vec()].concat()
    };
    vec![
        case(
            "rapid reset",
            many(|n| {
                [request(WHOLE, odd(n), &get), frame(RST_STREAM, 0, odd(n), &CANCEL)].concat()
            }),
            "goaway 11",
        ),
        case(
            "resets that the server must send",
            many(|n| request(WHOLE, odd(n), &malformed)),
            "goaway 11",
        ),
        case("continuation flood", headless, "goaway 11"),
        case("empty continuation flood", empty, "goaway 11"),
        case("settings flood", many(|_| frame(SETTINGS, 0, 0, &setting(3, 1))), "open"),
        case("ping flood", many(|_| frame(PING, 0, 0, b"12345678")), "open"),
        case("empty data flood", opened(many(data)), "goaway 11"),
        case("padding flood", opened(many(padding)), "goaway 11"),
        case("priority flood", many(|n| frame(PRIORITY, 0, odd(n), &[0, 0, 0, 0, 9])), "open"),
        case("window update flood", many(|_| frame(WINDOW_UPDATE, 0, 0, &one)), "open"),
        case("flood of frames of no known kind", many(|_| frame(0xee, 0xff, 0, b"junk")), "open"),
        case(
            "reset flood of one stream",
            opened(many(|_| frame(RST_STREAM, 0, 1, &CANCEL))),
            "open",
        ),
        case("streams too many", many(|n| request(OPEN, odd(n), &get)), "reset 7"),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn broken_frames() -> Vec<Case> {
    let get = get();
    let none: [u8; 4] = [0; 4];
    let bad = |frames: &[Vec<u8>]| sent(frames);
    vec![
        case("window update of zero", bad(&[frame(WINDOW_UPDATE, 0, 0, &none)]), "goaway 1"),
        case(
            "window overflow",
            bad(&[frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])]),
            "goaway 3",
        ),
        case("window update too short", bad(&[frame(WINDOW_UPDATE, 0, 0, &none[1..])]), "goaway 1"),
        case(
            "window update of an idle stream",
            bad(&[frame(WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1])]),
            "goaway 1",
        ),
        case(
            "initial window too large",
            bad(&[frame(SETTINGS, 0, 0, &setting(4, 1 << 31))]),
            "goaway 1",
        ),
        case("frames too small", bad(&[frame(SETTINGS, 0, 0, &setting(5, 100))]), "goaway 1"),
        case("frames too large", bad(&[frame(SETTINGS, 0, 0, &setting(5, 1 << 24))]), "goaway 1"),
        case("push neither on nor off", bad(&[frame(SETTINGS, 0, 0, &setting(2, 2))]), "goaway 1"),
        case("half a setting", bad(&[frame(SETTINGS, 0, 0, &[0; 5])]), "goaway 1"),
        case("settings of a stream", bad(&[frame(SETTINGS, 0, 1, &setting(3, 1))]), "goaway 1"),
        case(
            "settings that answer and ask",
            bad(&[frame(SETTINGS, 1, 0, &setting(3, 1))]),
            "goaway 1",
        ),
        case("ping of a stream", bad(&[frame(PING, 0, 1, b"12345678")]), "goaway 1"),
        case("short ping", bad(&[frame(PING, 0, 0, b"1234")]), "goaway 1"),
        case("reset of an idle stream", bad(&[frame(RST_STREAM, 0, 1, &CANCEL)]), "goaway 1"),
        case("reset of the connection", bad(&[frame(RST_STREAM, 0, 0, &CANCEL)]), "goaway 1"),
        case("short reset", bad(&[frame(RST_STREAM, 0, 1, &CANCEL[1..])]), "goaway 1"),
        case("data of the connection", bad(&[frame(DATA, 0, 0, b"x")]), "goaway 1"),
        case("data of an idle stream", bad(&[frame(DATA, 0, 1, b"x")]), "goaway 1"),
        case("headers of the connection", bad(&[request(WHOLE, 0, &get)]), "goaway 1"),
        case("headers of a stream of the server", bad(&[request(WHOLE, 2, &get)]), "goaway 1"),
        case(
            "a stream number again",
            bad(&[request(OPEN, 5, &get), request(OPEN, 3, &get)]),
            "goaway 1",
        ),
        case("continuation of nothing", bad(&[frame(CONTINUATION, OPEN, 1, &get)]), "goaway 1"),
        case(
            "something between headers",
            bad(&[request(0, 1, &get), frame(PING, 0, 0, b"12345678")]),
            "goaway 1",
        ),
        case(
            "continuation of another stream",
            bad(&[request(0, 1, &get), frame(CONTINUATION, OPEN, 3, &get)]),
            "goaway 1",
        ),
        case("a promise by a client", bad(&[frame(PUSH_PROMISE, OPEN, 1, &[0; 8])]), "goaway 1"),
        case("a frame too long", bad(&[frame(DATA, 0, 1, &[0; 16_385])]), "goaway 6"),
        case(
            "a frame that claims 16 MiB",
            bad(&[claiming(0x00ff_ffff, HEADERS, OPEN, 1, b"")]),
            "goaway 6",
        ),
        case(
            "padding longer than its frame",
            bad(&[request(OPEN | PADDED, 1, &[200, 1])]),
            "goaway 1",
        ),
        case("short priority", bad(&[frame(PRIORITY, 0, 1, &none)]), "goaway 1"),
        case("priority of the connection", bad(&[frame(PRIORITY, 0, 0, &[0; 5])]), "goaway 1"),
        case(
            "a stream that waits for itself",
            {
                let itself = [&[0, 0, 0, 1, 9][..], &get].concat();
                bad(&[request(WHOLE | WITH_PRIORITY, 1, &itself)])
            },
            "reset 1",
        ),
        case("short goaway", bad(&[frame(GOAWAY, 0, 0, &none)]), "goaway 1"),
        case("the client goes", bad(&[frame(GOAWAY, 0, 0, &[0; 8])]), "closed"),
        case("no settings first", [PREFACE, &frame(PING, 0, 0, b"12345678")].concat(), "closed"),
        case(
            "the last stream number, and on",
            bad(&[request(OPEN, 0x7fff_ffff, &get), request(OPEN, 1, &get)]),
            "goaway 1",
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn broken_headers() -> Vec<Case> {
    let get = get();
    let raw = |block: &[u8]| sent(&[request(WHOLE, 1, block)]);
    // One long field in the table, and then a thousand times the name of it.
    let mut bomb = get.clone();
    bomb.push(0x40);
    text(&mut bomb, "x");
    text(&mut bomb, &"y".repeat(3_000));
    for _ in 0..5_000 {
        number(&mut bomb, 7, 0x80, 62);
    }
    let long = "y".repeat(1_000);
    let wide: Vec<_> = GET.iter().copied().chain((0..60).map(|_| ("x", long.as_str()))).collect();
    let wide = block(&wide);
    let (first, rest) = wide.split_at(16_000);
    let parts: Vec<_> = rest.chunks(16_000).map(|part| frame(CONTINUATION, 0, 1, part)).collect();
    let end = frame(CONTINUATION, END_HEADERS, 1, b"");
    let wide = sent(&[vec![request(END_STREAM, 1, first)], parts, vec![end]].concat());
    let longest = [&get[..], &block(&[("x", &"y".repeat(16_200))])].concat();
    let mut huge = get.clone();
    huge.extend([0, 0x7f, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    vec![
        case("HPACK bomb", raw(&bomb), "goaway 11"),
        case("60 KB of headers", wide, "goaway 9"),
        case("headers longer than the limit in one frame", raw(&longest), "http 431"),
        case("an index of nothing", raw(&[0xff, 0x80, 0x01]), "goaway 1"),
        case("the index zero", raw(&[0x80]), "goaway 1"),
        case("a table too large", raw(&[0x3f, 0xe1, 0xff, 0x03]), "goaway 1"),
        case("half a text", raw(&[0, 10, b'x']), "goaway 1"),
        case("a number without end", raw(&huge), "goaway 1"),
        case("Huffman codes of nothing", raw(&[0, 0x84, 255, 255, 255, 255, 0]), "goaway 1"),
        case("capitals in a name", with(&[("Accept", "x")]), "goaway 1"),
        case("a space in a name", with(&[("a b", "x")]), "goaway 1"),
        case("a line break in a value", with(&[("x", "a\r\nb: c")]), "goaway 1"),
        case("connection", with(&[("connection", "close")]), "reset 1"),
        case("transfer-encoding", with(&[("transfer-encoding", "chunked")]), "reset 1"),
        case("upgrade", with(&[("upgrade", "h2c")]), "reset 1"),
        case("te other than trailers", with(&[("te", "gzip")]), "reset 1"),
        case("a status in a request", with(&[(":status", "200")]), "reset 1"),
        case("a pseudo header that nobody knows", with(&[(":x", "y")]), "goaway 1"),
        case("a pseudo header after others", with(&[("x", "y"), (":path", "/y")]), "reset 1"),
        case("two paths", with(&[(":path", "/y")]), "reset 1"),
        case("two methods", with(&[(":method", "POST")]), "reset 1"),
        case("no method", raw(&block(&GET[1..])), "reset 1"),
        case("no scheme", raw(&block(&[GET[0], GET[2], GET[3]])), "reset 1"),
        case("no path", raw(&block(&[GET[0], GET[1], GET[3]])), "reset 1"),
        case("an empty path", raw(&block(&[GET[0], GET[1], (":path", ""), GET[3]])), "reset 1"),
        case(
            "a space in the path",
            raw(&block(&[GET[0], GET[1], (":path", "/a b"), GET[3]])),
            "reset 1",
        ),
        case("an empty block", raw(b""), "reset 1"),
        case(
            "more data than announced",
            {
                let head = block(&[GET, &[("content-length", "3")]].concat());
                sent(&[request(OPEN, 1, &head), frame(DATA, END_STREAM, 1, b"12345")])
            },
            "reset 1",
        ),
        case(
            "less data than announced",
            {
                let head = block(&[GET, &[("content-length", "30")]].concat());
                sent(&[request(OPEN, 1, &head), frame(DATA, END_STREAM, 1, b"12345")])
            },
            "reset 1",
        ),
        case("no data where some is announced", with(&[("content-length", "3")]), "reset 1"),
        case("a length that is no number", with(&[("content-length", "three")]), "reset 1"),
        case("two lengths", with(&[("content-length", "0"), ("content-length", "3")]), "reset 1"),
        case(
            "trailers that do not end",
            sent(&[request(OPEN, 1, &get), request(OPEN, 1, &block(&[("x", "y")]))]),
            "reset 1",
        ),
    ]
}

fn no_http2() -> Vec<Case> {
    let torn = [&PREFACE[..20], b"XX\r\n"].concat();
    vec![
        case("another end of the preface", torn, "closed"),
        case("zeros", vec![0; 1 << 16], "closed"),
        case("a TLS hello in plain text", vec![22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3], "closed"),
    ]
}

async fn all(cases: fn() -> Vec<Case>) {
    let mut server = Server::start(Setup::default()).await;
    let mut found = Vec::new();
    for (port, number) in
        [("grpc", server.ports.grpc), ("http", server.ports.http), ("peer", server.ports.peer)]
    {
        for Case { name, bytes, expected } in cases() {
            let outcome = http2(&address(number), &bytes, expected).await;
            found.push((format!("{port}: {name}"), expected, outcome));
        }
    }
    server.is_well().await;
    compare(&found);
}

#[tokio::test]
async fn floods_are_stopped_or_outlived() {
    all(floods).await;
}

#[tokio::test]
async fn broken_frames_end_what_they_break() {
    all(broken_frames).await;
}

#[tokio::test]
async fn broken_headers_reach_nobody() {
    all(broken_headers).await;
}

#[tokio::test]
async fn who_speaks_something_else_is_hung_up_on() {
    all(no_http2).await;
}
