-- For sets whose refresh tokens are replaced by their use (`grant = "refresh_token"`): lets injectors store the new one, as a
-- new version of its set, after a claim that keeps others from using the old one meanwhile. Run it after `roles.sql`:
--
--     psql --dbname claviger --file rotating-tokens.sql
--
-- Without it such sets get 503 `key_unavailable` from injectors with a role of their own, and an injector changes no secret.

GRANT INSERT ON secrets, secret_versions, secret_set_versions TO claviger_injector;
GRANT UPDATE (version, deleted_at) ON secrets TO claviger_injector;
GRANT UPDATE (version, updated_at) ON secret_sets TO claviger_injector;
GRANT EXECUTE ON FUNCTION ledger_changing() TO claviger_injector;

-- Of the claims, those of injectors alone: the others hold answers of the control plane.
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO claviger_injector;
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS control_plane ON idempotency_keys;
CREATE POLICY control_plane ON idempotency_keys TO claviger_control_plane USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS injector_claims ON idempotency_keys;
CREATE POLICY injector_claims ON idempotency_keys TO claviger_injector
    USING (principal = 'injector') WITH CHECK (principal = 'injector' AND status IS NULL);
