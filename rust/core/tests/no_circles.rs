//! The modules of this crate import each other one way only.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Reads which modules each module uses outside of its tests, by `crate::` in its source.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let sources = files.filter(|file| file.file_name().unwrap() != "lib.rs").map(|file| {
        let module = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let source = std::fs::read_to_string(file).unwrap();
        let code: Vec<_> = source.lines().take_while(|line| *line != "mod tests {").collect();
        let code = code.into_iter().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let uses = code.split("crate::").skip(1).map(|path| {
            path.split(|character: char| !(character.is_alphanumeric() || character == '_')).next().unwrap().to_owned()
        });
        (module, uses.collect())
    });
    sources.collect()
}

#[test]
fn no_module_uses_one_that_uses_it() {
    let mut left = imports();
    assert!(left["request"].contains("response"), "the test no longer finds what modules use: {left:?}");
    // Remove the modules that use no remaining one, again and again, until none remains, or only circles.
    while !left.is_empty() {
        let free: Vec<_> = left
            .iter()
            .filter(|(_, uses)| !uses.iter().any(|used| left.contains_key(used)))
            .map(|(name, _)| name.clone())
            .collect();
        assert!(!free.is_empty(), "these modules use each other in a circle: {left:?}");
        left.retain(|name, _| !free.contains(name));
    }
}

#[test]
fn modules_name_the_module_that_they_use_and_not_the_root() {
    let imports = imports();
    for (module, uses) in &imports {
        let through_the_root: Vec<_> = uses.iter().filter(|used| !imports.contains_key(*used)).collect();
        assert!(through_the_root.is_empty(), "{module} uses {through_the_root:?} through the crate's root");
    }
}
