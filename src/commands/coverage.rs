//! Whether the commands cover the REST API: every operation is behind a command, or there is a reason why it is behind none.

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::Cli;

/// Operations and the commands that call them, by the operations' names.
const COMMANDS: &[(&str, &str)] = &[
    ("acceptInvitation", "member accept"),
    ("acceptShare", "share accept"),
    ("accessShare", "share open"),
    ("agentToken", "whoami"),
    ("approveDevice", "login"),
    ("approveEnrolment", "agent approve"),
    ("batchDeleteAgents", "agent revoke"),
    ("caCertificate", "ca"),
    ("changePassword", "account password"),
    ("changeRole", "member role"),
    ("createAgent", "agent create"),
    ("createApiKey", "personal-key create"),
    ("createBinding", "binding create"),
    ("createGrant", "grant create"),
    ("createIpRule", "ip-rule allow"),
    ("createLease", "lease mint"),
    ("createPolicy", "policy create"),
    ("createProvider", "providers add"),
    ("createSecretSet", "set put"),
    ("createShare", "share create"),
    ("createVault", "vault create"),
    ("createWebhook", "webhook create"),
    ("decide", "approval approve"),
    ("declineShare", "share decline"),
    ("deleteAgent", "agent revoke"),
    ("deleteBinding", "binding delete"),
    ("deleteIpRule", "ip-rule remove"),
    ("deletePolicy", "policy delete"),
    ("deleteSecret", "secret delete"),
    ("deleteSecretSet", "set delete"),
    ("deleteVault", "vault delete"),
    ("deleteWebhook", "webhook delete"),
    ("deviceCode", "login"),
    ("deviceToken", "login"),
    ("disableSecretVersion", "secret disable"),
    ("disableTotp", "mfa disable"),
    ("enableTotp", "mfa enable"),
    ("enrollAgent", "agent enroll"),
    ("execute", "execute"),
    ("explain", "explain"),
    ("explainPolicies", "policy explain"),
    ("exportAudit", "audit export"),
    ("exportSecrets", "env pull"),
    ("finishOidc", "login"),
    ("getAgent", "agent show"),
    ("getApproval", "approval show"),
    ("getBinding", "binding show"),
    ("getGrant", "grant show"),
    ("getInjector", "run"),
    ("getKillSwitch", "kill-switch status"),
    ("getLease", "lease inspect"),
    ("getMe", "whoami"),
    ("getOwnAgent", "execute"),
    ("getProvider", "providers show"),
    ("getRotation", "keys rotate"),
    ("getSecret", "secret get"),
    ("getSecretSet", "set show"),
    ("getSecretVersion", "secret get"),
    ("getShare", "share show"),
    ("getUsage", "usage"),
    ("getVault", "vault show"),
    ("getWebhook", "webhook show"),
    ("health", "doctor"),
    ("importSecretSet", "set import"),
    ("invite", "member invite"),
    ("linkIdentity", "account link"),
    ("listAgents", "agent list"),
    ("listApiKeys", "personal-key list"),
    ("listApprovals", "approval list"),
    ("listBindings", "binding list"),
    ("listEnrolments", "agent enrolments"),
    ("listEvents", "audit list"),
    ("listGrants", "grant list"),
    ("listInboundShares", "share list"),
    ("listInvitations", "member invitations"),
    ("listIpRules", "ip-rule list"),
    ("listKeys", "keys list"),
    ("listLeases", "lease list"),
    ("listMembers", "member list"),
    ("listOutboundShares", "share list"),
    ("listPolicies", "policy list"),
    ("listProviders", "providers list"),
    ("listSecretSetVersions", "set versions"),
    ("listSecretSets", "set list"),
    ("listSecretVersions", "secret versions"),
    ("listSecrets", "secret list"),
    ("listVaults", "vault list"),
    ("listWebhookDeliveries", "webhook deliveries"),
    ("listWebhooks", "webhook list"),
    ("migrateKeys", "keys migrate"),
    ("openShare", "share open"),
    ("putSecret", "secret put"),
    ("rejectEnrolment", "agent reject"),
    ("removeMember", "member remove"),
    ("requestApproval", "approval ask"),
    ("restoreSecret", "secret restore"),
    ("revokeAll", "kill-switch revoke-all"),
    ("revokeApiKey", "personal-key revoke"),
    ("revokeGrant", "grant revoke"),
    ("revokeInvitation", "member uninvite"),
    ("revokeLease", "lease revoke"),
    ("revokeLeaseByToken", "lease revoke"),
    ("revokeShare", "share revoke"),
    ("rollbackSecretSet", "set rollback"),
    ("rotateAgentKey", "agent rotate-key"),
    ("rotateBindingCredential", "binding rotate"),
    ("rotateIdentityKeys", "agent rotate-identity-keys"),
    ("rotateKey", "keys rotate"),
    ("rotateSecret", "secret rotate"),
    ("rotateWebhookSecret", "webhook rotate-secret"),
    ("setMinting", "kill-switch pause"),
    ("setupTotp", "mfa setup"),
    ("signIn", "login"),
    ("signOut", "logout"),
    ("signUp", "account create"),
    ("startOidc", "login"),
    ("tailAudit", "audit tail"),
    ("testBinding", "binding test"),
    ("testWebhook", "webhook test"),
    ("unlinkIdentities", "account unlink"),
    ("updateAgent", "agent update"),
    ("updateMe", "account email"),
    ("updatePolicy", "policy update"),
    ("updateSecretSet", "set put"),
    ("updateWebhook", "webhook update"),
    ("verifyAudit", "audit verify"),
    ("verifyMfa", "login"),
];

/// Operations that no command calls, and why.
const WITHOUT: &[(&str, &str)] = &[
    ("apiKeyToken", "the commands send the personal key itself"),
    ("approve", "the seeds' name for `decide`"),
    ("deny", "the seeds' name for `decide`"),
    (
        "describe",
        "the page behind a problem's `type`; the commands show a hint of their own",
    ),
    (
        "disableSecretVersionAlias",
        "the seeds' name for `disableSecretVersion`",
    ),
    (
        "healthHsm",
        "for load balancers; `doctor` asks the key provider itself",
    ),
    ("listVaultEvents", "the seeds' name for `listEvents`"),
    ("metrics", "read by Prometheus"),
    ("openapi", "read by generators of clients"),
    (
        "createWorkflowLease",
        "the seeds' name for `createLease` of the kind workflow",
    ),
    (
        "evaluatePolicy",
        "for agents that ask before they act; people ask `explain`",
    ),
    (
        "finishOidcInBrowser",
        "where an identity provider sends a browser back to",
    ),
    (
        "getAgentKeysVault",
        "`vault show __agent-keys` shows the same",
    ),
    ("getBillingUsage", "the seeds' name for `getUsage`"),
    (
        "listExecutions",
        "`audit list --agent` has all that an agent did",
    ),
    (
        "mintRequestLease",
        "for agents' programs that hold a workflow lease; `lease narrow` does without a server",
    ),
    (
        "proxyProfileRequest",
        "the seeds' shape of what `run` gives its program a proxy for",
    ),
    (
        "proxyRequest",
        "the seeds' shape of what `run` gives its program a proxy for",
    ),
    ("ready", "for load balancers, as `health` is"),
    ("putAgent", "the seeds' name for `updateAgent`"),
    ("readSecrets", "the seeds' shape of `exportSecrets`"),
    ("signInWithGoogle", "for pages with Google's own button"),
    (
        "startOidcInBrowser",
        "for pages that send a browser to the identity provider",
    ),
    (
        "updateBinding",
        "a binding is cheap to delete and make again; `binding rotate` keeps its place",
    ),
];

/// The names of all operations of the API's description.
fn operations() -> BTreeSet<String> {
    let document = serde_json::to_value(control_plane::openapi::document()).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|item| item.as_object().unwrap().values());
    operations
        .map(|operation| operation["operationId"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_operation_is_behind_a_command_or_has_a_reason() {
    let listed: Vec<&str> = COMMANDS
        .iter()
        .chain(WITHOUT)
        .map(|(operation, _)| *operation)
        .collect();
    let operations = operations();
    let missing: Vec<&String> = operations
        .iter()
        .filter(|operation| !listed.contains(&operation.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "no command calls {missing:?}; write one and add it to COMMANDS, or a reason to WITHOUT"
    );
    for operation in &listed {
        assert!(operations.contains(*operation), "there is no {operation}");
        let times = listed.iter().filter(|other| other == &operation).count();
        assert_eq!(times, 1, "{operation}");
    }
}

#[test]
fn every_command_that_is_named_exists() {
    for (operation, path) in COMMANDS {
        let mut command = Cli::command();
        for name in path.split(' ') {
            let found = command.find_subcommand(name).cloned();
            command = found.unwrap_or_else(|| panic!("{operation}: there is no `claviger {path}`"));
        }
        assert!(
            !command.is_subcommand_required_set(),
            "{operation}: `claviger {path}` is a family of commands"
        );
    }
}
