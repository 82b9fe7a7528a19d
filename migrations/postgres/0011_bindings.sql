-- Leases that are used by their id, leases that are minted from leases, and bindings.

-- `keys` is what was asked for of each set, JSON: `"*"` or a list. It is absent where the lease was minted before this.
-- A lease ends with the workflow lease `parent_id` that it was minted from.
ALTER TABLE leases ADD COLUMN keys TEXT;
ALTER TABLE leases ADD COLUMN parent_id TEXT;
CREATE INDEX leases_by_parent ON leases (parent_id) WHERE parent_id IS NOT NULL;

-- A view of one `custom` secret set and the grant on it for one agent. `config` and `guardrails` are JSON objects without
-- any secret. `source_*` name the secret that the set's value is taken from, and the version that it was last taken from.
CREATE TABLE bindings (
    id              TEXT   NOT NULL PRIMARY KEY,
    org_id          TEXT   NOT NULL REFERENCES orgs (id),
    agent_id        TEXT   NOT NULL REFERENCES agents (id),
    name            TEXT   NOT NULL,
    binding_type    TEXT   NOT NULL,
    config          TEXT   NOT NULL,
    guardrails      TEXT   NOT NULL,
    secret_set_id   TEXT   NOT NULL REFERENCES secret_sets (id),
    grant_id        TEXT   NOT NULL REFERENCES grants (id),
    source_vault_id TEXT,
    source_path     TEXT,
    source_version  BIGINT,
    is_active       BIGINT NOT NULL,
    created_by      TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    deleted_at      BIGINT
);
CREATE UNIQUE INDEX bindings_by_name ON bindings (org_id, agent_id, name) WHERE deleted_at IS NULL;
CREATE INDEX bindings_by_set ON bindings (secret_set_id);
