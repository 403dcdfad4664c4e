//! The JSON Schema in the repository is the one that the reader's own table makes, and it knows every field.

use halftone_compiler::json_schema;

#[test]
fn the_committed_schema_is_current() {
    let committed: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/ruleset.schema.json")).expect("JSON");
    assert_eq!(committed, json_schema(), "write it anew: halftone schema > docs/ruleset.schema.json");
}
