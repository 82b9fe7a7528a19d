use super::*;
use crate::host::Scheme;
use crate::template::{Inject, KeyUse};

const GOOD: &str = r#"
name  = "acme"
docs  = "https://acme.example/docs"
hosts = ["api.acme.example", "*.eu.acme.example:8443"]
keys  = { ACME_KEY = "required", ACME_TEAM = "optional", ACME_HOOK = "never_sent" }
env   = { ACME_API_KEY = "ACME_KEY" }

[[inject]]
header = "X-Api-Key"
value  = "Key ${ACME_KEY}"

[[inject]]
header = "x-team"
value  = "${ACME_TEAM}"
hosts  = ["api.acme.example"]
paths  = ["/v1/**"]
"#;

fn mistakes(text: &str) -> Vec<String> {
    let errors = parse_template("acme.toml", text).expect_err("the template has mistakes");
    errors.0.iter().map(ToString::to_string).collect()
}

/// The good template with one line replaced, and the mistakes that this makes.
fn with(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    mistakes(&GOOD.replacen(from, to, 1))
}

#[test]
fn a_good_template_is_read() {
    let template = parse_template("acme.toml", GOOD).unwrap();
    assert_eq!(template.name(), "acme");
    assert_eq!(template.keys()["ACME_HOOK"], KeyUse::NeverSent);
    assert!(
        template
            .endpoint(Scheme::Https, "x.eu.acme.example", 8443)
            .is_some()
    );
    assert!(
        template
            .endpoint(Scheme::Https, "x.eu.acme.example", 443)
            .is_none()
    );
    assert!(
        template
            .endpoint(Scheme::Http, "api.acme.example", 443)
            .is_none()
    );
    let [key, team] = template.injections() else {
        panic!("two injections")
    };
    assert!(matches!(&key.inject, Inject::Header { name, .. } if name == "x-api-key"));
    assert!(
        team.applies("api.acme.example", "/v1/a/b") && !team.applies("api.acme.example", "/v2")
    );
    assert!(!team.applies("x.eu.acme.example", "/v1/a"));
    assert_eq!(template.secret_slots(), ["x-api-key", "x-team"]);
}

#[test]
fn every_mistake_is_reported_with_its_line_and_field() {
    let text = r#"name  = "Acme!"
docs  = "http://acme.example"
hosts = ["api.acme.example", "127.1", "API.acme.example.", "https://u@x.example"]
keys  = { ACME_KEY = "required", ACME_HOOK = "never_sent", "9" = "sometimes", IDLE = "optional" }
env   = { HTTPS_PROXY = "ACME_KEY", ACME_HOOK = "ACME_HOOK", ACME = "OTHER" }
colour = "red"
identifiers = ["NOBODY"]
placeholders = { ACME_KEY = "sk-live-1234" }
strip = ["cookie", "bad name"]
strip_query = ["a&b"]

[[inject]]
header = "host"
value  = "${ACME_KEY}"

[[inject]]
header = "x-key"
value  = "${ACME_KEY}${ACME_HOOK}${NOT_THERE}"
hosts  = ["other.example"]
paths  = ["v1", "/a*b"]

[[inject]]
header = "x-key"
basic  = { user = "a:b", pass = "${ACME_KEY}" }

[[inject]]
query = "key"
value = "a\r\nb ${ACME_KEY"
"#;
    insta::assert_snapshot!(mistakes(text).join("\n"));
}

#[test]
fn every_syntax_error_is_reported_with_its_line() {
    let found = mistakes("name = \nhosts = [\"a.example\"]\nkeys = { A = }\ncolour = 1\n");
    assert!(
        found
            .iter()
            .any(|m| m.starts_with("acme.toml:1: file: is not TOML here")),
        "{found:#?}"
    );
    assert!(
        found
            .iter()
            .any(|m| m.starts_with("acme.toml:3: file: is not TOML here")),
        "{found:#?}"
    );
    assert!(
        found
            .iter()
            .any(|m| m.starts_with("acme.toml:4: colour: is not a known field")),
        "{found:#?}"
    );
}

#[test]
fn an_empty_file_lacks_everything() {
    insta::assert_snapshot!(mistakes("").join("\n"));
}

#[test]
fn a_field_of_the_wrong_type_is_refused() {
    assert_eq!(
        with("name  = \"acme\"", "name = 7"),
        [
            "acme.toml:2: name: is integer; write a string",
            "acme.toml:1: file: has no `name`; add one, as in `name = \"stripe\"`",
        ]
        .map(str::to_owned)
        .into_iter()
        .rev()
        .collect::<Vec<_>>()
    );
    assert!(
        with(
            "[\"api.acme.example\", \"*.eu.acme.example:8443\"]",
            "\"api.acme.example\""
        )
        .contains(&"acme.toml:4: hosts: is string; write a list of strings".to_owned())
    );
    assert!(
        with("paths  = [\"/v1/**\"]", "paths = [1]")
            .contains(&"acme.toml:16: inject[1].paths[0]: is integer; write a string".to_owned())
    );
}

#[test]
fn headers_that_frame_route_or_belong_to_one_hop_are_no_slots() {
    for name in [
        "host",
        "Host",
        "content-length",
        "Content_Length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "proxy-authorization",
        "Proxy-Connection",
        "proxy_authenticate",
        "cookie",
        "_Cookie",
        "set-cookie",
        "expect",
        "range",
        "x-forwarded-host",
        "X_Forwarded_For",
        "forwarded",
        "x-original-url",
        "x-http-method-override",
        "sec-websocket-key",
    ] {
        let found = with("X-Api-Key", name);
        assert!(
            matches!(&found[..], [one] if one.starts_with("acme.toml:9: inject[0].header: cannot be a slot")),
            "{name}: {found:?}"
        );
    }
    for name in ["", "a b", "x:y", "x\\r\\ny", "é"] {
        let found = with("X-Api-Key", name);
        assert!(
            found[0].contains("is not a header's name"),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn a_slot_is_filled_once() {
    let twin = with("x-team", "x_api_key");
    assert_eq!(
        twin,
        [
            "acme.toml:12: inject[1]: fills a slot that inject[0] fills on the same hosts; remove one or give each its `hosts`"
        ]
    );
    let apart = GOOD.replace("x-team", "x-api-key").replace(
        "Key ${ACME_KEY}\"",
        "Key ${ACME_KEY}\"\nhosts = [\"*.eu.acme.example:8443\"]",
    );
    assert!(parse_template("acme.toml", &apart).is_ok());
}

#[test]
fn text_that_would_begin_a_new_header_is_refused() {
    for value in [
        "${ACME_KEY}\\r\\nx: y",
        "${ACME_KEY}\\n",
        "${ACME_KEY}\\u0000",
        "é${ACME_KEY}",
        "${ACME_KEY}\\u007f",
    ] {
        let found = with("Key ${ACME_KEY}", value);
        assert!(
            found
                .iter()
                .any(|m| m.contains("line break, a control character or non-ASCII")),
            "{value:?}: {found:?}"
        );
    }
    assert!(with("Key ${ACME_KEY}", " ${ACME_KEY}")[0].contains("begins or ends with a space"));
}

#[test]
fn a_value_refers_to_keys_that_travel() {
    assert!(
        with("Key ${ACME_KEY}", "Key ${ACME_HOOK}")
            .iter()
            .any(|m| m.contains("injects `ACME_HOOK`, which is never sent"))
    );
    assert!(
        with("Key ${ACME_KEY}", "Key ${ACME_KE}")
            .iter()
            .any(|m| m.contains("refers to `ACME_KE`, which is not in `keys`"))
    );
    assert!(
        with("Key ${ACME_KEY}", "Key ${ACME_KEY")
            .iter()
            .any(|m| m.contains("holds `${` without `}`"))
    );
    assert!(
        with("Key ${ACME_KEY}", "Key")
            .iter()
            .any(|m| m.contains("without a key"))
    );
    assert!(
        with(
            "ACME_TEAM = \"optional\"",
            "ACME_TEAM = \"optional\", IDLE = \"required\""
        )[0]
        .contains("keys.IDLE: is in no `[[inject]]`")
    );
}

#[test]
fn an_injection_is_one_thing() {
    assert!(with("value  = \"Key ${ACME_KEY}\"", "")[0].contains("has no `value`"));
    assert!(
        with("header = \"X-Api-Key\"", "query = \"k\"\nheader = \"x-k\"")
            .iter()
            .any(|m| m.contains("exactly one of"))
    );
    assert!(
        with("header = \"X-Api-Key\"\nvalue  = \"Key ${ACME_KEY}\"", "")
            .iter()
            .any(|m| m.contains("exactly one of"))
    );
}

#[test]
fn sigv4_stands_alone_and_needs_region_and_service_where_the_host_says_none() {
    let template = |hosts: &str, more: &str, rest: &str| {
        format!(
            "name = \"s\"\nhosts = [{hosts}]\nkeys = {{ ID = \"required\", SECRET = \"required\" }}\n[[inject]]\n\
             sigv4 = {{ access_key_id = \"${{ID}}\", secret_access_key = \"${{SECRET}}\"{more} }}\n{rest}"
        )
    };
    let fixed = ", regions = [\"us-east-1\"], services = [\"s3\"]";
    assert!(parse_template("s.toml", &template("\"**.amazonaws.com\"", "", "")).is_ok());
    assert!(parse_template("s.toml", &template("\"minio.example\"", fixed, "")).is_ok());
    assert!(
        mistakes(&template("\"minio.example\"", "", ""))[0]
            .contains("list both in `sigv4.regions` and `sigv4.services`")
    );
    let two = template(
        "\"**.amazonaws.com\"",
        "",
        "[[inject]]\nheader = \"x-k\"\nvalue = \"${ID}\"\n",
    );
    assert!(mistakes(&two)[0].contains("must stand alone"));
    let text = template("\"**.amazonaws.com\"", "", "").replace("\"${ID}\"", "\"x${ID}\"");
    assert!(mistakes(&text)[0].contains("must be one key and nothing else"));
    let optional = template("\"**.amazonaws.com\"", "", "")
        .replace("SECRET = \"required\"", "SECRET = \"optional\"");
    assert!(mistakes(&optional)[0].contains("mark it \"required\""));
}

#[test]
fn bounds_hold() {
    assert!(mistakes(&"#".repeat(64 * 1024 + 1))[0].contains("longer than"));
    let hosts: Vec<String> = (0..65).map(|n| format!("\"h{n}.example\"")).collect();
    let many = GOOD.replace(
        "\"api.acme.example\", ",
        &format!("\"api.acme.example\", {}, ", hosts.join(", ")),
    );
    assert!(mistakes(&many)[0].contains("more than 64 hosts"));
    let nested = format!("name = {}", "[".repeat(20_000));
    assert!(!mistakes(&nested).is_empty());
}

fn custom(json: serde_json::Value) -> CustomSpec {
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_custom_set_carries_its_own_template() {
    let spec = custom(serde_json::json!({
        "hosts": ["https://internal.example:8443"],
        "inject": [
            { "header": "authorization", "value": "Token ${MY_KEY}" },
            { "query": "team", "value": "${TEAM}" },
        ],
        "env": { "MY_API_KEY": "MY_KEY" },
    }));
    let template = spec
        .to_template("custom/prod/x", ["MY_KEY", "TEAM", "NOTE"])
        .unwrap();
    assert_eq!(template.name(), "custom");
    assert_eq!(template.keys()["NOTE"], KeyUse::NeverSent);
    assert_eq!(template.keys()["TEAM"], KeyUse::Required);
    assert!(
        template
            .endpoint(Scheme::Https, "internal.example", 8443)
            .is_some()
    );
    assert_eq!(
        serde_json::from_value::<CustomSpec>(serde_json::to_value(&spec).unwrap()).unwrap(),
        spec
    );
}

#[test]
fn a_custom_set_may_use_basic_and_sigv4() {
    let basic = custom(serde_json::json!({
        "hosts": ["git.example"],
        "inject": [{ "basic": { "user": "bot", "password": "${PASSWORD}" }, "paths": ["/**/info/refs"] }],
    }));
    assert!(basic.to_template("s", ["PASSWORD"]).is_ok());
    let sigv4 = custom(serde_json::json!({
        "hosts": ["minio.example:9000"],
        "inject": [{ "sigv4": {
            "access_key_id": "${ID}", "secret_access_key": "${SECRET}", "regions": ["us-east-1"], "services": ["s3"],
        }}],
    }));
    assert!(sigv4.to_template("s", ["ID", "SECRET"]).is_ok());
}

#[test]
fn mistakes_of_a_custom_set_name_set_and_field() {
    let spec = custom(serde_json::json!({
        "hosts": ["127.1"],
        "inject": [{ "header": "host", "value": "${MY_KEY}" }, { "value": "x" }],
        "env": { "PATH": "OTHER" },
    }));
    let errors = spec.to_template("custom/prod/x", ["MY_KEY"]).unwrap_err();
    insta::assert_snapshot!(errors.to_string());
}

#[test]
fn an_unknown_field_of_a_custom_set_is_refused() {
    let unknown = serde_json::json!({ "hosts": ["a.example"], "inject": [{ "headers": "x" }] });
    assert!(
        serde_json::from_value::<CustomSpec>(unknown)
            .unwrap_err()
            .to_string()
            .contains("headers")
    );
}

#[test]
fn a_field_without_a_name_can_be_found() {
    for text in ["[[\n", "\"\" = 1", "[keys]\n\"\" = 1"] {
        let errors = parse_template("x", text).unwrap_err();
        for mistake in errors.0 {
            assert!(mistake.line > 0 && !mistake.field.is_empty(), "{mistake:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "(name|hosts|keys|inject|[\\[\\]{}=\"$.\\n ,a-z0-9])*") {
        let _ = parse_template("x", &text);
    }
}

const RULES: &str = r#"
[[deny]]
why     = "makes API keys"
methods = ["POST"]
paths   = ["/v1/keys", "/v1/*/tokens"]

[presets.read-only]
about   = "Reads everything"
methods = ["GET", "HEAD"]
hosts   = ["api.acme.example"]
paths   = ["/v1/**"]
"#;

#[test]
fn denials_and_presets_are_read() {
    let template = parse_template("acme.toml", &format!("{GOOD}{RULES}")).unwrap();
    let [denial] = template.denials() else {
        panic!("one denial")
    };
    assert_eq!(denial.why(), "makes API keys");
    assert_eq!(denial.methods(), ["POST"]);
    assert_eq!(denial.paths()[1].as_str(), "/v1/*/tokens");
    let preset = &template.presets()["read-only"];
    assert_eq!(preset.methods, ["GET", "HEAD"]);
    assert_eq!(preset.paths, ["/v1/**"]);
    assert_eq!(preset.hosts.len(), 1);
}

#[test]
fn every_mistake_in_denials_and_presets_is_reported_with_its_line() {
    let rules = r#"
[[deny]]
methods = ["post", "TRACE"]
colour  = "red"

[[deny]]
why   = "makes keys\n"
hosts = ["other.example"]
paths = ["v1", "/**", "/a//b", "/a%20b", "/a**", "/v1/keys"]

[presets.Read_Only]
about = 7

[presets.minting]
about = "Makes keys"
paths = ["/v1/keys", "/v1/**?x"]
"#;
    insta::assert_snapshot!(mistakes(&format!("{GOOD}{rules}")).join("\n"));
}

#[test]
fn places_beyond_headers_are_read_with_their_mistakes() {
    let inject = "header = \"X-Api-Key\"\nvalue  = \"Key ${ACME_KEY}\"";
    for (good, slot) in [
        (
            "path = \"/bot${ACME_KEY}/**\"",
            "the path `/bot${ACME_KEY}/**`",
        ),
        (
            "path = \"/a/*/${ACME_KEY}.json\"",
            "the path `/a/*/${ACME_KEY}.json`",
        ),
        (
            "cookie = \"sid\"\nvalue = \"${ACME_KEY}\"",
            "the cookie `sid`",
        ),
        (
            "form = \"key\"\nvalue = \"${ACME_KEY}\"",
            "the form field `key`",
        ),
        (
            "json = \"/a~1b/c\"\nvalue = \"${ACME_KEY}\"",
            "the JSON field `/a~1b/c`",
        ),
    ] {
        let template = parse_template("acme.toml", &GOOD.replacen(inject, good, 1)).unwrap();
        assert_eq!(template.injections()[0].inject.slot(), slot);
    }
    for (bad, mistake) in [
        ("path = \"bot${ACME_KEY}\"", "is not a path with one key"),
        ("path = \"/a\"", "is not a path with one key"),
        (
            "path = \"/${ACME_KEY}/${ACME_KEY}\"",
            "is not a path with one key",
        ),
        ("path = \"/**/${ACME_KEY}\"", "is not a path with one key"),
        ("path = \"/a*/${ACME_KEY}\"", "is not a path with one key"),
        ("path = \"/a//${ACME_KEY}\"", "is not a path with one key"),
        ("path = \"/${ACME_KEY}?q\"", "is not a path with one key"),
        ("path = \"/${ACME_HOOK}\"", "which is never sent"),
        (
            "path = \"/${ACME_KEY}\"\npaths = [\"/a\"]",
            "belongs to no `path`",
        ),
        (
            "cookie = \"a b\"\nvalue = \"${ACME_KEY}\"",
            "is not a cookie's name",
        ),
        (
            "form = \"a&b\"\nvalue = \"${ACME_KEY}\"",
            "is not a field's name",
        ),
        (
            "json = \"a\"\nvalue = \"${ACME_KEY}\"",
            "is not a JSON pointer",
        ),
        (
            "json = \"/a~2\"\nvalue = \"${ACME_KEY}\"",
            "is not a JSON pointer",
        ),
        ("json = \"/a\"", "has no `value`"),
        (
            "client_certificate = { certificate = \"${ACME_KEY}\" }",
            "has no `key`",
        ),
        (
            "client_certificate = { certificate = \"${ACME_KEY}\", key = \"x${ACME_KEY}\" }",
            "must be one key",
        ),
        (
            "cookie = \"a\"\nform = \"b\"\nvalue = \"${ACME_KEY}\"",
            "must hold exactly one",
        ),
    ] {
        let found = mistakes(&GOOD.replacen(inject, bad, 1));
        assert!(
            found.iter().any(|m| m.contains(mistake)),
            "{bad}: {found:#?}"
        );
    }
}

#[test]
fn fields_of_a_body_that_lie_within_each_other_are_one_slot() {
    let inject = "header = \"X-Api-Key\"\nvalue  = \"Key ${ACME_KEY}\"";
    let field = |pointer: &str| format!("json = \"{pointer}\"\nvalue = \"${{ACME_KEY}}\"");
    for (one, other, is_one) in [
        ("/auth", "/auth/key", true),
        ("/auth/key", "/auth", true),
        ("/auth/key", "/auth/key", true),
        ("/auth/key", "/auth/token", false),
        ("/auth", "/authority", false),
    ] {
        let two = format!("{}\n\n[[inject]]\n{}", field(one), field(other));
        let told = match parse_template("acme.toml", &GOOD.replacen(inject, &two, 1)) {
            Ok(_) => String::new(),
            Err(mistakes) => mistakes.to_string(),
        };
        assert_eq!(
            told.contains("fills a slot that"),
            is_one,
            "{one} {other}: {told}"
        );
    }
}

#[test]
fn a_keyed_hash_is_read_with_its_mistakes() {
    let inject = "header = \"X-Api-Key\"\nvalue  = \"Key ${ACME_KEY}\"";
    let hmac = |fields: &str| GOOD.replacen(inject, &format!("hmac = {{ {fields} }}"), 1);
    let good = hmac(
        "key = \"${ACME_KEY}\", over = \"{time}{method}{host}{path}{query}{newline}{target}{body}{body_sha256}\", header = \"x-sign\", time_header = \"x-time\"",
    );
    let template = parse_template("acme.toml", &good).unwrap();
    assert_eq!(template.secret_slots()[..2], ["x-time", "x-sign"]);
    for (bad, mistake) in [
        ("over = \"{method}\", header = \"x-sign\"", "has no `key`"),
        (
            "key = \"${ACME_KEY}\", over = \"constant\", header = \"x-sign\"",
            "is not what is signed",
        ),
        (
            "key = \"${ACME_KEY}\", over = \"{verb}\", header = \"x-sign\"",
            "is not what is signed",
        ),
        (
            "key = \"${ACME_KEY}\", over = \"{method\", header = \"x-sign\"",
            "is not what is signed",
        ),
        (
            "key = \"x${ACME_KEY}\", over = \"{method}\", header = \"x-sign\"",
            "must be one key",
        ),
        (
            "key = \"${ACME_KEY}\", over = \"{method}\", header = \"host\"",
            "cannot be a slot",
        ),
        (
            "key = \"${ACME_KEY}\", over = \"{method}\", header = \"x-sign\", encoding = \"rot13\"",
            "is neither",
        ),
        (
            "key = \"${ACME_KEY}\", over = \"{method}\", header = \"x-sign\", colour = \"red\"",
            "is not a known field",
        ),
    ] {
        let found = mistakes(&hmac(bad));
        assert!(
            found.iter().any(|m| m.contains(mistake)),
            "{bad}: {found:#?}"
        );
    }
}

#[test]
fn recipes_are_read_with_their_mistakes() {
    let make = |fields: &str| {
        let text = GOOD.replace("Key ${ACME_KEY}", "Bearer ${MADE}");
        format!("{text}\n[[make]]\nkey = \"MADE\"\n{fields}\n")
    };
    let client =
        "grant = \"client_credentials\"\nurl = \"https://a.example/t\"\nclient_id = \"id\"\n";
    let good = format!("{client}client_secret = \"${{ACME_KEY}}\"");
    let template = parse_template("acme.toml", &make(&good)).unwrap();
    assert_eq!(template.recipes()[0].key(), "MADE");
    assert!(!template.keys().contains_key("MADE"), "no set holds it");
    assert_eq!(template.sent_keys(), ["ACME_KEY", "ACME_TEAM"]);
    for (bad, mistake) in [
        ("grant = \"magic\"".to_owned(), "is not a grant"),
        ("url = \"https://a.example/t\"".to_owned(), "has no `grant`"),
        (client.to_owned(), "is in no `[[inject]]` and no `[[make]]`"),
        (
            good.replace("https", "http"),
            "is not where tokens are handed out",
        ),
        (
            good.replace("a.example/t", "${ACME_KEY}.example/t"),
            "is not where tokens are handed out",
        ),
        (
            good.replace("a.example/t", "a.example"),
            "is not where tokens are handed out",
        ),
        (
            good.replace("${ACME_KEY}", "${ACME_HOOK}"),
            "which is never sent",
        ),
        (
            good.replace("${ACME_KEY}", "${MADE}"),
            "which is made itself",
        ),
        (
            format!("{good}\nissuer = \"me\""),
            "belongs to no `client_credentials`",
        ),
        (format!("{good}\nclient_auth = \"magic\""), "does not fit"),
        (
            format!(
                "{client}client_auth = \"private_key_jwt\"\nalgorithm = \"none\"\nprivate_key = \"${{ACME_KEY}}\""
            ),
            "is not an algorithm",
        ),
        (
            "grant = \"jwt\"\nalgorithm = \"ES256\"\nprivate_key = \"${ACME_KEY}\"\nttl = \"2d\""
                .to_owned(),
            "is not how long",
        ),
        (
            "grant = \"refresh_token\"\nurl = \"https://a.example/t\"\nclient_id = \"${ACME_KEY}\""
                .to_owned(),
            "has no `refresh_token`",
        ),
        (format!("{good}\ncolour = \"red\""), "is not a known field"),
    ] {
        let found = mistakes(&make(&bad));
        assert!(
            found.iter().any(|m| m.contains(mistake)),
            "{bad}: {found:#?}"
        );
    }
    let taken = make(&good).replace("\"MADE\"", "\"ACME_KEY\"");
    assert!(
        mistakes(&taken)
            .iter()
            .any(|m| m.contains("is a stored key, or made twice"))
    );
}

#[test]
fn usage_is_a_form_that_is_known() {
    let counted = GOOD.replacen("docs ", "usage = \"anthropic\"\ndocs ", 1);
    let template = parse_template("acme.toml", &counted).unwrap();
    assert_eq!(template.usage(), Some(crate::usage::Format::Anthropic));
    assert_eq!(parse_template("acme.toml", GOOD).unwrap().usage(), None);
    let told = with("docs ", "usage = \"tokens\"\ndocs ");
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("acme.toml:3: usage: is no form of usage that is known (openai,"),
        "{told:?}"
    );
}

#[test]
fn cookies_pass_where_a_template_says_so_or_its_key_is_one() {
    let template = |fields: &str, slot: &str| {
        format!(
            "name = \"acme\"\nhosts = [\"acme.example\"]\nkeys = {{ K = \"required\" }}\n{fields}\n[[inject]]\n{slot}\nvalue = \"${{K}}\"\n"
        )
    };
    let (header, cookie) = ("header = \"x-k\"", "cookie = \"session\"");
    for (fields, slot, passes) in [
        ("", header, false),
        ("cookies = \"pass\"", header, true),
        ("", cookie, true),
        ("cookies = \"drop\"", cookie, false),
    ] {
        let template = parse_template("acme.toml", &template(fields, slot)).unwrap();
        assert_eq!(template.passes_cookies(), passes, "{fields} {slot}");
    }
    let TemplateErrors(mistakes) =
        parse_template("acme.toml", &template("cookies = \"keep\"", header)).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert_eq!((mistakes[0].line, &*mistakes[0].field), (4, "cookies"));
    assert!(mistakes[0].message.contains("\"drop\" or \"pass\""));
}

#[test]
fn a_denial_by_method_names_its_methods() {
    let text = "name = \"acme\"\nhosts = [\"acme.example\"]\nkeys = { K = \"required\" }\n[[inject]]\nheader = \"x-k\"\nvalue = \"${K}\"\n[[deny]]\nwhy = \"deletes a site\"\nby_method = true\npaths = [\"/sites/*\"]\n";
    let TemplateErrors(mistakes) = parse_template("acme.toml", text).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0].message.contains("names no `methods`"),
        "{mistakes:?}"
    );
}
