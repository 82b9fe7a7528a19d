-- Key pairs by which agents are known to others. The private halves are secrets of the vault `__agent-keys`, which the service
-- makes with an organisation's first agent and which it alone writes to.

-- Ed25519, 32 bytes.
ALTER TABLE agents ADD COLUMN ssh_public_key BLOB;
-- P-256, 65 bytes: an uncompressed point (SEC 1).
ALTER TABLE agents ADD COLUMN ecdh_public_key BLOB;

-- A vault that somebody gave this name keeps all but the name: who may read in it must not come to read private keys.
UPDATE vaults SET name = name || '-' || id WHERE name = '__agent-keys';
