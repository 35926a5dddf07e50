//! A game server that behaves, or misbehaves, as told. See `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    zlh_tests::fake::main()
}
