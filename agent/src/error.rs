//! How the program fails: one clear line, and exit code 2 for usage and configuration, 1 for the rest.

use std::process::ExitCode;

use onenet_proto::config::ConfigError;

/// The command line asks for something that cannot be done. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// What failed has been told already, beside the results; only the exit code (1) is still to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed; see above")]
pub struct AlreadyTold;

/// The exit code of a failure: 2 where a [`UsageError`] or [`ConfigError`] is anywhere in its chain, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<UsageError>() || cause.is::<ConfigError>()) { 2 } else { 1 }
}

/// The failure as one line: each cause after a colon, line ends as spaces.
pub fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Ends a command: nothing on success, one line on standard error on failure.
pub fn finish(result: Result<(), anyhow::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<AlreadyTold>() {
                eprintln!("error: {}", one_line(&error));
            }
            ExitCode::from(exit_code(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn usage_anywhere_in_the_chain_is_exit_code_2() {
        let usage = Err::<(), _>(UsageError("no".into())).context("reading").expect_err("an error");
        assert_eq!((exit_code(&usage), one_line(&usage)), (2, "reading: no".into()));
        assert_eq!(exit_code(&anyhow::anyhow!("disk\nfull")), 1);
        assert_eq!(one_line(&anyhow::anyhow!("disk\nfull")), "disk full");
    }
}
