//! The configuration's sources, their order, and their mistakes.

use super::*;

fn from_file(text: &str) -> Result<Loaded, Vec<Mistake>> {
    Loaded::from_sources(Some((Path::new("claviger.toml"), text)), &[], &Vec::new())
}

fn messages(mistakes: &[Mistake]) -> Vec<String> {
    mistakes
        .iter()
        .map(|mistake| format!("{}: {}", mistake.origin, mistake.message))
        .collect()
}

#[test]
fn defaults_listen_on_loopback() {
    let loaded = Loaded::from_sources(None, &[], &Vec::new()).unwrap();
    assert_eq!(loaded.config.server.api.to_string(), "127.0.0.1:8181");
    assert_eq!(loaded.config.server.proxy.to_string(), "127.0.0.1:8182");
    assert_eq!(loaded.config.cache.ttl, Duration::from_secs(30));
    assert_eq!(loaded.config.ledger.durability, Durability::Synced);
}

/// Each setting with a value that is not its default.
const EVERY_SETTING: &str = r#"
        [server]
        data = "/srv/claviger"
        node = "injector-1"
        injectors = ["http://10.0.0.7:8181"]
        api = "127.0.0.1:1"
        proxy = "[::1]:2"
        workers = 4
        drain = "10s"
        api_tls_certificate = "/etc/claviger/api.crt"
        api_tls_key = "/etc/claviger/api.key"
        proxy_tls_certificate = "/etc/claviger/tls.crt"
        proxy_tls_key = "/etc/claviger/tls.key"
        proxy_tls_names = ["proxy.example", "10.0.0.7"]
        allow_plaintext_listener = true
        [database]
        url = "sqlite:/srv/claviger/db"
        password_file = "/run/password"
        [ledger]
        durability = "committed"
        [network]
        upstream_ca = "/etc/ca.pem"
        upstream_proxy = "http://claviger@proxy.corp.example:3128"
        upstream_proxy_password_file = "/etc/claviger/proxy-password"
        resolve = ["api.stripe.com:443=127.0.0.1:8443"]
        allow_address = ["127.0.0.0/8", "10.1.2.3"]
        [providers]
        dir = "/etc/claviger/providers"
        [cache]
        ttl = "0s"
        [keys]
        provider = "pkcs11"
        also = ["software"]
        dir = "/srv/keys"
        passphrase_file = "/run/passphrase"
        pkcs11_module = "/usr/lib/softhsm/libsofthsm2.so"
        pkcs11_token = "claviger"
        pkcs11_slot = 3
        pkcs11_pin_file = "/run/pin"
        pkcs11_sessions = 8
        gcp_kms_key_ring = "projects/p/locations/global/keyRings/claviger"
        gcp_kms_endpoint = "https://cloudkms.googleapis.com"
        gcp_kms_credentials_file = "/run/kms.json"
        [limits]
        connections = 5000
        requests = 2000
        tunnels_per_agent = 100
        tunnels_per_org = 100
        requests_per_agent = 100
        requests_per_org = 100
        bytes_per_second_per_agent = 100
        bytes_per_second_per_org = 100
        least_bytes_per_second = 0
        least_rate_over = "1m"
        api_requests_per_second = 50
        api_request_burst = 80
        [quotas]
        vaults = 3
        secrets = 50
        agents = 2
        requests_per_month = 1000
        [people]
        sign_up = "open"
        [audit]
        checkpoint_file = "/mnt/worm/heads.jsonl"
        checkpoint_url = "s3://heads/claviger"
        checkpoint_token_file = "/run/heads-token"
        checkpoint_credentials_file = "/run/aws"
        checkpoint_region = "eu-central-1"
        checkpoint_endpoint = "https://s3.internal.example"
        checkpoint_every = "5m"
        [telemetry]
        endpoint = "https://collector.example:4318"
        headers_file = "/run/collector-headers"
        [webhooks]
        give_up_after = "5d"
        [oidc]
        issuer = "google"
        client_id = "claviger.apps.googleusercontent.com"
        client_secret_file = "/run/oidc-secret"
        redirect_url = "https://keys.example.org/v1/auth/oidc/callback"
        allowed_domains = ["Example.org"]
        allowed_emails = ["Ada@Else.example"]
        sign_up = "open"
        [log]
        level = "debug"
        format = "json"
        "#;

#[test]
fn every_setting_can_stand_in_the_file() {
    let loaded = from_file(EVERY_SETTING).unwrap();
    assert!(
        SETTINGS
            .iter()
            .all(|setting| loaded.origin(setting.key) != Origin::Default)
    );
    assert_eq!(loaded.config.server.workers, Some(4));
    assert_eq!(
        loaded.config.database.location,
        Some(Location::Sqlite("/srv/claviger/db".into()))
    );
    assert_eq!(
        loaded.config.network.allow_address[1].to_string(),
        "10.1.2.3/32"
    );
    assert_eq!(loaded.config.keys.provider, KeyProvider::Pkcs11);
    assert_eq!(loaded.config.keys.pkcs11.slot, Some(3));
    let least = loaded.config.limits.least_rate;
    assert_eq!((least.bytes_per_second, least.over.as_secs()), (None, 60));
    assert_eq!(loaded.config.log.format, LogFormat::Json);
    assert_eq!(loaded.config.people.sign_up, SignUp::Open);
    let oidc = &loaded.config.oidc;
    assert_eq!(
        oidc.issuer.as_ref().unwrap().as_str(),
        "https://accounts.google.com"
    );
    assert_eq!(oidc.allowed_domains, ["example.org"]);
    assert_eq!(oidc.allowed_emails, ["ada@else.example"]);
}

#[test]
fn an_identity_provider_is_whole_or_none() {
    let mistake = |text: &str| messages(&from_file(text).unwrap_err()).remove(0);
    let lone = mistake("[oidc]\nallowed_domains = [\"example.org\"]\n");
    assert!(
        lone.starts_with("claviger.toml:2: oidc.allowed_domains is of no use without oidc.issuer"),
        "{lone}"
    );
    let half = mistake("[oidc]\nissuer = \"https://id.example.org\"\n");
    assert!(half.contains("oidc.issuer needs oidc.client_id"), "{half}");
    for wrong in [
        "issuer = \"id.example.org\"",
        "issuer = \"https://id.example.org?x\"",
        "client_id = \"\"",
        "client_id = \"a b\"",
        "redirect_url = \"http://keys.example.org/v1/auth/oidc/callback\"",
        "redirect_url = \"https://keys.example.org/elsewhere\"",
        "allowed_domains = [\"@example.org\"]",
        "allowed_domains = [\"org\"]",
        "allowed_emails = [\"ada\"]",
        "sign_up = \"closed\"",
        "client_secret = \"x\"",
    ] {
        let found = mistake(&format!("[oidc]\n{wrong}\n"));
        assert!(found.starts_with("claviger.toml:2: "), "{wrong}: {found}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_lines() {
    let mistakes = from_file(
        "[server]\napi = \"localhost\"\nport = 1\nworkers = \"4\"\n\n[cache]\nttl = \"30\"\n[netwrok]\nx = 1\n[network]\nresolve = \"a:1=1.2.3.4:5\"\n",
    )
    .unwrap_err();
    let found = messages(&mistakes);
    assert_eq!(
        found,
        [
            "claviger.toml:2: server.api: `localhost` is no address and port, as 127.0.0.1:8181 or [::1]:8181",
            "claviger.toml:3: `server.port` is no setting; there are: server.data, server.node, server.api, server.proxy, server.workers, server.drain, server.api_tls_certificate, server.api_tls_key, server.proxy_tls_certificate, server.proxy_tls_key, server.proxy_tls_names, server.allow_plaintext_listener, server.injectors",
            "claviger.toml:4: server.workers takes a whole number, not string",
            "claviger.toml:7: cache.ttl: `30` has no unit: write it as 30s, 15m, 8h or 2d",
            "claviger.toml:8: `netwrok` is no section; there are: server, database, ledger, network, providers, cache, keys, limits, quotas, people, audit, telemetry, webhooks, oidc, log",
            "claviger.toml:11: network.resolve takes a list of strings, not string",
        ]
    );
}

#[test]
fn text_that_is_no_toml_is_reported_beside_the_other_mistakes() {
    let mistakes = from_file("[server]\napi = \napi2 = 1\n").unwrap_err();
    let found = messages(&mistakes);
    assert!(
        found
            .iter()
            .any(|message| message.starts_with("claviger.toml:2: ")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|message| message.contains("server.api2")),
        "{found:?}"
    );
}

#[test]
fn options_win_over_variables_and_variables_over_the_file() {
    let variables = [
        ("CLAVIGER_API".to_owned(), "127.0.0.1:2".to_owned()),
        (
            "CLAVIGER__SERVER__PROXY".to_owned(),
            "127.0.0.1:3".to_owned(),
        ),
        (
            "CLAVIGER_RESOLVE".to_owned(),
            "a:1=1.2.3.4:5, b:1=1.2.3.4:6".to_owned(),
        ),
    ];
    let overrides = vec![
        ("server.proxy", "--proxy", vec!["127.0.0.1:4".to_owned()]),
        ("cache.ttl", "--cache-ttl", Vec::new()),
    ];
    let file = "[server]\napi = \"127.0.0.1:1\"\nproxy = \"127.0.0.1:1\"\n[cache]\nttl = \"5s\"\n";
    let loaded =
        Loaded::from_sources(Some((Path::new("c.toml"), file)), &variables, &overrides).unwrap();
    assert_eq!(loaded.config.server.api.port(), 2);
    assert_eq!(loaded.config.server.proxy.port(), 4);
    assert_eq!(loaded.config.network.resolve.len(), 2);
    assert_eq!(
        loaded.origin("server.api"),
        Origin::Variable("CLAVIGER_API".to_owned())
    );
    assert_eq!(loaded.origin("server.proxy"), Origin::Option("--proxy"));
    assert_eq!(loaded.origin("cache.ttl").to_string(), "c.toml:5");
}

#[test]
fn an_unknown_variable_of_a_section_is_a_mistake() {
    let variables = [("CLAVIGER__SERVER__PORT".to_owned(), "1".to_owned())];
    let mistakes = Loaded::from_sources(None, &variables, &Vec::new()).unwrap_err();
    assert!(
        messages(&mistakes)[0].starts_with("CLAVIGER__SERVER__PORT: `server.port` is no setting")
    );
}

#[test]
fn no_message_and_no_listing_repeats_a_password_in_a_url() {
    let message = checked("database.url")("postgres://user:hunter22@db/claviger?sslmode=disable")
        .unwrap_err();
    assert!(message.contains("in the clear"), "{message}");
    assert!(!message.contains("hunter22"));
    let loaded = from_file("[database]\nurl = \"postgres://user:hunter22@db/claviger\"\n").unwrap();
    assert!(!loaded.effective().to_string().contains("hunter22"));
    let message = checked("database.url")("mysql://user:hunter22@db/claviger").unwrap_err();
    assert!(!message.contains("hunter22"));
}

#[test]
fn a_database_password_that_other_processes_can_read_is_noticed() {
    let given = |url: &str| {
        let overrides = vec![("database.url", "--database", vec![url.to_owned()])];
        Loaded::from_sources(None, &[], &overrides).unwrap()
    };
    let exposed = given("postgres://user:hunter22@127.0.0.1/claviger").exposed_password();
    assert_eq!(exposed, Some(Origin::Option("--database")));
    assert_eq!(
        given("postgres://user@127.0.0.1/claviger").exposed_password(),
        None
    );
    let file = from_file("[database]\nurl = \"postgres://user:hunter22@127.0.0.1/claviger\"\n");
    assert_eq!(file.unwrap().exposed_password(), None);
}

#[test]
fn the_cache_keeps_no_secret_beyond_a_minute() {
    assert!(checked("cache.ttl")("60s").is_ok());
    assert!(checked("cache.ttl")("61s").is_err());
}

#[test]
fn the_effective_configuration_names_each_values_origin() {
    let loaded = from_file("[cache]\nttl = \"5s\"\n").unwrap();
    let effective = loaded.effective();
    assert_eq!(
        effective["cache"]["ttl"],
        json!({ "value": "5s", "origin": "claviger.toml:2" })
    );
    assert_eq!(
        effective["server"]["api"],
        json!({ "value": "127.0.0.1:8181", "origin": "default" })
    );
}
