//! The command line. Go's spelling is taken as well: one dash or two, `_` or `-`, `-flag=false`.

pub(crate) mod ctl;
mod foreign;
mod topology;
mod vitess;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use vtorc_core::recovery::step::Failpoint;

pub(crate) use topology::TopologyOptions;
pub(crate) use vitess::VitessOptions;

/// Watches MySQL shards registered in a Vitess topology, elects a primary where there is none, replaces a
/// dead one, and performs planned failovers on request.
#[derive(Debug, Parser)]
#[command(name = "vtorc", version, args_conflicts_with_subcommands = false, max_term_width = 100)]
#[command(subcommand_help_heading = "Commands (without one, the daemon runs)")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) daemon: DaemonOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a real failover on this machine: two shards of three servers each, and what to try.
    Demo(DemoOptions),
    /// Measure failovers on real servers beside the bare SQL done by hand.
    Bench(BenchOptions),
    /// Tell before the bad day what would go wrong on it. Exit status: 0 in order, 3 warnings, 4 errors.
    Check(CheckOptions),
    /// Say what vtorc would find, do and promote, from a snapshot of a shard.
    Explain(ExplainOptions),
    /// Ask a running daemon to show or do something.
    Ctl(ctl::CtlOptions),
    /// Look at the topology and change it, without Vitess's own tools.
    #[command(subcommand)]
    Topo(TopoCommand),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DaemonOptions {
    /// Where the topology is kept.
    #[arg(long, value_enum, default_value_t = TopoImplementation::Local, global = true)]
    #[arg(help_heading = "Topology")]
    pub(crate) topo_implementation: TopoImplementation,
    /// Address of the global topology server: host:port[,host:port...].
    #[arg(long, default_value = "", global = true, help_heading = "Topology")]
    pub(crate) topo_global_server_address: String,
    /// Root of the global topology: a path such as /vitess/global, or a directory for `local`.
    #[arg(long, default_value = "vtorc-topology", global = true, help_heading = "Topology")]
    pub(crate) topo_global_root: String,
    /// Look after these only: keyspaces or keyspace/shard, comma separated. Default: everything.
    #[arg(long, value_delimiter = ',', global = true, help_heading = "Topology")]
    pub(crate) clusters_to_watch: Vec<String>,

    /// Configuration file (Orchestrator's JSON).
    #[arg(long, alias = "config-file", global = true, help_heading = "Daemon")]
    pub(crate) config: Option<PathBuf>,
    /// Port of the HTTP server; overrides ListenAddress. 0 takes any free one.
    #[arg(long, help_heading = "Daemon")]
    pub(crate) port: Option<u16>,
    /// Serve the console's files from this directory instead of the embedded ones.
    #[arg(long, help_heading = "Daemon")]
    pub(crate) orc_web_dir: Option<PathBuf>,
    /// Refuse to start on unknown configuration keys.
    #[arg(long, help_heading = "Daemon", action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", default_value = "false", value_parser = go_bool)]
    pub(crate) strict_config: bool,
    /// Where to write the HTTP server's address once it is bound; for scripts and tests.
    #[arg(long, hide = true)]
    pub(crate) address_file: Option<PathBuf>,
    /// End the process at this point of a recovery; for tests of what a crash leaves behind.
    #[arg(long, hide = true)]
    pub(crate) failpoint: Option<Stop>,

    /// Write log files into this directory, with rotation.
    #[arg(long, help_heading = "Logging")]
    pub(crate) log_dir: Option<PathBuf>,
    /// How log lines look. Default: human on a terminal, else plain text.
    #[arg(long, value_enum, help_heading = "Logging")]
    pub(crate) log_format: Option<LogFormat>,
    /// Also log to standard error when log_dir is set.
    #[arg(long, help_heading = "Logging", action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", default_value = "true", value_parser = go_bool)]
    pub(crate) alsologtostderr: bool,

    #[command(flatten)]
    pub(crate) topology: TopologyOptions,
    #[command(flatten)]
    pub(crate) vitess: VitessOptions,
    /// Flags that were given and have no effect here, and why.
    #[arg(skip)]
    pub(crate) without_effect: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopoImplementation {
    /// Files in a directory.
    Local,
    /// ZooKeeper.
    Zk2,
    /// etcd, by its v3 interface.
    Etcd2,
    /// Consul.
    Consul,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// The server to run: a mysqld or mariadbd. Default: whatever is found.
    #[arg(long)]
    pub(crate) mysqld: Option<PathBuf>,
    /// Port of the console. 0 takes any free one.
    #[arg(long, default_value_t = 3000)]
    pub(crate) console_port: u16,
    /// Seconds within which a second automatic failover of a shard is blocked.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) block_seconds: f64,
}

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Print JSON.
    #[arg(long, action = clap::ArgAction::SetTrue)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainOptions {
    /// What `GET /api/v1/shards/{keyspace}/{shard}/snapshot` answered; - for standard input.
    pub(crate) snapshot: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    /// The server to run: a mysqld or mariadbd. Default: MySQL where it is found.
    #[arg(long)]
    pub(crate) mysqld: Option<PathBuf>,
    /// Take MariaDB.
    #[arg(long, action = clap::ArgAction::SetTrue)]
    pub(crate) mariadb: bool,
    /// Rounds of each kind.
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: usize,
    /// Shards; with more than one, all lose their primaries at once in the end.
    #[arg(long, default_value_t = 1)]
    pub(crate) shards: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopoCommand {
    /// Add a cell: where its own part of the topology is.
    AddCell {
        /// The cell's name.
        cell: String,
        /// Address of the cell's server; default: the global one.
        #[arg(long)]
        server_address: Option<String>,
        /// Root of the cell's records; default: beside the global root.
        #[arg(long)]
        root: Option<String>,
    },
    /// Say anew where a cell's part of the topology is.
    UpdateCell {
        /// The cell's name.
        cell: String,
        /// Address of the cell's server; as it was if it is not given.
        #[arg(long)]
        server_address: Option<String>,
        /// Root of the cell's records; as it was if it is not given.
        #[arg(long)]
        root: Option<String>,
    },
    /// Add a keyspace.
    AddKeyspace {
        /// The keyspace's name.
        keyspace: String,
        /// none, semi_sync, cross_cell, semi_sync_with_rdonly_ack or cross_cell_with_rdonly_ack.
        #[arg(long, default_value = "none")]
        durability_policy: String,
    },
    /// Change a keyspace's durability policy.
    SetDurability {
        /// The keyspace's name.
        keyspace: String,
        /// The policy's name.
        policy: String,
    },
    /// Forbid or allow emergency reparents (Vitess's SetVtorcEmergencyReparent).
    SetEmergencyReparents {
        /// A keyspace, or keyspace/shard.
        name: String,
        /// on or off
        #[arg(value_parser = ["on", "off"])]
        switch: String,
    },
    /// Add a shard.
    AddShard {
        /// keyspace/shard
        shard: String,
    },
    /// Add a tablet.
    AddTablet {
        /// cell-uid, such as zone1-101.
        alias: String,
        /// keyspace/shard
        #[arg(long)]
        shard: String,
        /// host:port of its MySQL server.
        #[arg(long)]
        mysql: String,
        /// replica, rdonly, ...
        #[arg(long = "type", default_value = "replica")]
        tablet_type: String,
        /// host:port where its vttablet takes calls (gRPC), if it has one.
        #[arg(long)]
        vttablet: Option<String>,
    },
    /// Change a tablet's type: take it out of service (drained), or bring it back.
    SetType {
        /// cell-uid, such as zone1-101.
        alias: String,
        /// replica, rdonly, drained, ...; who is primary is decided by a reparent
        tablet_type: String,
    },
    /// List cells, keyspaces, shards and tablets.
    List,
    /// Show one thing: a cell, a keyspace, keyspace/shard, or a tablet's alias.
    Show {
        /// Its name.
        name: String,
    },
    /// Delete one thing: a cell, a keyspace, keyspace/shard, or a tablet's alias.
    Delete {
        /// Its name.
        name: String,
    },
    /// Ask one server for its replicas, walk the replication tree, register what is found.
    Import {
        /// host:port of any server of the tree.
        address: String,
        /// Keyspace to register under; created if missing.
        #[arg(long)]
        keyspace: String,
        /// Shard to register under; created if missing.
        #[arg(long)]
        shard: String,
        /// Cell to register in; created if missing.
        #[arg(long)]
        cell: String,
        /// First number for the tablets' aliases.
        #[arg(long, default_value_t = 100)]
        first_uid: u32,
        /// Policy of a keyspace that is created.
        #[arg(long, default_value = "none")]
        durability_policy: String,
    },
}

/// Go's flag package takes these for booleans.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

/// The command line: in clap's spelling, and what was left out of it because it has no effect here.
pub(crate) struct Normal {
    pub(crate) arguments: Vec<OsString>,
    pub(crate) without_effect: Vec<String>,
}

/// Turns Go's spelling of flags into clap's: `-topo_global_root x` becomes `--topo-global-root=x`.
pub(crate) fn normalise(arguments: impl Iterator<Item = String>) -> Normal {
    let command = Cli::command();
    let (mut normal, mut without_effect) = (Vec::new(), Vec::new());
    let mut arguments = arguments.peekable();
    normal.extend(arguments.next().map(OsString::from));
    let mut rest_as_is = false;
    // A flag of VTOrc's is the daemon's; a subcommand's own flag of the same name is another.
    let mut subcommand: Option<&clap::Command> = None;
    while let Some(argument) = arguments.next() {
        subcommand = subcommand.or_else(|| command.find_subcommand(&argument));
        let word = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
        rest_as_is |= argument == "--";
        let long = |word: &&str| word.len() > 1 || foreign::look_up(word).is_some();
        let Some(word) = word.filter(|word| !rest_as_is && long(word)) else {
            normal.push(argument.into());
            continue;
        };
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let name = name.replace('_', "-");
        let is_own = subcommand.is_some_and(|subcommand| knows(subcommand, &name));
        if let Some(flag) = foreign::look_up(&name).filter(|_| !is_own) {
            if flag.takes_value && value.is_none() {
                arguments.next();
            }
            without_effect.push(format!("--{name}: {}", flag.why));
            continue;
        }
        let value = value.or_else(|| {
            let takes_next = takes_value(&command, &name);
            if takes_next { arguments.next() } else { None }
        });
        normal.push(match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        });
    }
    Normal { arguments: normal, without_effect }
}

/// Tells whether a subcommand, or one of its own, has this flag.
fn knows(command: &clap::Command, name: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_long() == Some(name))
        || command.get_subcommands().any(|sub| knows(sub, name))
}

/// Tells whether the flag is known, anywhere, and needs a value after it.
fn takes_value(command: &clap::Command, name: &str) -> bool {
    let own = command.get_arguments().any(|argument| {
        let named = argument.get_long() == Some(name)
            || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name));
        named && argument.get_action().takes_values() && !argument.is_require_equals_set()
    });
    own || command.get_subcommands().any(|sub| takes_value(sub, name))
}

pub(crate) fn print_completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "vtorc", &mut std::io::stdout());
}

/// Seconds, fractions allowed, as a duration.
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO)
}

/// Where a test stops the process, written `POINT` or `POINT@FILE`.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) at: Failpoint,
    /// Instead of ending, it makes this file and waits until it is gone.
    pub(crate) gate: Option<PathBuf>,
}

impl FromStr for Stop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (point, gate) = match text.split_once('@') {
            Some((point, gate)) => (point, Some(PathBuf::from(gate))),
            None => (text, None),
        };
        Ok(Self { at: point.parse()?, gate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        let words = std::iter::once("vtorc").chain(line.split_whitespace()).map(str::to_owned);
        Cli::try_parse_from(normalise(words).arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn the_documented_invocation_works() {
        let cli = parse(
            "-topo_implementation zk2 -topo_global_server_address h1:2181,h2:2181 \
             -topo_global_root /vitess/global -log_dir=/tmp/logs -config orc_config.json \
             -orc_web_dir web/console -clusters_to_watch ks1,ks2/-80 -port 3100",
        );
        let daemon = cli.unwrap().daemon;
        assert_eq!(daemon.topo_implementation, TopoImplementation::Zk2);
        assert_eq!(daemon.topo_global_server_address, "h1:2181,h2:2181");
        assert_eq!(daemon.clusters_to_watch, ["ks1", "ks2/-80"]);
        assert_eq!((daemon.port, daemon.log_dir), (Some(3100), Some("/tmp/logs".into())));
    }

    #[test]
    fn dashes_underscores_and_booleans_are_interchangeable() {
        for line in ["--topo-global-root /r", "-topo-global-root=/r", "--topo_global_root /r"] {
            assert_eq!(parse(line).unwrap().daemon.topo_global_root, "/r", "{line}");
        }
        assert!(!parse("-alsologtostderr=false").unwrap().daemon.alsologtostderr);
        assert!(parse("--alsologtostderr -strict_config").unwrap().daemon.strict_config);
        assert!(parse("-strict_config=maybe").is_err());
    }

    #[test]
    fn flags_of_vtorc_that_have_no_effect_are_taken_and_named() {
        let line = "vtorc --logtostderr -v 2 --recovery_poll_duration=1s --instance-poll-time 5s";
        let normal = normalise(line.split_whitespace().map(str::to_owned));
        assert_eq!(normal.without_effect.len(), 3, "{:?}", normal.without_effect);
        let cli = Cli::try_parse_from(normal.arguments).unwrap();
        assert_eq!(cli.daemon.vitess.instance_poll_time, Some(Duration::from_secs(5)));
        let command = Cli::command();
        for flag in foreign::FLAGS {
            let known = command.get_arguments().any(|known| known.get_long() == Some(flag.name));
            assert!(!known, "--{} has an effect", flag.name);
        }
    }

    #[test]
    fn a_subcommands_own_flag_is_not_the_daemons() {
        let import = "topo import h:3306 --keyspace ks --shard 0 --cell zone1";
        let cli = parse(import).unwrap();
        assert!(
            matches!(cli.command, Some(Command::Topo(TopoCommand::Import { cell, .. })) if cell == "zone1")
        );
        assert!(parse("--cell zone1 --port 0").unwrap().command.is_none());
    }

    #[test]
    fn an_unknown_flag_names_the_nearest_known_one() {
        let error = parse("-topo_global_rot /x").unwrap_err();
        assert!(error.contains("--topo-global-root"), "{error}");
    }

    #[test]
    fn subcommands_take_topology_flags() {
        let cli = parse("topo --topo_global_root /r add-tablet zone1-1 --shard ks/0 --mysql h:1")
            .unwrap();
        assert_eq!(cli.daemon.topo_global_root, "/r");
        assert!(matches!(cli.command, Some(Command::Topo(TopoCommand::AddTablet { .. }))));
    }

    /// Puts a table between two marks of the page for those who come from VTOrc, or checks that it is there.
    fn documented(mark: &str, expected: &str) {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/from-vtorc.md");
        let text = std::fs::read_to_string(&file).unwrap();
        let (start, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
        let (before, rest) = text.split_once(&start).unwrap();
        let (found, after) = rest.split_once(&end).unwrap();
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&file, format!("{before}{start}{expected}{end}{after}")).unwrap();
            return;
        }
        assert_eq!(found, expected, "run the test with REWRITE=1 and read the difference");
    }

    #[test]
    fn the_documentation_lists_every_flag() {
        let command = Cli::command();
        let mut rows = String::new();
        for flag in command.get_arguments().filter(|flag| !flag.is_hide_set()) {
            let (Some(name), Some(help)) = (flag.get_long(), flag.get_help()) else { continue };
            let default = flag.get_default_values().first().map(|value| value.to_string_lossy());
            let default = default.filter(|value| !value.is_empty());
            let default = default.map(|value| format!(" Default: `{value}`.")).unwrap_or_default();
            rows.push_str(&format!("| `--{name}` | {help}.{default} |\n"));
        }
        documented("flags", &rows);
        let mut reasons: std::collections::BTreeMap<&str, Vec<String>> = Default::default();
        for flag in foreign::FLAGS {
            reasons.entry(flag.why).or_default().push(format!("`--{}`", flag.name));
        }
        let lines = reasons.iter().map(|(why, names)| format!("- {}: {why}\n", names.join(", ")));
        documented("foreign", &lines.collect::<String>());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
