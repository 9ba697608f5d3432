//! The texts of the licences of what is linked into the Python module are in the wheel.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The crates that are linked in, each with its licence as an SPDX expression.
fn linked_crates() -> Vec<(String, String)> {
    let mut tree = Command::new(std::env::var("CARGO").unwrap());
    tree.args(["tree", "--locked", "-p", "server-keys-binding", "-e", "normal,no-proc-macro"]);
    tree.args(["--prefix", "none", "--format", "{p}|{l}|"]);
    let listed = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let lines = String::from_utf8(listed.stdout).unwrap();
    let crates = lines.lines().map(|line| {
        let (package, rest) = line.split_once('|').unwrap();
        let license = rest.split('|').next().unwrap();
        (package.split(' ').next().unwrap().to_owned(), license.to_owned())
    });
    crates.collect()
}

/// Says whether the project's own licence is one that the crate may be taken under.
fn may_be_apache(license: &str) -> bool {
    license.split([' ', '/']).all(|word| word != "AND")
        && license.split(" OR ").any(|choice| choice.contains("Apache-2.0"))
}

#[test]
fn every_linked_crate_is_under_the_projects_own_licence_or_has_its_text_in_the_folder() {
    let crates = linked_crates();
    assert!(crates.iter().any(|(name, _)| name == "x25519-dalek"), "the tree was not read: {crates:?}");
    let with_own_text: BTreeSet<_> =
        crates.into_iter().filter(|(_, license)| !may_be_apache(license)).map(|(name, _)| name).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../licenses");
    let texts = folder.read_dir().unwrap().map(|text| text.unwrap().path());
    let texts: BTreeSet<_> = texts.map(|text| text.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(with_own_text, texts);
}
