-- Types are TEXT, BIGINT and BYTEA alone, so that the same statements run on both databases.
-- Times are milliseconds since the epoch, ids are prefixed ULIDs, flags are 0 or 1.
-- Texts sort by their bytes, as they do in SQLite: a range of paths stays one, and no index depends
-- on the operating system's idea of an alphabet.

CREATE TABLE orgs (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL
);

CREATE TABLE users (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org_id     TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    name       TEXT COLLATE "C" NOT NULL,
    role       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL,
    UNIQUE (org_id, name)
);

-- Only digests: a key is shown once and stored nowhere.
CREATE TABLE user_keys (
    key_hash   BYTEA            NOT NULL PRIMARY KEY,
    org_id     TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    created_at BIGINT           NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX user_keys_by_user ON user_keys (user_id);

CREATE TABLE agents (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org_id       TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    name         TEXT COLLATE "C" NOT NULL,
    description  TEXT COLLATE "C",
    key_hash     BYTEA            NOT NULL UNIQUE,
    is_active    BIGINT           NOT NULL,
    created_at   BIGINT           NOT NULL,
    updated_at   BIGINT           NOT NULL,
    last_used_at BIGINT,
    deleted_at   BIGINT
);
CREATE UNIQUE INDEX agents_by_name ON agents (org_id, name) WHERE deleted_at IS NULL;
CREATE INDEX agents_by_org ON agents (org_id, id);

CREATE TABLE vaults (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org_id     TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    name       TEXT COLLATE "C" NOT NULL,
    kek_id     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL,
    UNIQUE (org_id, name)
);

-- A row outlives the deletion of its secret, so that a version number is never given twice at one
-- path: an old seal, bound to path and version, fits nowhere else.
CREATE TABLE secrets (
    org_id     TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    vault_id   TEXT COLLATE "C" NOT NULL REFERENCES vaults (id),
    path       TEXT COLLATE "C" NOT NULL,
    version    BIGINT           NOT NULL,
    created_at BIGINT           NOT NULL,
    deleted_at BIGINT,
    PRIMARY KEY (org_id, vault_id, path)
);

CREATE TABLE secret_versions (
    org_id     TEXT COLLATE "C" NOT NULL,
    vault_id   TEXT COLLATE "C" NOT NULL,
    path       TEXT COLLATE "C" NOT NULL,
    version    BIGINT           NOT NULL,
    sealed     BYTEA            NOT NULL,
    created_at BIGINT           NOT NULL,
    PRIMARY KEY (org_id, vault_id, path, version),
    FOREIGN KEY (org_id, vault_id, path) REFERENCES secrets (org_id, vault_id, path)
);

CREATE TABLE secret_sets (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org_id      TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    vault_id    TEXT COLLATE "C" NOT NULL REFERENCES vaults (id),
    provider    TEXT COLLATE "C" NOT NULL,
    environment TEXT COLLATE "C" NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    version     BIGINT           NOT NULL,
    created_at  BIGINT           NOT NULL,
    updated_at  BIGINT           NOT NULL,
    deleted_at  BIGINT
);
CREATE UNIQUE INDEX secret_sets_by_name ON secret_sets (org_id, provider, environment, name)
    WHERE deleted_at IS NULL;
CREATE INDEX secret_sets_by_org ON secret_sets (org_id, id);

-- `manifest` is a JSON object: key -> version of the secret at provider/environment/name/key.
CREATE TABLE secret_set_versions (
    set_id         TEXT COLLATE "C" NOT NULL REFERENCES secret_sets (id),
    version        BIGINT           NOT NULL,
    org_id         TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    manifest       TEXT COLLATE "C" NOT NULL,
    custom         TEXT COLLATE "C",
    created_at     BIGINT           NOT NULL,
    created_by     TEXT COLLATE "C" NOT NULL,
    rolled_back_to BIGINT,
    PRIMARY KEY (set_id, version)
);

CREATE TABLE grants (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org_id           TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    agent_id         TEXT COLLATE "C" NOT NULL REFERENCES agents (id),
    secret_set_id    TEXT COLLATE "C" NOT NULL REFERENCES secret_sets (id),
    allowed_actions  TEXT COLLATE "C" NOT NULL,
    allowed_keys     TEXT COLLATE "C" NOT NULL,
    constraints      TEXT COLLATE "C" NOT NULL,
    rate_requests    BIGINT,
    rate_per_seconds BIGINT,
    expires_at       BIGINT,
    created_by       TEXT COLLATE "C" NOT NULL,
    created_at       BIGINT           NOT NULL,
    revoked_at       BIGINT
);
CREATE INDEX grants_by_org ON grants (org_id, id);
CREATE INDEX grants_by_agent ON grants (agent_id, secret_set_id);

-- `uses` decides for a request lease and is a display count for a workflow lease.
CREATE TABLE leases (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org_id        TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    agent_id      TEXT COLLATE "C" NOT NULL REFERENCES agents (id),
    kind          TEXT COLLATE "C" NOT NULL,
    action        TEXT COLLATE "C" NOT NULL,
    sets          TEXT COLLATE "C" NOT NULL,
    issued_at     BIGINT           NOT NULL,
    expires_at    BIGINT           NOT NULL,
    revoked_at    BIGINT,
    uses          BIGINT           NOT NULL,
    revocation_id BYTEA            NOT NULL
);
CREATE INDEX leases_by_org ON leases (org_id, id);
CREATE INDEX leases_by_agent ON leases (agent_id, id);

CREATE TABLE revoked_blocks (
    revocation_id BYTEA            NOT NULL PRIMARY KEY,
    org_id        TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    lease_id      TEXT COLLATE "C" NOT NULL REFERENCES leases (id),
    revoked_at    BIGINT           NOT NULL,
    until         BIGINT           NOT NULL
);
CREATE INDEX revoked_blocks_by_end ON revoked_blocks (until);

CREATE TABLE sealed_keys (
    org_id     TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    name       TEXT COLLATE "C" NOT NULL,
    version    BIGINT           NOT NULL,
    sealed     BYTEA            NOT NULL,
    public     BYTEA            NOT NULL,
    created_at BIGINT           NOT NULL,
    retired_at BIGINT,
    PRIMARY KEY (org_id, name, version)
);

-- `status` is absent while the first request runs.
CREATE TABLE idempotency_keys (
    org_id       TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    principal    TEXT COLLATE "C" NOT NULL,
    key          TEXT COLLATE "C" NOT NULL,
    request_hash BYTEA            NOT NULL,
    status       BIGINT,
    body         BYTEA,
    created_at   BIGINT           NOT NULL,
    PRIMARY KEY (org_id, principal, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- The chain. `number` orders the streams; a record's `position` is number * 2^40 + seq, so one
-- B-tree, to whose end the ledger appends, gives order, uniqueness and the way to each record.
-- `writer` is the run of the process that writes the stream: whoever takes it over shuts the one
-- before it out. `owner` is the role that it connects as. `time_seen` is the latest time that a writer acted on.
CREATE TABLE audit_streams (
    number    BIGINT           NOT NULL PRIMARY KEY,
    stream    TEXT COLLATE "C" NOT NULL UNIQUE,
    writer    TEXT COLLATE "C" NOT NULL DEFAULT '',
    owner     TEXT COLLATE "C" NOT NULL DEFAULT '',
    time_seen BIGINT           NOT NULL DEFAULT 0
);

-- The columns between `position` and `prev_hash` copy what `body` says, for filters.
CREATE TABLE audit_events (
    position      BIGINT           NOT NULL PRIMARY KEY,
    org_id        TEXT COLLATE "C" NOT NULL,
    created_at    BIGINT           NOT NULL,
    action        TEXT COLLATE "C" NOT NULL,
    agent_id      TEXT COLLATE "C",
    lease_id      TEXT COLLATE "C",
    secret_set_id TEXT COLLATE "C",
    prev_hash     BYTEA            NOT NULL,
    hash          BYTEA            NOT NULL,
    body          TEXT COLLATE "C" NOT NULL
);
