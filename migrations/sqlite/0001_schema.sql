-- Types are TEXT, BIGINT and BLOB alone, so that the same statements run on both databases.
-- Times are milliseconds since the epoch, ids are prefixed ULIDs, flags are 0 or 1.

CREATE TABLE orgs (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    id         TEXT   NOT NULL PRIMARY KEY,
    org_id     TEXT   NOT NULL REFERENCES orgs (id),
    name       TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (org_id, name)
);

-- Only digests: a key is shown once and stored nowhere.
CREATE TABLE user_keys (
    key_hash   BLOB   NOT NULL PRIMARY KEY,
    org_id     TEXT   NOT NULL REFERENCES orgs (id),
    user_id    TEXT   NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX user_keys_by_user ON user_keys (user_id);

CREATE TABLE agents (
    id           TEXT   NOT NULL PRIMARY KEY,
    org_id       TEXT   NOT NULL REFERENCES orgs (id),
    name         TEXT   NOT NULL,
    description  TEXT,
    key_hash     BLOB   NOT NULL UNIQUE,
    is_active    BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    deleted_at   BIGINT
);
CREATE UNIQUE INDEX agents_by_name ON agents (org_id, name) WHERE deleted_at IS NULL;
CREATE INDEX agents_by_org ON agents (org_id, id);

CREATE TABLE vaults (
    id         TEXT   NOT NULL PRIMARY KEY,
    org_id     TEXT   NOT NULL REFERENCES orgs (id),
    name       TEXT   NOT NULL,
    kek_id     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (org_id, name)
);

-- A row outlives the deletion of its secret, so that a version number is never given twice at one
-- path: an old seal, bound to path and version, fits nowhere else.
CREATE TABLE secrets (
    org_id     TEXT   NOT NULL REFERENCES orgs (id),
    vault_id   TEXT   NOT NULL REFERENCES vaults (id),
    path       TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT,
    PRIMARY KEY (org_id, vault_id, path)
);

CREATE TABLE secret_versions (
    org_id     TEXT   NOT NULL,
    vault_id   TEXT   NOT NULL,
    path       TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    sealed     BLOB   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (org_id, vault_id, path, version),
    FOREIGN KEY (org_id, vault_id, path) REFERENCES secrets (org_id, vault_id, path)
);

CREATE TABLE secret_sets (
    id          TEXT   NOT NULL PRIMARY KEY,
    org_id      TEXT   NOT NULL REFERENCES orgs (id),
    vault_id    TEXT   NOT NULL REFERENCES vaults (id),
    provider    TEXT   NOT NULL,
    environment TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    deleted_at  BIGINT
);
CREATE UNIQUE INDEX secret_sets_by_name ON secret_sets (org_id, provider, environment, name)
    WHERE deleted_at IS NULL;
CREATE INDEX secret_sets_by_org ON secret_sets (org_id, id);

-- `manifest` is a JSON object: key -> version of the secret at provider/environment/name/key.
CREATE TABLE secret_set_versions (
    set_id         TEXT   NOT NULL REFERENCES secret_sets (id),
    version        BIGINT NOT NULL,
    org_id         TEXT   NOT NULL REFERENCES orgs (id),
    manifest       TEXT   NOT NULL,
    custom         TEXT,
    created_at     BIGINT NOT NULL,
    created_by     TEXT   NOT NULL,
    rolled_back_to BIGINT,
    PRIMARY KEY (set_id, version)
);

CREATE TABLE grants (
    id               TEXT   NOT NULL PRIMARY KEY,
    org_id           TEXT   NOT NULL REFERENCES orgs (id),
    agent_id         TEXT   NOT NULL REFERENCES agents (id),
    secret_set_id    TEXT   NOT NULL REFERENCES secret_sets (id),
    allowed_actions  TEXT   NOT NULL,
    allowed_keys     TEXT   NOT NULL,
    constraints      TEXT   NOT NULL,
    rate_requests    BIGINT,
    rate_per_seconds BIGINT,
    expires_at       BIGINT,
    created_by       TEXT   NOT NULL,
    created_at       BIGINT NOT NULL,
    revoked_at       BIGINT
);
CREATE INDEX grants_by_org ON grants (org_id, id);
CREATE INDEX grants_by_agent ON grants (agent_id, secret_set_id);

-- One row per grant with a rate; the ledger alone writes it.
CREATE TABLE rate_windows (
    grant_id   TEXT   NOT NULL PRIMARY KEY,
    started_at BIGINT NOT NULL,
    used       BIGINT NOT NULL
);

-- `uses` decides for a request lease and is a display count for a workflow lease.
CREATE TABLE leases (
    id            TEXT   NOT NULL PRIMARY KEY,
    org_id        TEXT   NOT NULL REFERENCES orgs (id),
    agent_id      TEXT   NOT NULL REFERENCES agents (id),
    kind          TEXT   NOT NULL,
    action        TEXT   NOT NULL,
    sets          TEXT   NOT NULL,
    issued_at     BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    revoked_at    BIGINT,
    uses          BIGINT NOT NULL,
    revocation_id BLOB   NOT NULL
);
CREATE INDEX leases_by_org ON leases (org_id, id);
CREATE INDEX leases_by_agent ON leases (agent_id, id);

CREATE TABLE revoked_blocks (
    revocation_id BLOB   NOT NULL PRIMARY KEY,
    org_id        TEXT   NOT NULL REFERENCES orgs (id),
    lease_id      TEXT   NOT NULL REFERENCES leases (id),
    revoked_at    BIGINT NOT NULL,
    until         BIGINT NOT NULL
);
CREATE INDEX revoked_blocks_by_end ON revoked_blocks (until);

CREATE TABLE sealed_keys (
    org_id     TEXT   NOT NULL REFERENCES orgs (id),
    name       TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    sealed     BLOB   NOT NULL,
    public     BLOB   NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT,
    PRIMARY KEY (org_id, name, version)
);

-- `status` is absent while the first request runs.
CREATE TABLE idempotency_keys (
    org_id       TEXT   NOT NULL REFERENCES orgs (id),
    principal    TEXT   NOT NULL,
    key          TEXT   NOT NULL,
    request_hash BLOB   NOT NULL,
    status       BIGINT,
    body         BLOB,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (org_id, principal, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- The chain. `number` orders the streams; a record's `position` is number * 2^40 + seq, so one
-- B-tree, to whose end the ledger appends, gives order, uniqueness and the way to each record.
CREATE TABLE audit_streams (
    number BIGINT NOT NULL PRIMARY KEY,
    stream TEXT   NOT NULL UNIQUE
);

-- The columns between `position` and `prev_hash` copy what `body` says, for filters.
CREATE TABLE audit_events (
    position      INTEGER NOT NULL PRIMARY KEY,
    org_id        TEXT    NOT NULL,
    created_at    BIGINT  NOT NULL,
    action        TEXT    NOT NULL,
    agent_id      TEXT,
    lease_id      TEXT,
    secret_set_id TEXT,
    prev_hash     BLOB    NOT NULL,
    hash          BLOB    NOT NULL,
    body          TEXT    NOT NULL
);

-- What a ledger remembers across starts, one row a node.
-- `time_seen`: the latest time it has acted on. `open_from`: uses before this seq all have their
-- outcome. `is_open`: 1 while a process runs. `restore_epochs`: epochs that it began because the database
-- had been put back to an earlier state.
CREATE TABLE ledger_state (
    node           TEXT   NOT NULL PRIMARY KEY,
    time_seen      BIGINT NOT NULL,
    open_from      BIGINT NOT NULL,
    is_open        BIGINT NOT NULL,
    unclean_starts BIGINT NOT NULL,
    restore_epochs BIGINT NOT NULL DEFAULT 0
);
