-- Where the audit trail is told to others, and what a policy's changes are counted by.

-- `events` is a JSON list of patterns of actions. The signing secret lies in `sealed_keys` as `webhook/<id>`. One that is
-- not active was stopped by a person, or by the service for the reason given.
CREATE TABLE webhooks (
    id              TEXT   NOT NULL PRIMARY KEY,
    org_id          TEXT   NOT NULL REFERENCES orgs (id),
    url             TEXT   NOT NULL,
    events          TEXT   NOT NULL,
    description     TEXT,
    is_active       BIGINT NOT NULL,
    disabled_reason TEXT,
    secret_version  BIGINT NOT NULL,
    created_by      TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE INDEX webhooks_by_org ON webhooks (org_id, id);

-- How far the trail was told: to a webhook under its id, to the collector of logs under `otlp`. `place` is a cursor over the
-- audit streams. The node `holder` tells it until `held_until`. `attempts` have failed since the last success, the first at
-- `failing_since`; the next is made at `retry_at`.
CREATE TABLE audit_sinks (
    sink          TEXT   NOT NULL PRIMARY KEY,
    org_id        TEXT   NOT NULL REFERENCES orgs (id),
    place         TEXT   NOT NULL,
    holder        TEXT,
    held_until    BIGINT NOT NULL,
    attempts      BIGINT NOT NULL,
    retry_at      BIGINT NOT NULL,
    failing_since BIGINT,
    delivered     BIGINT NOT NULL,
    delivered_at  BIGINT,
    error         TEXT
);

-- The last deliveries of each webhook, in a ring: the one of `number` lies in the slot `number` modulo the ring's length.
CREATE TABLE webhook_deliveries (
    webhook_id   TEXT   NOT NULL,
    slot         BIGINT NOT NULL,
    org_id       TEXT   NOT NULL REFERENCES orgs (id),
    number       BIGINT NOT NULL,
    event_id     TEXT   NOT NULL,
    action       TEXT   NOT NULL,
    attempts     BIGINT NOT NULL,
    attempted_at BIGINT NOT NULL,
    duration_ms  BIGINT NOT NULL,
    status       BIGINT,
    error        TEXT,
    PRIMARY KEY (webhook_id, slot)
);

-- Each change of a policy is one above the one before; the trail tells the number.
ALTER TABLE policies ADD COLUMN version BIGINT NOT NULL DEFAULT 0;

-- What a sweep deletes.
CREATE INDEX approvals_by_end ON approvals (expires_at);
