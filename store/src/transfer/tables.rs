//! Every table that is moved, and how its rows are read.

use Kind::{Bytes, Integer, Text};

use crate::db::Value;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Text,
    Bytes,
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// So many of the columns, from the first, are its key.
    pub(super) key: usize,
    pub(super) columns: &'static [(&'static str, Kind)],
}

impl Table {
    /// Reads `limit` rows in the order of the key, after a key that is bound if `is_after`.
    pub(super) fn select(&self, is_after: bool, limit: usize) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let (all, key) = (names.join(", "), names[..self.key].join(", "));
        let places: Vec<String> = (1..=self.key).map(|place| format!("${place}")).collect();
        let after = if is_after {
            format!(" WHERE ({key}) > ({})", places.join(", "))
        } else {
            String::new()
        };
        format!(
            "SELECT {all} FROM {}{after} ORDER BY {key} LIMIT {limit}",
            self.name
        )
    }

    /// Whether a row has a value of the right type for each column.
    pub(super) fn fits(&self, row: &[Value]) -> bool {
        row.len() == self.columns.len()
            && row.iter().zip(self.columns).all(|(value, (_, kind))| {
                matches!(
                    (value, kind),
                    (Value::Integer(_), Integer)
                        | (Value::Text(_), Text)
                        | (Value::Bytes(_), Bytes)
                )
            })
    }
}

/// In an order in which no row comes before one that it refers to.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "orgs",
        key: 1,
        columns: &[("id", Text), ("name", Text), ("created_at", Integer)],
    },
    Table {
        name: "users",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("name", Text),
            ("role", Text),
            ("created_at", Integer),
            ("email", Text),
            ("display_name", Text),
            ("session_epoch", Integer),
            ("removed_at", Integer),
        ],
    },
    Table {
        name: "user_keys",
        key: 1,
        columns: &[
            ("key_hash", Bytes),
            ("org_id", Text),
            ("user_id", Text),
            ("created_at", Integer),
            ("revoked_at", Integer),
            ("id", Text),
            ("name", Text),
            ("prefix", Text),
            ("reads_only", Integer),
            ("expires_at", Integer),
            ("last_used_at", Integer),
            ("session_epoch", Integer),
        ],
    },
    Table {
        name: "passwords",
        key: 1,
        columns: &[
            ("user_id", Text),
            ("org_id", Text),
            ("digest", Text),
            ("changed_at", Integer),
        ],
    },
    Table {
        name: "revoked_tokens",
        key: 1,
        columns: &[("jti", Text), ("org_id", Text), ("until", Integer)],
    },
    Table {
        name: "invitations",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("email", Text),
            ("role", Text),
            ("token_hash", Bytes),
            ("invited_by", Text),
            ("created_at", Integer),
            ("expires_at", Integer),
            ("accepted_at", Integer),
            ("revoked_at", Integer),
        ],
    },
    Table {
        name: "ip_rules",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("rule_type", Text),
            ("cidr", Text),
            ("description", Text),
            ("created_by", Text),
            ("created_at", Integer),
        ],
    },
    Table {
        name: "second_factors",
        key: 1,
        columns: &[
            ("user_id", Text),
            ("org_id", Text),
            ("version", Integer),
            ("enabled_at", Integer),
            ("last_step", Integer),
            ("attempts", Integer),
            ("attempts_from", Integer),
        ],
    },
    Table {
        name: "recovery_codes",
        key: 2,
        columns: &[
            ("user_id", Text),
            ("code_hash", Bytes),
            ("org_id", Text),
            ("used_at", Integer),
        ],
    },
    Table {
        name: "device_logins",
        key: 1,
        columns: &[
            ("device_hash", Bytes),
            ("user_code", Text),
            ("created_at", Integer),
            ("expires_at", Integer),
            ("interval_ms", Integer),
            ("polled_at", Integer),
            ("state", Text),
            ("org_id", Text),
            ("user_id", Text),
        ],
    },
    Table {
        name: "agents",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("name", Text),
            ("description", Text),
            ("key_hash", Bytes),
            ("is_active", Integer),
            ("created_at", Integer),
            ("updated_at", Integer),
            ("last_used_at", Integer),
            ("deleted_at", Integer),
            ("auth_method", Text),
            ("public_key", Bytes),
            ("client_cert_fingerprint", Bytes),
            ("token_ttl_seconds", Integer),
            ("vault_ids", Text),
            ("expires_at", Integer),
            ("token_epoch", Integer),
        ],
    },
    Table {
        name: "seen_nonces",
        key: 1,
        columns: &[("digest", Bytes), ("agent_id", Text), ("until", Integer)],
    },
    Table {
        name: "enrolments",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("user_id", Text),
            ("name", Text),
            ("description", Text),
            ("client_ip", Text),
            ("status", Text),
            ("created_at", Integer),
            ("expires_at", Integer),
            ("decided_at", Integer),
            ("decided_by", Text),
            ("agent_id", Text),
        ],
    },
    Table {
        name: "enrolment_limits",
        key: 1,
        columns: &[("source", Bytes), ("due_at", Integer)],
    },
    Table {
        name: "vaults",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("name", Text),
            ("kek_id", Text),
            ("created_at", Integer),
            ("description", Text),
            ("created_by", Text),
            ("created_by_type", Text),
            ("deleted_at", Integer),
        ],
    },
    Table {
        name: "secrets",
        key: 3,
        columns: &[
            ("org_id", Text),
            ("vault_id", Text),
            ("path", Text),
            ("version", Integer),
            ("created_at", Integer),
            ("deleted_at", Integer),
        ],
    },
    Table {
        name: "secret_versions",
        key: 4,
        columns: &[
            ("org_id", Text),
            ("vault_id", Text),
            ("path", Text),
            ("version", Integer),
            ("sealed", Bytes),
            ("created_at", Integer),
            ("id", Text),
            ("type", Text),
            ("metadata", Text),
            ("rotation_policy", Text),
            ("expires_at", Integer),
            ("max_reads", Integer),
            ("reads", Integer),
            ("created_by", Text),
            ("disabled_at", Integer),
        ],
    },
    Table {
        name: "policies",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("vault_id", Text),
            ("principal_type", Text),
            ("principal_id", Text),
            ("path_pattern", Text),
            ("permissions", Text),
            ("effect", Text),
            ("priority", Integer),
            ("conditions", Text),
            ("environments", Text),
            ("expires_at", Integer),
            ("created_by", Text),
            ("created_at", Integer),
            ("updated_at", Integer),
            ("deleted_at", Integer),
            ("version", Integer),
        ],
    },
    Table {
        name: "secret_sets",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("vault_id", Text),
            ("provider", Text),
            ("environment", Text),
            ("name", Text),
            ("version", Integer),
            ("created_at", Integer),
            ("updated_at", Integer),
            ("deleted_at", Integer),
        ],
    },
    Table {
        name: "secret_set_versions",
        key: 2,
        columns: &[
            ("set_id", Text),
            ("version", Integer),
            ("org_id", Text),
            ("manifest", Text),
            ("custom", Text),
            ("created_at", Integer),
            ("created_by", Text),
            ("rolled_back_to", Integer),
        ],
    },
    Table {
        name: "grants",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("agent_id", Text),
            ("secret_set_id", Text),
            ("allowed_actions", Text),
            ("allowed_keys", Text),
            ("constraints", Text),
            ("rate_requests", Integer),
            ("rate_per_seconds", Integer),
            ("expires_at", Integer),
            ("created_by", Text),
            ("created_at", Integer),
            ("revoked_at", Integer),
        ],
    },
    Table {
        name: "rate_windows",
        key: 1,
        columns: &[
            ("grant_id", Text),
            ("started_at", Integer),
            ("used", Integer),
        ],
    },
    Table {
        name: "budgets",
        key: 1,
        columns: &[
            ("grant_id", Text),
            ("limit_tokens", Integer),
            ("limit_usd_micros", Integer),
            ("per_seconds", Integer),
            ("started_at", Integer),
            ("tokens", Integer),
            ("usd_micros", Integer),
            ("held_tokens", Integer),
            ("held_usd_micros", Integer),
        ],
    },
    Table {
        name: "leases",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("agent_id", Text),
            ("kind", Text),
            ("action", Text),
            ("sets", Text),
            ("issued_at", Integer),
            ("expires_at", Integer),
            ("revoked_at", Integer),
            ("uses", Integer),
            ("revocation_id", Bytes),
            ("cut_off", Integer),
        ],
    },
    Table {
        name: "kill_switches",
        key: 2,
        columns: &[
            ("org_id", Text),
            ("agent_id", Text),
            ("paused_at", Integer),
            ("paused_by", Text),
            ("pause_reason", Text),
            ("cut_off", Integer),
            ("revoked_at", Integer),
            ("revoked_by", Text),
            ("revoke_reason", Text),
        ],
    },
    Table {
        name: "approvals",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("agent_id", Text),
            ("grant_id", Text),
            ("secret_set_id", Text),
            ("lease_id", Text),
            ("digest", Bytes),
            ("status", Text),
            ("method", Text),
            ("scheme", Text),
            ("host", Text),
            ("port", Integer),
            ("path", Text),
            ("query_sha256", Bytes),
            ("body_sha256", Bytes),
            ("body_bytes", Integer),
            ("ttl_ms", Integer),
            ("created_at", Integer),
            ("expires_at", Integer),
            ("decided_at", Integer),
            ("decided_by", Text),
            ("reason", Text),
            ("consumed_at", Integer),
        ],
    },
    Table {
        name: "revoked_blocks",
        key: 1,
        columns: &[
            ("revocation_id", Bytes),
            ("org_id", Text),
            ("lease_id", Text),
            ("revoked_at", Integer),
            ("until", Integer),
        ],
    },
    Table {
        name: "sealed_keys",
        key: 3,
        columns: &[
            ("org_id", Text),
            ("name", Text),
            ("version", Integer),
            ("sealed", Bytes),
            ("public", Bytes),
            ("created_at", Integer),
            ("retired_at", Integer),
        ],
    },
    Table {
        name: "idempotency_keys",
        key: 3,
        columns: &[
            ("org_id", Text),
            ("principal", Text),
            ("key", Text),
            ("request_hash", Bytes),
            ("status", Integer),
            ("body", Bytes),
            ("created_at", Integer),
        ],
    },
    Table {
        name: "rotations",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("vault_id", Text),
            ("kind", Text),
            ("target_kek", Text),
            ("target_version", Integer),
            ("state", Text),
            ("done", Integer),
            ("total", Integer),
            ("skipped", Integer),
            ("reached", Text),
            ("started_at", Integer),
            ("finished_at", Integer),
        ],
    },
    Table {
        name: "webhooks",
        key: 1,
        columns: &[
            ("id", Text),
            ("org_id", Text),
            ("url", Text),
            ("events", Text),
            ("description", Text),
            ("is_active", Integer),
            ("disabled_reason", Text),
            ("secret_version", Integer),
            ("created_by", Text),
            ("created_at", Integer),
            ("updated_at", Integer),
        ],
    },
    Table {
        name: "audit_sinks",
        key: 1,
        columns: &[
            ("sink", Text),
            ("org_id", Text),
            ("place", Text),
            ("holder", Text),
            ("held_until", Integer),
            ("attempts", Integer),
            ("retry_at", Integer),
            ("failing_since", Integer),
            ("delivered", Integer),
            ("delivered_at", Integer),
            ("error", Text),
        ],
    },
    Table {
        name: "webhook_deliveries",
        key: 2,
        columns: &[
            ("webhook_id", Text),
            ("slot", Integer),
            ("org_id", Text),
            ("number", Integer),
            ("event_id", Text),
            ("action", Text),
            ("attempts", Integer),
            ("attempted_at", Integer),
            ("duration_ms", Integer),
            ("status", Integer),
            ("error", Text),
        ],
    },
    Table {
        name: "ledger_state",
        key: 1,
        columns: &[
            ("node", Text),
            ("time_seen", Integer),
            ("open_from", Integer),
            ("is_open", Integer),
            ("unclean_starts", Integer),
            ("restore_epochs", Integer),
        ],
    },
    Table {
        name: "audit_streams",
        key: 1,
        columns: &[("number", Integer), ("stream", Text)],
    },
    Table {
        name: "audit_events",
        key: 1,
        columns: &[
            ("position", Integer),
            ("org_id", Text),
            ("created_at", Integer),
            ("action", Text),
            ("agent_id", Text),
            ("lease_id", Text),
            ("secret_set_id", Text),
            ("prev_hash", Bytes),
            ("hash", Bytes),
            ("body", Text),
        ],
    },
];
