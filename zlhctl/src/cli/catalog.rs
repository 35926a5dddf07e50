//! What can be typed after `zlhctl catalog`.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// Make a key pair; prints the public key, which agents are given
    Keygen {
        /// Where the secret key goes; never overwritten
        #[arg(long, value_name = "FILE", default_value = "catalog.key", value_hint = ValueHint::FilePath)]
        out: PathBuf,
    },
    /// Check a catalog and sign it: writes FILE.minisig
    #[command(after_long_help = SIGN_EXAMPLES)]
    Sign {
        /// The catalog
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The secret key
        #[arg(long, value_name = "FILE", default_value = "catalog.key", value_hint = ValueHint::FilePath)]
        key: PathBuf,
    },
    /// Publish a list of keys: agents learn of a new key, and forget an old one
    ///
    /// Writes the next list into the store's `keys` folder, signed with a key that agents trust
    /// now. From then on the catalog may be signed with any key of the list.
    #[command(after_long_help = ROTATE_EXAMPLES)]
    Rotate {
        /// The store
        #[arg(value_hint = ValueHint::DirPath)]
        store: PathBuf,
        /// A secret key that agents trust now
        #[arg(long, value_name = "FILE", default_value = "catalog.key", value_hint = ValueHint::FilePath)]
        key: PathBuf,
        /// Public key to add, or a file with it; may be repeated
        #[arg(long, value_name = "KEY|FILE")]
        add: Vec<String>,
        /// Public key to leave out, or a file with it; may be repeated
        #[arg(long, value_name = "KEY|FILE")]
        drop: Vec<String>,
    },
    /// Say what agents would refuse in a catalog, and what looks like a mistake
    #[command(after_long_help = LINT_EXAMPLES)]
    Lint {
        /// The catalog
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Fail on remarks, too
        #[arg(long)]
        strict: bool,
    },
    /// List what a catalog has
    Show {
        /// The catalog
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Say what is different between two catalogs
    #[command(after_long_help = DIFF_EXAMPLES)]
    Diff {
        /// The catalog that agents have
        #[arg(value_hint = ValueHint::FilePath)]
        old: PathBuf,
        /// The one that is to be published
        #[arg(value_hint = ValueHint::FilePath)]
        new: PathBuf,
    },
    /// Print the JSON Schema of catalogs, for editors and other tools
    #[command(after_long_help = SCHEMA_EXAMPLES)]
    Schema,
}

const LINT_EXAMPLES: &str = "\
Fails if agents would refuse it, also for its age; with --strict also on remarks.

Examples:
  zlhctl catalog lint catalog.json
  zlhctl catalog lint catalog.json --strict -o json";

const ROTATE_EXAMPLES: &str = "\
Sign the catalog with the new key before the old one is left out (it is refused otherwise), and
keep every list: an agent that was away for long follows them one by one.

Examples:
  zlhctl catalog keygen --out new.key > new.pub
  zlhctl catalog rotate ./store --key catalog.key --add new.pub
  zlhctl catalog sign ./store/catalog.json --key new.key
  zlhctl catalog rotate ./store --key new.key --drop catalog.pub";

const DIFF_EXAMPLES: &str = "\
Other bytes under the same version and entries that are gone are pointed out.

Examples:
  zlhctl catalog diff published/catalog.json catalog.json";

const SIGN_EXAMPLES: &str = "\
Examples:
  zlhctl catalog keygen --out catalog.key
  zlhctl catalog sign store/catalog.json --key catalog.key";

const SCHEMA_EXAMPLES: &str = "\
It has the form of a catalog; what entries say of each other is for `catalog lint`.

Examples:
  zlhctl catalog schema > catalog.schema.json";
