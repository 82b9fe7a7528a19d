//! Public corpora, as their crates bring them: Unicode's `IdnaTestV2.txt` (UTS 46) and the web platform's `urltestdata.json` (the
//! WHATWG's URL standard). What a host is read as is what they say it is, or it is refused.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use super::*;

/// A file in the source of a crate that this workspace is locked to.
fn file(krate: &str, path: &str) -> String {
    static PACKAGES: LazyLock<Value> = LazyLock::new(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--format-version", "1", "--locked"]);
        let output = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "cargo metadata failed");
        serde_json::from_slice(&output.stdout).unwrap()
    });
    let packages = PACKAGES["packages"].as_array().unwrap();
    let found = packages.iter().find(|package| package["name"] == krate);
    let manifest = found.and_then(|package| package["manifest_path"].as_str());
    let file = PathBuf::from(manifest.unwrap()).with_file_name(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{krate} {path}: {error}"))
}

/// `\uXXXX` and `\x{XXXX}`; `None` for a lone surrogate, which no text of ours holds.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (digits, behind) = match rest[at + 1..].split_at(1) {
            ("u", rest) => rest.split_at(4),
            ("x", rest) => rest.strip_prefix('{')?.split_once('}')?,
            _ => return None,
        };
        out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = behind;
    }
    out.push_str(rest);
    Some(if out == "\"\"" { String::new() } else { out })
}

/// Errors that are none of ours: hyphens at the third and fourth place are common in the names of CDNs, one dot at the end is
/// taken off, and later versions of Unicode than the file's assign characters.
fn is_forgiven(status: &str, source: &str, unicode: &str) -> bool {
    let codes = status.trim_matches(['[', ']']).split(',').map(str::trim);
    let mut codes = codes.filter(|code| !code.is_empty());
    codes.all(|code| match code {
        "V2" => true,
        "A4_2" | "X4_2" => source.ends_with('.'),
        "P1" | "V7" => unicode.chars().any(is_later),
        _ => false,
    })
}

/// Whether Unicode 16, the file's, has nothing there and a later version has.
fn is_later(character: char) -> bool {
    matches!(u32::from(character), 0x323b0..=0x33479 | 0x3d000..=0x3fc3f)
}

#[test]
fn names_are_read_as_unicode_says() {
    let (mut read, mut refused, mut wrong) = (0, 0, Vec::new());
    for line in file("idna", "tests/IdnaTestV2.txt").lines() {
        let line = line.split('#').next().unwrap_or_default();
        let columns: Vec<&str> = line.split(';').map(str::trim).collect();
        let [source, unicode, unicode_status, ascii, ascii_status, ..] = columns[..] else {
            continue;
        };
        let Some(source) = unescaped(source) else {
            continue;
        };
        let or = |text: &str, otherwise: String| match text {
            "" => Some(otherwise),
            text => unescaped(text),
        };
        let Some(unicode) = or(unicode, source.clone()) else {
            continue;
        };
        let Some(expected) = or(ascii, unicode.clone()) else {
            continue;
        };
        let status = match (ascii_status, unicode_status) {
            ("", status) | (status, _) => status,
        };
        match Host::parse(&source) {
            Ok(host) if host.ip().is_some() => {}
            Ok(host) => {
                if !is_forgiven(status, &source, &unicode) {
                    wrong.push(format!("{line}: {host:?}"));
                }
                let expected = expected.strip_suffix('.').unwrap_or(&expected);
                assert_eq!(host.as_str(), expected, "{line}");
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        read > 300 && refused > 3_000,
        "{read} read, {refused} refused"
    );
}

/// Scheme, host and port of a URL without odd characters before its path; others no client sends us.
fn authority(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    Some(&rest[..end])
}

#[test]
fn authorities_are_read_as_the_url_standard_says() {
    let cases: Vec<Value> = serde_json::from_str(&file("url", "tests/urltestdata.json")).unwrap();
    let (mut read, mut refused) = (0, 0);
    for case in cases {
        let Some(authority) = case["input"].as_str().and_then(authority) else {
            continue;
        };
        let Ok(found) = Authority::parse(authority) else {
            refused += 1;
            continue;
        };
        assert_ne!(case["failure"], true, "{case}: {found:?}");
        let hostname = case["hostname"].as_str().unwrap();
        let expected = hostname.trim_matches(['[', ']']);
        let expected = expected.strip_suffix('.').unwrap_or(expected);
        assert_eq!(found.host.as_str(), expected, "{case}");
        let port = case["port"].as_str().unwrap();
        if !port.is_empty() {
            assert_eq!(found.port, port.parse().ok(), "{case}");
        }
        read += 1;
    }
    assert!(read > 90 && refused > 200, "{read} read, {refused} refused");
}
