//! The one binary of Weft: picks a subcommand and turns its outcome into an exit code.

fn main() {}
