//! The table of bounds names constants that are there.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

#[test]
fn every_constant_in_the_table_of_bounds_is_where_the_table_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protocol = std::fs::read_to_string(root.join("PROTOCOL.md")).unwrap();
    let bounds = protocol.split("## 13. Bounds").nth(1).unwrap().split("## 14.").next().unwrap();
    let mut named = 0;
    for row in bounds.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let mut file = String::new();
        let words = cells.get(2).into_iter().flat_map(|cell| cell.split('`').collect::<Vec<_>>());
        let mut side = "";
        for word in words {
            match word.trim_matches([',', ' ']) {
                "b" => side = "../behaviour/src",
                "n" => side = "../node/src",
                path if path.ends_with(".rs") => {
                    file = std::fs::read_to_string(root.join(side).join(path)).expect(path)
                }
                name if name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_') && !name.is_empty() => {
                    assert!(file.contains(&format!("const {name}:")), "`{name}` is not there: {row}");
                    named += 1;
                }
                _ => {}
            }
        }
    }
    assert!(named > 100, "the table of bounds has lost rows: {named}");
}
