//! The environment of a program that `run` starts: the way through the injector, and no key of anyone.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use zeroize::Zeroizing;

use crate::trust::{STORE_PASSWORD, Trust};
use crate::units::{HostPort, ProxyUrl};

/// What the environment is built from.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) proxy: &'a ProxyUrl,
    /// None where the proxy adds it.
    pub(crate) lease: Option<&'a str>,
    pub(crate) trust: &'a Trust,
    /// The templates' own variables, each with a value of the right shape that opens nothing.
    pub(crate) placeholders: &'a BTreeMap<String, String>,
    /// Other variables in which the templates' real keys may stand.
    pub(crate) withheld: &'a [String],
}

/// Hosts that are reached directly: this machine alone.
const DIRECT: &str = "localhost,127.0.0.1,::1";
const DIRECT_JAVA: &str = "localhost|127.*|[::1]";

/// Ours, which would let the program act as its owner.
const OURS: [&str; 4] = [
    "CLAVIGER_KEY",
    "CLAVIGER_KEY_FILE",
    "CLAVIGER_URL",
    "CLAVIGER_DATA",
];

/// Programs read these in upper case, in lower case, or in both.
const BOTH_CASES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// The child's whole environment, made from the parent's.
pub(crate) fn build(
    parent: impl IntoIterator<Item = (OsString, OsString)>,
    facts: &Facts<'_>,
) -> BTreeMap<OsString, OsString> {
    let mut child: BTreeMap<OsString, OsString> = parent
        .into_iter()
        .filter(|(name, value)| may_pass(name, value, facts))
        .collect();
    let java = java_options(
        child
            .get(OsStr::new("JAVA_TOOL_OPTIONS"))
            .map(OsString::as_os_str),
        facts,
    );
    child.insert("JAVA_TOOL_OPTIONS".into(), java);

    let mut set = |name: &str, value: &OsStr| {
        child.insert(name.into(), value.to_owned());
    };
    let proxy = match facts.lease {
        Some(lease) => format!(
            "{}://lease:{lease}@{}",
            facts.proxy.scheme(),
            facts.proxy.at
        ),
        None => facts.proxy.to_string(),
    };
    for name in BOTH_CASES {
        let value = if name == "NO_PROXY" { DIRECT } else { &proxy };
        set(name, OsStr::new(value));
        set(&name.to_ascii_lowercase(), OsStr::new(value));
    }
    // What tunnels any program through SOCKS reads this one, and no HTTP client does. The injector itself speaks no SOCKS.
    if facts.lease.is_none() {
        set("SOCKS5_SERVER", OsStr::new(&facts.proxy.at.to_string()));
    }
    // gRPC looks at these before the others.
    set("grpc_proxy", OsStr::new(&proxy));
    set("no_grpc_proxy", OsStr::new(DIRECT));
    set("NODE_USE_ENV_PROXY", OsStr::new("1"));
    set("NODE_EXTRA_CA_CERTS", facts.trust.extra.as_os_str());
    for name in BUNDLES {
        set(name, facts.trust.bundle.as_os_str());
    }
    set("WGETRC", facts.trust.wgetrc.as_os_str());
    // What the settings of npm, cargo and git name would lead past our port, or fail at its certificates.
    let bundle = facts.trust.bundle.as_os_str();
    for (setting, value) in [
        ("cafile", bundle),
        ("proxy", OsStr::new(&proxy)),
        ("https_proxy", OsStr::new(&proxy)),
        ("noproxy", OsStr::new(DIRECT)),
    ] {
        set(&format!("npm_config_{setting}"), value);
        set(&format!("npm_config_{setting}").to_ascii_uppercase(), value);
    }
    set("CARGO_HTTP_PROXY", OsStr::new(&proxy));
    set("GIT_TERMINAL_PROMPT", OsStr::new("0"));
    // git would try the others first and take 407 for the last word.
    set("GIT_HTTP_PROXY_AUTHMETHOD", OsStr::new("basic"));
    for (name, value) in facts.placeholders {
        set(name, OsStr::new(value));
    }
    add_git_setting(&mut child, "http.proxy", &proxy);
    child
}

/// The parent's environment without what is ours, and these variables.
pub(crate) fn with_values(
    parent: impl IntoIterator<Item = (OsString, OsString)>,
    values: &BTreeMap<String, Zeroizing<String>>,
) -> BTreeMap<OsString, OsString> {
    let inherited = parent
        .into_iter()
        .filter(|(name, value)| !is_ours(name) && !holds_our_key(value));
    let values = values
        .iter()
        .map(|(name, value)| (name.into(), value.as_str().into()));
    inherited.chain(values).collect()
}

fn is_ours(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| OURS.contains(&name) || name.starts_with("CLAVIGER__"))
}

/// One more setting for git, behind those that variables give it already (git-config(1), `GIT_CONFIG_COUNT`).
fn add_git_setting(child: &mut BTreeMap<OsString, OsString>, key: &str, value: &str) {
    let count = child
        .get(OsStr::new("GIT_CONFIG_COUNT"))
        .and_then(|count| count.to_str()?.parse::<u16>().ok())
        .unwrap_or(0);
    child.insert(format!("GIT_CONFIG_KEY_{count}").into(), key.into());
    child.insert(format!("GIT_CONFIG_VALUE_{count}").into(), value.into());
    let count = u32::from(count) + 1;
    child.insert("GIT_CONFIG_COUNT".into(), count.to_string().into());
}

/// Variables whose programs replace their roots by the file's.
const BUNDLES: [&str; 12] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NIX_SSL_CERT_FILE",
];

fn may_pass(name: &OsStr, value: &OsStr, facts: &Facts<'_>) -> bool {
    let Some(name) = name.to_str() else {
        return !holds_our_key(value);
    };
    let is_ours = is_ours(OsStr::new(name));
    // A bundle is added to what a directory of roots holds; a program that looks there alone would miss our CA.
    let is_replaced = name == "SSL_CERT_DIR";
    !is_ours
        && !is_replaced
        && !facts.withheld.iter().any(|withheld| withheld == name)
        && !holds_our_key(value)
}

/// Whether a value carries a personal key or an agent's key of ours, alone or inside something larger.
fn holds_our_key(value: &OsStr) -> bool {
    const LEAST: usize = 16;
    let bytes = value.as_bytes();
    let is_key_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    [&b"1ck_"[..], b"ocv_"].iter().any(|prefix| {
        let mut starts = bytes
            .windows(prefix.len())
            .enumerate()
            .filter(|(_, window)| window == prefix);
        starts.any(|(at, _)| {
            bytes[at + prefix.len()..]
                .iter()
                .take_while(|byte| is_key_byte(byte))
                .count()
                >= LEAST
        })
    })
}

/// Java ignores proxy variables and the system's roots, so it is told by its own properties.
fn java_options(existing: Option<&OsStr>, facts: &Facts<'_>) -> OsString {
    let HostPort { host, port } = &facts.proxy.at;
    let store = facts.trust.store.display();
    let ours = [
        quote(&format!("-Djavax.net.ssl.trustStore={store}")),
        "-Djavax.net.ssl.trustStoreType=PKCS12".to_owned(),
        format!("-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"),
        format!("-Dhttps.proxyHost={host}"),
        format!("-Dhttps.proxyPort={port}"),
        format!("-Dhttp.proxyHost={host}"),
        format!("-Dhttp.proxyPort={port}"),
        format!("-Dhttp.nonProxyHosts={DIRECT_JAVA}"),
        // The JDK refuses Basic for CONNECT unless this list is empty.
        "-Djdk.http.auth.tunneling.disabledSchemes=".to_owned(),
    ]
    .join(" ");
    let mut options = existing.map(OsStr::to_owned).unwrap_or_default();
    if !options.is_empty() {
        options.push(" ");
    }
    options.push(ours);
    options
}

/// The JVM splits the variable at spaces and knows quotes.
fn quote(option: &str) -> String {
    if option.contains(char::is_whitespace) {
        format!("\"{option}\"")
    } else {
        option.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust() -> Trust {
        Trust {
            extra: "/t/ca.pem".into(),
            bundle: "/t/bundle.pem".into(),
            store: "/t/trust.p12".into(),
            wgetrc: "/t/wgetrc".into(),
        }
    }

    fn child(parent: &[(&str, &str)]) -> BTreeMap<String, String> {
        child_with(Some("clv_token"), parent)
    }

    fn child_with(lease: Option<&str>, parent: &[(&str, &str)]) -> BTreeMap<String, String> {
        let trust = trust();
        let placeholders = BTreeMap::from([(
            "OPENAI_API_KEY".to_owned(),
            "sk-claviger-placeholder".to_owned(),
        )]);
        let proxy = "127.0.0.1:8182".parse().unwrap();
        let facts = Facts {
            proxy: &proxy,
            lease,
            trust: &trust,
            placeholders: &placeholders,
            withheld: &["STRIPE_SECRET_KEY".to_owned()],
        };
        let parent = parent
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        build(parent, &facts)
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn values_are_added_to_what_is_not_ours() {
        let parent = [
            ("PATH", "/bin"),
            ("CLAVIGER_KEY", "x"),
            ("CLAVIGER__API", "x"),
            ("A", "old"),
        ];
        let parent = parent.map(|(name, value)| (name.into(), value.into()));
        let values = BTreeMap::from([("A".to_owned(), Zeroizing::new("new".to_owned()))]);
        let expected = [("A", "new"), ("PATH", "/bin")];
        let expected = expected.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(with_values(parent, &values), BTreeMap::from(expected));
    }

    #[test]
    fn the_proxy_is_named_in_both_cases() {
        let child = child(&[("https_proxy", "http://other"), ("no_proxy", "*")]);
        for name in [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
            "grpc_proxy",
        ] {
            assert_eq!(
                child[name], "http://lease:clv_token@127.0.0.1:8182",
                "{name}"
            );
        }
        assert_eq!(child["NO_PROXY"], "localhost,127.0.0.1,::1");
        assert_eq!(child["no_proxy"], child["NO_PROXY"]);
        assert_eq!(child["NODE_USE_ENV_PROXY"], "1");
    }

    #[test]
    fn socks_is_named_where_it_is_spoken() {
        let child = child_with(None, &[]);
        assert_eq!(child["SOCKS5_SERVER"], "127.0.0.1:8182");
        assert_eq!(child["ALL_PROXY"], "http://127.0.0.1:8182");
        assert!(!child_with(Some("clv_token"), &[]).contains_key("SOCKS5_SERVER"));
    }

    #[test]
    fn every_program_finds_the_trust_it_reads() {
        let child = child(&[
            ("SSL_CERT_DIR", "/etc/ssl/certs"),
            ("SSL_CERT_FILE", "/etc/ssl/cert.pem"),
        ]);
        for name in BUNDLES {
            assert_eq!(child[name], "/t/bundle.pem", "{name}");
        }
        assert_eq!(child["NODE_EXTRA_CA_CERTS"], "/t/ca.pem");
        assert_eq!(child["WGETRC"], "/t/wgetrc");
        assert!(!child.contains_key("SSL_CERT_DIR"));
        assert_eq!(child["GIT_TERMINAL_PROMPT"], "0");
        assert_eq!(child["GIT_HTTP_PROXY_AUTHMETHOD"], "basic");
    }

    #[test]
    fn the_settings_of_programs_do_not_lead_past_our_proxy() {
        let child = child(&[
            ("NPM_CONFIG_HTTPS_PROXY", "http://other"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "core.editor"),
            ("GIT_CONFIG_VALUE_0", "ed"),
        ]);
        for name in [
            "npm_config_proxy",
            "npm_config_https_proxy",
            "NPM_CONFIG_HTTPS_PROXY",
            "CARGO_HTTP_PROXY",
            "GIT_CONFIG_VALUE_1",
        ] {
            assert_eq!(
                child[name], "http://lease:clv_token@127.0.0.1:8182",
                "{name}"
            );
        }
        assert_eq!(child["npm_config_cafile"], "/t/bundle.pem");
        assert_eq!(child["npm_config_noproxy"], child["NO_PROXY"]);
        assert_eq!(child["GIT_CONFIG_KEY_0"], "core.editor");
        assert_eq!(child["GIT_CONFIG_KEY_1"], "http.proxy");
        assert_eq!(child["GIT_CONFIG_COUNT"], "2");
    }

    #[test]
    fn java_keeps_its_options_and_gets_ours_behind() {
        let options = child(&[("JAVA_TOOL_OPTIONS", "-Xmx1g")])["JAVA_TOOL_OPTIONS"].clone();
        assert!(options.starts_with("-Xmx1g -Djavax.net.ssl.trustStore=/t/trust.p12 "));
        assert!(options.ends_with(" -Djdk.http.auth.tunneling.disabledSchemes="));
        assert!(options.contains(" -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8182 "));
        assert_eq!(quote("-Da=/b c"), "\"-Da=/b c\"");
    }

    #[test]
    fn no_key_of_ours_or_of_a_provider_reaches_the_child() {
        let child = child(&[
            ("CLAVIGER_KEY", "x"),
            ("CLAVIGER_KEY_FILE", "/k"),
            ("CLAVIGER_URL", "http://h"),
            ("STRIPE_SECRET_KEY", "sk_live_real"),
            ("OPENAI_API_KEY", "sk-real"),
            ("MY_ADMIN", "1ck_0123456789abcdef0123"),
            ("CONFIG", "{\"key\":\"ocv_0123456789abcdef0123\"}"),
            ("PATH", "/bin"),
            ("NOTE", "an ocv_ key"),
        ]);
        for name in [
            "CLAVIGER_KEY",
            "CLAVIGER_KEY_FILE",
            "CLAVIGER_URL",
            "STRIPE_SECRET_KEY",
            "MY_ADMIN",
            "CONFIG",
        ] {
            assert!(!child.contains_key(name), "{name}");
        }
        assert_eq!(child["OPENAI_API_KEY"], "sk-claviger-placeholder");
        assert_eq!(
            (child["PATH"].as_str(), child["NOTE"].as_str()),
            ("/bin", "an ocv_ key")
        );
    }
}
