//! The command `cosign-key`: the collector's own key, by which it gives its word for what it holds.

use clap::{Args, Subcommand};
use onenet_core::time::Timestamp;
use onenet_proto::owner::as_owner_of;

use crate::{
    ca,
    cli::{self, CliError, Format, Place},
    clock,
    render::{self, Column},
    store::cosign,
};

/// Arguments of `cosign-key`.
#[derive(Debug, Args)]
pub(crate) struct CosignKeyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the public key, and those before it: what an auditor has to trust.
    Show {
        #[command(flatten)]
        place: Place,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Make a new key in place of one that is lost or known to others. Every sensor has to enrol anew.
    Renew {
        #[command(flatten)]
        place: Place,
    },
}

/// One key as it is shown.
#[derive(Debug, serde::Serialize)]
struct ShownKey {
    /// Ed25519 public key, hexadecimal.
    key: String,
    /// Collector time from which it was used.
    since: Timestamp,
    /// Whether it is the one that signs now.
    current: bool,
}

const COLUMNS: [Column<ShownKey>; 3] = [
    Column::text("key", |shown| shown.key.clone()),
    Column::text("since", |shown| render::moment(shown.since)),
    Column::text("current", |shown| shown.current.to_string()),
];

/// Runs the command.
pub(crate) fn run(args: &CosignKeyArgs) -> Result<(), CliError> {
    match &args.action {
        Action::Show { place, format } => {
            let (_, store) = place.store()?;
            let current = store.cosigner().public_key();
            let shown = |known: cosign::CosignKey| ShownKey {
                key: ca::hex(&known.key),
                since: known.since,
                current: known.key == current,
            };
            let keys: Vec<_> = store.cosign_keys()?.into_iter().map(shown).collect();
            cli::print(&render::render(*format, &COLUMNS, &keys)?)
        }
        Action::Renew { place } => {
            let config = place.config()?;
            let key = as_owner_of(&config.store.directory, || cosign::renew(&config.store))?;
            let (_, store) = place.store()?;
            let detail = format!("the collector's own key is now {}", ca::hex(&key));
            store.audit(clock::now(), "cosign-key-renewed", detail)?;
            let text = "every sensor has to enrol anew: onenet-collector token create, onenet-agent enroll";
            cli::print(&format!("the collector's own key is now {}\n{text}\n", ca::hex(&key)))
        }
    }
}
