//! The `onenet-agent` program; everything is in the library, so that tests and tools can use its parts.

use std::process::ExitCode;

fn main() -> ExitCode {
    onenet_agent::cli::main()
}
