//! Feeds arbitrary documents and patches, a line each: nothing may panic, and merging twice is merging once.
#![no_main]

use apiserver::patch;
use apiserver::schema::Schema;
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let mut json = || serde_json::from_slice::<Value>(lines.next()?).ok();
    let (Some(document), Some(change)) = (json(), json()) else { return };
    let schema = Schema::anything();
    // An error is an answer too.
    let _patched = patch::json(&document, &change);
    let _merged = patch::strategic(&schema, &document, &change);
    let once = patch::merge(&document, &change);
    assert_eq!(patch::merge(&once, &change), once);
    if let Ok(schema) = Schema::from_json(&document) {
        let mut object = change;
        let _pruned = schema.prune(&mut object);
        schema.fill_defaults(&mut object);
        let _causes = schema.validate(&object);
    }
});
