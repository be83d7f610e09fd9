//! The house rules that no tool checks: arrows between crates, lengths, words, and tables in the documentation.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod circles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vtorc_core::analysis::{FindingKind, REPLICA_RULES, RULES, WARNINGS};
use vtorc_core::remedy::remedy;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below these directories. What cargo and git made is nobody's.
fn files_below(directories: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut waiting: Vec<PathBuf> = directories.into_iter().collect();
    let mut found = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with("target") || path.ends_with(".git") => {}
                true => waiting.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn sources(ending: &str) -> Vec<PathBuf> {
    let crates = ["src", "core", "actors", "clients", "web", "fleet", "sim", "tests"];
    let mut found = files_below(crates.map(|directory| root().join(directory)));
    found.retain(|file| file.to_string_lossy().ends_with(ending));
    found
}

/// Which of our crates each crate may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("fleet", &[]),
    ("actors", &["core"]),
    ("clients", &["core"]),
    ("web", &["core", "actors"]),
    ("sim", &["core", "actors"]),
    ("", &["core", "actors", "clients", "web", "fleet"]),
];

#[test]
fn arrows_between_crates_point_the_right_way() {
    for (name, allowed) in ARROWS {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        // What the daemon itself is built from, not what is said for all.
        let own = manifest.split_once("\n[dependencies]").unwrap().1;
        let own = own.split("\n[dev-dependencies]").next().unwrap();
        let named: BTreeSet<&str> = own
            .lines()
            .filter_map(|line| line.strip_prefix("vtorc-"))
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .collect();
        assert_eq!(named, allowed.iter().copied().collect(), "{name}");
    }
}

/// The outside world: nothing of it may be named there.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "actix",
    "slog",
    "mysql_async",
    "rand::",
    "std::fs",
    "std::net",
    "std::env",
    "Instant::now",
];

#[test]
fn the_core_is_pure() {
    for file in sources(".rs").iter().filter(|file| file.starts_with(root().join("core/src"))) {
        let text = std::fs::read_to_string(file).unwrap();
        for word in NOT_IN_CORE {
            assert!(!text.contains(word), "{} names {word}", file.display());
        }
    }
}

#[test]
fn files_and_lines_are_of_a_length_to_be_read() {
    for file in sources(".rs").into_iter().chain(sources(".js")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().count();
        assert!(lines <= 520, "{} has {lines} lines", file.display());
        // What rustfmt does not break: comments. (A text in quotes may be longer.)
        let comments = text.lines().filter(|line| line.trim_start().starts_with("//"));
        let longest = comments.max_by_key(|line| line.chars().count()).unwrap_or_default();
        assert!(longest.chars().count() <= 120, "{}: too long: {longest}", file.display());
    }
}

#[test]
fn words_that_mean_something_unfinished_are_not_there() {
    // Put together here, so that this file does not hold them.
    let banned = [
        ["FIX", "ME"].concat(),
        ["TO", "DO"].concat(),
        ["dbg", "!("].concat(),
        ["todo", "!("].concat(),
        ["unimple", "mented!("].concat(),
    ];
    for file in sources(".rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        for word in &banned {
            assert!(!text.contains(word.as_str()), "{} holds {word}", file.display());
        }
    }
}

#[test]
fn every_finding_has_one_rule_and_a_name_of_its_own() {
    let rules = RULES.iter().map(|rule| rule.kind);
    let all: Vec<FindingKind> = rules
        .chain(REPLICA_RULES.iter().map(|rule| rule.kind))
        .chain(WARNINGS.iter().map(|warning| warning.kind))
        .collect();
    let distinct: BTreeSet<FindingKind> = all.iter().copied().collect();
    assert_eq!(all.len(), distinct.len(), "a finding has two rules");
    assert_eq!(distinct, FindingKind::ALL.into_iter().collect());
}

#[test]
fn the_documentation_lists_every_finding() {
    let mut table = String::from("| finding | when | recovery |\n|---|---|---|\n");
    let rules = RULES.iter().map(|rule| (rule.kind, rule.why));
    let replicas = REPLICA_RULES.iter().map(|rule| (rule.kind, rule.why));
    let warnings = WARNINGS.iter().map(|warning| (warning.kind, warning.why));
    for (kind, why) in rules.chain(replicas).chain(warnings) {
        table.push_str(&format!("| `{kind}` | {why} | {} |\n", remedy(kind).name()));
    }
    let file = root().join("docs/operating.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (start, end) = ("<!-- findings -->\n", "<!-- /findings -->");
    if std::env::var_os("REWRITE").is_some() {
        let (before, rest) = text.split_once(start).unwrap();
        let after = rest.split_once(end).unwrap().1;
        std::fs::write(&file, format!("{before}{start}{table}{end}{after}")).unwrap();
        return;
    }
    assert!(text.contains(&table), "run the test with REWRITE=1 and read the difference");
}

/// Licences that may be linked into an MIT program without more than naming them.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "CC0-1.0",
    "BSL-1.0",
    "Unicode-3.0",
    "MPL-2.0",
    "CDLA-Permissive-2.0",
    "MIT-0",
];

#[test]
fn every_hazard_is_told_by_stories_that_exist() {
    let table = std::fs::read_to_string("docs/hazards.md").unwrap();
    let code: String =
        sources(".rs").iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "the table is not read");
    for row in rows {
        let stories: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!stories.is_empty(), "nobody tells of: {row}");
        for story in stories {
            let (test, family) = (format!("fn {story}("), format!("name: \"{story}\""));
            assert!(code.contains(&test) || code.contains(&family), "there is no {story}");
        }
    }
}

#[test]
fn every_dependency_has_a_licence_that_fits_and_comes_from_the_registry() {
    let rustc = std::process::Command::new("rustc").arg("-vV").output().unwrap();
    let about = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // Only what is built here was fetched.
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for package in metadata["packages"].as_array().unwrap() {
        let name = &package["name"];
        let source = package["source"].as_str();
        assert!(source.is_none_or(|source| source.starts_with("registry+")), "{name}: {source:?}");
        let file_only =
            package["license_file"].as_str().filter(|_| name == "webpki").map(|_| "ISC");
        let licence = package["license"].as_str().or(file_only).unwrap_or("none given");
        let fits = |word: &str| LICENCES.contains(&word) || word.starts_with("LLVM-exception");
        // Of alternatives one must fit; of licences that apply together, each.
        let groups =
            licence.replace(['(', ')'], " ").replace(" WITH ", " AND ").replace('/', " OR ");
        let good =
            groups.split(" OR ").any(|group| group.split(" AND ").all(|one| fits(one.trim())));
        assert!(good, "{name} has licence {licence}");
    }
}

/// Whose addresses may stand here: ourselves, names that are reserved for examples, and names of formats.
const HOSTS: &[&str] = &["127.0.0.1", "localhost", "h", "www.w3.org"];

/// Everything that is written by hand, of whatever kind. `Cargo.lock` is cargo's, and names its index.
fn written_by_hand() -> Vec<PathBuf> {
    let mut found = files_below([root().to_owned()]);
    // In a work tree of its own, git leaves a file and no directory.
    found.retain(|file| !file.ends_with("Cargo.lock") && !file.ends_with(".git"));
    found
}

/// Where packages come from is the machine's business.
#[test]
fn no_address_of_a_package_server_stands_here() {
    let servers = [["debian", ".org"], ["ubuntu", ".com"], ["crates", ".io"], ["pypi", ".org"]];
    let mut files = 0;
    for file in written_by_hand() {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        files += 1;
        for server in servers.map(|parts| parts.concat()) {
            assert!(!text.contains(&server), "{} names {server}", file.display());
        }
        for rest in text.split("://").skip(1) {
            let end = |sign: char| !(sign.is_ascii_alphanumeric() || "-._:@".contains(sign));
            let place = rest.split(end).next().unwrap_or_default();
            let place = place.rsplit('@').next().unwrap_or_default();
            let host = place.split(':').next().unwrap_or_default().trim_end_matches('.');
            let good = host.is_empty() || HOSTS.contains(&host) || host.ends_with(".example");
            assert!(good, "{} has the address of {host}", file.display());
        }
    }
    assert!(files > 200, "only {files} files were read");
}

/// Each kind of list that apt reads, and what the script takes from it.
const APT_LISTS: &[(&str, &str, &str)] = &[
    ("sources.list", "deb http://one.example/debian bookworm main\n", "http://one.example/debian"),
    (
        "sources.list",
        "# deb http://old.example/debian sid main\n\
         deb-src http://source.example/debian sid main\n\
         deb http://s.example/debian-security bookworm-security main\n\
         deb [arch=amd64 signed-by=/k.gpg] https://two.example/mirrors/debian/ bookworm main\n",
        "https://two.example/mirrors/debian",
    ),
    (
        "sources.list.d/debian.sources",
        "Types: deb\nURIs: http://s.example/debian\nSuites: bookworm-security\n\n\
         Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\n\n\
         Types: deb-src\nURIs: http://source.example/debian\nSuites: bookworm\n\n\
         # A comment.\nTypes: deb deb-src\nURIs:\n http://three.example/debian\n http://four.example/debian\n\
         Suites: bookworm bookworm-updates\nComponents: main\n",
        "http://three.example/debian",
    ),
    (
        "sources.list.d/ubuntu.sources",
        "Types: deb\nURIs: http://five.example/ubuntu/\nSuites: jammy\nComponents: main universe\n",
        "http://five.example/ubuntu",
    ),
];

#[test]
fn packages_come_from_where_apt_gets_them() {
    let mirror = |etc: &Path, environment: Option<&str>| {
        let mut command = std::process::Command::new("bash");
        command.arg(root().join("scripts/servers.sh")).arg("mirror");
        command.env("VTORC_APT_ETC", etc).env_remove("VTORC_DEBIAN_MIRROR");
        command.envs(environment.map(|mirror| ("VTORC_DEBIAN_MIRROR", mirror)));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    };
    for (file, text, expected) in APT_LISTS {
        let etc = tempfile::tempdir().unwrap();
        std::fs::create_dir(etc.path().join("sources.list.d")).unwrap();
        std::fs::write(etc.path().join(file), text).unwrap();
        assert_eq!(mirror(etc.path(), None), Ok((*expected).to_owned()), "{text}");
        let named = mirror(etc.path(), Some("http://mine.example/debian/"));
        assert_eq!(named, Ok("http://mine.example/debian".to_owned()));
    }
    let nothing = tempfile::tempdir().unwrap();
    let told = mirror(nothing.path(), None).unwrap_err();
    assert!(told.contains("VTORC_DEBIAN_MIRROR") && told.contains("sources.list"), "{told}");
}
