-- Sign-ins that an identity provider vouches for (OpenID Connect), of people and of agents.

-- Who a person is to a provider. `email` is canonical, and what the provider last vouched for, if it did.
CREATE TABLE identities (
    issuer     TEXT COLLATE "C" NOT NULL,
    subject    TEXT COLLATE "C" NOT NULL,
    org_id     TEXT COLLATE "C" NOT NULL REFERENCES orgs (id),
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    email      TEXT COLLATE "C",
    created_at BIGINT           NOT NULL,
    used_at    BIGINT           NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_by_user ON identities (user_id);

-- Sign-ins that have begun and wait for the provider's answer. `flow_hash` is of what the browser or the terminal holds, from
-- which state, nonce and verifier come. `user_id` is present where the answer will be linked to somebody who is signed in.
CREATE TABLE oidc_logins (
    flow_hash    BYTEA            NOT NULL PRIMARY KEY,
    redirect_uri TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT           NOT NULL,
    expires_at   BIGINT           NOT NULL,
    org_id       TEXT COLLATE "C" REFERENCES orgs (id),
    user_id      TEXT COLLATE "C" REFERENCES users (id)
);
CREATE INDEX oidc_logins_by_end ON oidc_logins (expires_at);

-- Tokens of a provider that were taken and are not taken again, until they end by themselves.
CREATE TABLE taken_id_tokens (
    digest BYTEA            NOT NULL PRIMARY KEY,
    until  BIGINT           NOT NULL
);
CREATE INDEX taken_id_tokens_by_end ON taken_id_tokens (until);

-- Present for an agent that shows a token of its own provider in the place of a key.
ALTER TABLE agents ADD COLUMN oidc_issuer TEXT COLLATE "C";
ALTER TABLE agents ADD COLUMN oidc_client_id TEXT COLLATE "C";
ALTER TABLE agents ADD COLUMN oidc_audience TEXT COLLATE "C";
