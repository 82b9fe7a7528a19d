-- Sign-ins that an identity provider vouches for (OpenID Connect), of people and of agents.

-- Who a person is to a provider. `email` is canonical, and what the provider last vouched for, if it did.
CREATE TABLE identities (
    issuer     TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    org_id     TEXT   NOT NULL REFERENCES orgs (id),
    user_id    TEXT   NOT NULL REFERENCES users (id),
    email      TEXT,
    created_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_by_user ON identities (user_id);

-- Sign-ins that have begun and wait for the provider's answer. `flow_hash` is of what the browser or the terminal holds, from
-- which state, nonce and verifier come. `user_id` is present where the answer will be linked to somebody who is signed in.
CREATE TABLE oidc_logins (
    flow_hash    BLOB   NOT NULL PRIMARY KEY,
    redirect_uri TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    org_id       TEXT   REFERENCES orgs (id),
    user_id      TEXT   REFERENCES users (id)
);
CREATE INDEX oidc_logins_by_end ON oidc_logins (expires_at);

-- Tokens of a provider that were taken and are not taken again, until they end by themselves.
CREATE TABLE taken_id_tokens (
    digest BLOB   NOT NULL PRIMARY KEY,
    until  BIGINT NOT NULL
);
CREATE INDEX taken_id_tokens_by_end ON taken_id_tokens (until);

-- Present for an agent that shows a token of its own provider in the place of a key.
ALTER TABLE agents ADD COLUMN oidc_issuer TEXT;
ALTER TABLE agents ADD COLUMN oidc_client_id TEXT;
ALTER TABLE agents ADD COLUMN oidc_audience TEXT;
