-- Roles for Claviger on Postgres: each process gets what it needs and nothing else.
--
-- Run it as a superuser in Claviger's database, before `claviger migrate` (for the roles) and after each one (for what
-- they may do). Running it again changes nothing. Give the roles their passwords or certificates by your own means:
--
--     psql --dbname claviger --file roles.sql
--     claviger migrate --database postgres://claviger_owner@db.example.org/claviger
--     psql --dbname claviger --file roles.sql
--
-- claviger_owner          owns the schema: `claviger migrate`, `import-database`, nothing that listens
-- claviger_control_plane  `claviger control-plane`: manages, grants and mints; uses no lease, and changes no audit record
-- claviger_injector       `claviger injector`: reads leases, grants and sealed values, records uses; mints nothing
--
-- `claviger serve` is both planes in one process: give its role the other two by `GRANT a, b TO it`.

DO $$
DECLARE
    role TEXT;
    f    RECORD;
BEGIN
    FOREACH role IN ARRAY ARRAY ['claviger_owner', 'claviger_control_plane', 'claviger_injector'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role);
        END IF;
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO claviger_owner, claviger_control_plane, claviger_injector',
        current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    GRANT USAGE, CREATE ON SCHEMA public TO claviger_owner;
    GRANT USAGE ON SCHEMA public TO claviger_control_plane, claviger_injector;

    IF to_regclass('public.schema_migrations') IS NULL THEN
        RAISE NOTICE 'the roles are made; run this again after claviger migrate';
        RETURN;
    END IF;

    -- Both read what decides, and the values in their sealed form.
    GRANT SELECT ON schema_migrations, orgs, users, user_keys, agents, vaults, secrets, secret_versions, secret_sets,
        secret_set_versions, grants, leases, revoked_blocks, kill_switches, approvals, sealed_keys, revoked_tokens
        TO claviger_control_plane, claviger_injector;
    -- Not a node's run, nor who writes a stream: whoever knows these names writes in the node's.
    GRANT SELECT (name, planes, version, api_address, proxy_address, started_at, heartbeat, ended_at) ON nodes
        TO claviger_control_plane, claviger_injector;

    -- The control plane manages. It adds to the audit trail by functions alone.
    GRANT SELECT ON idempotency_keys, rotations, policies, bindings, rate_windows, budgets, audit_events, shares,
        agent_creators
        TO claviger_control_plane;
    GRANT SELECT (number, stream, time_seen) ON audit_streams TO claviger_control_plane;
    GRANT INSERT ON orgs, users, user_keys, agents, vaults, secrets, secret_versions, secret_sets, secret_set_versions,
        grants, budgets, leases, revoked_blocks, kill_switches, sealed_keys, idempotency_keys, rotations, policies, bindings,
        shares, agent_creators TO claviger_control_plane;
    GRANT UPDATE ON users, agents, vaults, secrets, secret_versions, secret_sets, grants, kill_switches, approvals, sealed_keys,
        idempotency_keys, rotations, policies, bindings, shares TO claviger_control_plane;
    GRANT UPDATE (revoked_at) ON leases, user_keys TO claviger_control_plane;
    GRANT UPDATE (last_used_at) ON user_keys TO claviger_control_plane;
    -- A deleted binding's credential is deleted for good.
    GRANT DELETE ON revoked_blocks, idempotency_keys, secret_versions TO claviger_control_plane;
    -- Both count what organisations ask for. What they may have, an operator says, by the owner's role.
    GRANT SELECT ON org_quotas TO claviger_control_plane, claviger_injector;
    GRANT SELECT, INSERT, UPDATE ON org_requests TO claviger_control_plane, claviger_injector;
    -- Where the trail is told to is its business alone.
    GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks, audit_sinks, webhook_deliveries TO claviger_control_plane;
    -- How people sign in, and what agents may say once, is the control plane's business alone.
    GRANT SELECT ON passwords, invitations, ip_rules, second_factors, recovery_codes, device_logins, seen_nonces,
        enrolments, enrolment_limits
        TO claviger_control_plane;
    GRANT INSERT ON passwords, revoked_tokens, invitations, ip_rules, second_factors, recovery_codes, device_logins, seen_nonces,
        enrolments, enrolment_limits
        TO claviger_control_plane;
    GRANT UPDATE ON passwords, invitations, second_factors, recovery_codes, device_logins, enrolments, enrolment_limits
        TO claviger_control_plane;
    GRANT DELETE ON passwords, revoked_tokens, ip_rules, second_factors, recovery_codes, device_logins, seen_nonces,
        enrolments, enrolment_limits
        TO claviger_control_plane;
    GRANT SELECT, INSERT, DELETE ON identities, oidc_logins, taken_id_tokens TO claviger_control_plane;
    GRANT UPDATE (email, used_at) ON identities TO claviger_control_plane;
    GRANT EXECUTE ON FUNCTION ledger_changing() TO claviger_control_plane;

    -- What every node calls: its name, its streams, its heartbeat.
    FOR f IN SELECT p.oid::REGPROCEDURE AS name FROM pg_proc p WHERE p.pronamespace = 'public'::REGNAMESPACE
        AND p.proname IN ('ledger_clock', 'ledger_resume', 'ledger_note', 'ledger_open_uses', 'node_begin', 'node_begin_epoch', 'node_end',
            'node_announce', 'audit_append', 'audit_stream_hold', 'audit_stream_end', 'audit_stream_link')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO claviger_control_plane, claviger_injector', f.name);
    END LOOP;

    -- An injector registers the key that signs the heads of its own audit streams, and writes no other key.
    GRANT INSERT, UPDATE (retired_at) ON sealed_keys TO claviger_injector;
    ALTER TABLE sealed_keys ENABLE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS control_plane ON sealed_keys;
    CREATE POLICY control_plane ON sealed_keys TO claviger_control_plane USING (true) WITH CHECK (true);
    -- Of all keys only a webhook's secret is ever deleted, with its webhook.
    GRANT DELETE ON sealed_keys TO claviger_control_plane;
    DROP POLICY IF EXISTS only_webhooks_end ON sealed_keys;
    CREATE POLICY only_webhooks_end ON sealed_keys AS RESTRICTIVE FOR DELETE TO claviger_control_plane
        USING (name LIKE 'webhook/%');
    DROP POLICY IF EXISTS injector_reads ON sealed_keys;
    -- What mints, what signs tokens and people's second factors are none of its business, not even sealed.
    CREATE POLICY injector_reads ON sealed_keys FOR SELECT TO claviger_injector
        USING (name NOT IN ('lease-root', 'jwt') AND name NOT LIKE 'totp/%' AND name NOT LIKE 'webhook/%');
    DROP POLICY IF EXISTS injector_adds ON sealed_keys;
    CREATE POLICY injector_adds ON sealed_keys FOR INSERT TO claviger_injector
        WITH CHECK (name LIKE 'audit-checkpoint/%');
    DROP POLICY IF EXISTS injector_retires ON sealed_keys;
    CREATE POLICY injector_retires ON sealed_keys FOR UPDATE TO claviger_injector
        USING (name LIKE 'audit-checkpoint/%') WITH CHECK (name LIKE 'audit-checkpoint/%');

    -- It puts requests up for approval, and decides on none.
    GRANT INSERT ON approvals TO claviger_injector;
    ALTER TABLE approvals ENABLE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS all_read ON approvals;
    CREATE POLICY all_read ON approvals FOR SELECT TO claviger_control_plane, claviger_injector USING (true);
    DROP POLICY IF EXISTS control_plane_decides ON approvals;
    -- What was used or rejected stays so.
    CREATE POLICY control_plane_decides ON approvals FOR UPDATE TO claviger_control_plane
        USING (status IN ('pending', 'approved')) WITH CHECK (true);
    -- It sweeps those that ended 30 days ago, and nothing younger.
    GRANT DELETE ON approvals TO claviger_control_plane;
    DROP POLICY IF EXISTS control_plane_sweeps ON approvals;
    CREATE POLICY control_plane_sweeps ON approvals FOR DELETE TO claviger_control_plane
        USING (expires_at < ledger_clock() - 2592000000::BIGINT + 60000);
    DROP POLICY IF EXISTS injector_asks ON approvals;
    CREATE POLICY injector_asks ON approvals FOR INSERT TO claviger_injector
        WITH CHECK (status = 'pending' AND decided_at IS NULL);

    -- Questions that open nothing here are the control plane's alone.
    GRANT SELECT, INSERT, UPDATE, DELETE ON consents TO claviger_control_plane;

    -- The injector records uses, and closes those that a dead node left open.
    FOR f IN SELECT p.oid::REGPROCEDURE AS name FROM pg_proc p WHERE p.pronamespace = 'public'::REGNAMESPACE
        AND p.proname IN ('ledger_rows', 'ledger_commit', 'ledger_commit_approved', 'ledger_spend', 'node_silence', 'node_close')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO claviger_injector', f.name);
    END LOOP;
END
$$;
