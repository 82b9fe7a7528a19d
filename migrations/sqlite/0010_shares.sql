-- Values shared with people, agents and whoever has a link; who made an agent, and who accepted an invitation.

-- A share is of one version. `recipient_id` is a person's or an agent's; of a share to an email whoever claimed it. What a link
-- says is here as its SHA-256 alone, and a passphrase as its argon2id digest. `tries` are those since one was right.
-- `networks` is a JSON list.
CREATE TABLE shares (
    id               TEXT   NOT NULL PRIMARY KEY,
    org_id           TEXT   NOT NULL REFERENCES orgs (id),
    secret_id        TEXT   NOT NULL,
    vault_id         TEXT   NOT NULL REFERENCES vaults (id),
    path             TEXT   NOT NULL,
    version          BIGINT NOT NULL,
    recipient_type   TEXT   NOT NULL,
    recipient_id     TEXT,
    recipient_email  TEXT,
    link_hash        BLOB UNIQUE,
    passphrase       TEXT,
    tries            BIGINT NOT NULL,
    networks         TEXT   NOT NULL,
    max_accesses     BIGINT,
    accesses         BIGINT NOT NULL,
    created_by       TEXT   NOT NULL,
    created_by_type  TEXT   NOT NULL,
    created_at       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,
    accepted_at      BIGINT,
    declined_at      BIGINT,
    revoked_at       BIGINT,
    last_accessed_at BIGINT
);
CREATE INDEX shares_by_org ON shares (org_id, id);
CREATE INDEX shares_by_maker ON shares (org_id, created_by, id);
CREATE INDEX shares_by_age ON shares (org_id, created_at);
CREATE INDEX shares_by_recipient ON shares (recipient_id, id);
CREATE INDEX shares_by_email ON shares (recipient_email) WHERE recipient_id IS NULL;

-- The person who made an agent: to whom it may share back.
CREATE TABLE agent_creators (
    agent_id TEXT   NOT NULL PRIMARY KEY REFERENCES agents (id),
    org_id   TEXT   NOT NULL REFERENCES orgs (id),
    user_id  TEXT   NOT NULL
);
INSERT INTO agent_creators (agent_id, org_id, user_id)
    SELECT e.agent_id, e.org_id, json_extract(e.body, '$.actor_id')
    FROM audit_events e JOIN agents a ON a.id = e.agent_id AND a.org_id = e.org_id
    WHERE e.action = 'agent.create' AND json_extract(e.body, '$.actor_type') = 'user'
    ON CONFLICT (agent_id) DO NOTHING;

-- Absent for what was accepted before: then nobody vouches for the email.
ALTER TABLE invitations ADD COLUMN accepted_by TEXT;
