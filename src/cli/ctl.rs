//! What `vtorc ctl` takes.

use clap::{Args, Subcommand};

/// How to reach the daemon.
#[derive(Debug, Args)]
pub(crate) struct CtlOptions {
    /// Where the daemon serves, comma separated: the first that is there is asked. Also from VTORC_URL, and, with
    /// --config, from ListenAddress.
    #[arg(long, global = true, value_delimiter = ',')]
    pub(crate) url: Vec<String>,
    /// Whom to log in as (AuthenticationMethod `basic`). Also from VTORC_USER, or --config.
    #[arg(long, global = true)]
    pub(crate) user: Option<String>,
    /// A file with that user's password. Also from VTORC_PASSWORD_FILE, or --config.
    #[arg(long, global = true)]
    pub(crate) password_file: Option<std::path::PathBuf>,
    /// A file with the authorities that are trusted beside https. Default: this machine's, or SSLCAFile of --config.
    #[arg(long, global = true)]
    pub(crate) ca: Option<std::path::PathBuf>,
    /// A certificate to show (UseMutualTLS).
    #[arg(long, global = true, requires = "key")]
    pub(crate) cert: Option<std::path::PathBuf>,
    /// Its private key.
    #[arg(long, global = true, requires = "cert")]
    pub(crate) key: Option<std::path::PathBuf>,
    /// A file with the daemon's token (AuthenticationMethod `token`). Also from VTORC_TOKEN_FILE.
    #[arg(long, global = true)]
    pub(crate) token_file: Option<std::path::PathBuf>,
    /// Print lists as the daemon answers them, in JSON, not as tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: CtlCommand,
}

/// What to show or do.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// One line a shard: primary, findings, what is held back, and what would happen if the primary died.
    Shards,
    /// All that is known about a shard, as JSON.
    Show {
        /// KEYSPACE/SHARD
        shard: String,
    },
    /// Who follows whom, as a tree: type, address, state, lag, and what is wrong with each.
    Topology {
        /// KEYSPACE/SHARD; all shards without it.
        shard: Option<String>,
    },
    /// Every decision not to act: why, since when, how often.
    WhyNot {
        /// KEYSPACE/SHARD; all shards without it.
        shard: Option<String>,
    },
    /// What would go wrong on the bad day, as the daemon sees it.
    Check {
        /// KEYSPACE/SHARD
        shard: String,
    },
    /// Move a shard's writes to another tablet.
    PlannedReparent(PlannedReparent),
    /// Replace a shard's primary without its help.
    EmergencyReparent(Reparent),
    /// Remove the record of a tablet that is gone for good: nobody waits for it any more.
    Forget {
        /// KEYSPACE/SHARD
        shard: String,
        /// Which tablet.
        tablet: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Lift a shard's block.
    Acknowledge {
        /// KEYSPACE/SHARD
        shard: String,
        /// Why.
        #[arg(long)]
        comment: String,
    },
    /// The last recoveries.
    Recoveries,
    /// One recovery with its steps: what was done to whom, how long it took, and what came of it.
    Recovery {
        /// Its number.
        id: u64,
    },
    /// The last findings, and from when until when each stood.
    Findings,
    /// The last acts of operators and their programs.
    Audit,
    /// Stop all automatic recoveries.
    Pause {
        /// Why.
        #[arg(long)]
        comment: String,
    },
    /// Allow automatic recoveries again.
    Resume {
        /// Why.
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// What operators switched, excused or asked for.
    Controls,
    /// Set a control: `recoveries-off KS[/SHARD]`, `emergency-reparents-off KS[/SHARD]`, `downtime TABLET` or
    /// `promotion TABLET RULE`.
    Set {
        /// The control's words.
        #[arg(required = true, num_args = 2..)]
        control: Vec<String>,
        /// Why.
        #[arg(long)]
        comment: String,
        /// It ends by itself after so many minutes.
        #[arg(long)]
        minutes: Option<u64>,
    },
    /// Lift a control.
    Lift {
        /// The control's words.
        #[arg(required = true, num_args = 2..)]
        control: Vec<String>,
    },
    /// Transactions that replicas have and their primary lacks, and what can be done about them.
    ErrantGtids {
        /// KEYSPACE/SHARD; all shards without it.
        shard: Option<String>,
        /// Take this tablet of the shard out of service (DRAINED).
        #[arg(long, requires = "shard", conflicts_with = "inject")]
        drain: Option<String>,
        /// Commit empty transactions with this tablet's errant GTIDs on the primary.
        #[arg(long, requires = "shard")]
        inject: Option<String>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Another primary, with the help of the one that there is.
#[derive(Debug, Args)]
pub(crate) struct PlannedReparent {
    #[command(flatten)]
    pub(crate) reparent: Reparent,
    /// Only say who would be primary, why not the others, and for how long earlier moves of this shard stopped writes.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Another primary.
#[derive(Debug, Args)]
pub(crate) struct Reparent {
    /// KEYSPACE/SHARD
    pub(crate) shard: String,
    /// Who shall be primary.
    #[arg(long)]
    pub(crate) new_primary: Option<String>,
    /// Who shall not.
    #[arg(long)]
    pub(crate) avoid_primary: Option<String>,
    /// Why.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Also within the block period.
    #[arg(long, action = clap::ArgAction::SetTrue)]
    pub(crate) ignore_block: bool,
}
