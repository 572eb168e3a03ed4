//! Output of an instance, line by line, in bounded memory.

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;

use super::Line;

/// Longest line that is kept; the rest of a longer one is left out.
const LINE_BYTES_MAX: usize = 4 * 1024;
const READ_BYTES: usize = 8 * 1024;

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = LINE_BYTES_MAX - self.line.len();
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.line.extend_from_slice(text.get(..room).unwrap_or(text));
            if piece.len() != text.len() {
                self.finish(&mut emit);
            }
        }
    }

    fn finish(&mut self, mut emit: impl FnMut(String)) {
        let text = String::from_utf8_lossy(&self.line);
        emit(text.trim_end_matches('\r').to_owned());
        self.line.clear();
    }
}

/// Sends lines on without ever making the instance wait.
#[derive(Debug)]
pub(super) struct Outlet {
    lines_tx: mpsc::Sender<Line>,
    left_out: u64,
}

impl Outlet {
    pub(super) const fn new(lines_tx: mpsc::Sender<Line>) -> Self {
        Self { lines_tx, left_out: 0 }
    }

    pub(super) fn send(&mut self, text: String) {
        let line = Line { text, left_out: self.left_out };
        match self.lines_tx.try_send(line) {
            Ok(()) => self.left_out = 0,
            Err(_) => self.left_out += 1,
        }
    }
}

/// Reads until the end of the output.
pub(super) async fn forward(mut output: impl AsyncRead + Unpin, lines_tx: mpsc::Sender<Line>) {
    let mut outlet = Outlet::new(lines_tx);
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; READ_BYTES];
    // An error is the end as well: the pipe is all there is.
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        splitter.push(buffer.get(..read).unwrap_or_default(), |text| outlet.send(text));
    }
    if !splitter.line.is_empty() {
        splitter.finish(|text| outlet.send(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(output: &[u8], room: usize) -> Vec<Line> {
        let (lines_tx, mut lines_rx) = mpsc::channel(room);
        forward(output, lines_tx).await;
        let mut lines = Vec::new();
        while let Some(line) = lines_rx.recv().await {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn output_is_cut_into_lines_and_long_ones_are_shortened() {
        let mut output = b"one\r\n\ntwo\n".to_vec();
        output.extend(std::iter::repeat_n(b'x', 3 * LINE_BYTES_MAX));
        output.extend(b"\nlast");

        let lines = lines_of(&output, 10).await;

        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["one", "", "two", &"x".repeat(LINE_BYTES_MAX), "last"]);
    }

    #[tokio::test]
    async fn what_nobody_takes_is_left_out() {
        let lines = lines_of(b"1\n2\n3\n4\n", 2).await;

        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn the_next_line_says_how_many_were_left_out() {
        let (lines_tx, mut lines_rx) = mpsc::channel(1);
        let mut outlet = Outlet::new(lines_tx);
        for text in ["1", "2", "3"] {
            outlet.send(text.to_owned());
        }
        lines_rx.try_recv().unwrap();

        outlet.send("4".to_owned());

        assert_eq!(lines_rx.try_recv().unwrap(), Line { text: "4".to_owned(), left_out: 2 });
    }
}
