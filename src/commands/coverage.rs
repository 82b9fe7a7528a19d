//! Whether the commands cover the REST API: every operation is behind a command, or there is a reason why it is behind none.

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::Cli;

/// Operations and the commands that call them, by the operations' names.
const COMMANDS: &[(&str, &str)] = &[
    ("acceptInvitation", "member accept"),
    ("agentToken", "whoami"),
    ("approveDevice", "login"),
    ("caCertificate", "ca"),
    ("changePassword", "account password"),
    ("changeRole", "member role"),
    ("createAgent", "agent create"),
    ("createApiKey", "personal-key create"),
    ("createGrant", "grant create"),
    ("createIpRule", "ip-rule allow"),
    ("createLease", "lease mint"),
    ("createPolicy", "policy create"),
    ("createProvider", "providers add"),
    ("createSecretSet", "set put"),
    ("createVault", "vault create"),
    ("decide", "approval approve"),
    ("deleteAgent", "agent revoke"),
    ("deleteIpRule", "ip-rule remove"),
    ("deletePolicy", "policy delete"),
    ("deleteSecret", "secret delete"),
    ("deleteSecretSet", "set delete"),
    ("deleteVault", "vault delete"),
    ("deviceCode", "login"),
    ("deviceToken", "login"),
    ("disableSecretVersion", "secret disable"),
    ("disableTotp", "mfa disable"),
    ("enableTotp", "mfa enable"),
    ("explain", "explain"),
    ("explainPolicies", "policy explain"),
    ("exportAudit", "audit export"),
    ("exportSecrets", "env pull"),
    ("getAgent", "agent show"),
    ("getApproval", "approval show"),
    ("getGrant", "grant show"),
    ("getKillSwitch", "kill-switch status"),
    ("getLease", "lease inspect"),
    ("getMe", "whoami"),
    ("getProvider", "providers show"),
    ("getRotation", "keys rotate"),
    ("getSecret", "secret get"),
    ("getSecretSet", "set show"),
    ("getSecretVersion", "secret get"),
    ("getVault", "vault show"),
    ("health", "doctor"),
    ("importSecretSet", "set import"),
    ("invite", "member invite"),
    ("listAgents", "agent list"),
    ("listApiKeys", "personal-key list"),
    ("listApprovals", "approval list"),
    ("listEvents", "audit list"),
    ("listGrants", "grant list"),
    ("listInvitations", "member invitations"),
    ("listIpRules", "ip-rule list"),
    ("listKeys", "keys list"),
    ("listLeases", "lease list"),
    ("listMembers", "member list"),
    ("listPolicies", "policy list"),
    ("listProviders", "providers list"),
    ("listSecretSetVersions", "set versions"),
    ("listSecretSets", "set list"),
    ("listSecretVersions", "secret versions"),
    ("listSecrets", "secret list"),
    ("listVaults", "vault list"),
    ("migrateKeys", "keys migrate"),
    ("putSecret", "secret put"),
    ("removeMember", "member remove"),
    ("restoreSecret", "secret restore"),
    ("revokeAll", "kill-switch revoke-all"),
    ("revokeApiKey", "personal-key revoke"),
    ("revokeGrant", "grant revoke"),
    ("revokeInvitation", "member uninvite"),
    ("revokeLease", "lease revoke"),
    ("revokeLeaseByToken", "lease revoke"),
    ("rollbackSecretSet", "set rollback"),
    ("rotateAgentKey", "agent rotate-key"),
    ("rotateKey", "keys rotate"),
    ("rotateSecret", "secret rotate"),
    ("setMinting", "kill-switch pause"),
    ("setupTotp", "mfa setup"),
    ("signIn", "login"),
    ("signOut", "logout"),
    ("signUp", "account create"),
    ("tailAudit", "audit tail"),
    ("updateAgent", "agent update"),
    ("updateMe", "account email"),
    ("updatePolicy", "policy update"),
    ("updateSecretSet", "set put"),
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
