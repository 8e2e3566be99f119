import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import t from 'tap';
import { NO_PLACE } from '../../../origin/blobs/blob-store.js';
import { type Codec, DamagedRecord } from '../../../origin/meta/codec.js';
import type { Job } from '../../../origin/meta/jobs.js';
import type { BlobRecord, MediaRecord } from '../../../origin/meta/media.js';
import {
  blobCodec,
  deadCodec,
  jobCodec,
  journalCodec,
  mediaCodec,
  type StoredBlob,
  type StoredMedia,
  stampCodec,
  trashCodec,
  usageCodec,
} from '../../../origin/meta/records.js';
import {
  BLOBS,
  before,
  DEAD,
  type IndexEntry,
  JOBS,
  JOURNAL,
  type Key,
  keyText,
  MEDIA,
  ownerKey,
  read,
  startingWith,
  targets,
  until,
  write,
} from '../../../origin/meta/tables.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import { mediaKey, PLACE } from '../../kit/origin/keys.js';
import { MemoryTables } from '../../kit/origin/meta/memory-tables.js';

const A = 'a'.repeat(64) as Sha256;
const B = 'b'.repeat(64) as Sha256;
const ID = '01ARZ3NDEKTSV4RRFFQ69G5FAV' as MediaId;

const record: MediaRecord = {
  id: ID,
  sha256: A,
  sentSha256: B,
  public: true,
  owner: 'ada',
  filename: 'Bild ☂.png',
  createdAt: 10,
  expiresAt: 90,
  usedAt: 20,
  state: { kind: 'live' },
};
const media: StoredMedia = { record, endedSeq: 0 };
const picture = { width: 1, height: 2, durationMs: 2.5, frames: 3, orientation: 4, thumbhash: 'five' };
const made = {
  variant: '160',
  format: 'webp',
  sha256: B,
  place: PLACE,
  sizeBytes: 1,
  width: 2,
  height: 3,
  animated: true,
} as const;
const quarantine = { at: 5, by: 'eve', reason: 'why', cause: 'rot' } as const;
const blobRecord: BlobRecord = {
  sha256: A,
  place: PLACE,
  sizeBytes: 9,
  mime: 'image/png',
  storedAt: 10,
  picture,
  thumbs: { kind: 'ready', made: [made] },
  quarantine,
};
const blob: StoredBlob = { blob: blobRecord, unreferencedAt: 30, markSeq: 2 };
const job: Job = {
  sha256: A,
  priority: 'upload',
  owner: 'ada',
  turn: 3,
  queuedAt: 10,
  readyAt: 20,
  attempts: 1,
  lease: { holder: 'w', until: 40 },
};
const entry = { seq: 7, mark: 'm', at: 5, cause: 'delete', ids: [ID] } as const;

/** A record on disk: version, CRC-32 of the JSON with the version as its initial value, JSON. */
function stored(version: number, value: unknown): Buffer {
  const payload = Buffer.from(JSON.stringify(value));
  const head = Buffer.alloc(5);
  head[0] = version;
  head.writeUInt32BE(crc32(payload, version), 1);
  return Buffer.concat([head, payload]);
}

type Json = Readonly<Record<string, unknown>>;
const EMPTY: readonly unknown[] = [];
const VALUES = [undefined, null, true, -1, 1.5, 7, 'live', 'x', A, ID, EMPTY, [{}], {}];
const TEXT = ['live', 'x', A, ID];
const COUNT = [7];
const NUMBER = [-1, 1.5, 7];
/** For each field the values of VALUES that it takes. */
type Fields = Readonly<Record<string, readonly unknown[]>>;

const nullable = (values: readonly unknown[]): readonly unknown[] => [...values, null];

/** A copy with another value at `path`. */
function withValue(value: unknown, [name, ...rest]: readonly string[], to: unknown): unknown {
  if (name === undefined) return to;
  const copy: Record<string, unknown> = { ...(value as Json) };
  copy[name] = withValue(copy[name], rest, to);
  return Array.isArray(value) ? Object.values(copy) : copy;
}

function readsOnly<T extends object>(codec: Codec<T>, version: number, whole: Json, fields: Fields): void {
  for (const [path, right] of Object.entries(fields)) {
    const names = path.split('.');
    const name = names.findLast((one) => one !== '0');
    for (const value of VALUES) {
      const changed = withValue(whole, names, value);
      const bytes = stored(version, changed);
      const what = `${path}: ${JSON.stringify(value)}`;
      // In an object that is there it is a field of it that is missing.
      const fault = JSON.stringify(value)?.includes('{}') ? /^`\w+` is not / : new RegExp(`^\`${name}\` is not `);
      if (right.some((one) => Object.is(one, value))) assert.deepEqual(codec.decode(bytes), changed, what);
      else assert.throws(() => codec.decode(bytes), { message: fault }, what);
    }
  }
}

/** A value is written in the newest version, and read as it was. */
function roundTrip<T extends object>(codec: Codec<T>, version: number, value: T): void {
  const bytes = codec.encode(value);
  assert.deepEqual(bytes, stored(version, value));
  assert.deepEqual(codec.decode(bytes), value);
}

void t.test('each field of a stored record is checked', (t) => {
  roundTrip(mediaCodec, 2, media);
  readsOnly(mediaCodec, 2, media as unknown as Json, {
    record: [],
    'record.id': [ID],
    'record.sha256': [A],
    'record.sentSha256': [A],
    'record.public': [true],
    'record.owner': TEXT,
    'record.filename': nullable(TEXT),
    'record.createdAt': NUMBER,
    'record.expiresAt': nullable(NUMBER),
    'record.usedAt': NUMBER,
    'record.state': [],
    'record.state.kind': ['live'],
    endedSeq: COUNT,
  });
  for (const state of [
    { kind: 'deleted', at: 50, by: 'eve' },
    { kind: 'expired', at: 60 },
  ] as const) {
    const ended: StoredMedia = { record: { ...record, state }, endedSeq: 4 };
    roundTrip(mediaCodec, 2, ended);
    readsOnly(mediaCodec, 2, ended as unknown as Json, {
      'record.state.at': NUMBER,
      ...(state.kind === 'deleted' && { 'record.state.by': TEXT }),
    });
  }

  roundTrip(blobCodec, 2, blob);
  readsOnly(blobCodec, 2, blob as unknown as Json, {
    blob: [],
    'blob.sha256': [A],
    'blob.place': [],
    'blob.sizeBytes': COUNT,
    'blob.mime': TEXT,
    'blob.storedAt': NUMBER,
    'blob.picture': [],
    ...Object.fromEntries(
      ['width', 'height', 'frames', 'orientation'].map((name) => [`blob.picture.${name}`, nullable(COUNT)]),
    ),
    'blob.picture.durationMs': nullable(NUMBER),
    'blob.picture.thumbhash': nullable(TEXT),
    'blob.thumbs': [],
    'blob.thumbs.kind': [],
    'blob.thumbs.made': [EMPTY],
    'blob.thumbs.made.0': [],
    'blob.thumbs.made.0.variant': TEXT,
    'blob.thumbs.made.0.format': [],
    'blob.thumbs.made.0.sha256': [A],
    'blob.thumbs.made.0.place': [],
    'blob.thumbs.made.0.sizeBytes': COUNT,
    'blob.thumbs.made.0.width': COUNT,
    'blob.thumbs.made.0.height': COUNT,
    'blob.thumbs.made.0.animated': [true],
    'blob.quarantine': [null],
    'blob.quarantine.at': NUMBER,
    'blob.quarantine.by': TEXT,
    'blob.quarantine.reason': nullable(TEXT),
    'blob.quarantine.cause': [],
    unreferencedAt: nullable(NUMBER),
    markSeq: COUNT,
  });
  for (const thumbs of [{ kind: 'pending' }, { kind: 'none', reason: 'broken_image' }] as const) {
    roundTrip(blobCodec, 2, { ...blob, blob: { ...blobRecord, thumbs } });
  }
  readsOnly(blobCodec, 2, { ...blob, blob: { ...blobRecord, thumbs: { kind: 'none' } } }, { 'blob.thumbs.reason': [] });
  for (const cause of ['admin', 'rot', 'held'] as const) {
    roundTrip(blobCodec, 2, { ...blob, blob: { ...blobRecord, quarantine: { ...quarantine, cause } } });
  }
  for (const format of ['webp', 'jpeg', 'png', 'avif'] as const) {
    const thumbs = { kind: 'ready', made: [{ ...made, format }, made] } as const;
    roundTrip(blobCodec, 2, { ...blob, blob: { ...blobRecord, thumbs } });
  }

  const { place: _, ...unplaced } = blobRecord;
  const { place: __, ...unplacedThumb } = made;
  const former = { ...blob, blob: { ...unplaced, thumbs: { kind: 'ready', made: [unplacedThumb] } } };
  const thumbs = { kind: 'ready', made: [{ ...made, place: NO_PLACE }] } as const;
  const old: StoredBlob = { ...blob, blob: { ...blobRecord, place: NO_PLACE, thumbs } };
  t.same(blobCodec.decode(stored(1, former)), old, 'what was stored before there were places has none');
  roundTrip(blobCodec, 2, old);

  const trashed = { key: mediaKey(A), at: 5 };
  roundTrip(trashCodec, 1, trashed);
  readsOnly(trashCodec, 1, trashed, { key: [], at: NUMBER });

  for (const priority of ['backfill', 'upload', 'asked'] as const) roundTrip(jobCodec, 2, { ...job, priority });
  readsOnly(jobCodec, 2, job as unknown as Json, {
    sha256: [A],
    priority: [],
    owner: TEXT,
    turn: nullable(COUNT),
    queuedAt: NUMBER,
    readyAt: NUMBER,
    attempts: COUNT,
    lease: [null],
    'lease.holder': TEXT,
    'lease.until': NUMBER,
  });

  const letter = { sha256: A, attempts: 3, diedAt: 50, reason: 'why' };
  roundTrip(deadCodec, 1, letter);
  readsOnly(deadCodec, 1, letter, { sha256: [A], attempts: COUNT, diedAt: NUMBER, reason: TEXT });

  for (const cause of ['delete', 'quarantine', 'restore', 'expire', 'visibility'] as const) {
    roundTrip(journalCodec, 2, { ...entry, cause });
  }
  readsOnly(journalCodec, 2, entry, { seq: COUNT, mark: TEXT, at: NUMBER, cause: [], ids: [EMPTY], 'ids.0': [ID] });

  roundTrip(usageCodec, 1, { bytes: 7, files: 2 });
  readsOnly(usageCodec, 1, { bytes: 7, files: 2 }, { bytes: COUNT, files: COUNT });
  const stamp = { format: 3, journal: 'name', madeAt: 5 };
  roundTrip(stampCodec, 1, stamp);
  readsOnly(stampCodec, 1, stamp, { format: COUNT, journal: TEXT, madeAt: NUMBER });
  t.end();
});

void t.test('records of the version before are read as what they mean today', (t) => {
  const { sentSha256: _, ...before } = record;
  t.same(mediaCodec.decode(stored(1, { record: before, endedSeq: 3 })), {
    record: { ...record, sentSha256: A },
    endedSeq: 3,
  });
  const { owner: __, turn: ___, ...oldJob } = job;
  t.same(jobCodec.decode(stored(1, oldJob)), { ...job, owner: '-', turn: null });
  const { mark: ____, ...oldEntry } = entry;
  const ordered = { seq: 7, at: 5, cause: 'delete', ids: [ID] };
  const mark = createHash('sha256').update(JSON.stringify(ordered)).digest('hex').slice(0, 32);
  t.same(journalCodec.decode(stored(1, oldEntry)), { ...entry, mark });
  t.end();
});

void t.test('what is not a whole record is damaged', (t) => {
  const bytes = usageCodec.encode({ bytes: 1, files: 2 });
  const fails = (what: string, wrong: Uint8Array, why: RegExp): void => {
    t.throws(() => usageCodec.decode(wrong), { message: why }, what);
  };
  fails('nothing', Buffer.alloc(0), /only 0 bytes/);
  fails('a head alone', bytes.subarray(0, 5), /only 5 bytes/);
  fails('a newer version', stored(2, { bytes: 1, files: 2 }), /version 2; this release reads up to 1/);
  for (const [at, value] of bytes.entries()) {
    const wrong = Buffer.from(bytes);
    wrong[at] = value ^ 1;
    fails(`byte ${at}`, wrong, at === 0 ? /version 0/ : /checksum is wrong/);
  }
  for (const value of [null, 7, 'x', []]) fails('no object', stored(1, value), /`the record` is not an object/);
  const endless = Buffer.from('{"format":1,"journal":"x","madeAt":1e999}');
  const head = Buffer.alloc(5, 1);
  head.writeUInt32BE(crc32(endless, 1), 1);
  t.throws(() => stampCodec.decode(Buffer.concat([head, endless])), { message: '`madeAt` is not a number' });
  // Where a record lies within a larger buffer.
  t.same(usageCodec.decode(Buffer.concat([Buffer.alloc(3), bytes]).subarray(3)), { bytes: 1, files: 2 });

  const tables = new MemoryTables();
  t.equal(read(tables, MEDIA, ID), undefined);
  tables.put('media', ID, Buffer.from('rubbish'));
  t.throws(() => read(tables, MEDIA, ID), {
    name: 'DamagedRecord',
    table: 'media',
    key: ID,
    message: `the record ${ID} of media is damaged: it has version 114; this release reads up to 2`,
  });
  t.ok(new DamagedRecord('a', 'b', 'c') instanceof Error);
  t.end();
});

const asText = (entries: readonly IndexEntry[]): readonly string[] =>
  entries.map(({ index, key, value }) => `${index} ${keyText(key)}${value === '' ? '' : ` = ${value}`}`).sort();

void t.test('each state of a record has its index entries', (t) => {
  const ofMedia = (given: Partial<MediaRecord>): readonly string[] =>
    asText(MEDIA.indexes({ record: { ...record, sentSha256: A, ...given }, endedSeq: 0 }));
  const owner = createHash('sha256').update('ada').digest('hex').slice(0, 32);
  const always = [`by_blob ${A}/${ID}`, `by_owner ${owner}/${ID}`];
  t.same(ofMedia({}), [...always, `expiry 90/${ID}`, `idle 20/${ID}`, `live ${A}/1 = ${ID}`]);
  t.same(ofMedia({ public: false, expiresAt: null }), [...always, `idle 20/${ID}`, `live ${A}/0 = ${ID}`]);
  t.same(
    ofMedia({ sentSha256: B }),
    [...always, `expiry 90/${ID}`, `idle 20/${ID}`, `live ${A}/1/${B} = ${ID}`, `sent ${B}/${ID}`],
    'what was changed is found by what was sent',
  );
  t.same(ofMedia({ state: { kind: 'deleted', at: 50, by: 'eve' } }), [...always, `tombstone 50/${ID}`]);
  t.same(ofMedia({ state: { kind: 'expired', at: 90 }, sentSha256: B }), [
    ...always,
    `sent ${B}/${ID}`,
    `tombstone 90/${ID}`,
  ]);

  const ofBlob = (unreferencedAt: number | null, cause: 'admin' | 'rot' | 'held' | null): readonly string[] =>
    asText(
      BLOBS.indexes({
        blob: { ...blobRecord, quarantine: cause && { ...quarantine, cause } },
        unreferencedAt,
        markSeq: 0,
      }),
    );
  t.same(ofBlob(null, null), []);
  t.same(ofBlob(30, null), [`unreferenced 30/${A}`]);
  t.same(ofBlob(30, 'rot'), [`unreferenced 30/${A}`]);
  t.same(ofBlob(30, 'admin'), [], 'evidence is not swept');
  t.same(ofBlob(null, 'held'), [`held 5/${A}`]);
  t.same(ofBlob(30, 'held'), [`held 5/${A}`, `unreferenced 30/${A}`]);

  const ofJob = (given: Partial<Job>): readonly string[] => asText(JOBS.indexes({ ...job, lease: null, ...given }));
  t.same(ofJob({ lease: { holder: 'w', until: 40 } }), [`job_lease 40/${A}`]);
  t.same(ofJob({ turn: null }), [`job_ready 1/20/10/${A}`]);
  t.same(ofJob({ turn: null, priority: 'asked' }), [`job_ready 0/20/10/${A}`]);
  t.same(ofJob({ turn: null, priority: 'backfill' }), [`job_ready 2/20/10/${A}`]);
  t.same(ofJob({ turn: 3 }), [`job_ready 1/${3 - 2 ** 40}/10/${A}`, `job_ready ada/1/${2 ** 40 - 3}/${A}`]);
  t.same(asText(DEAD.indexes({ sha256: A, attempts: 1, diedAt: 8, reason: '' })), [`dead_order 8/${A}`]);
  t.same(JOURNAL.indexes(entry), []);
  t.same(
    [
      MEDIA.keyOf?.(media),
      BLOBS.keyOf?.(blob),
      JOBS.keyOf?.(job),
      JOURNAL.keyOf?.(entry),
      DEAD.keyOf?.({ sha256: B, attempts: 1, diedAt: 8, reason: '' }),
    ],
    [ID, A, A, 7, B],
  );
  t.equal(ownerKey('ada'), owner);
  t.end();
});

void t.test('a write changes the record and only the index entries that differ', (t) => {
  const tables = new MemoryTables();
  const written = (value: StoredMedia | undefined): readonly string[] => {
    write(tables, MEDIA, ID, value);
    return tables.writes.splice(0).sort();
  };
  const plain: StoredMedia = { record: { ...record, sentSha256: A, owner: 'bob' }, endedSeq: 0 };
  const owner = ownerKey('bob');
  const all = [`by_blob ${A}/${ID}`, `by_owner ${owner}/${ID}`, `expiry 90/${ID}`, `idle 20/${ID}`, `live ${A}/1`];
  t.same(
    written(plain),
    [...all, `media ${ID}`].map((row) => `put ${row}`),
  );
  t.same(tables.keys('live'), [`${A}/1 ${ID}`]);
  t.same(written(plain), [`put media ${ID}`]);
  t.same(written({ ...plain, record: { ...plain.record, usedAt: 25 } }), [
    `put idle 25/${ID}`,
    `put media ${ID}`,
    `remove idle 20/${ID}`,
  ]);
  t.same(written({ record: { ...plain.record, usedAt: 25, state: { kind: 'expired', at: 90 } }, endedSeq: 1 }), [
    `put media ${ID}`,
    `put tombstone 90/${ID}`,
    `remove expiry 90/${ID}`,
    `remove idle 25/${ID}`,
    `remove live ${A}/1`,
  ]);
  t.same(
    written(undefined),
    [...all.slice(0, 2), `media ${ID}`, `tombstone 90/${ID}`].map((row) => `remove ${row}`),
  );
  t.same(written(undefined), [`remove media ${ID}`]);
  t.same(
    ['media', 'by_blob', 'by_owner', 'tombstone'].map((name) => tables.keys(name)),
    [[], [], [], []],
  );
  t.end();
});

void t.test('a span holds the keys that begin with its parts, or with an instant up to its own', (t) => {
  const tables = new MemoryTables();
  const keys: readonly Key[] = [
    [3, 'a'],
    [5, 'a'],
    [5, 'b'],
    [6, 'a'],
    ['a', 1, 'x'],
    ['a', 2, 'y'],
    ['ab', 1, 'z'],
  ];
  for (const key of keys) tables.put('expiry', key, Buffer.alloc(0));
  const found = (span: Parameters<typeof targets>[2]): string =>
    [...tables.range('expiry', span)].map(({ key }) => keyText(key)).join(' ');
  t.equal(found(startingWith('a')), 'a/1/x a/2/y');
  t.equal(found(startingWith('a', 2)), 'a/2/y');
  t.equal(found(startingWith(5)), '5/a 5/b');
  t.equal(found(before(5)), '3/a');
  t.equal(found(until(5)), '3/a 5/a 5/b');
  t.same([...targets(tables, 'expiry', until(5))], ['a', 'a', 'b'], 'the last part says what it points to');
  tables.put('expiry', 'alone', Buffer.alloc(0));
  t.same([...targets(tables, 'expiry', { start: 'alone', limit: 1 })], ['alone']);
  t.end();
});
