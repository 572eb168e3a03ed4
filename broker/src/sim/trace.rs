//! What happened in a run, line by line; equal seeds give equal lines.

use std::collections::VecDeque;
use std::fmt::Write as _;

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3Default;

/// The lines that a failure shows.
const SHOWN: usize = 80;

/// Every line goes into the hash; how many are kept is for the reader to choose.
pub(crate) struct Trace {
    start: Instant,
    hash: Xxh3Default,
    lines: VecDeque<String>,
    kept: usize,
    count: u64,
}

impl Trace {
    pub(crate) fn new(start: Instant, keep_all: bool) -> Self {
        let kept = if keep_all { usize::MAX } else { SHOWN };
        Self { start, hash: Xxh3Default::new(), lines: VecDeque::new(), kept, count: 0 }
    }

    pub(crate) fn line(&mut self, what: std::fmt::Arguments<'_>) {
        let mut line = if self.lines.len() < self.kept {
            String::new()
        } else {
            self.lines.pop_front().unwrap_or_default()
        };
        line.clear();
        write!(line, "{:>9} us  {what}", self.start.elapsed().as_micros()).unwrap();
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        self.count += 1;
        self.lines.push_back(line);
    }

    pub(crate) fn digest(&self) -> u64 {
        self.hash.digest()
    }

    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
