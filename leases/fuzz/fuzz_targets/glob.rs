//! Any patterns and any names: no panic, one spelling, and what covers matches.
#![no_main]

use arbitrary::Arbitrary;
use leases::{HostPattern, PathGlob};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    left: &'a str,
    right: &'a str,
    name: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    if let (Ok(left), Ok(right)) = (PathGlob::parse(input.left), PathGlob::parse(input.right)) {
        assert_eq!(PathGlob::parse(left.as_str()).as_ref(), Ok(&left));
        assert!(left.covers(&left));
        if left.covers(&right) && right.matches(input.name) {
            assert!(left.matches(input.name));
        }
    }
    if let (Ok(left), Ok(right)) = (
        HostPattern::parse(input.left),
        HostPattern::parse(input.right),
    ) {
        assert_eq!(HostPattern::parse(left.as_str()).as_ref(), Ok(&left));
        assert!(left.covers(&left) && left.overlaps(&left));
        assert_eq!(left.overlaps(&right), right.overlaps(&left));
        if left.matches(input.name, 443) && right.matches(input.name, 443) {
            assert!(left.overlaps(&right));
        }
        if left.covers(&right) && right.matches_name(input.name) {
            assert!(left.matches_name(input.name));
        }
    }
});
