-- The ledger's hot path, and nodes. The functions are all that a role without rights on the tables needs to record uses.

-- What decides about uses has this number: nodes keep rows from batch to batch while it stands. One row.
CREATE TABLE ledger_changes (
    number BIGINT NOT NULL
);
CREATE UNIQUE INDEX ledger_changes_has_one_row ON ledger_changes ((true));
INSERT INTO ledger_changes (number) VALUES (1);

-- One row per grant with a rate; the ledger alone writes it.
CREATE TABLE rate_windows (
    grant_id   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    started_at BIGINT           NOT NULL,
    used       BIGINT           NOT NULL
) WITH (fillfactor = 50);

-- What a ledger remembers across starts, one row a node.
-- `time_seen`: the latest time it has acted on. `open_from`: uses before this seq all have their
-- outcome. `is_open`: 1 while a process runs. `restore_epochs`: epochs that it began because the database
-- had been put back to an earlier state.
CREATE TABLE ledger_state (
    node           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    time_seen      BIGINT           NOT NULL,
    open_from      BIGINT           NOT NULL,
    is_open        BIGINT           NOT NULL,
    unclean_starts BIGINT           NOT NULL,
    restore_epochs BIGINT           NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- `owner` is the role that began it first; '' while only the schema's owner has. `run` names the process: who knows it can
-- write as the node. `heartbeat` is by the database's clock.
CREATE TABLE nodes (
    name          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner         TEXT COLLATE "C" NOT NULL,
    run           TEXT             NOT NULL,
    planes        TEXT             NOT NULL,
    version       TEXT             NOT NULL,
    api_address   TEXT,
    proxy_address TEXT,
    started_at    BIGINT           NOT NULL,
    heartbeat     BIGINT           NOT NULL,
    ended_at      BIGINT
) WITH (fillfactor = 50);

-- Each use of a request lease sets `uses`: room for the new version beside the old spares the indexes.
ALTER TABLE leases SET (fillfactor = 80);

-- The database's clock, in milliseconds since the epoch.
CREATE FUNCTION ledger_clock() RETURNS BIGINT
LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT
$$;

-- To be called first by what looks at rows under a lock: READ COMMITTED alone sees, after it has waited, what the lock's
-- last holder committed. A snapshot for the whole transaction is older than the wait.
CREATE FUNCTION ledger_isolated() RETURNS VOID
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a transaction of the ledger has to be READ COMMITTED and this one is %: set %',
            upper(current_setting('transaction_isolation')),
            'default_transaction_isolation = ''read committed'' for this role or database'
            USING ERRCODE = 'CV002';
    END IF;
END
$$;

-- To be called before a transaction changes what decides about uses. It waits for the batches under way, and holds up
-- those to come until it ends; they then find another number.
CREATE FUNCTION ledger_changing() RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(4851030872319521);
    UPDATE ledger_changes SET number = number + 1;
END
$$;

-- The same for statements that come from elsewhere, a hand-made UPDATE among them. Triggers run before the statement
-- takes its first row lock, so that it cannot wait for a batch that waits for its row.
CREATE FUNCTION ledger_changing_by_statement() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM ledger_changing();
    RETURN NULL;
END
$$;

CREATE TRIGGER leases_change_uses BEFORE DELETE OR TRUNCATE
    OR UPDATE OF id, org_id, agent_id, kind, action, sets, issued_at, expires_at, revoked_at, revocation_id
    ON leases FOR EACH STATEMENT EXECUTE FUNCTION ledger_changing_by_statement();
CREATE TRIGGER agents_change_uses BEFORE DELETE OR TRUNCATE OR UPDATE OF id, org_id, is_active, deleted_at
    ON agents FOR EACH STATEMENT EXECUTE FUNCTION ledger_changing_by_statement();
CREATE TRIGGER grants_change_uses BEFORE DELETE OR TRUNCATE OR UPDATE
    ON grants FOR EACH STATEMENT EXECUTE FUNCTION ledger_changing_by_statement();
CREATE TRIGGER secret_sets_change_uses BEFORE DELETE OR TRUNCATE OR UPDATE
    ON secret_sets FOR EACH STATEMENT EXECUTE FUNCTION ledger_changing_by_statement();
CREATE TRIGGER secret_set_versions_change_uses BEFORE DELETE OR TRUNCATE OR UPDATE
    ON secret_set_versions FOR EACH STATEMENT EXECUTE FUNCTION ledger_changing_by_statement();
CREATE TRIGGER revoked_blocks_change_uses BEFORE DELETE OR TRUNCATE OR UPDATE OR INSERT
    ON revoked_blocks FOR EACH STATEMENT EXECUTE FUNCTION ledger_changing_by_statement();

-- Rows that decide about uses, as JSON, and the number that they stand on: one statement, so one snapshot. A lease comes
-- with its sets and grants.
CREATE FUNCTION ledger_rows(p_leases TEXT[], p_agents TEXT[], p_sets TEXT[], p_grants TEXT[], p_blocks BYTEA[])
RETURNS TEXT
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT json_build_object(
        'change', (SELECT number FROM ledger_changes),
        'has_revoked_blocks', (SELECT max(until) FROM revoked_blocks) IS NOT NULL,
        'leases', (SELECT json_agg(json_build_array(id, org_id, agent_id, kind, expires_at, revoked_at, uses))
            FROM leases WHERE id = ANY (p_leases)),
        'agents', (SELECT json_agg(json_build_array(id, org_id, is_active = 1 AND deleted_at IS NULL))
            FROM agents WHERE id = ANY (p_agents)),
        'sets', (SELECT json_agg(json_build_array(s.id, s.org_id, s.version, s.deleted_at IS NOT NULL, v.manifest))
            FROM secret_sets s JOIN secret_set_versions v ON v.set_id = s.id AND v.version = s.version
            WHERE s.id = ANY (p_sets || ARRAY (SELECT bound ->> 0 FROM leases l, json_array_elements(l.sets::JSON) AS bound
                WHERE l.id = ANY (p_leases)))),
        'grants', (SELECT json_agg(json_build_array(g.id, g.org_id, g.agent_id, g.secret_set_id, g.expires_at,
                g.revoked_at IS NOT NULL, g.rate_requests, g.rate_per_seconds, w.started_at, w.used))
            FROM grants g LEFT JOIN rate_windows w ON w.grant_id = g.id
            WHERE g.id = ANY (p_grants || ARRAY (SELECT bound ->> 1 FROM leases l, json_array_elements(l.sets::JSON) AS bound
                WHERE l.id = ANY (p_leases)))),
        'blocks', (SELECT json_agg(json_build_array(encode(revocation_id, 'hex'), revoked_at))
            FROM revoked_blocks WHERE revocation_id = ANY (p_blocks))
    )::TEXT
$$;

-- Commits a batch that a node has decided, if what it was decided by still stands. One call is one transaction.
--
-- `verdict`  written  `answer`
--  done       all     the windows of the rates, [[grant, started_at, used]]
--  fenced     nothing
--  stale      nothing fresh rows, as `ledger_rows` gives them
--  late       nothing: something in it had ended by `time_seen`
--  consumed   nothing the request leases that were used before, [lease]
--  rate       nothing the windows as they stand
--
-- Locks are taken in one order by all nodes: own stream, shared lock, leases by id, windows by grant.
CREATE FUNCTION ledger_commit(
    p_stream BIGINT, p_writer TEXT, p_now BIGINT,
    p_change BIGINT,     -- NULL: no row decided about anything in it
    p_good_until BIGINT, -- the earliest end of what it allows
    p_consume TEXT[],    -- request leases, each once
    p_rated TEXT[], p_uses BIGINT[], p_limits BIGINT[], p_spans BIGINT[], -- counted in these grants' windows
    p_grants TEXT[], p_blocks BYTEA[], -- what else to read anew, besides those that the events name
    p_first BIGINT,      -- seq of its first event
    p_orgs TEXT[], p_actions TEXT[], p_agents TEXT[], p_leases TEXT[], p_sets TEXT[],
    p_prevs BYTEA[], p_hashes BYTEA[], p_bodies TEXT[]
) RETURNS TABLE (verdict TEXT, time_seen BIGINT, clock BIGINT, answer TEXT)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    v_clock BIGINT := ledger_clock();
    v_seen  BIGINT;
    v_taken TEXT[];
    v_over  BOOLEAN;
    v_windows TEXT;
    v_now   BIGINT; -- what windows begin by
BEGIN
    PERFORM ledger_isolated();
    -- Higher bits would be those of the stream.
    IF cardinality(p_orgs) > 0 AND (p_first < 1 OR p_first + cardinality(p_orgs) > 1::BIGINT << 40) THEN
        RAISE EXCEPTION 'no such place in an audit stream' USING ERRCODE = 'CV003';
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- A clock that runs far ahead may end this node's leases, and not those of all.
    UPDATE audit_streams s SET time_seen = greatest(s.time_seen, least(p_now, v_clock + 30000))
        WHERE s.number = p_stream AND s.writer = p_writer AND s.owner = session_user AND s.writer NOT IN ('', 'closed');
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'fenced', 0::BIGINT, v_clock, NULL::TEXT;
        RETURN;
    END IF;
    IF p_change IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock_shared(4851030872319521);
        v_clock := ledger_clock();
    END IF;
    SELECT greatest(v_clock, max(s.time_seen)) INTO v_seen FROM audit_streams s;
    IF p_change IS NOT NULL THEN
        IF p_change IS DISTINCT FROM (SELECT number FROM ledger_changes) THEN
            RETURN QUERY SELECT 'stale', v_seen, v_clock, ledger_rows(p_leases, p_agents, p_sets, p_grants, p_blocks);
            RETURN;
        END IF;
        IF p_good_until <= v_seen THEN
            RETURN QUERY SELECT 'late', v_seen, v_clock, NULL::TEXT;
            RETURN;
        END IF;
    END IF;
    IF cardinality(p_consume) > 0 THEN
        SELECT array_agg(wanted) INTO v_taken FROM unnest(p_consume) AS wanted WHERE wanted NOT IN (
            SELECT locked.id FROM (
                SELECT l.id, l.uses FROM leases l WHERE l.id = ANY (p_consume) ORDER BY l.id FOR NO KEY UPDATE
            ) AS locked WHERE locked.uses = 0);
        IF v_taken IS NOT NULL THEN
            RETURN QUERY SELECT 'consumed', v_seen, v_clock, array_to_json(v_taken)::TEXT;
            RETURN;
        END IF;
    END IF;
    IF cardinality(p_rated) > 0 THEN
        -- All nodes share them: a clock that runs far ahead may not begin one that lasts for hours.
        v_now := least(p_now, v_clock + 30000);
        IF (SELECT count(*) FROM rate_windows w WHERE w.grant_id = ANY (p_rated)) < cardinality(p_rated) THEN
            INSERT INTO rate_windows (grant_id, started_at, used)
                SELECT wanted, 0, 0 FROM unnest(p_rated) AS wanted ORDER BY wanted COLLATE "C" ON CONFLICT DO NOTHING;
        END IF;
        SELECT bool_or(w.used + w.more > w.most), json_agg(json_build_array(w.grant_id, w.started_at, w.used))::TEXT
            INTO v_over, v_windows FROM (
                SELECT locked.grant_id, wanted.more, wanted.most,
                    CASE WHEN over.it THEN v_now ELSE locked.started_at END AS started_at,
                    CASE WHEN over.it THEN 0 ELSE locked.used END AS used
                FROM (SELECT * FROM rate_windows r WHERE r.grant_id = ANY (p_rated)
                    ORDER BY r.grant_id FOR NO KEY UPDATE) AS locked
                JOIN unnest(p_rated, p_uses, p_limits, p_spans) AS wanted (grant_id, more, most, span)
                    ON wanted.grant_id = locked.grant_id,
                LATERAL (SELECT locked.used = 0 OR v_now >= locked.started_at + wanted.span AS it) AS over
            ) AS w;
        IF v_over THEN
            RETURN QUERY SELECT 'rate', v_seen, v_clock, v_windows;
            RETURN;
        END IF;
        WITH written AS (
            UPDATE rate_windows w SET
                started_at = CASE WHEN over.it THEN v_now ELSE w.started_at END,
                used = CASE WHEN over.it THEN 0 ELSE w.used END + wanted.more
            FROM unnest(p_rated, p_uses, p_spans) AS wanted (grant_id, more, span)
                JOIN rate_windows old ON old.grant_id = wanted.grant_id,
                LATERAL (SELECT old.used = 0 OR v_now >= old.started_at + wanted.span AS it) AS over
            WHERE w.grant_id = wanted.grant_id
            RETURNING w.grant_id, w.started_at, w.used
        ) SELECT json_agg(json_build_array(grant_id, started_at, used))::TEXT INTO v_windows FROM written;
    END IF;
    IF cardinality(p_consume) > 0 THEN
        UPDATE leases SET uses = 1 WHERE id = ANY (p_consume);
    END IF;
    INSERT INTO audit_events
        (position, org_id, created_at, action, agent_id, lease_id, secret_set_id, prev_hash, hash, body)
        SELECT (p_stream << 40) | (p_first + e.place - 1), e.org, p_now, e.action, e.agent, e.lease, e.set,
            e.prev, e.hash, e.body
        FROM unnest(p_orgs, p_actions, p_agents, p_leases, p_sets, p_prevs, p_hashes, p_bodies)
            WITH ORDINALITY AS e (org, action, agent, lease, set, prev, hash, body, place);
    RETURN QUERY SELECT 'done', v_seen, v_clock, v_windows;
END
$$;

-- Begins a run of a node: from now on the writer of both its streams is this one, and whoever wrote before writes no
-- more. It waits for a transaction of theirs that is under way, so that the ends it tells are final.
--
-- A name stays with the role that began it first, and with members of that role. The schema's owner may begin any (a
-- command before the first server does), and takes none for itself.
CREATE FUNCTION node_begin(p_node TEXT, p_run TEXT) RETURNS TABLE (
    control BIGINT, control_seq BIGINT, control_hash BYTEA, ledger BIGINT, ledger_seq BIGINT, ledger_hash BYTEA,
    time_seen BIGINT, clock BIGINT, open_from BIGINT, unclean_starts BIGINT, restore_epochs BIGINT
)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    v_clock BIGINT := ledger_clock();
    v_taker TEXT := CASE WHEN session_user = current_user THEN '' ELSE session_user::TEXT END;
    v_owner TEXT;
BEGIN
    PERFORM ledger_isolated();
    IF p_run IN ('', 'closed') THEN
        RAISE EXCEPTION 'a run needs a name of its own' USING ERRCODE = 'CV003';
    END IF;
    INSERT INTO nodes (name, owner, run, planes, version, started_at, heartbeat)
        VALUES (p_node, v_taker, '', '', '', v_clock, v_clock) ON CONFLICT (name) DO NOTHING;
    SELECT n.owner INTO v_owner FROM nodes n WHERE n.name = p_node FOR NO KEY UPDATE;
    IF v_taker <> '' AND v_owner NOT IN ('', v_taker) AND EXISTS (
        SELECT 1 FROM pg_roles r WHERE r.rolname = v_owner AND NOT pg_has_role(session_user, r.oid, 'MEMBER'))
    THEN
        RAISE EXCEPTION 'the node % belongs to the database role %: give this process another node name', p_node, v_owner
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'or have the schema''s owner put the new role into nodes.owner';
    END IF;
    UPDATE nodes SET owner = CASE WHEN v_taker = '' THEN owner ELSE v_taker END, run = p_run, planes = '', version = '',
        api_address = NULL, proxy_address = NULL, started_at = v_clock, heartbeat = v_clock, ended_at = NULL
        WHERE name = p_node;
    SELECT t.number, t.last_seq, t.last_hash INTO control, control_seq, control_hash
        FROM audit_stream_take(p_node || '/control', p_run) t;
    SELECT t.number, t.last_seq, t.last_hash INTO ledger, ledger_seq, ledger_hash
        FROM audit_stream_take(p_node || '/ledger', p_run) t;
    INSERT INTO ledger_state AS s (node, time_seen, open_from, is_open, unclean_starts) VALUES (p_node, 0, 1, 1, 0)
        ON CONFLICT (node) DO UPDATE SET unclean_starts = s.unclean_starts + s.is_open, is_open = 1
        RETURNING s.open_from, s.unclean_starts, s.restore_epochs INTO open_from, unclean_starts, restore_epochs;
    -- What this node itself recorded counts too, but for a time that its clock made up: a record stays for ever.
    SELECT greatest(max(s.time_seen), (SELECT max(l.time_seen) FROM ledger_state l), least(v_clock + 30000, greatest(0,
            (SELECT e.created_at FROM audit_events e WHERE e.position = (control << 40) | control_seq),
            (SELECT e.created_at FROM audit_events e WHERE e.position = (ledger << 40) | ledger_seq))))
        INTO time_seen FROM audit_streams s;
    clock := v_clock;
    RETURN NEXT;
END
$$;

-- Begins an epoch for a node whose streams are not what it signed: the database was put back to an earlier state. Every
-- lease ends, since those that were used or revoked meanwhile are good again; kept answers go, since one may hold such a
-- lease. The records that tell of it come as the node has linked them; that it writes both streams is looked at first:
-- `p_writer` is the name by which it writes the ledger's.
-- `restored_to`: the time of the last record of its streams that is still there.
CREATE FUNCTION node_begin_epoch(
    p_node TEXT, p_run TEXT, p_writer TEXT, p_now BIGINT,
    p_positions BIGINT[], p_orgs TEXT[], p_prevs BYTEA[], p_hashes BYTEA[], p_bodies TEXT[]
) RETURNS TABLE (restored_to BIGINT, ended_leases BIGINT, epochs BIGINT)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    v_control BIGINT;
    v_ledger  BIGINT;
BEGIN
    PERFORM ledger_isolated();
    SELECT s.number INTO v_control FROM audit_streams s WHERE s.stream = p_node || '/control'
        AND s.writer = p_run AND s.owner = session_user FOR NO KEY UPDATE;
    SELECT s.number INTO v_ledger FROM audit_streams s WHERE s.stream = p_node || '/ledger'
        AND s.writer = p_writer AND s.owner = session_user FOR NO KEY UPDATE;
    IF v_control IS NULL OR v_ledger IS NULL OR p_run IN ('', 'closed') OR p_writer IN ('', 'closed') THEN
        RAISE EXCEPTION 'another process runs as the node %', p_node USING ERRCODE = 'CV001';
    END IF;
    PERFORM ledger_changing();
    SELECT max(last.created_at) INTO restored_to FROM audit_streams s, LATERAL (
        SELECT e.created_at FROM audit_events e WHERE e.position > s.number << 40 AND e.position < (s.number + 1) << 40
        ORDER BY e.position DESC LIMIT 1) AS last
        WHERE s.number IN (v_control, v_ledger);
    -- A node whose clock runs ahead does not take for ended what others still honour.
    UPDATE leases SET revoked_at = p_now WHERE revoked_at IS NULL AND expires_at > least(p_now, ledger_clock());
    GET DIAGNOSTICS ended_leases = ROW_COUNT;
    DELETE FROM idempotency_keys;
    PERFORM audit_append(CASE e.position >> 40 WHEN v_ledger THEN p_writer ELSE p_run END, e.position, e.org, p_now, 'restore.epoch', NULL, NULL, NULL, e.prev, e.hash, e.body)
        FROM unnest(p_positions, p_orgs, p_prevs, p_hashes, p_bodies) AS e (position, org, prev, hash, body);
    UPDATE ledger_state l SET restore_epochs = l.restore_epochs + 1 WHERE l.node = p_node
        RETURNING l.restore_epochs INTO epochs;
    RETURN NEXT;
END
$$;

-- Makes `p_writer` the one writer of a stream, which this adds if it is new, and tells where it ends.
CREATE FUNCTION audit_stream_take(p_stream TEXT, p_writer TEXT)
RETURNS TABLE (number BIGINT, last_seq BIGINT, last_hash BYTEA)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT 1 FROM audit_streams s WHERE s.stream = p_stream) THEN
        -- Numbers are given out one after the other.
        PERFORM pg_advisory_xact_lock(4851030872319522);
        INSERT INTO audit_streams (number, stream)
            SELECT COALESCE(max(s.number), 0) + 1, p_stream FROM audit_streams s ON CONFLICT (stream) DO NOTHING;
    END IF;
    UPDATE audit_streams s SET writer = p_writer, owner = session_user WHERE s.stream = p_stream
        RETURNING s.number INTO number;
    SELECT e.position & ((1::BIGINT << 40) - 1), e.hash INTO last_seq, last_hash FROM audit_events e
        WHERE e.position > number << 40 AND e.position < (number + 1) << 40 ORDER BY e.position DESC LIMIT 1;
    RETURN NEXT;
END
$$;

-- Goes on as the writer of a stream after its connection was lost, under another name of the same run, so that nothing
-- which the lost connection had sent can still be written; and tells whether the record at the end of the last batch is there.
-- `was_closed`: another node took this one for dead and gave its open uses their outcomes.
CREATE FUNCTION ledger_resume(
    p_node TEXT, p_run TEXT, p_stream BIGINT, p_writer TEXT, p_seq BIGINT, p_hash BYTEA
) RETURNS TABLE (is_there BOOLEAN, was_closed BOOLEAN, time_seen BIGINT, clock BIGINT)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
BEGIN
    PERFORM ledger_isolated();
    UPDATE audit_streams s SET writer = p_writer WHERE s.number = p_stream AND s.stream = p_node || '/ledger'
        AND s.owner = session_user AND starts_with(p_writer, p_run || '.')
        AND (s.writer IN (p_run, 'closed') OR starts_with(s.writer, p_run || '.'))
        AND EXISTS (SELECT 1 FROM nodes n WHERE n.name = p_node AND n.run = p_run);
    IF NOT FOUND THEN
        RETURN; -- fenced
    END IF;
    UPDATE nodes n SET heartbeat = ledger_clock(), ended_at = NULL WHERE n.name = p_node AND n.run = p_run;
    UPDATE ledger_state s SET is_open = 1 WHERE s.node = p_node AND s.is_open = 0;
    was_closed := FOUND;
    is_there := EXISTS (
        SELECT 1 FROM audit_events e WHERE e.position = (p_stream << 40) | p_seq AND e.hash = p_hash);
    SELECT max(s.time_seen) INTO time_seen FROM audit_streams s;
    clock := ledger_clock();
    RETURN NEXT;
END
$$;

-- Writes display counts, the place to recover from and the heartbeat. Rows that someone else has locked are left for
-- the next time, so that this waits for nobody. Counts only go up, and the mark of a request lease is none of them.
-- `silent`: nodes that have not been heard of for a minute.
CREATE FUNCTION ledger_note(
    p_node TEXT, p_run TEXT, p_stream BIGINT, p_writer TEXT, p_now BIGINT, p_open_from BIGINT,
    p_leases TEXT[], p_uses BIGINT[], p_agents TEXT[], p_used_at BIGINT[]
) RETURNS TABLE (time_seen BIGINT, clock BIGINT, noted_leases TEXT[], noted_agents TEXT[], silent TEXT)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    v_clock BIGINT := ledger_clock();
BEGIN
    UPDATE audit_streams s SET time_seen = greatest(s.time_seen, least(p_now, v_clock + 30000))
        WHERE s.number = p_stream AND s.writer = p_writer AND s.stream = p_node || '/ledger' AND s.owner = session_user;
    IF NOT FOUND THEN
        RETURN; -- fenced
    END IF;
    -- Nothing here is lost for good with a power cut: the next one writes it again.
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE ledger_state s SET time_seen = greatest(s.time_seen, least(p_now, v_clock + 30000)), open_from = p_open_from
        WHERE s.node = p_node;
    UPDATE nodes n SET heartbeat = v_clock WHERE n.name = p_node AND n.run = p_run;
    IF cardinality(p_leases) > 0 THEN
        WITH noted AS (
            UPDATE leases l SET uses = l.uses + counted.uses FROM unnest(p_leases, p_uses) AS counted (id, uses)
                WHERE l.id = counted.id AND l.kind = 'workflow' AND counted.uses > 0 AND l.id IN (
                    SELECT f.id FROM leases f WHERE f.id = ANY (p_leases) FOR NO KEY UPDATE SKIP LOCKED)
                RETURNING l.id
        ) SELECT array_agg(id) INTO noted_leases FROM noted;
    END IF;
    IF cardinality(p_agents) > 0 THEN
        WITH noted AS (
            UPDATE agents a SET last_used_at = greatest(a.last_used_at, least(used.used_at, v_clock + 30000))
                FROM unnest(p_agents, p_used_at) AS used (id, used_at)
                WHERE a.id = used.id AND a.deleted_at IS NULL AND a.id IN (
                    SELECT f.id FROM agents f WHERE f.id = ANY (p_agents) FOR NO KEY UPDATE SKIP LOCKED)
                RETURNING a.id
        ) SELECT array_agg(id) INTO noted_agents FROM noted;
    END IF;
    SELECT json_agg(json_build_array(n.name, n.heartbeat))::TEXT INTO silent
        FROM nodes n JOIN ledger_state s ON s.node = n.name
        WHERE s.is_open = 1 AND n.heartbeat < v_clock - 60000 AND n.name <> p_node;
    SELECT max(s.time_seen) INTO time_seen FROM audit_streams s;
    clock := v_clock;
    RETURN NEXT;
END
$$;

-- Uses of a stream from `p_from` on that have no outcome.
CREATE FUNCTION ledger_open_uses(p_stream BIGINT, p_from BIGINT) RETURNS TABLE (seq BIGINT, body TEXT)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT u.position & ((1::BIGINT << 40) - 1), u.body FROM audit_events u
        WHERE u.position >= (p_stream << 40) | greatest(p_from, 1) AND u.position < (p_stream + 1) << 40
        AND u.action = 'lease.use' AND (u.body::JSON ->> 'use_id') NOT IN (
            SELECT o.body::JSON ->> 'use_id' FROM audit_events o
            WHERE o.position >= (p_stream << 40) | greatest(p_from, 1) AND o.position < (p_stream + 1) << 40
            AND o.action = 'lease.outcome' AND o.body::JSON ->> 'use_id' IS NOT NULL)
        ORDER BY u.position
$$;

-- Where the last record of a stream lies.
CREATE FUNCTION audit_stream_end(p_stream BIGINT) RETURNS BIGINT
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT max(position) FROM audit_events WHERE position > p_stream << 40 AND position < (p_stream + 1) << 40
$$;

-- The hash of a stream's record.
CREATE FUNCTION audit_stream_link(p_stream BIGINT, p_seq BIGINT) RETURNS BYTEA
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT hash FROM audit_events WHERE position = (p_stream << 40) | p_seq
$$;

-- Takes the pen from a node that was not heard of since `p_heartbeat`, and tells where its open uses begin.
CREATE FUNCTION node_silence(p_node TEXT, p_heartbeat BIGINT) RETURNS TABLE (ledger BIGINT, open_from BIGINT)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM nodes n WHERE n.name = p_node AND n.heartbeat = p_heartbeat
        AND n.heartbeat < ledger_clock() - 60000 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE audit_streams s SET writer = 'closed' WHERE s.stream = p_node || '/ledger' RETURNING s.number INTO ledger;
    SELECT s.open_from INTO open_from FROM ledger_state s WHERE s.node = p_node AND s.is_open = 1;
    IF FOUND THEN
        RETURN NEXT;
    END IF;
END
$$;

-- Notes that the open uses of a silenced node got their outcomes, in the transaction that records these. False when
-- the node came back, or another one was first.
CREATE FUNCTION node_close(p_node TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    v_stream BIGINT;
BEGIN
    PERFORM ledger_isolated();
    SELECT s.number INTO v_stream FROM audit_streams s
        WHERE s.stream = p_node || '/ledger' AND s.writer = 'closed' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE ledger_state SET is_open = 0, unclean_starts = unclean_starts + 1, open_from = 1 + COALESCE((
            SELECT max(position) & ((1::BIGINT << 40) - 1) FROM audit_events
            WHERE position > v_stream << 40 AND position < (v_stream + 1) << 40), 0)
        WHERE node = p_node AND is_open = 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE nodes SET ended_at = heartbeat WHERE name = p_node;
    RETURN true;
END
$$;

-- Notes that a node ended in order.
CREATE FUNCTION node_end(p_node TEXT, p_run TEXT) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE nodes SET ended_at = ledger_clock(), heartbeat = ledger_clock() WHERE name = p_node AND run = p_run;
    IF FOUND THEN
        UPDATE ledger_state SET is_open = 0 WHERE node = p_node;
    END IF;
END
$$;

-- Says what a node is and where it listens.
CREATE FUNCTION node_announce(
    p_node TEXT, p_run TEXT, p_planes TEXT, p_version TEXT, p_api_address TEXT, p_proxy_address TEXT
) RETURNS VOID
LANGUAGE sql SECURITY DEFINER AS $$
    UPDATE nodes SET planes = p_planes, version = p_version, api_address = p_api_address,
        proxy_address = p_proxy_address WHERE name = p_node AND run = p_run
$$;

-- Holds a stream for its writer until the transaction ends: 1, or 0 if `p_writer` is not its writer, or no longer.
CREATE FUNCTION audit_stream_hold(p_stream BIGINT, p_writer TEXT, p_now BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE audit_streams s SET time_seen = greatest(s.time_seen, least(p_now, ledger_clock() + 30000))
        WHERE s.number = p_stream AND s.writer = p_writer AND s.owner = session_user AND s.writer NOT IN ('', 'closed');
    RETURN CASE WHEN FOUND THEN 1 ELSE 0 END;
END
$$;

-- Appends a record to a stream of which `p_writer` is the writer; `CV001` if it is not, or no longer.
CREATE FUNCTION audit_append(
    p_writer TEXT, p_position BIGINT, p_org TEXT, p_created_at BIGINT, p_action TEXT, p_agent TEXT, p_lease TEXT,
    p_set TEXT, p_prev BYTEA, p_hash BYTEA, p_body TEXT
) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM ledger_isolated();
    IF audit_stream_hold(p_position >> 40, p_writer, p_created_at) = 0 THEN
        RAISE EXCEPTION 'another process writes this audit stream' USING ERRCODE = 'CV001';
    END IF;
    INSERT INTO audit_events
        (position, org_id, created_at, action, agent_id, lease_id, secret_set_id, prev_hash, hash, body)
        VALUES (p_position, p_org, p_created_at, p_action, p_agent, p_lease, p_set, p_prev, p_hash, p_body);
    RETURN 1;
END
$$;

-- Whoever calls them, these functions work on the tables of this schema and on no others; nobody calls them unless told.
-- What a lock keeps waiting for longer is refused rather than late.
DO $$
DECLARE
    f RECORD;
BEGIN
    FOR f IN SELECT p.oid::REGPROCEDURE AS name FROM pg_proc p
        WHERE p.pronamespace = current_schema()::REGNAMESPACE
        AND (p.proname LIKE 'ledger\_%' OR p.proname LIKE 'node\_%' OR p.proname LIKE 'audit\_%')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', f.name, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f.name);
    END LOOP;
    FOR f IN SELECT p.oid::REGPROCEDURE AS name FROM pg_proc p
        WHERE p.pronamespace = current_schema()::REGNAMESPACE
        AND p.proname IN ('ledger_commit', 'ledger_resume', 'ledger_note', 'node_silence', 'node_close', 'node_begin')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET lock_timeout = ''1s''', f.name);
    END LOOP;
END
$$;
