//! Whatever bytes come, decoding ends without a panic, and what it accepts it can write back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::envelope::Envelope;

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = Envelope::decode(bytes) else {
        return;
    };
    assert_eq!(envelope.encode(), bytes);
    let wrapped = [envelope.wrapped_dek(), b"x"].concat();
    if let Ok(rewrapped) = envelope.rewrapped(&wrapped) {
        let decoded = Envelope::decode(&rewrapped).expect("a re-wrapped envelope decodes");
        assert_eq!(decoded.wrapped_dek(), wrapped);
        assert_eq!(decoded.kek(), envelope.kek());
    }
});
