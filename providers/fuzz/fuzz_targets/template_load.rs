//! The loader never panics, every mistake has a message, and what it takes fills only slots that it lists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use providers::parse_template;

fuzz_target!(|text: &str| match parse_template("fuzz.toml", text) {
    Ok(template) => {
        assert!(!template.hosts().is_empty() && !template.injections().is_empty());
        for slot in template.secret_slots() {
            assert!(!providers::inject::is_routing_header(slot.as_str()));
        }
    }
    Err(errors) => {
        assert!(!errors.0.is_empty());
        for mistake in errors.0 {
            assert!(mistake.line > 0 && !mistake.field.is_empty() && !mistake.message.is_empty());
        }
    }
});
