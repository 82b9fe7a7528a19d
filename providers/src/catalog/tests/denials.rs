//! What each template denies, and what it leaves alone: one endpoint for every kind that is denied, and those that its daily
//! work needs.

use super::*;

/// Requests as `METHOD URL`.
struct Row {
    template: &'static str,
    denied: &'static [&'static str],
    allowed: &'static [&'static str],
}

/// Whether the template denies a request to a grant without limits.
fn denied(template: &Template, request: &str) -> Option<String> {
    let (method, host, path) = read(request);
    let rules = template.hosts().iter();
    assert!(
        rules.clone().any(|rule| rule.matches_name(host)),
        "{request} is no request of {}",
        template.name()
    );
    let denied = template.denied(host, method, path, std::iter::empty);
    denied.map(|denied| denied.to_string())
}

fn read(request: &str) -> (&str, &str, &str) {
    let (method, url) = request.split_once(' ').unwrap();
    let rest = url.strip_prefix("https://").unwrap();
    let slash = rest.find('/').unwrap();
    (method, &rest[..slash], &rest[slash..])
}

#[test]
fn what_hands_out_credentials_is_denied_and_daily_work_is_not() {
    let catalog = Catalog::builtin();
    let mut wrong = Vec::new();
    for row in ROWS {
        let template = catalog.get(row.template).unwrap();
        for request in row.denied {
            if denied(&template, request).is_none() {
                wrong.push(format!("{} passes {request}", row.template));
            }
        }
        for request in row.allowed {
            if let Some(why) = denied(&template, request) {
                wrong.push(format!("{} denies {request}: {why}", row.template));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_template_that_denies_something_has_its_row() {
    for template in Catalog::builtin().iter() {
        let has_row = ROWS.iter().any(|row| row.template == template.name());
        assert!(
            template.denials().is_empty() || has_row,
            "{}",
            template.name()
        );
    }
}

/// Whether a preset lets a request pass: its limits, and then what the template denies.
fn preset_allows(template: &Template, preset: &str, request: &str) -> bool {
    let (method, host, path) = read(request);
    let preset = &template.presets()[preset];
    let listed = |list: &[String]| list.iter().any(|it| it == method);
    let is_within = (preset.hosts.is_empty()
        || preset.hosts.iter().any(|rule| rule.matches_name(host)))
        && (preset.methods.is_empty() || listed(&preset.methods))
        && (preset.paths.is_empty() || preset.paths.iter().any(|glob| glob_matches(glob, path)));
    let is_listed = preset.paths.is_empty() || listed(&preset.methods);
    is_within
        && denied(template, request).is_none()
        && (is_listed || template.denied_unlisted(host, method, path).is_none())
}

/// A grant's glob, in the grammar that grants and denials share; these paths hold nothing in which they differ.
fn glob_matches(glob: &str, path: &str) -> bool {
    crate::deny::DeniedPath::new(glob).matches(path)
}

#[test]
fn presets_allow_what_they_say_and_no_more() {
    let catalog = Catalog::builtin();
    let mut wrong = Vec::new();
    for (template, preset, allowed, refused) in PRESETS {
        let template = catalog.get(template).unwrap();
        for (requests, expected) in [(allowed, true), (refused, false)] {
            for request in *requests {
                if preset_allows(&template, preset, request) != expected {
                    let does = if expected { "refuses" } else { "allows" };
                    wrong.push(format!("{} {preset} {does} {request}", template.name()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const ROWS: &[Row] = &[
    Row {
        template: "adyen",
        denied: &[
            "POST https://management-test.adyen.com/v3/merchants/m/apiCredentials/1/generateApiKey",
            "POST https://management-test.adyen.com/v3/me/generateClientKey",
            "POST https://kyc-test.adyen.com/lem/v3/legalEntities/l/onboardingLinks",
        ],
        allowed: &["POST https://checkout-test.adyen.com/v71/payments"],
    },
    Row {
        template: "airtable",
        denied: &["POST https://api.airtable.com/v0/bases/b/webhooks"],
        allowed: &[
            "GET https://api.airtable.com/v0/appX/T",
            "GET https://api.airtable.com/v0/bases/b/webhooks",
        ],
    },
    Row {
        template: "algolia",
        denied: &[
            "GET https://a.algolia.net/1/keys",
            "POST https://a.algolia.net/1/keys",
        ],
        allowed: &["POST https://a.algolia.net/1/indexes/i/query"],
    },
    Row {
        template: "anthropic",
        denied: &[
            "POST https://api.anthropic.com/v1/oauth/token",
            "POST https://api.anthropic.com/api/oauth/claude_cli/create_api_key",
        ],
        allowed: &["POST https://api.anthropic.com/v1/messages"],
    },
    Row {
        template: "apify",
        denied: &["GET https://api.apify.com/v2/users/me"],
        allowed: &["POST https://api.apify.com/v2/acts/a/runs"],
    },
    Row {
        template: "figma",
        denied: &["POST https://api.figma.com/v1/oauth/token"],
        allowed: &["GET https://api.figma.com/v1/files/f"],
    },
    Row {
        template: "klaviyo",
        denied: &["POST https://a.klaviyo.com/oauth/token"],
        allowed: &["POST https://a.klaviyo.com/api/events"],
    },
    Row {
        template: "asana",
        denied: &[
            "POST https://app.asana.com/-/oauth_token",
            "POST https://app.asana.com/api/1.0/webhooks",
        ],
        allowed: &["GET https://app.asana.com/api/1.0/tasks/1"],
    },
    Row {
        template: "assemblyai",
        denied: &["GET https://streaming.assemblyai.com/v3/token"],
        allowed: &["POST https://api.assemblyai.com/v2/transcript"],
    },
    Row {
        template: "atlassian",
        denied: &[
            "POST https://api.atlassian.com/admin/v1/orgs/o/api-keys",
            "POST https://x.atlassian.net/rest/webhooks/1.0/webhook",
            "POST https://api.atlassian.com/ex/jira/c/rest/api/3/webhook",
            "GET https://api.atlassian.com/jsm/ops/api/c/v1/integrations/i",
        ],
        allowed: &[
            "GET https://x.atlassian.net/rest/api/3/issue/A-1",
            "POST https://api.atlassian.com/ex/jira/c/rest/api/3/issue",
        ],
    },
    Row {
        template: "axiom",
        denied: &["POST https://api.axiom.co/v2/tokens/t/regenerate"],
        allowed: &["POST https://api.axiom.co/v1/datasets/d/ingest"],
    },
    Row {
        template: "azure-openai",
        denied: &[
            "POST https://x.cognitiveservices.azure.com/sts/v1.0/issueToken",
            "POST https://x.openai.azure.com/openai/realtimeapi/sessions",
            "POST https://x.openai.azure.com/openai/v1/realtime/client_secrets",
            "POST https://x.services.ai.azure.com/api/projects/p/connections/c/getConnectionWithCredentials",
        ],
        allowed: &["POST https://x.openai.azure.com/openai/deployments/d/chat/completions"],
    },
    Row {
        template: "bitbucket",
        denied: &[
            "POST https://api.bitbucket.org/2.0/repositories/w/r/pipelines-config/runners",
            "POST https://api.bitbucket.org/2.0/workspaces/w/pipelines-config/runners",
            "POST https://api.bitbucket.org/2.0/repositories/w/r/deploy-keys",
            "PUT https://api.bitbucket.org/2.0/repositories/w/r/hooks/1",
            "POST https://bitbucket.org/site/oauth2/access_token",
        ],
        allowed: &[
            "GET https://api.bitbucket.org/2.0/repositories/w/r",
            "POST https://api.bitbucket.org/2.0/repositories/w/r/pullrequests",
            "POST https://bitbucket.org/w/r/git-upload-pack",
        ],
    },
    Row {
        template: "brevo",
        denied: &[
            "POST https://api.brevo.com/v3/corporate/subAccount/key",
            "POST https://api.brevo.com/v3/webhooks",
        ],
        allowed: &["POST https://api.brevo.com/v3/smtp/email"],
    },
    Row {
        template: "buildkite",
        denied: &[
            "POST https://api.buildkite.com/v2/organizations/o/clusters/c/tokens",
            "GET https://api.buildkite.com/v2/organizations/o/pipelines/p/builds/1/jobs/j/env",
        ],
        allowed: &["POST https://api.buildkite.com/v2/organizations/o/pipelines/p/builds"],
    },
    Row {
        template: "circleci",
        denied: &[
            "POST https://circleci.com/api/v2/project/gh/o/r/checkout-key",
            "POST https://circleci.com/api/v1.1/project/gh/o/r/token",
            "POST https://runner.circleci.com/api/v3/runner/token",
        ],
        allowed: &["POST https://circleci.com/api/v2/project/gh/o/r/pipeline"],
    },
    Row {
        template: "clickup",
        denied: &[
            "GET https://api.clickup.com/api/v2/team/1/webhook",
            "POST https://api.clickup.com/api/v2/oauth/token",
        ],
        allowed: &["GET https://api.clickup.com/api/v2/task/1"],
    },
    Row {
        template: "cloudflare",
        denied: &[
            "POST https://api.cloudflare.com/client/v4/user/tokens",
            "PUT https://api.cloudflare.com/client/v4/user/tokens/t/value",
            "POST https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel",
            "GET https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel/t/token",
            "GET https://api.cloudflare.com/client/v4/accounts/a/challenges/widgets/w",
            "POST https://api.cloudflare.com/client/v4/accounts/a/challenges/widgets",
            "POST https://api.cloudflare.com/client/v4/accounts/a/access/apps",
        ],
        allowed: &[
            "GET https://api.cloudflare.com/client/v4/zones/z/dns_records",
            "DELETE https://api.cloudflare.com/client/v4/zones/z",
            "GET https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel",
            "PUT https://api.cloudflare.com/client/v4/accounts/a/workers/scripts/s",
        ],
    },
    Row {
        template: "codeberg",
        denied: &[
            "POST https://codeberg.org/api/v1/users/u/tokens",
            "POST https://codeberg.org/api/v1/repos/o/r/hooks",
            "PATCH https://codeberg.org/api/v1/admin/users/u",
            "GET https://codeberg.org/api/v1/repos/o/r/actions/runners/registration-token",
            "GET https://codeberg.org/api/packages/o/conan/v1/users/authenticate",
        ],
        allowed: &[
            "GET https://codeberg.org/api/v1/repos/o/r",
            "PATCH https://codeberg.org/api/v1/repos/o/r",
            "POST https://codeberg.org/api/v1/repos/o/r/issues",
        ],
    },
    Row {
        template: "gitea",
        denied: &[
            "POST https://gitea.com/api/v1/users/u/tokens",
            "POST https://gitea.com/api/v1/repos/o/r/keys",
            "POST https://gitea.com/api/v1/orgs/o/hooks",
        ],
        allowed: &[
            "GET https://gitea.com/api/v1/repos/o/r/contents/hooks/a",
            "POST https://gitea.com/o/r/git-receive-pack",
        ],
    },
    Row {
        template: "datadog",
        denied: &[
            "POST https://api.datadoghq.com/api/v2/api_keys",
            "POST https://api.datadoghq.com/api/v1/org",
            "GET https://api.us3.datadoghq.com/api/v1/api_key",
            "POST https://api.datadoghq.eu/api/v2/service_accounts/s/application_keys",
            "GET https://api.datadoghq.com/api/v3/application_keys/1",
        ],
        allowed: &[
            "POST https://api.datadoghq.com/api/v2/series",
            "GET https://api.datadoghq.com/api/v1/org",
        ],
    },
    Row {
        template: "deepgram",
        denied: &[
            "POST https://api.deepgram.com/v1/projects/p/keys",
            "POST https://api.deepgram.com/v1/auth/grant",
            "POST https://api.deepgram.com/v1/projects/p/self-hosted/distribution/credentials",
        ],
        allowed: &["POST https://api.deepgram.com/v1/listen"],
    },
    Row {
        template: "digitalocean",
        denied: &[
            "GET https://api.digitalocean.com/v2/databases/x",
            "GET https://api.digitalocean.com/v2/databases",
            "POST https://api.digitalocean.com/v2/databases",
            "GET https://api.digitalocean.com/v2/databases/x/users",
            "GET https://api.digitalocean.com/v2/databases/x/pools",
            "POST https://api.digitalocean.com/v2/spaces/keys",
            "PATCH https://api.digitalocean.com/v2/spaces/keys/k",
            "GET https://api.digitalocean.com/v2/kubernetes/clusters/x/kubeconfig",
            "GET https://api.digitalocean.com/v2/kubernetes/clusters/x/credentials",
            "GET https://api.digitalocean.com/v2/registry/docker-credentials",
            "GET https://api.digitalocean.com/v2/functions/namespaces",
        ],
        allowed: &[
            "GET https://api.digitalocean.com/v2/droplets",
            "GET https://api.digitalocean.com/v2/kubernetes/clusters/x",
            "DELETE https://api.digitalocean.com/v2/databases/x",
        ],
    },
    Row {
        template: "discord",
        denied: &[
            "POST https://discord.com/api/v10/channels/1/webhooks",
            "POST https://discord.com/api/webhooks/1",
            "POST https://discord.com/api/v10/oauth2/token",
        ],
        allowed: &[
            "POST https://discord.com/api/v10/channels/1/messages",
            "GET https://discord.com/api/v10/oauth2/applications/@me",
        ],
    },
    Row {
        template: "dropbox",
        denied: &[
            "POST https://api.dropboxapi.com/oauth2/token",
            "POST https://api.dropboxapi.com/2/auth/token/revoke",
        ],
        allowed: &["POST https://api.dropboxapi.com/2/files/list_folder"],
    },
    Row {
        template: "elevenlabs",
        denied: &[
            "POST https://api.elevenlabs.io/v1/service-accounts/s/api-keys",
            "POST https://api.elevenlabs.io/v1/workspace/service-accounts/s/api-keys",
            "GET https://api.elevenlabs.io/v1/convai/conversation/get-signed-url",
            "POST https://api.elevenlabs.io/v1/workspace/webhooks",
        ],
        allowed: &["POST https://api.elevenlabs.io/v1/text-to-speech/v"],
    },
    Row {
        template: "exa",
        denied: &[
            "POST https://admin-api.exa.ai/team-management/api-keys",
            "POST https://api.exa.ai/websets/v0/webhooks",
        ],
        allowed: &["POST https://api.exa.ai/search"],
    },
    Row {
        template: "fireworks",
        denied: &[
            "POST https://api.fireworks.ai/v1/accounts/a/users/u/apiKeys",
            "POST https://api.fireworks.ai/v1/accounts/a/users/u/apiKeys:delete",
        ],
        allowed: &["POST https://api.fireworks.ai/inference/v1/chat/completions"],
    },
    Row {
        template: "fly",
        denied: &[
            "POST https://api.machines.dev/v1/tokens/oidc",
            "POST https://api.machines.dev/v1/apps/a/deploy_token",
            "GET https://api.machines.dev/v1/apps/a/secrets",
        ],
        allowed: &[
            "GET https://api.machines.dev/v1/apps/a/machines",
            "POST https://api.machines.dev/v1/apps/a/secrets/S",
        ],
    },
    Row {
        template: "gemini",
        denied: &[
            "POST https://generativelanguage.googleapis.com/v1alpha/auth_tokens",
            "POST https://generativelanguage.googleapis.com/google.ai.generativelanguage.v1alpha.AuthTokenService/CreateAuthToken",
            "POST https://generativelanguage.googleapis.com/batch",
        ],
        allowed: &[
            "POST https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
            "POST https://generativelanguage.googleapis.com/v1beta/models/m:batchGenerateContent",
        ],
    },
    Row {
        template: "github",
        denied: OF_GITHUB_DENIED,
        allowed: OF_GITHUB_ALLOWED,
    },
    Row {
        template: "github-app",
        denied: OF_GITHUB_DENIED,
        allowed: OF_GITHUB_ALLOWED,
    },
    Row {
        template: "gitlab",
        denied: &[
            "POST https://gitlab.com/api/v4/projects/1/access_tokens",
            "POST https://gitlab.com/api/v4/groups/1/access_tokens/2/rotate",
            "POST https://gitlab.com/api/v4/projects/group%2Fproj/access_tokens",
            "POST https://gitlab.com/api/v4/applications",
            "POST https://gitlab.com/api/v4/applications/1/renew-secret",
            "POST https://gitlab.com/api/v4/projects/1/cluster_agents/1/tokens",
            "POST https://gitlab.com/api/v4/projects/1/error_tracking/client_keys",
            "POST https://gitlab.com/api/v4/deploy_keys",
            "POST https://gitlab.com/api/v4/projects/1/deploy_tokens",
            "POST https://gitlab.com/api/v4/projects/1/service_accounts/2/personal_access_tokens",
            "POST https://gitlab.com/api/v4/groups/1/service_accounts/2/personal_access_tokens",
            "POST https://gitlab.com/api/v4/personal_access_tokens/self/rotate",
            "POST https://gitlab.com/api/v4/user/runners",
            "POST https://gitlab.com/api/v4/runners/1/reset_authentication_token",
            "GET https://gitlab.com/jwt/auth",
            "GET https://gitlab.com/api/v4/projects/1/variables",
            "GET https://gitlab.com/api/v4/projects/1/triggers",
            "POST https://gitlab.com/api/v4/projects/1/hooks",
            "PUT https://gitlab.com/api/v4/groups/1/hooks/2",
            "POST https://gitlab.com/api/v4/code_suggestions/direct_access",
            "GET https://gitlab.com/api/v4/projects/1/pipelines/2/variables",
        ],
        allowed: &[
            "GET https://gitlab.com/api/v4/projects/group%2Fproj",
            "PUT https://gitlab.com/api/v4/projects/1",
            "POST https://gitlab.com/api/v4/projects/1/merge_requests",
            "GET https://gitlab.com/api/v4/personal_access_tokens/self",
            "GET https://gitlab.com/api/v4/projects/1/hooks",
            "POST https://gitlab.com/g/p/git-upload-pack",
        ],
    },
    Row {
        template: "google-service-account",
        denied: &[
            "POST https://iam.googleapis.com/v1/projects/p/serviceAccounts/a@b/keys",
            "POST https://iam.googleapis.com/v1/projects/p/serviceAccounts/a@b/keys:upload",
            "POST https://content-iam.googleapis.com/v1/projects/p/serviceAccounts/a@b/keys",
            "POST https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b:generateAccessToken",
            "POST https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b%3AgenerateAccessToken",
            "POST https://content-iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b:generateAccessToken",
            "POST https://us-east1-iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b:generateIdToken",
            "POST https://iamcredentials.googleapis.com/google.iam.credentials.v1.IAMCredentials/GenerateAccessToken",
            "POST https://iamcredentials.googleapis.com/google.iam.credentials.v1.IAMCredentials/SignJwt",
            "POST https://iamcredentials.googleapis.com/$rpc/google.iam.credentials.v1.IAMCredentials/GenerateIdToken",
            "POST https://iam.googleapis.com/google.iam.admin.v1.IAM/CreateServiceAccountKey",
            "POST https://iam.googleapis.com/google.iam.admin.v1.IAM/SignBlob",
            "POST https://iam.googleapis.com/v1/projects/p/serviceAccounts/a@b:signJwt",
            "POST https://iam.googleapis.com/v1/projects/p/serviceAccounts/a@b:signBlob",
            "POST https://iam.googleapis.com/batch",
            "POST https://iamcredentials.googleapis.com/batch/v1",
            "POST https://apikeys.googleapis.com/batch",
            "POST https://www.googleapis.com/rpc",
            "POST https://www.googleapis.com/oauth2/v4/token",
            "POST https://oauth2.googleapis.com/token",
            "POST https://accounts.googleapis.com/o/oauth2/token",
            "POST https://sts.googleapis.com/v1/token",
            "POST https://content-sts.googleapis.com/v1/oauthtoken",
            "POST https://securetoken.googleapis.com/v1/token",
            "POST https://identitytoolkit.googleapis.com/v1/accounts:signInWithCustomToken",
            "POST https://storage.googleapis.com/storage/v1/projects/p/hmacKeys",
            "POST https://www.googleapis.com/storage/v1/projects/p/hmacKeys",
            "POST https://storage.googleapis.com/",
            "POST https://apikeys.googleapis.com/v2/projects/p/locations/global/keys",
            "POST https://apikeys.googleapis.com/google.api.apikeys.v2.ApiKeys/CreateKey",
            "POST https://apikeys.googleapis.com/google.api.apikeys.v2.ApiKeys/GetKeyString",
            "POST https://iam.googleapis.com/v1/projects/p/locations/global/oauthClients/c/credentials",
            "POST https://sqladmin.googleapis.com/sql/v1beta4/projects/p/instances/i/createEphemeral",
            "POST https://sqladmin.googleapis.com/v1/projects/p/instances/i:generateEphemeralCert",
            "POST https://sqladmin.googleapis.com/v1/projects/p/instances/i/users",
            "POST https://oslogin.googleapis.com/v1/users/u:importSshPublicKey",
            "POST https://firebaseappcheck.googleapis.com/v1/projects/p/apps/a:exchangeCustomToken",
            "GET https://apikeys.googleapis.com/v2/projects/p/locations/global/keys/k/keyString",
            "GET https://content-apikeys.googleapis.com/v2/projects/p/locations/global/keys/k/keyString",
            "GET https://redis.googleapis.com/v1/projects/p/locations/l/instances/i/authString",
        ],
        allowed: &[
            "GET https://storage.googleapis.com/storage/v1/b/bucket/o",
            "PUT https://storage.googleapis.com/bucket/token",
            "POST https://storage.googleapis.com/upload/storage/v1/b/bucket/o",
            "GET https://iam.googleapis.com/v1/projects/p/serviceAccounts",
            "GET https://iam.googleapis.com/v1/projects/p/serviceAccounts/a@b/keys",
            "POST https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
            "POST https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/m:countTokens",
            "POST https://bigquery.googleapis.com/bigquery/v2/projects/p/queries",
            "POST https://pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish",
            "POST https://cloudkms.googleapis.com/v1/projects/p/locations/l/keyRings/r/cryptoKeys/k:encrypt",
            "GET https://sqladmin.googleapis.com/v1/projects/p/instances/i/users",
        ],
    },
    Row {
        template: "grafana-cloud",
        denied: &[
            "POST https://grafana.com/api/v1/tokens",
            "POST https://grafana.com/api/instances/i/api/auth/keys",
        ],
        allowed: &["GET https://grafana.com/api/instances"],
    },
    Row {
        template: "heroku",
        denied: &[
            "GET https://api.heroku.com/apps/a/config-vars",
            "PATCH https://api.heroku.com/apps/a/config-vars",
            "POST https://api.heroku.com/oauth/authorizations",
            "PATCH https://api.heroku.com/addons/a/config",
            "GET https://api.heroku.com/addons/a/config",
            "GET https://api.heroku.com/addons/a/sso",
            "POST https://api.heroku.com/apps/a/webhooks",
        ],
        allowed: &[
            "GET https://api.heroku.com/apps/a",
            "POST https://api.heroku.com/apps/a/builds",
        ],
    },
    Row {
        template: "hetzner",
        denied: &[
            "POST https://api.hetzner.cloud/v1/servers",
            "POST https://api.hetzner.cloud/v1/servers/1/actions/rebuild",
            "POST https://api.hetzner.cloud/v1/servers/1/actions/reset_password",
            "POST https://api.hetzner.cloud/v1/servers/1/actions/enable_rescue",
        ],
        allowed: &[
            "GET https://api.hetzner.cloud/v1/servers",
            "POST https://api.hetzner.cloud/v1/servers/1/actions/reboot",
        ],
    },
    Row {
        template: "honeycomb",
        denied: &[
            "POST https://api.honeycomb.io/2/teams/t/api-keys",
            "GET https://api.honeycomb.io/1/recipients/r",
        ],
        allowed: &["POST https://api.honeycomb.io/1/events/d"],
    },
    Row {
        template: "hubspot",
        denied: &["POST https://api.hubapi.com/oauth/v1/token"],
        allowed: &["GET https://api.hubapi.com/crm/v3/objects/contacts"],
    },
    Row {
        template: "huggingface",
        denied: &[
            "POST https://huggingface.co/api/settings/tokens",
            "GET https://huggingface.co/api/settings/webhooks",
            "POST https://huggingface.co/oauth/token",
        ],
        allowed: &[
            "GET https://huggingface.co/api/models/o/m",
            "GET https://huggingface.co/api/models/o/m/xet-read-token/main",
        ],
    },
    Row {
        template: "intercom",
        denied: &["POST https://api.intercom.io/auth/eagle/token"],
        allowed: &["GET https://api.intercom.io/contacts"],
    },
    Row {
        template: "langfuse",
        denied: &["POST https://cloud.langfuse.com/api/public/projects/p/apiKeys"],
        allowed: &["POST https://cloud.langfuse.com/api/public/ingestion"],
    },
    Row {
        template: "langsmith",
        denied: &[
            "POST https://api.smith.langchain.com/api/v1/api-key",
            "POST https://api.smith.langchain.com/api/v1/orgs/current/personal-access-tokens",
            "GET https://api.smith.langchain.com/api/v1/workspaces/current/secrets",
        ],
        allowed: &["POST https://api.smith.langchain.com/api/v1/runs/query"],
    },
    Row {
        template: "launchdarkly",
        denied: &[
            "POST https://app.launchdarkly.com/api/v2/tokens",
            "GET https://app.launchdarkly.com/api/v2/projects/p/environments/e",
            "POST https://app.launchdarkly.com/api/v2/projects/p/environments/e/apiKey",
            "POST https://app.launchdarkly.com/api/v2/webhooks",
            "POST https://app.launchdarkly.com/api/v2/projects",
        ],
        allowed: &[
            "GET https://app.launchdarkly.com/api/v2/projects",
            "GET https://app.launchdarkly.com/api/v2/flags/p",
        ],
    },
    Row {
        template: "linear",
        denied: &["POST https://api.linear.app/oauth/token"],
        allowed: &["POST https://api.linear.app/graphql"],
    },
    Row {
        template: "linode",
        denied: &[
            "POST https://api.linode.com/v4/profile/tokens",
            "GET https://api.linode.com/v4/lke/clusters/1/kubeconfig",
            "POST https://api.linode.com/v4/account/child-accounts/e/token",
            "POST https://api.linode.com/v4/object-storage/keys",
        ],
        allowed: &["GET https://api.linode.com/v4/linode/instances"],
    },
    Row {
        template: "mailchimp",
        denied: &[
            "POST https://us1.api.mailchimp.com/3.0/authorized-apps",
            "POST https://us1.api.mailchimp.com/3.0/batches",
        ],
        allowed: &["POST https://us1.api.mailchimp.com/3.0/campaigns"],
    },
    Row {
        template: "mailgun",
        denied: &[
            "POST https://api.mailgun.net/v1/keys",
            "POST https://api.mailgun.net/v3/domains/d/credentials",
            "GET https://api.mailgun.net/v5/accounts/http_signing_key",
        ],
        allowed: &["POST https://api.mailgun.net/v3/d/messages"],
    },
    Row {
        template: "mailjet",
        denied: &["GET https://api.mailjet.com/v3/REST/apikey"],
        allowed: &["POST https://api.mailjet.com/v3.1/send"],
    },
    Row {
        template: "mixpanel",
        denied: &["POST https://mixpanel.com/api/app/organizations/o/service-accounts"],
        allowed: &["POST https://api.mixpanel.com/import"],
    },
    Row {
        template: "mollie",
        denied: &[
            "POST https://api.mollie.com/oauth2/tokens",
            "POST https://api.mollie.com/v2/webhooks",
        ],
        allowed: &["POST https://api.mollie.com/v2/payments"],
    },
    Row {
        template: "neon",
        denied: &[
            "POST https://console.neon.tech/api/v2/projects",
            "POST https://console.neon.tech/api/v2/api_keys",
            "POST https://console.neon.tech/api/v2/projects/p/branches/b/roles",
            "POST https://console.neon.tech/api/v2/projects/p/branches/b/roles/r/reset_password",
            "GET https://console.neon.tech/api/v2/projects/p/branches/b/roles/r/reveal_password",
            "GET https://console.neon.tech/api/v2/projects/p/connection_uri",
        ],
        allowed: &[
            "GET https://console.neon.tech/api/v2/projects",
            "GET https://console.neon.tech/api/v2/projects/p/branches/b/roles",
        ],
    },
    Row {
        template: "netlify",
        denied: &[
            "POST https://api.netlify.com/api/v1/oauth/tickets",
            "GET https://api.netlify.com/api/v1/accounts/a/env",
            "PATCH https://api.netlify.com/api/v1/accounts/a/env/K",
            "GET https://api.netlify.com/api/v1/sites/s/build_hooks",
        ],
        allowed: &["POST https://api.netlify.com/api/v1/sites/s/deploys"],
    },
    Row {
        template: "notion",
        denied: &["POST https://api.notion.com/v1/oauth/token"],
        allowed: &["POST https://api.notion.com/v1/pages"],
    },
    Row {
        template: "openai",
        denied: &[
            "POST https://api.openai.com/v1/organization/admin_api_keys",
            "POST https://api.openai.com/v1/organization/projects/p/service_accounts",
            "POST https://api.openai.com/v1/realtime/client_secrets",
            "POST https://eu.api.openai.com/v1/realtime/sessions",
            "POST https://api.openai.com/dashboard/user/api_keys",
        ],
        allowed: &[
            "POST https://api.openai.com/v1/responses",
            "GET https://api.openai.com/v1/organization/costs",
        ],
    },
    Row {
        template: "openrouter",
        denied: &[
            "POST https://openrouter.ai/api/v1/keys",
            "POST https://openrouter.ai/api/v1/auth/keys/code",
        ],
        allowed: &[
            "POST https://openrouter.ai/api/v1/chat/completions",
            "GET https://openrouter.ai/api/v1/key",
        ],
    },
    Row {
        template: "opsgenie",
        denied: &[
            "POST https://api.opsgenie.com/v2/integrations",
            "GET https://api.opsgenie.com/v2/integrations/1",
        ],
        allowed: &[
            "POST https://api.opsgenie.com/v2/alerts",
            "GET https://api.opsgenie.com/v2/integrations",
        ],
    },
    Row {
        template: "paddle",
        denied: &[
            "POST https://api.paddle.com/client-tokens",
            "GET https://api.paddle.com/notification-settings",
            "POST https://api.paddle.com/customers/c/portal-sessions",
        ],
        allowed: &["GET https://api.paddle.com/transactions"],
    },
    Row {
        template: "pagerduty",
        denied: &[
            "POST https://api.pagerduty.com/webhook_subscriptions",
            "GET https://api.pagerduty.com/services/s/integrations/i",
        ],
        allowed: &[
            "PUT https://api.pagerduty.com/incidents/1",
            "GET https://api.pagerduty.com/services/s",
        ],
    },
    Row {
        template: "paypal",
        denied: &[
            "POST https://api-m.paypal.com/v1/oauth2/token",
            "POST https://api-m.paypal.com/v1/identity/generate-token",
            "GET https://api-m.paypal.com/v1/customer/partners/p/merchant-integrations/credentials",
        ],
        allowed: &["POST https://api-m.paypal.com/v2/checkout/orders"],
    },
    Row {
        template: "perplexity",
        denied: &["POST https://api.perplexity.ai/generate_auth_token"],
        allowed: &["POST https://api.perplexity.ai/chat/completions"],
    },
    Row {
        template: "pinecone",
        denied: &["POST https://api.pinecone.io/admin/projects/p/api-keys"],
        allowed: &["GET https://api.pinecone.io/indexes"],
    },
    Row {
        template: "planetscale",
        denied: &[
            "POST https://api.planetscale.com/v1/organizations/o/databases/d/branches/b/passwords",
            "POST https://api.planetscale.com/v1/organizations/o/service-tokens",
            "GET https://api.planetscale.com/v1/organizations/o/databases/d/webhooks",
        ],
        allowed: &["GET https://api.planetscale.com/v1/organizations/o/databases"],
    },
    Row {
        template: "plivo",
        denied: &[
            "GET https://api.plivo.com/v1/Account/A/",
            "GET https://api.plivo.com/v1/Account/A/Subaccount/S/",
            "POST https://api.plivo.com/v1/Account/A/JWT/Token/",
        ],
        allowed: &["POST https://api.plivo.com/v1/Account/A/Message/"],
    },
    Row {
        template: "posthog",
        denied: &[
            "POST https://us.posthog.com/api/personal_api_keys",
            "PATCH https://us.posthog.com/api/projects/1/reset_token",
            "PATCH https://us.posthog.com/api/environments/1/rotate_secret_token",
        ],
        allowed: &["POST https://us.posthog.com/api/projects/1/query"],
    },
    Row {
        template: "postmark",
        denied: &[
            "GET https://api.postmarkapp.com/server",
            "GET https://api.postmarkapp.com/servers/1",
        ],
        allowed: &["POST https://api.postmarkapp.com/email"],
    },
    Row {
        template: "render",
        denied: &[
            "GET https://api.render.com/v1/postgres/p/connection-info",
            "GET https://api.render.com/v1/services/s/env-vars",
            "PATCH https://api.render.com/v1/env-groups/e",
            "POST https://api.render.com/v1/webhooks",
        ],
        allowed: &[
            "PUT https://api.render.com/v1/services/s/env-vars/K",
            "POST https://api.render.com/v1/services/s/deploys",
        ],
    },
    Row {
        template: "replicate",
        denied: &["GET https://api.replicate.com/v1/webhooks/default/secret"],
        allowed: &["POST https://api.replicate.com/v1/predictions"],
    },
    Row {
        template: "resend",
        denied: &[
            "POST https://api.resend.com/api-keys",
            "GET https://api.resend.com/webhooks/w",
        ],
        allowed: &[
            "POST https://api.resend.com/emails",
            "GET https://api.resend.com/api-keys",
        ],
    },
    Row {
        template: "rollbar",
        denied: &["GET https://api.rollbar.com/api/1/project/1/access_tokens"],
        allowed: &["GET https://api.rollbar.com/api/1/items"],
    },
    Row {
        template: "rubygems",
        denied: &["GET https://rubygems.org/api/v1/api_key.json"],
        allowed: &["GET https://rubygems.org/api/v1/gems"],
    },
    Row {
        template: "salesforce",
        denied: &[
            "POST https://a.my.salesforce.com/services/oauth2/token",
            "POST https://a.my.salesforce.com/services/Soap/u/60.0",
            "DELETE https://a.my.salesforce.com/services/data/v60.0/sobjects/User/u/password",
        ],
        allowed: &["GET https://a.my.salesforce.com/services/data/v60.0/query"],
    },
    Row {
        template: "scaleway",
        denied: &[
            "POST https://api.scaleway.com/iam/v1alpha1/api-keys",
            "GET https://api.scaleway.com/k8s/v1/regions/fr-par/clusters/c/kubeconfig",
            "POST https://api.scaleway.com/cockpit/v1/regions/fr-par/tokens",
            "POST https://api.scaleway.com/mnq/v1beta1/regions/fr-par/sqs-credentials",
        ],
        allowed: &["GET https://api.scaleway.com/instance/v1/zones/fr-par-1/servers"],
    },
    Row {
        template: "sendgrid",
        denied: &[
            "POST https://api.sendgrid.com/v3/api_keys",
            "PUT https://api.sendgrid.com/v3/api_keys/x",
            "POST https://api.sendgrid.com/v3/subusers",
        ],
        allowed: &[
            "POST https://api.sendgrid.com/v3/mail/send",
            "GET https://api.sendgrid.com/v3/api_keys",
        ],
    },
    Row {
        template: "sentry",
        denied: &[
            "POST https://sentry.io/api/0/api-tokens/",
            "POST https://sentry.io/api/0/projects/o/p/keys/",
            "POST https://us.sentry.io/api/0/sentry-apps/a/rotate-secret/",
            "GET https://sentry.io/api/0/projects/o/p/releases/token/",
        ],
        allowed: &[
            "GET https://sentry.io/api/0/organizations/o/issues/",
            "POST https://sentry.io/api/0/organizations/o/releases/",
        ],
    },
    Row {
        template: "shopify",
        denied: &[
            "POST https://a.myshopify.com/admin/api/2024-01/storefront_access_tokens.json",
            "GET https://a.myshopify.com/admin/api/2024-01/storefront_access_tokens.json",
            "POST https://a.myshopify.com/admin/api/2024-01/customers/1/account_activation_url.json",
        ],
        allowed: &["GET https://a.myshopify.com/admin/api/2024-01/products.json"],
    },
    Row {
        template: "slack",
        denied: &[
            "POST https://slack.com/api/oauth.v2.access",
            "POST https://slack.com/api/oauth.v2.user.access",
            "POST https://slack.com/api/apps.manifest.create",
            "POST https://slack.com/api/apps.connections.open",
            "POST https://slack.com/api/rtm.connect",
            "POST https://slack.com/api/apps.auth.external.get",
        ],
        allowed: &[
            "POST https://slack.com/api/chat.postMessage",
            "POST https://slack.com/api/auth.test",
        ],
    },
    Row {
        template: "snowflake",
        denied: &[
            "POST https://a.snowflakecomputing.com/session/v1/login-request",
            "POST https://a.snowflakecomputing.com/oauth/token-request",
            "POST https://a.snowflakecomputing.com/api/v2/users/u/programmatic-access-tokens",
        ],
        allowed: &["POST https://a.snowflakecomputing.com/api/v2/statements"],
    },
    Row {
        template: "square",
        denied: &[
            "POST https://connect.squareup.com/oauth2/token",
            "GET https://connect.squareup.com/v2/webhooks/subscriptions/s",
            "POST https://connect.squareup.com/v2/webhooks/subscriptions/s/signature-key",
        ],
        allowed: &["POST https://connect.squareup.com/v2/payments"],
    },
    Row {
        template: "stripe",
        denied: &[
            "POST https://api.stripe.com/v1/ephemeral_keys",
            "POST https://api.stripe.com/v1/EPHEMERAL_KEYS/",
            "POST https://api.stripe.com/v1/webhook_endpoints",
            "POST https://api.stripe.com/v2/core/event_destinations",
            "POST https://api.stripe.com/v1/accounts/acct_1/login_links",
            "POST https://api.stripe.com/v1/account_links",
            "GET https://api.stripe.com/v1/apps/secrets/find",
        ],
        allowed: &[
            "POST https://api.stripe.com/v1/charges",
            "GET https://api.stripe.com/v1/webhook_endpoints",
            "POST https://api.stripe.com/v1/checkout/sessions",
        ],
    },
    Row {
        template: "supabase",
        denied: &[
            "GET https://api.supabase.com/v1/projects/p/api-keys",
            "GET https://api.supabase.com/v1/projects/p/postgrest",
            "GET https://api.supabase.com/v1/projects/p/pgsodium",
            "GET https://api.supabase.com/v1/projects/p/config/auth",
            "PATCH https://api.supabase.com/v1/projects/p/config/auth",
            "GET https://api.supabase.com/v1/projects/p/secrets",
            "GET https://api.supabase.com/v1/branches/b",
        ],
        allowed: &[
            "GET https://api.supabase.com/v1/projects",
            "POST https://api.supabase.com/v1/projects/p/database/query",
        ],
    },
    Row {
        template: "tavily",
        denied: &["POST https://api.tavily.com/generate-keys"],
        allowed: &["POST https://api.tavily.com/search"],
    },
    Row {
        template: "telegram",
        denied: &["POST https://api.telegram.org/bot*/getManagedBotToken"],
        allowed: &["POST https://api.telegram.org/bot*/sendMessage"],
    },
    Row {
        template: "telnyx",
        denied: &[
            "GET https://api.telnyx.com/v2/telephony_credentials/1",
            "GET https://api.telnyx.com/v2/credential_connections",
            "POST https://api.telnyx.com/v2/api_keys",
            "POST https://api.telnyx.com/v2/rooms/r/actions/generate_join_client_token",
        ],
        allowed: &["POST https://api.telnyx.com/v2/messages"],
    },
    Row {
        template: "terraform-cloud",
        denied: &[
            "POST https://app.terraform.io/api/v2/organizations/o/authentication-token",
            "POST https://app.terraform.io/api/v2/agent-pools/p/authentication-tokens",
            "POST https://app.terraform.io/api/v2/organizations/o/oauth-clients",
        ],
        allowed: &["POST https://app.terraform.io/api/v2/runs"],
    },
    Row {
        template: "todoist",
        denied: &[
            "POST https://api.todoist.com/oauth/access_token",
            "POST https://api.todoist.com/api/v1/access_tokens/migrate_personal_token",
        ],
        allowed: &["POST https://api.todoist.com/api/v1/sync"],
    },
    Row {
        template: "together",
        denied: &[
            "POST https://api.together.ai/v1/api-keys",
            "GET https://api.together.xyz/v1/compute/clusters/c",
        ],
        allowed: &["POST https://api.together.ai/v1/chat/completions"],
    },
    Row {
        template: "trello",
        denied: &[
            "GET https://api.trello.com/1/tokens/t",
            "GET https://api.trello.com/1/batch",
            "GET https://api.trello.com/1/members/me/tokens",
        ],
        allowed: &["GET https://api.trello.com/1/boards/b"],
    },
    Row {
        template: "turso",
        denied: &[
            "POST https://api.turso.tech/v1/auth/api-tokens/t",
            "POST https://api.turso.tech/v1/organizations/o/databases/d/auth/tokens",
            "POST https://api.turso.tech/v1/organizations/o/groups/g/auth/rotate",
        ],
        allowed: &["GET https://api.turso.tech/v1/organizations/o/databases"],
    },
    Row {
        template: "twilio",
        denied: &[
            "POST https://api.twilio.com/2010-04-01/Accounts/A/Keys.json",
            "POST https://api.twilio.com/2010-04-01/Accounts/A/SigningKeys.json",
            "POST https://api.twilio.com/2010-04-01/Accounts/A/Tokens.json",
            "POST https://api.twilio.com/2010-04-01/Accounts.json",
            "GET https://api.twilio.com/2010-04-01/Accounts/A.json",
            "POST https://verify.twilio.com/v2/Services/S/AccessTokens",
            "POST https://accounts.twilio.com/v1/AuthTokens/Secondary",
        ],
        allowed: &[
            "POST https://api.twilio.com/2010-04-01/Accounts/A/Messages.json",
            "POST https://verify.twilio.com/v2/Services/S/Verifications",
        ],
    },
    Row {
        template: "upstash",
        denied: &["GET https://a.upstash.io/acl/restrict"],
        allowed: &["POST https://a.upstash.io/pipeline"],
    },
    Row {
        template: "vercel",
        denied: &[
            "POST https://api.vercel.com/v3/user/tokens",
            "GET https://api.vercel.com/v9/projects/p/env",
            "GET https://api.vercel.com/v1/projects/p/env/1",
            "GET https://api.vercel.com/v1/env",
            "POST https://api.vercel.com/v1/edge-config/e/token",
            "GET https://api.vercel.com/v1/edge-config/e/tokens",
            "PATCH https://api.vercel.com/v1/projects/p/protection-bypass",
            "POST https://api.vercel.com/v1/webhooks",
        ],
        allowed: &[
            "POST https://api.vercel.com/v13/deployments",
            "POST https://api.vercel.com/v10/projects/p/env",
            "GET https://api.vercel.com/v9/projects/p",
        ],
    },
    Row {
        template: "vultr",
        denied: &[
            "POST https://api.vultr.com/v2/instances",
            "POST https://api.vultr.com/v2/instances/i/reinstall",
            "GET https://api.vultr.com/v2/databases/d",
            "GET https://api.vultr.com/v2/object-storage",
            "GET https://api.vultr.com/v2/kubernetes/clusters/c/config",
            "POST https://api.vultr.com/v2/users",
        ],
        allowed: &[
            "GET https://api.vultr.com/v2/instances",
            "DELETE https://api.vultr.com/v2/databases/d",
        ],
    },
    Row {
        template: "weaviate",
        denied: &["POST https://a.weaviate.cloud/v1/users/db/u/rotate-key"],
        allowed: &["POST https://a.weaviate.cloud/v1/graphql"],
    },
    Row {
        template: "xai",
        denied: &["POST https://api.x.ai/v1/realtime/client_secrets"],
        allowed: &["POST https://api.x.ai/v1/chat/completions"],
    },
    Row {
        template: "zendesk",
        denied: &[
            "POST https://a.zendesk.com/api/v2/oauth/clients/1/generate_secret",
            "POST https://a.zendesk.com/api/v2/users/1/password",
            "GET https://a.zendesk.com/api/v2/webhooks/w/signing_secret",
        ],
        allowed: &["POST https://a.zendesk.com/api/v2/tickets"],
    },
    Row {
        template: "zoom",
        denied: &[
            "GET https://api.zoom.us/v2/users/me/token",
            "GET https://api.zoom.us/v2/users/me/zak",
            "GET https://api.zoom.us/v2/meetings/1/jointoken/live_streaming",
            "POST https://api.zoom.us/v2/marketplace/apps",
        ],
        allowed: &["POST https://api.zoom.us/v2/users/me/meetings"],
    },
];

/// Template, preset, what it allows, and what it refuses.
type PresetRow = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const PRESETS: &[PresetRow] = &[
    (
        "github",
        "no-admin",
        &[
            "GET https://api.github.com/repos/o/r",
            "GET https://api.github.com/user",
            "POST https://api.github.com/repos/o/r/issues",
            "PUT https://api.github.com/repos/o/r/contents/a",
            "DELETE https://api.github.com/repos/o/r/git/refs/heads/x",
            "POST https://api.github.com/repos/o/r/pulls",
            "POST https://github.com/o/r.git/git-receive-pack",
        ],
        &[
            "DELETE https://api.github.com/repos/o/r",
            "PATCH https://api.github.com/repos/o/r",
            "PATCH https://api.github.com/Repos/o/r/",
            "POST https://api.github.com/repos/o/r/transfer",
            "PATCH https://api.github.com/user",
            "PUT https://api.github.com/repos/o/r/collaborators/x",
            "GET https://api.github.com/repos/o/r/keys",
            "POST https://api.github.com/repos/o/r/hooks",
            "PUT https://api.github.com/repos/o/r/actions/secrets/X",
            "PUT https://api.github.com/repos/o/r/branches/b/protection",
            "PUT https://api.github.com/repos/o/r/topics",
            "POST https://api.github.com/graphql",
            "DELETE https://api.github.com/repositories/1",
            "PUT https://api.github.com/repos/o/r/pages",
        ],
    ),
    (
        "github-app",
        "no-admin",
        &[
            "GET https://api.github.com/repos/o/r",
            "GET https://api.github.com/user",
            "POST https://api.github.com/repos/o/r/issues",
            "PUT https://api.github.com/repos/o/r/contents/a",
            "DELETE https://api.github.com/repos/o/r/git/refs/heads/x",
            "POST https://api.github.com/repos/o/r/pulls",
            "POST https://github.com/o/r.git/git-receive-pack",
        ],
        &[
            "DELETE https://api.github.com/repos/o/r",
            "PATCH https://api.github.com/repos/o/r",
            "PATCH https://api.github.com/Repos/o/r/",
            "POST https://api.github.com/repos/o/r/transfer",
            "PATCH https://api.github.com/user",
            "PUT https://api.github.com/repos/o/r/collaborators/x",
            "GET https://api.github.com/repos/o/r/keys",
            "POST https://api.github.com/repos/o/r/hooks",
            "PUT https://api.github.com/repos/o/r/actions/secrets/X",
            "PUT https://api.github.com/repos/o/r/branches/b/protection",
            "PUT https://api.github.com/repos/o/r/topics",
            "POST https://api.github.com/graphql",
            "DELETE https://api.github.com/repositories/1",
            "PUT https://api.github.com/repos/o/r/pages",
        ],
    ),
    (
        "github",
        "read-only",
        &["GET https://api.github.com/repos/o/r"],
        &[
            "DELETE https://api.github.com/repos/o/r",
            "POST https://api.github.com/repos/o/r/issues",
        ],
    ),
    (
        "gitlab",
        "no-admin",
        &[
            "GET https://gitlab.com/api/v4/projects/g%2Fp",
            "POST https://gitlab.com/api/v4/projects/1/merge_requests",
            "POST https://gitlab.com/g/p.git/git-upload-pack",
        ],
        &[
            "DELETE https://gitlab.com/api/v4/projects/1",
            "PUT https://gitlab.com/api/v4/projects/1",
            "PUT https://gitlab.com/api/v4/projects/1/transfer",
            "POST https://gitlab.com/api/v4/projects/1/members",
            "POST https://gitlab.com/api/v4/projects/1/hooks",
            "GET https://gitlab.com/api/v4/projects/1/variables",
            "POST https://gitlab.com/api/graphql",
        ],
    ),
    (
        "openai",
        "no-admin",
        &[
            "POST https://api.openai.com/v1/responses",
            "POST https://api.openai.com/v1/fine_tuning/jobs",
        ],
        &[
            "GET https://api.openai.com/v1/organization/users",
            "POST https://api.openai.com/v1/fine_tuning/checkpoints/x/permissions",
            "GET https://api.openai.com/v1/organization/admin_api_keys",
        ],
    ),
    (
        "slack",
        "read-only",
        &[
            "GET https://slack.com/api/users.list",
            "GET https://slack.com/api/conversations.history",
        ],
        &[
            "GET https://slack.com/api/admin.users.list",
            "POST https://slack.com/api/chat.postMessage",
            "GET https://slack.com/api/admin.conversations.search",
            "GET https://slack.com/api/team.accessLogs",
            "GET https://slack.com/api/team.billing.info",
        ],
    ),
    (
        "slack",
        "no-admin",
        &[
            "POST https://slack.com/api/chat.postMessage",
            "POST https://slack.com/api/conversations.create",
        ],
        &[
            "POST https://slack.com/api/admin.users.invite",
            "POST https://slack.com/api/users.admin.invite",
            "POST https://slack.com/api/apps.uninstall",
        ],
    ),
    (
        "stripe",
        "no-admin",
        &[
            "POST https://api.stripe.com/v1/payment_intents",
            "GET https://api.stripe.com/v1/customers/cus_1",
        ],
        &[
            "POST https://api.stripe.com/v1/payouts",
            "POST https://api.stripe.com/v1/webhook_endpoints",
            "POST https://api.stripe.com/v1/accounts",
            "POST https://api.stripe.com/v1/transfers",
        ],
    ),
    (
        "cloudflare",
        "no-admin",
        &[
            "GET https://api.cloudflare.com/client/v4/zones/z",
            "POST https://api.cloudflare.com/client/v4/zones/z/dns_records",
        ],
        &[
            "DELETE https://api.cloudflare.com/client/v4/zones/z",
            "POST https://api.cloudflare.com/client/v4/accounts/a/members",
            "POST https://api.cloudflare.com/client/v4/user/tokens",
        ],
    ),
    (
        "paypal",
        "no-admin",
        &["POST https://api-m.paypal.com/v2/checkout/orders"],
        &[
            "POST https://api-m.paypal.com/v1/payments/payouts",
            "POST https://api-m.paypal.com/v1/notifications/webhooks",
        ],
    ),
    (
        "bitbucket",
        "no-admin",
        &[
            "GET https://api.bitbucket.org/2.0/repositories/w/r",
            "POST https://api.bitbucket.org/2.0/repositories/w/r/pullrequests",
        ],
        &[
            "DELETE https://api.bitbucket.org/2.0/repositories/w/r",
            "PUT https://api.bitbucket.org/2.0/repositories/w/r",
            "POST https://api.bitbucket.org/2.0/repositories/w/r/hooks",
            "PUT https://api.bitbucket.org/2.0/repositories/w/r/permissions-config/users/u",
        ],
    ),
    (
        "codeberg",
        "no-admin",
        &[
            "GET https://codeberg.org/api/v1/repos/o/r",
            "POST https://codeberg.org/api/v1/repos/o/r/issues",
        ],
        &[
            "DELETE https://codeberg.org/api/v1/repos/o/r",
            "POST https://codeberg.org/api/v1/repos/o/r/transfer",
            "PUT https://codeberg.org/api/v1/repos/o/r/collaborators/x",
        ],
    ),
    (
        "sentry",
        "no-admin",
        &["GET https://sentry.io/api/0/organizations/o/issues/"],
        &[
            "POST https://sentry.io/api/0/organizations/o/members/",
            "GET https://sentry.io/api/0/projects/o/p/keys/",
            "GET https://sentry.io/api/0/projects/o/p/releases/token/",
        ],
    ),
    (
        "datadog",
        "no-admin",
        &["POST https://api.datadoghq.com/api/v2/series"],
        &[
            "POST https://api.datadoghq.com/api/v2/users",
            "POST https://api.datadoghq.com/api/v2/api_keys",
        ],
    ),
    (
        "vercel",
        "no-admin",
        &[
            "POST https://api.vercel.com/v13/deployments",
            "GET https://api.vercel.com/v9/projects/p",
        ],
        &[
            "DELETE https://api.vercel.com/v9/projects/p",
            "GET https://api.vercel.com/v9/projects/p/env",
            "POST https://api.vercel.com/v1/teams",
        ],
    ),
    (
        "pagerduty",
        "no-admin",
        &[
            "POST https://api.pagerduty.com/incidents",
            "GET https://api.pagerduty.com/services/s",
        ],
        &[
            "DELETE https://api.pagerduty.com/services/s",
            "POST https://api.pagerduty.com/users",
        ],
    ),
    (
        "digitalocean",
        "no-admin",
        &["POST https://api.digitalocean.com/v2/droplets"],
        &[
            "GET https://api.digitalocean.com/v2/databases",
            "GET https://api.digitalocean.com/v2/account",
        ],
    ),
    (
        "discord",
        "no-admin",
        &["POST https://discord.com/api/v10/channels/1/messages"],
        &[
            "DELETE https://discord.com/api/v10/channels/1",
            "PUT https://discord.com/api/v10/guilds/1/bans/2",
        ],
    ),
    (
        "shopify",
        "no-admin",
        &[
            "GET https://a.myshopify.com/admin/api/2024-01/products.json",
            "GET https://a.myshopify.com/admin/api/2024-01/orders/1.json",
        ],
        &[
            "POST https://a.myshopify.com/admin/api/2024-01/webhooks.json",
            "POST https://a.myshopify.com/admin/api/2024-01/graphql.json",
        ],
    ),
];

/// Of one API, by a token of a person's or of an app's.
const OF_GITHUB_DENIED: &[&str] = &[
    "POST https://api.github.com/app/installations/1/access_tokens",
    "POST https://api.github.com/repos/o/r/keys",
    "PUT https://api.github.com/repos/o/r/keys",
    "POST https://api.github.com/repos/o/r/keys/",
    "POST https://api.github.com/repositories/1234/keys",
    "POST https://api.github.com/user/keys",
    "POST https://api.github.com/user/gpg_keys",
    "POST https://api.github.com/user/ssh_signing_keys",
    "POST https://api.github.com/repos/o/r/actions/runners/registration-token",
    "POST https://api.github.com/repositories/1/actions/runners/remove-token",
    "POST https://api.github.com/orgs/o/actions/runners/generate-jitconfig",
    "POST https://api.github.com/organizations/1/actions/runners/registration-token",
    "POST https://api.github.com/enterprises/e/actions/runners/registration-token",
    "POST https://api.github.com/repos/o/r/hooks",
    "PATCH https://api.github.com/repositories/1/hooks/2",
    "PATCH https://api.github.com/orgs/o/hooks/1/config",
    "POST https://api.github.com/organizations/1/hooks",
    "PUT https://api.github.com/user/codespaces/secrets/S",
    "PATCH https://api.github.com/applications/c/token",
    "POST https://api.github.com/applications/c/token/scoped",
    "POST https://api.github.com/authorizations",
    "PUT https://api.github.com/authorizations/clients/c",
    "POST https://api.github.com/app-manifests/c/conversions",
    "GET https://api.github.com/copilot_internal/v2/token",
    "GET https://api.github.com/admin/users",
    "POST https://github.com/login/oauth/access_token",
];

const OF_GITHUB_ALLOWED: &[&str] = &[
    "GET https://api.github.com/repos/o/r",
    "DELETE https://api.github.com/repos/o/r",
    "GET https://api.github.com/repos/o/r/keys",
    "GET https://api.github.com/repositories/1",
    "GET https://api.github.com/repos/o/r/actions/secrets/public-key",
    "PUT https://api.github.com/repos/o/r/contents/hooks/pre-commit",
    "PUT https://api.github.com/repos/o/r/contents/keys",
    "POST https://api.github.com/repos/o/r/issues",
    "POST https://api.github.com/graphql",
    "GET https://github.com/admin/r/info/refs",
    "POST https://github.com/o/r/git-receive-pack",
];
