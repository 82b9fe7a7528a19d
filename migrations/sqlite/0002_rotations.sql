-- Rotations of a vault's key: each wraps, or seals, anew whatever an older key protects.
-- `reached` is the last seal looked at, from which another process goes on; `done` counts the seals
-- looked at in this pass, `total` those there were at the start,
-- `skipped` those that did not open and so stayed under the old key.
CREATE TABLE rotations (
    id             TEXT   NOT NULL PRIMARY KEY,
    org_id         TEXT   NOT NULL REFERENCES orgs (id),
    vault_id       TEXT   NOT NULL REFERENCES vaults (id),
    kind           TEXT   NOT NULL,
    target_kek     TEXT,
    target_version BIGINT NOT NULL,
    state          TEXT   NOT NULL,
    done           BIGINT NOT NULL,
    total          BIGINT NOT NULL,
    skipped        BIGINT NOT NULL,
    reached        TEXT,
    started_at     BIGINT NOT NULL,
    finished_at    BIGINT
);
-- One at a time for each vault.
CREATE UNIQUE INDEX rotations_running ON rotations (vault_id) WHERE state = 'running';
CREATE INDEX rotations_by_org ON rotations (org_id, id);
