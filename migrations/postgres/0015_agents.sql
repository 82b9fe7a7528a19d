-- Key pairs by which agents are known to others. The private halves are secrets of the vault `__agent-keys`, which the service
-- makes with an organisation's first agent and which it alone writes to.

-- Ed25519, 32 bytes.
ALTER TABLE agents ADD COLUMN ssh_public_key BYTEA;
-- P-256, 65 bytes: an uncompressed point (SEC 1).
ALTER TABLE agents ADD COLUMN ecdh_public_key BYTEA;

-- A vault that somebody gave this name keeps all but the name: who may read in it must not come to read private keys.
UPDATE vaults SET name = name || '-' || id WHERE name = '__agent-keys';

-- What agents and people ask a person: beside the requests in `approvals`, and apart from them, so that no use can be approved by it.
-- `status` is pending, approved or rejected; what is pending or approved past `expires_at` has expired.
CREATE TABLE consents (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    org_id          TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    asked_by        TEXT COLLATE "C" NOT NULL,
    asked_by_type   TEXT COLLATE "C" NOT NULL,
    action          TEXT COLLATE "C" NOT NULL,
    target_type     TEXT COLLATE "C" NOT NULL,
    target_id       TEXT COLLATE "C" NOT NULL,
    summary         TEXT COLLATE "C" NOT NULL,
    reason          TEXT COLLATE "C",
    status          TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT           NOT NULL,
    expires_at      BIGINT           NOT NULL,
    decided_at      BIGINT,
    decided_by      TEXT COLLATE "C",
    decision_reason TEXT COLLATE "C"
);
CREATE INDEX consents_by_org ON consents (org_id, id);
CREATE INDEX consents_waiting ON consents (org_id, asked_by) WHERE status = 'pending';
CREATE INDEX consents_by_end ON consents (expires_at);
