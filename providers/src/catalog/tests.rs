mod denials;

use super::*;

#[test]
fn every_built_in_template_loads_under_its_file_name() {
    let catalog = Catalog::builtin();
    assert_eq!(catalog.iter().count(), BUILTIN.len());
    for (file, _) in BUILTIN {
        let name = file
            .trim_start_matches("templates/")
            .trim_end_matches(".toml");
        let template = catalog.get(name).unwrap_or_else(|| panic!("{file}"));
        assert!(template.docs().starts_with("https://"), "{name}");
    }
}

#[test]
fn no_built_in_template_sends_in_clear_or_elsewhere_than_443() {
    for template in Catalog::builtin().iter() {
        for rule in template.hosts() {
            // Qdrant Cloud serves its REST API, under TLS, at its own port.
            let is_qdrant = template.name() == "qdrant" && rule.port() == 6333;
            let is_443 = rule.port() == 443 || is_qdrant;
            assert!(
                rule.scheme() == Scheme::Https && is_443,
                "{}: {rule}",
                template.name()
            );
        }
    }
}

#[test]
fn a_host_finds_its_template() {
    let catalog = Catalog::builtin();
    let names = |host: &str, port| -> Vec<String> {
        catalog
            .for_host(host, port)
            .iter()
            .map(|template| template.name().to_owned())
            .collect()
    };
    assert_eq!(names("api.stripe.com", 443), ["stripe"]);
    assert_eq!(names("bucket.s3.eu-west-1.amazonaws.com", 443), ["aws"]);
    assert!(names("api.stripe.com", 8443).is_empty());
    assert!(names("stripe.com", 443).is_empty());
    assert!(catalog.get("nobody").is_none());
}

#[test]
fn no_two_built_in_templates_share_a_host_but_for_two_kinds_of_account() {
    let catalog = Catalog::builtin();
    let kinds = [
        ["gemini", "google-service-account"],
        ["github", "github-app"],
    ];
    for template in catalog.iter() {
        for host in template.hosts().iter().filter_map(|rule| rule.exact()) {
            let found = catalog.for_host(host.as_str(), 443);
            let names: Vec<&str> = found.iter().map(|template| template.name()).collect();
            let is_known = names.len() == 1 || kinds.iter().any(|kind| kind[..] == names[..]);
            assert!(is_known, "{host}: {names:?}");
        }
    }
}

const ACME: &str = "name = \"acme\"\nhosts = [\"acme.example\"]\nkeys = { K = \"required\" }\n[[inject]]\nheader = \"x-k\"\nvalue = \"${K}\"\n";

#[test]
fn a_directory_adds_templates_and_may_replace_built_in_ones() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("acme.toml"), ACME).unwrap();
    std::fs::write(
        dir.path().join("stripe.toml"),
        ACME.replace("acme", "stripe"),
    )
    .unwrap();
    std::fs::write(dir.path().join("README"), "not a template").unwrap();
    let mut catalog = Catalog::builtin();
    catalog.load_dir(dir.path()).unwrap();
    assert!(catalog.get("acme").is_some());
    assert_eq!(
        catalog.get("stripe").unwrap().hosts()[0].pattern(),
        "stripe.example"
    );
}

#[test]
fn the_mistakes_of_all_files_are_reported_and_nothing_is_added() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.toml"), ACME).unwrap();
    std::fs::write(dir.path().join("b.toml"), ACME).unwrap();
    std::fs::write(dir.path().join("c.toml"), ACME.replace("x-k", "host")).unwrap();
    let mut catalog = Catalog::builtin();
    let Err(CatalogError::Templates(TemplateErrors(mistakes))) = catalog.load_dir(dir.path())
    else {
        panic!("mistakes")
    };
    assert_eq!(mistakes.len(), 2);
    assert!(mistakes[0].file.ends_with("b.toml") && mistakes[0].message.contains("a.toml"));
    assert!(mistakes[1].file.ends_with("c.toml") && mistakes[1].field == "inject[0].header");
    assert!(catalog.get("acme").is_none());
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = Catalog::builtin()
        .load_dir(Path::new("/nonexistent/providers"))
        .unwrap_err();
    assert!(error.to_string().contains("/nonexistent/providers"));
}

#[test]
fn prices_beside_the_templates_replace_those_of_their_providers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prices.toml");
    let own = "as_of = \"2026-11-22\"\n[provider.acme]\nmodels = [{ names = [\"*\"], input = \"1\", output = \"2\" }]\n";
    std::fs::write(&file, own).unwrap();
    let mut catalog = Catalog::builtin();
    assert!(!catalog.prices().knows("acme"));
    catalog.load_dir(dir.path()).unwrap();
    assert!(catalog.prices().knows("acme") && catalog.prices().knows("openai"));
    std::fs::write(&file, "provider = 1").unwrap();
    let Err(CatalogError::Templates(TemplateErrors(mistakes))) = catalog.load_dir(dir.path())
    else {
        panic!("prices with mistakes are taken in");
    };
    assert!(mistakes[0].file.ends_with("prices.toml"), "{mistakes:?}");
    assert!(catalog.prices().knows("acme"), "as it was");
}
