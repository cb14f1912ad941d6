//! The parts of `docs/` that are made from the code. A test makes each anew and fails when the file says something else;
//! `UPDATE_DOCS=1 cargo test` writes it instead.

use std::{env, fs, path::Path};

const BEGIN: &str = "<!-- made from the code: change it there, then run `UPDATE_DOCS=1 cargo test --lib` -->\n";
const END: &str = "<!-- end -->\n";

/// Checks that what stands between the two marks in `file` is `made`, or writes it there.
///
/// # Panics
/// When it is something else, or there are no marks.
pub(crate) fn check(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{file} has no mark where the part that is made begins"));
    let (part, after) = rest.split_once(END).unwrap_or_else(|| panic!("{file} has no mark where the part that is made ends"));
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
    } else {
        assert!(part == made, "{file} is not what the code says: run `UPDATE_DOCS=1 cargo test --lib` and look at the difference");
    }
}
