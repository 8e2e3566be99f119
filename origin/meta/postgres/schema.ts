/**
 * The schema, as numbered steps. A step that was released is never changed: another is added. Instants are epoch
 * milliseconds, hashes bytea, ids uuid (a ULID's 128 bits).
 */
export type Step = { readonly version: number; readonly name: string; readonly sql: string };

const INIT = `
CREATE TABLE about (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  journal text NOT NULL,
  made_at bigint NOT NULL,
  origin text,
  origin_until bigint
);
CREATE TABLE blob (
  sha256 bytea PRIMARY KEY CHECK (length(sha256) = 32),
  place text NOT NULL,
  size bigint NOT NULL,
  mime text NOT NULL,
  stored_at bigint NOT NULL,
  picture jsonb NOT NULL,
  thumbs jsonb NOT NULL,
  mark_cause text CHECK (mark_cause IN ('admin', 'rot', 'held')),
  mark_at bigint,
  mark_by text,
  mark_reason text,
  mark_seq bigint NOT NULL,
  free_since bigint,
  CHECK ((mark_cause IS NULL) = (mark_at IS NULL))
);
CREATE INDEX blob_free ON blob (free_since, sha256) WHERE free_since IS NOT NULL AND mark_cause IS DISTINCT FROM 'admin';
CREATE INDEX blob_held ON blob (mark_at, sha256) WHERE mark_cause = 'held';
CREATE TABLE media (
  id uuid PRIMARY KEY,
  sha256 bytea NOT NULL CHECK (length(sha256) = 32),
  sent_sha256 bytea NOT NULL CHECK (length(sent_sha256) = 32),
  public boolean NOT NULL,
  owner text NOT NULL,
  owner_key text NOT NULL COLLATE "C",
  filename text,
  created_at bigint NOT NULL,
  expires_at bigint,
  used_at bigint NOT NULL,
  ended text CHECK (ended IN ('deleted', 'expired')),
  ended_at bigint,
  ended_by text,
  ended_seq bigint NOT NULL,
  CHECK ((ended IS NULL) = (ended_at IS NULL))
);
CREATE UNIQUE INDEX media_live ON media (sent_sha256, public) WHERE ended IS NULL;
CREATE INDEX media_blob ON media (sha256);
CREATE INDEX media_changed ON media (sent_sha256) WHERE sent_sha256 <> sha256;
CREATE INDEX media_owner ON media (owner_key, id);
CREATE INDEX media_expiry ON media (expires_at, id) WHERE ended IS NULL AND expires_at IS NOT NULL;
CREATE INDEX media_idle ON media (used_at, id) WHERE ended IS NULL;
CREATE INDEX media_tombstone ON media (ended_at, id) WHERE ended IS NOT NULL;
CREATE TABLE job (
  sha256 bytea PRIMARY KEY,
  rank smallint NOT NULL,
  owner text NOT NULL COLLATE "C",
  turn bigint,
  queued_at bigint NOT NULL,
  ready_at bigint NOT NULL,
  attempts integer NOT NULL,
  holder text,
  lease_until bigint,
  CHECK ((holder IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX job_turn ON job (rank, turn, queued_at, sha256) WHERE holder IS NULL AND turn IS NOT NULL;
CREATE INDEX job_due ON job (rank, ready_at, queued_at, sha256) WHERE holder IS NULL AND turn IS NULL;
CREATE INDEX job_owner ON job (owner, rank, turn) WHERE holder IS NULL AND turn IS NOT NULL;
CREATE INDEX job_lease ON job (lease_until, sha256) WHERE holder IS NOT NULL;
CREATE TABLE dead (
  sha256 bytea PRIMARY KEY,
  attempts integer NOT NULL,
  died_at bigint NOT NULL,
  reason text NOT NULL
);
CREATE INDEX dead_order ON dead (died_at, sha256);
CREATE TABLE journal (
  seq bigint PRIMARY KEY CHECK (seq > 0),
  mark text,
  at bigint NOT NULL,
  cause text NOT NULL,
  ids uuid[] NOT NULL
);
CREATE TABLE intent (
  key text PRIMARY KEY COLLATE "C",
  at bigint NOT NULL
);
CREATE INDEX intent_at ON intent (at);
CREATE TABLE trash (
  key text PRIMARY KEY COLLATE "C",
  at bigint NOT NULL
);
CREATE INDEX trash_at ON trash (at, key);
CREATE TABLE usage (
  period_at bigint NOT NULL,
  owner_key text NOT NULL COLLATE "C",
  bytes bigint NOT NULL,
  files bigint NOT NULL,
  PRIMARY KEY (period_at, owner_key)
);`;

/**
 * Several origins. `about.origin` is whoever keeps all of them out since then. `duty.note` is how far its holder came.
 * `edge` and `waiting` carry confirmations between origins.
 */
const ORIGINS = `
CREATE TABLE origin (
  name text PRIMARY KEY COLLATE "C",
  started text NOT NULL,
  serves boolean NOT NULL,
  beat_at bigint NOT NULL,
  edges integer NOT NULL DEFAULT 0,
  least_confirmed bigint
) WITH (fillfactor = 50);
CREATE TABLE duty (
  name text PRIMARY KEY COLLATE "C",
  holder text NOT NULL,
  until bigint NOT NULL,
  note jsonb
) WITH (fillfactor = 50);
CREATE TABLE edge (
  name text NOT NULL COLLATE "C",
  instance text NOT NULL COLLATE "C",
  origin text NOT NULL COLLATE "C",
  connected boolean NOT NULL,
  connected_at bigint NOT NULL,
  heard_at bigint NOT NULL,
  confirmed bigint NOT NULL,
  edges integer NOT NULL,
  PRIMARY KEY (name, instance)
) WITH (fillfactor = 50);
CREATE TABLE waiting (
  id text NOT NULL COLLATE "C",
  origin text NOT NULL COLLATE "C",
  seq bigint NOT NULL,
  at bigint NOT NULL,
  confirmed integer,
  connected integer,
  final boolean NOT NULL DEFAULT false,
  PRIMARY KEY (id, origin)
);
CREATE INDEX waiting_at ON waiting (at);
ALTER TABLE intent ADD COLUMN origin text NOT NULL DEFAULT '' COLLATE "C";
CREATE INDEX intent_origin ON intent (origin);`;

/** A record of an upload, and a line of the audit log, are JSON in their stored form. The columns beside it are what statements compare. */
const UPLOADS_AND_AUDIT = `
CREATE TABLE upload (
  id text PRIMARY KEY COLLATE "C",
  owner_key text NOT NULL COLLATE "C",
  size bigint,
  bytes bigint NOT NULL CHECK (bytes >= 0),
  expires_at bigint NOT NULL,
  media text,
  record text NOT NULL
);
CREATE INDEX upload_open ON upload (owner_key) WHERE media IS NULL;
CREATE INDEX upload_expiry ON upload (expires_at, id);
CREATE TABLE upload_part (
  upload text NOT NULL COLLATE "C" REFERENCES upload,
  at bigint NOT NULL CHECK (at >= 0),
  size bigint NOT NULL CHECK (size > 0),
  key text NOT NULL UNIQUE COLLATE "C",
  PRIMARY KEY (upload, at)
);
CREATE TABLE audit (
  n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at bigint NOT NULL,
  line json NOT NULL
);
CREATE INDEX audit_at ON audit (at)`;

/** `n` is the turn of an event among those of its media. Whoever adds one has locked the blob, so that turns are in the order of the commits. */
const WEBHOOKS = `
CREATE TABLE hook (
  name text PRIMARY KEY COLLATE "C",
  n bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
  type text NOT NULL,
  at bigint NOT NULL,
  media uuid NOT NULL,
  data text NOT NULL,
  since bigint NOT NULL,
  ready_at bigint NOT NULL,
  attempts integer NOT NULL,
  fault text,
  died_at bigint
) WITH (fillfactor = 70);
CREATE INDEX hook_media ON hook (media, n) WHERE died_at IS NULL;
CREATE INDEX hook_ready ON hook (ready_at, n) WHERE died_at IS NULL;
CREATE INDEX hook_since ON hook (since) WHERE died_at IS NULL;
CREATE INDEX hook_dead ON hook (died_at, name) WHERE died_at IS NOT NULL`;

/**
 * `lock_facts` fetches and locks what rules need (fetch.ts says what and in which order) in one call, and the server
 * keeps its plans. Each statement within it has a snapshot of its own. Plans may be made while the tables are empty and
 * stay when they are full, so each names its index as far as SQL can: OFFSET 0 hides `ended`, by which alone others are found.
 */
const FACTS = `
CREATE FUNCTION lock_facts(
  of_blobs bytea[], of_media uuid[], of_sent bytea[], of_trash text[], of_intents text[],
  of_usage_periods bigint[], of_usage_owners text[],
  of_next smallint[], of_last smallint[], of_last_owners text[])
RETURNS TABLE (kind text, fact json) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
  of_changed uuid[] := '{}';
  hashes bytea[] := of_blobs;
  ids uuid[];
BEGIN
  IF cardinality(of_sent) > 0 THEN
    of_changed := ARRAY(SELECT id FROM media WHERE sent_sha256 = ANY (of_sent) AND sent_sha256 <> sha256);
  END IF;
  IF cardinality(of_media) + cardinality(of_changed) > 0 THEN
    hashes := ARRAY(
      SELECT unnest(of_blobs) UNION SELECT sha256 FROM media WHERE id = ANY (of_media || of_changed));
    RETURN QUERY SELECT 'wanted', to_json(hash) FROM unnest(hashes) AS hash;
  END IF;
  IF cardinality(hashes) > 0 THEN
    RETURN QUERY SELECT 'blob', row_to_json(locked) FROM (
      SELECT * FROM blob WHERE sha256 = ANY (hashes) ORDER BY sha256 FOR UPDATE) AS locked;
  END IF;
  IF cardinality(hashes) + cardinality(of_media) + cardinality(of_sent) > 0 THEN
    ids := ARRAY(
      SELECT id FROM (SELECT id, ended FROM media WHERE sha256 = ANY (hashes) OFFSET 0) AS named WHERE ended IS NULL
      UNION SELECT unnest(of_media)
      UNION SELECT id FROM media WHERE sent_sha256 = ANY (of_sent) AND sent_sha256 <> sha256);
    RETURN QUERY SELECT 'media', row_to_json(locked) FROM (
      SELECT * FROM media WHERE id = ANY (ids) ORDER BY id FOR UPDATE) AS locked;
  END IF;
  IF cardinality(hashes) > 0 THEN
    RETURN QUERY SELECT 'job', row_to_json(locked) FROM (
      SELECT * FROM job WHERE sha256 = ANY (hashes) ORDER BY sha256 FOR UPDATE) AS locked;
    RETURN QUERY SELECT 'dead', row_to_json(locked) FROM (
      SELECT * FROM dead WHERE sha256 = ANY (hashes) ORDER BY sha256 FOR UPDATE) AS locked;
  END IF;
  IF cardinality(of_trash) > 0 THEN
    RETURN QUERY SELECT 'trash', row_to_json(locked) FROM (
      SELECT * FROM trash WHERE key = ANY (of_trash) ORDER BY key FOR UPDATE) AS locked;
  END IF;
  IF cardinality(of_intents) > 0 THEN
    RETURN QUERY SELECT 'intent', row_to_json(locked) FROM (
      SELECT key FROM intent WHERE key = ANY (of_intents) ORDER BY key FOR UPDATE) AS locked;
  END IF;
  IF cardinality(of_usage_periods) > 0 THEN
    RETURN QUERY SELECT 'usage', row_to_json(locked) FROM (
      SELECT usage.* FROM usage JOIN unnest(of_usage_periods, of_usage_owners) AS asked(period_at, owner_key)
        USING (period_at, owner_key)
      ORDER BY period_at, owner_key FOR UPDATE OF usage) AS locked;
  END IF;
  IF cardinality(of_next) > 0 THEN
    RETURN QUERY SELECT 'job', row_to_json(next) FROM unnest(of_next) AS asked(rank) CROSS JOIN LATERAL (
      SELECT * FROM job WHERE holder IS NULL AND turn IS NOT NULL AND job.rank = asked.rank
      ORDER BY turn, queued_at, sha256 LIMIT 1) AS next;
  END IF;
  IF cardinality(of_last) > 0 THEN
    RETURN QUERY SELECT 'job', row_to_json(last) FROM unnest(of_last, of_last_owners) AS asked(rank, owner) CROSS JOIN LATERAL (
      SELECT * FROM job WHERE holder IS NULL AND turn IS NOT NULL AND job.rank = asked.rank AND job.owner = asked.owner
      ORDER BY turn DESC LIMIT 1) AS last;
  END IF;
END $$`;

/** In the order of their numbers. */
export const STEPS: readonly Step[] = [
  { version: 1, name: 'init', sql: INIT },
  { version: 2, name: 'origins', sql: ORIGINS },
  { version: 3, name: 'uploads and audit', sql: UPLOADS_AND_AUDIT },
  { version: 4, name: 'webhooks', sql: WEBHOOKS },
  { version: 5, name: 'facts', sql: FACTS },
];
