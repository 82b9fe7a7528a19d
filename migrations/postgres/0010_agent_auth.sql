-- How agents authenticate, and what their tokens are bound to.

-- An agent that has no key keeps the digest of nothing: random bytes, which no key's digest is.
ALTER TABLE agents ADD COLUMN auth_method TEXT NOT NULL DEFAULT 'api_key';
-- Ed25519, 32 bytes.
ALTER TABLE agents ADD COLUMN public_key BYTEA;
-- SHA-256 of the certificate's DER, 32 bytes.
ALTER TABLE agents ADD COLUMN client_cert_fingerprint BYTEA;
ALTER TABLE agents ADD COLUMN token_ttl_seconds BIGINT;
-- A JSON list of vaults, beyond which the agent reaches nothing; absent for no such bound.
ALTER TABLE agents ADD COLUMN vault_ids TEXT;
ALTER TABLE agents ADD COLUMN expires_at BIGINT;
-- Tokens of an earlier epoch have ended.
ALTER TABLE agents ADD COLUMN token_epoch BIGINT NOT NULL DEFAULT 0;

-- What may come once: a digest of an agent's nonce or proof, for as long as its time would let it be taken again.
CREATE TABLE seen_nonces (
    digest   BYTEA   NOT NULL PRIMARY KEY,
    agent_id TEXT   NOT NULL,
    until    BIGINT NOT NULL
);
CREATE INDEX seen_nonces_by_agent ON seen_nonces (agent_id);
CREATE INDEX seen_nonces_by_end ON seen_nonces (until);

-- Agents that asked for themselves. `org_id` and `user_id` are of the person whom they named, absent if nobody has the email.
CREATE TABLE enrolments (
    id          TEXT   NOT NULL PRIMARY KEY,
    org_id      TEXT   REFERENCES orgs (id),
    user_id     TEXT   REFERENCES users (id),
    name        TEXT   NOT NULL,
    description TEXT,
    client_ip   TEXT,
    status      TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    decided_at  BIGINT,
    decided_by  TEXT,
    agent_id    TEXT
);
CREATE INDEX enrolments_by_org ON enrolments (org_id, id);
CREATE INDEX enrolments_by_end ON enrolments (expires_at);

-- When the next enrolment of an address, or for an email, would come at the least rate: a digest of either, and the time.
CREATE TABLE enrolment_limits (
    source BYTEA  NOT NULL PRIMARY KEY,
    due_at BIGINT NOT NULL
);
CREATE INDEX enrolment_limits_by_end ON enrolment_limits (due_at);
