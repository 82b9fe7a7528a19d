//! Any text, and any bytes in a lease's text form: nothing panics, nothing is verified, one token has one text.
#![no_main]

use std::sync::LazyLock;

use leases::{PresentedToken, RootKeyPair, RootPublicKeys, inspect, verify};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<RootPublicKeys> =
    LazyLock::new(|| RootPublicKeys::new(vec![RootKeyPair::generate(1).public()]));

fn try_text(text: &str) {
    let Ok(token) = PresentedToken::parse(text) else {
        return;
    };
    assert_eq!(token.as_str(), text);
    let _ = inspect(&token);
    assert!(verify(&token, &KEYS).is_err(), "nobody has the root key");
}

/// Base64url without padding.
fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::from("clv_");
    for chunk in bytes.chunks(3) {
        let mut word = [0_u8; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        try_text(text);
        try_text(&format!("clv_{text}"));
    }
    try_text(&encode(bytes));
});
