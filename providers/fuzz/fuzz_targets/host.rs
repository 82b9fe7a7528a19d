//! A canonical form is its own canonical form, and holds nothing that could be read twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use providers::{Authority, Host, HostRule, Scheme};

fuzz_target!(|text: &str| {
    if let Ok(host) = Host::parse(text) {
        assert_eq!(Host::parse(host.as_str()).as_ref(), Ok(&host));
        assert!(host.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b)));
        assert!(!host.as_str().ends_with('.') && host.as_str().len() <= 253);
        // What the system's resolver would read as an address is one to us too.
        let dotted: Option<std::net::IpAddr> = host.as_str().parse().ok();
        assert_eq!(dotted, host.ip());
    }
    if let Ok(authority) = Authority::parse(text) {
        assert_eq!(Authority::parse(&authority.to_string()), Ok(authority));
    }
    if let Ok(rule) = HostRule::parse(text) {
        assert_eq!(HostRule::parse(&rule.to_string()).as_ref(), Ok(&rule));
        if let Some(host) = rule.exact() {
            assert!(rule.matches(rule.scheme(), host.as_str(), rule.port()));
        }
        assert!(!rule.matches(Scheme::Https, "", 443));
    }
});
