-- What an organisation may have beside what the configuration says of all, and what it asked for in a month.

-- A column is absent where the configuration's default holds, and -1 for any number. No plane writes this table: operators do.
CREATE TABLE org_quotas (
    org_id             TEXT   NOT NULL PRIMARY KEY REFERENCES orgs (id),
    vaults             BIGINT,
    secrets            BIGINT,
    agents             BIGINT,
    requests_per_month BIGINT,
    updated_at         BIGINT NOT NULL
);

-- `month` is `2026-11`, in UTC. One row a node, so that nodes do not wait for each other.
CREATE TABLE org_requests (
    org_id   TEXT   NOT NULL REFERENCES orgs (id),
    month    TEXT   NOT NULL,
    node     TEXT   NOT NULL,
    requests BIGINT NOT NULL,
    PRIMARY KEY (org_id, month, node)
);
