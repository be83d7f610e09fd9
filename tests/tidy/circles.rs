//! No two files need one another, on whatever way: each can be read with what stands below it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::{files_below, root};

/// The crates that are looked at. The simulator's universe holds everything in it, and each of its parts acts on the
/// universe: its files are one piece.
const CRATES: &[&str] = &["core", "actors", "clients", "web", "fleet", ""];

/// A file by its module's path, such as `reparent`, `election`.
type Module = Vec<String>;

#[test]
fn no_files_need_one_another_in_a_circle() {
    let mut circles = Vec::new();
    for name in CRATES {
        let files = files(&root().join(name).join("src"));
        assert!(files.len() > 5, "{name} has hardly any files");
        let needs: BTreeMap<&Module, BTreeSet<&Module>> =
            files.iter().map(|(module, file)| (module, needed(module, file, &files))).collect();
        for module in needs.keys() {
            if let Some(way) = way_back(module, &needs) {
                circles.push(format!("{name}: {}", way.join(" needs ")));
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn what_a_file_needs_is_read_from_it() {
    let used =
        used("use crate::{a::B, c::{self, d::E}};\nuse super::f::{G as H, i};\nuse std::fmt;");
    let wanted = ["crate::a::B", "crate::c::self", "crate::c::d::E", "super::f::G", "super::f::i"];
    assert_eq!(used, wanted);
}

fn files(source: &Path) -> BTreeMap<Module, PathBuf> {
    let mut found = files_below([source.to_owned()]);
    found.retain(|file| file.extension().is_some_and(|kind| kind == "rs"));
    let module = |file: &PathBuf| -> Module {
        let inside = file.strip_prefix(source).unwrap().with_extension("");
        let parts = inside.iter().map(|part| part.to_str().unwrap().to_owned());
        parts.filter(|part| part != "lib" && part != "main").collect()
    };
    found.into_iter().map(|file| (module(&file), file)).collect()
}

/// The files whose items a file names at its head.
fn needed<'a>(
    module: &Module,
    file: &Path,
    files: &'a BTreeMap<Module, PathBuf>,
) -> BTreeSet<&'a Module> {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    let code: Vec<&str> = lines.collect();
    let mut needed = BTreeSet::new();
    let code = code.join("\n");
    for path in used(&code).into_iter().chain(named(&code)) {
        let mut from = module.clone();
        let mut below: Vec<&str> = path.split("::").collect();
        while let Some(first) = below.first() {
            match *first {
                "crate" => from.clear(),
                "super" => drop(from.pop()),
                "self" => {}
                _ => break,
            }
            below.remove(0);
        }
        from.extend(below.into_iter().map(str::to_owned));
        let nearest =
            (0..=from.len()).rev().find_map(|length| files.get_key_value(&from[..length]));
        needed.extend(nearest.map(|(named, _)| named).filter(|named| *named != module));
    }
    needed
}

/// What is named by `use`, of this crate, one by one.
fn used(code: &str) -> Vec<String> {
    let mut all = Vec::new();
    for statement in code.split("use ").skip(1) {
        let tree = statement.split(';').next().unwrap();
        let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        if ["crate::", "super::", "self::"].iter().any(|start| tree.starts_with(start)) {
            branch("", &tree, &mut all);
        }
    }
    all
}

/// What is named by its path in the middle of the code, of this crate.
fn named(code: &str) -> Vec<String> {
    let starts = ["crate::", "super::"].iter().flat_map(|start| {
        code.match_indices(start).map(|(at, _)| at).filter(|at| {
            let before = code[..*at].chars().next_back();
            before.is_none_or(|sign| !sign.is_alphanumeric() && !"_:{,".contains(sign))
        })
    });
    let path = |at: usize| {
        let is_part = |sign: char| sign.is_alphanumeric() || sign == '_' || sign == ':';
        code[at..].split(|sign| !is_part(sign)).next().unwrap().trim_end_matches(':').to_owned()
    };
    starts.map(path).collect()
}

fn branch(before: &str, tree: &str, all: &mut Vec<String>) {
    let Some((path, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap().trim();
        if !name.is_empty() {
            all.push(format!("{before}{name}"));
        }
        return;
    };
    let inside = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut from) = (0, 0);
    for (at, sign) in inside.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branch(&format!("{before}{path}"), inside[from..at].trim(), all);
                from = at + 1;
            }
            _ => {}
        }
    }
    branch(&format!("{before}{path}"), inside[from..].trim(), all);
}

/// The way from a file over what it needs back to itself.
fn way_back(start: &Module, needs: &BTreeMap<&Module, BTreeSet<&Module>>) -> Option<Vec<String>> {
    let mut waiting = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while let Some(way) = waiting.pop() {
        for next in &needs[*way.last().unwrap()] {
            if *next == start {
                let names = way.iter().chain([&start]);
                return Some(names.map(|module| module.join("::")).collect());
            }
            if seen.insert(*next) {
                let mut longer = way.clone();
                longer.push(next);
                waiting.push(longer);
            }
        }
    }
    None
}
