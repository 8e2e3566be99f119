/** What admins do and see, and how thumbnails are answered for, over doubles of the stores. */
import { Readable } from 'node:stream';
import t from 'tap';
import { type AdminDeps, inspectMedia, listMedia } from '../../origin/admin.js';
import { type AuditAct, auditSection, openAudit, recordAfter } from '../../origin/audit.js';
import { createLiveSettings } from '../../origin/live-settings.js';
import type { BlobRecord, Found, MediaRecord, ThumbMade, ThumbState } from '../../origin/meta/media.js';
import type { ListQuery, QuarantineOutcome, RemoveOutcome } from '../../origin/meta/store.js';
import { quarantine, restore } from '../../origin/quarantine.js';
import { remove } from '../../origin/remove.js';
import { downloadSection } from '../../origin/respond/config.js';
import { type ThumbDeps, thumb } from '../../origin/thumb.js';
import { thumbOptionsOf } from '../../origin/thumbs/plan.js';
import type { EarlyThumb } from '../../origin/thumbs/store-thumb.js';
import { edgeProof } from '../../src/access/edge-proof.js';
import { Fault } from '../../src/errors.js';
import type { Reply } from '../../src/http/reply.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import { configured } from '../kit/deps.js';
import { ANONYMOUS, type Asked, gateOf, granted, ID, NOW, requestOf } from '../kit/origin/doubles/request.js';
import { mediaKey, PLACE, thumbKey } from '../kit/origin/keys.js';
import { thumbsConfig } from '../kit/origin/thumb-fixture.js';

const SHA = 'ab'.repeat(32) as Sha256;
const ADMIN = granted({ roles: new Set(['admin'] as const) });
const PLAIN = { wait: undefined, reason: undefined };
const NO_STORE = ['cache-control', 'no-store'];

const record: MediaRecord = {
  id: ID,
  sha256: SHA,
  sentSha256: SHA,
  public: true,
  owner: 'bob',
  filename: 'a.png',
  createdAt: NOW - 1_000,
  expiresAt: null,
  usedAt: NOW - 500,
  state: { kind: 'live' },
};
const blob: BlobRecord = {
  sha256: SHA,
  place: PLACE,
  sizeBytes: 10,
  mime: 'image/png',
  storedAt: NOW - 2_000,
  picture: { width: 400, height: 300, durationMs: null, frames: 1, orientation: 6, thumbhash: null },
  thumbs: { kind: 'pending' },
  quarantine: null,
};

async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'done',
    (thrown: unknown) => (thrown instanceof Fault ? thrown.code : String(thrown)),
  );
}
const documentIn = ({ body }: Reply): unknown =>
  JSON.parse(body.kind === 'bytes' ? Buffer.from(body.bytes).toString() : 'null');

/** The log is no part of the change, so no note is given. */
const argumentsIn = (given: readonly unknown[]): readonly unknown[] =>
  given.at(-1) === undefined ? given.slice(0, -1) : given;

/** The deps of takedowns, and what was done, in order. */
function acting(outcomes: { readonly remove?: RemoveOutcome; readonly mark?: QuarantineOutcome } = {}, grant = ADMIN) {
  const done: unknown[] = [];
  const mark = outcomes.mark ?? { kind: 'done', seq: 7 };
  const deps = {
    gate: gateOf(grant),
    meta: {
      remove: async (...of: unknown[]) => {
        done.push(['remove', ...argumentsIn(of)]);
        return outcomes.remove ?? { kind: 'removed', seq: 7 };
      },
      quarantine: async (...of: unknown[]) => {
        done.push(['quarantine', ...argumentsIn(of)]);
        return mark;
      },
      restore: async (...of: unknown[]) => {
        done.push(['restore', ...argumentsIn(of)]);
        return mark;
      },
    },
    audit: {
      record: recordAfter(async (act: AuditAct) => {
        await new Promise(setImmediate);
        done.push(['audit', act]);
      }),
    },
    journal: {
      confirmed: async (seq: number, waitMs: number) => {
        done.push(['wait', seq, waitMs]);
        return { confirmed: 2, known: 3 };
      },
    },
    config: { journal: { waitMaxMs: 5_000 } },
  };
  return { deps: deps as never, done };
}
const audited = (given: Partial<AuditAct>): object => ({
  at: NOW,
  by: 'ada',
  act: 'delete',
  target: ID,
  outcome: 'done',
  seq: null,
  reason: null,
  requestId: 'request 1',
  address: '192.0.2.1',
  ...given,
});
const { request } = requestOf({ method: 'DELETE' });

void t.test('a delete is marked, written down and then answered, again and again alike', async (t) => {
  for (const kind of ['removed', 'already'] as const) {
    const { deps, done } = acting({ remove: { kind, seq: 7 } });
    t.same(await remove(deps, request, ID, PLAIN), { status: 204, headers: [NO_STORE], body: { kind: 'none' } });
    t.same(done, [
      ['remove', ID, 'ada', NOW],
      ['audit', audited({ outcome: kind, seq: 7 })],
    ]);
  }
  const { deps, done } = acting();
  t.same((await remove(deps, request, ID, { wait: 'edges', reason: undefined })).headers, [
    NO_STORE,
    ['takedown-confirmed', '2/3'],
  ]);
  t.same(done[2], ['wait', 7, 5_000]);
  const unknown = acting({ remove: { kind: 'unknown' } });
  t.equal(await codeOf(remove(unknown.deps, request, ID, { wait: 'edges', reason: undefined })), 'not_found');
  t.same(unknown.done[1], ['audit', audited({ outcome: 'unknown' })], 'also what came to nothing is written down');
  t.equal(unknown.done.length, 2);
});

void t.test('where the log is in the database, what was done is written down by the change itself', async (t) => {
  const lines: unknown[] = [];
  const log = openAudit(configured(auditSection), {
    audit: { append: async (added: readonly unknown[]) => void lines.push(...added) },
  } as never);
  const audit = await log;
  const noting =
    (outcome: object) =>
    async (...of: unknown[]) => {
      lines.push((of.at(-1) as (outcome: unknown) => unknown)(outcome));
      return outcome;
    };
  const meta = {
    remove: noting({ kind: 'removed', seq: 7 }),
    quarantine: noting({ kind: 'already', seq: 8 }),
    restore: noting({ kind: 'unknown' }),
  };
  const deps = { ...(acting().deps as object), meta, audit } as never;
  await remove(deps, request, ID, PLAIN);
  await quarantine(deps, request, SHA, { wait: undefined, reason: 'why\0' });
  t.equal(await codeOf(restore(deps, request, ID, PLAIN)), 'not_found');
  await audit.append(audited({ act: 'inspect' }) as AuditAct);
  const line = (given: Partial<AuditAct>): object => ({
    at: NOW,
    line: JSON.stringify({ ...audited(given), at: new Date(NOW).toISOString() }),
  });
  t.same(lines, [
    line({ outcome: 'removed', seq: 7 }),
    line({ act: 'quarantine', target: SHA, outcome: 'already', seq: 8, reason: 'why\0' }),
    line({ act: 'restore', outcome: 'unknown' }),
    line({ act: 'inspect' }),
  ]);
  await audit.close();
});

void t.test('a quarantine and its end are marked, written down and then answered', async (t) => {
  const { deps, done } = acting();
  const reply = await quarantine(deps, request, SHA, { wait: 'edges', reason: 'why' });
  t.same([reply.status, reply.headers], [204, [NO_STORE, ['takedown-confirmed', '2/3']]]);
  t.same(done, [
    ['quarantine', SHA, { at: NOW, by: 'ada', reason: 'why', cause: 'admin' }],
    ['audit', audited({ act: 'quarantine', target: SHA, seq: 7, reason: 'why' })],
    ['wait', 7, 5_000],
  ]);
  done.length = 0;
  t.same((await quarantine(deps, request, ID, PLAIN)).headers, [NO_STORE]);
  t.match(done[0], ['quarantine', ID, { reason: null }]);
  done.length = 0;
  t.same((await restore(deps, request, ID, { wait: undefined, reason: 'a mistake' })).headers, [NO_STORE]);
  t.same(done, [
    ['restore', ID, NOW],
    ['audit', audited({ act: 'restore', seq: 7, reason: 'a mistake' })],
  ]);
  const cases: readonly (readonly [QuarantineOutcome, string])[] = [
    [{ kind: 'already', seq: 4 }, 'done'],
    [{ kind: 'gone', state: 'deleted' }, 'deleted'],
    [{ kind: 'gone', state: 'expired' }, 'expired'],
    [{ kind: 'unknown' }, 'not_found'],
  ];
  for (const [mark, code] of cases) {
    const acted = acting({ mark });
    t.equal(await codeOf(quarantine(acted.deps, request, ID, PLAIN)), code);
    t.equal(await codeOf(restore(acted.deps, request, ID, PLAIN)), code);
    const seq = 'seq' in mark ? mark.seq : null;
    t.same(acted.done[1], ['audit', audited({ act: 'quarantine', outcome: mark.kind, seq })]);
    t.same(acted.done[3], ['audit', audited({ act: 'restore', outcome: mark.kind, seq })]);
  }
});

void t.test('nothing is done or looked up for who is no admin', async (t) => {
  for (const [grant, code] of [
    [granted(), 'forbidden'],
    [ANONYMOUS, 'unauthorized'],
  ] as const) {
    const { deps, done } = acting({}, grant);
    t.equal(await codeOf(remove(deps, request, ID, PLAIN)), code);
    t.equal(await codeOf(quarantine(deps, request, ID, PLAIN)), code);
    t.equal(await codeOf(restore(deps, request, ID, PLAIN)), code);
    const nothing = { gate: gateOf(grant) } as AdminDeps;
    t.equal(await codeOf(inspectMedia(nothing, request, ID)), code);
    t.equal(await codeOf(listMedia(nothing, request, NO_OPTIONS)), code);
    t.same(done, []);
  }
});

const NO_OPTIONS = {
  owner: undefined,
  type: undefined,
  state: undefined,
  from: undefined,
  to: undefined,
  cursor: undefined,
  limit: undefined,
};

function looking(
  found: Found,
  given: { readonly seq?: number; readonly blob?: BlobRecord; readonly next?: MediaId } = {},
) {
  const done: unknown[] = [];
  const deps: AdminDeps = {
    gate: gateOf(ADMIN),
    meta: {
      find: async () => found,
      findBlob: async () => given.blob,
      idsOfBlob: async () => [ID, 'another id' as MediaId],
      takedownSeqOf: async () => given.seq ?? 0,
      list: async (query: ListQuery) => {
        done.push(query);
        return { found: found.kind === 'unknown' ? [] : [found], next: given.next ?? null };
      },
    },
    journal: {
      confirmed: async () => ({ confirmed: 0, known: 0 }),
      positions: async () => [
        { edge: 'e1', connected: true, confirmed: 7, heardAt: NOW },
        { edge: 'e2', connected: false, confirmed: 6, heardAt: NOW - 1 },
      ],
    },
    audit: { append: async (act) => void done.push(act) },
    ownersMayDelete: false,
    baseUri: 'https://media.example',
  };
  return { deps, done };
}

const instant = (at: number): string => new Date(at).toISOString();
const listed = {
  id: ID,
  state: 'live',
  owner: 'bob',
  public: true,
  sha256: SHA,
  filename: 'a.png',
  created_at: instant(NOW - 1_000),
  expires_at: null,
  used_at: instant(NOW - 500),
};

void t.test('a page of media has what an admin asks for', async (t) => {
  const { deps, done } = looking({ kind: 'live', media: { record, blob } }, { next: ID });
  const reply = await listMedia(deps, request, NO_OPTIONS);
  t.same(documentIn(reply), { items: [{ ...listed, mime: 'image/png', size: 10 }], next: ID });
  t.equal(reply.status, 200);
  t.same(done, [{ limit: 50, now: NOW }, audited({ act: 'inspect', target: null })]);
  const all = { owner: 'bob', type: 'image/png', state: 'live', from: 1, to: 2, cursor: ID, limit: 3 } as const;
  await listMedia(deps, request, all);
  t.same(done[2], {
    owner: 'bob',
    mime: 'image/png',
    state: 'live',
    createdFrom: 1,
    createdTo: 2,
    after: ID,
    limit: 3,
    now: NOW,
  });
  const deleted = { ...record, expiresAt: NOW, state: { kind: 'deleted', at: NOW, by: 'eve' } } as const;
  t.same(documentIn(await listMedia(looking({ kind: 'deleted', record: deleted }).deps, request, NO_OPTIONS)), {
    items: [{ ...listed, state: 'deleted', expires_at: instant(NOW), deleted_at: instant(NOW), deleted_by: 'eve' }],
    next: null,
  });
});

void t.test('one media is shown with its bytes, its thumbnails and its takedown', async (t) => {
  const show = async (
    found: Found,
    given: Parameters<typeof looking>[1] = {},
  ): Promise<Readonly<Record<string, unknown>>> =>
    documentIn(await inspectMedia(looking(found, given).deps, request, ID)) as Readonly<Record<string, unknown>>;
  const live = (given: Partial<BlobRecord> = {}): Found => ({
    kind: 'live',
    media: { record, blob: { ...blob, ...given } },
  });
  const content = {
    stored_at: instant(NOW - 2_000),
    frames: 1,
    orientation: 6,
    quarantine: null,
    thumbnails: { state: 'pending' },
  };
  const shown = await show(live());
  t.match(shown, { ...listed, mime: 'image/png', size: 10, url: `https://media.example/v1/media/${ID}`, width: 400 });
  t.same([shown['content'], shown['duplicates'], shown['takedown']], [content, ['another id'], null]);
  t.same((await show(live({ thumbs: { kind: 'none', reason: 'failed' } })))['content'], {
    ...content,
    thumbnails: { state: 'none', reason: 'failed' },
  });
  const made: ThumbMade = {
    variant: '160',
    format: 'webp',
    sha256: SHA,
    place: PLACE,
    sizeBytes: 5,
    width: 1,
    height: 2,
    animated: false,
  };
  const { sizeBytes: size, place: _, ...rest } = made;
  t.same((await show(live({ thumbs: { kind: 'ready', made: [made] } })))['content'], {
    ...content,
    thumbnails: { state: 'ready', made: [{ ...rest, size }] },
  });
  const mark = { at: NOW, by: 'eve', reason: 'why', cause: 'held' } as const;
  const held = await show({ kind: 'quarantined', media: { record, blob: { ...blob, quarantine: mark } } }, { seq: 7 });
  t.match(held, { state: 'held', content: { quarantine: { ...mark, at: instant(NOW) } } });
  t.same(held['takedown'], {
    seq: 7,
    edges: [
      { edge: 'e1', connected: true, confirmed: true, heard_at: instant(NOW) },
      { edge: 'e2', connected: false, confirmed: false, heard_at: instant(NOW - 1) },
    ],
  });
  const expired: Found = { kind: 'expired', record: { ...record, state: { kind: 'expired', at: NOW } } };
  t.match(await show(expired, { blob }), { state: 'expired', content });
  t.notOk('content' in (await show(expired)), 'the bytes may be gone');
  const unknown = looking({ kind: 'unknown' });
  t.equal(await codeOf(inspectMedia(unknown.deps, request, ID)), 'not_found');
  t.same(unknown.done, [audited({ act: 'inspect', outcome: 'unknown' })]);
});

void t.test('secrets are those of the settings that were read last', (t) => {
  const settings = (secret: string, accepted: readonly string[]) =>
    ({
      access: { edgeSecret: secret, edgeSecretsAccepted: accepted, links: { secrets: [{ kid: secret, secret }] } },
    }) as never;
  const live = createLiveSettings(settings('one', ['old']));
  const proven = (): readonly boolean[] => ['one', 'old', 'two'].map((secret) => live.isEdge(edgeProof(secret)));
  t.same(proven(), [true, true, false]);
  t.equal(live.isEdge(undefined), false);
  t.same(live.linkKeys(), [{ kid: 'one', secret: 'one' }]);
  live.renew(settings('two', []));
  t.same(live.linkKeys(), [{ kid: 'two', secret: 'two' }]);
  t.same(proven(), [false, false, true]);
  t.end();
});

// Thumbnails.

const config = thumbsConfig();
const webp = (variant: string, width: number): ThumbMade => ({
  variant,
  format: 'webp',
  sha256: variant.padStart(64, '0') as Sha256,
  place: PLACE,
  sizeBytes: 10,
  width,
  height: width,
  animated: false,
});
const early = (format: EarlyThumb['format'] = 'webp'): EarlyThumb => ({
  ...webp('320', 320),
  format,
  bytes: Buffer.from('0123456789'),
});

interface Showing extends Asked {
  readonly thumbs?: ThumbState;
  /** After the wait. */
  readonly later?: ThumbState | 'deleted';
  readonly early?: readonly EarlyThumb[];
}

/** `waited` says how the thumbnail was waited for, in order. */
function show(given: Showing) {
  const { request: asking, counted } = requestOf({ sender: 'edge', ...given });
  const waited: unknown[] = [];
  let looked = 0;
  const deps: ThumbDeps = {
    gate: gateOf(ANONYMOUS),
    meta: {
      find: async (_id, now) => {
        looked += 1;
        waited.push(['find', now - NOW]);
        const state = looked === 1 ? (given.thumbs ?? { kind: 'pending' }) : (given.later ?? { kind: 'pending' });
        if (state === 'deleted') return { kind: 'deleted', record };
        return { kind: 'live', media: { record, blob: { ...blob, thumbs: state } } };
      },
    },
    blobs: {
      read: async (key) => ({ kind: 'found', sizeBytes: 10, body: Readable.from([Buffer.from(key.slice(-10))]) }),
    },
    useReports: { note: (used, at) => void counted.push(`used ${used.id} ${at - NOW}`) },
    thumbs: {
      prioritize: async (sha256) => void waited.push(['prioritize', sha256]),
      wait: async (_sha256, waitMs) => {
        waited.push(['wait', waitMs]);
        return { kind: 'pending' };
      },
      waitForEarly: async (_sha256, waitMs) => {
        waited.push(['early', waitMs]);
        return { kind: 'pending' };
      },
      early: () => given.early ?? [],
    },
    clock: { now: () => NOW + 900 },
    thumbOptions: thumbOptionsOf(config),
    config: { download: configured(downloadSection), thumbs: config },
  };
  return { reply: thumb(deps, asking, ID), waited, counted };
}
const ready: ThumbState = { kind: 'ready', made: [webp('160', 160), webp('320', 320)] };
const IMG = { 'sec-fetch-dest': 'image', accept: 'image/webp,*/*' };
const fieldsOf = async (reply: Promise<Reply>): Promise<Readonly<Record<string, string>>> =>
  Object.fromEntries((await reply).headers);
async function bytesOf(reply: Promise<Reply>): Promise<Buffer> {
  const { body } = await reply;
  if (body.kind === 'bytes') return Buffer.from(body.bytes);
  return body.kind === 'stream'
    ? Buffer.concat(await (await body.open(new AbortController().signal)).toArray())
    : Buffer.of();
}

void t.test('a thumbnail that is made is answered at once, in the size and format that fit', async (t) => {
  const { reply, waited, counted } = show({ thumbs: ready, fields: { accept: 'image/webp' }, query: 'w=100' });
  const fields = await fieldsOf(reply);
  t.match(fields, {
    etag: `"sha256:${webp('160', 160).sha256}"`,
    'content-type': 'image/webp',
    'content-disposition': 'inline',
    'media-width': '160',
    'media-height': '160',
    vary: 'Accept',
    'cdn-cache-control': /^public, max-age=86400/,
    'last-modified': 'Fri, 02 Jan 2026 03:04:04 GMT',
  });
  t.same(waited, [['find', 0]]);
  t.same(counted, ['download', `used ${ID} 0`]);
  t.equal(
    (await bytesOf(reply)).toString(),
    thumbKey(SHA, webp('160', 160).sha256).slice(-10),
    'its bytes are read under its own key',
  );
  t.equal(
    (await fieldsOf(show({ thumbs: ready, query: 'w=321', fields: { accept: 'image/webp' } }).reply))['media-width'],
    '320',
  );
  t.not(mediaKey(SHA), thumbKey(SHA, SHA));
  t.equal(await codeOf(show({ thumbs: { kind: 'none', reason: 'broken_image' } }).reply), 'thumbnail_unavailable');
  t.equal(await codeOf(show({ thumbs: { kind: 'ready', made: [] } }).reply), 'thumbnail_unavailable');
});

void t.test('why there is no thumbnail is told', async (t) => {
  const details = new Set<string>();
  for (const reason of ['unsupported_type', 'broken_image', 'too_many_pixels', 'too_expensive', 'failed'] as const) {
    const fault = await show({ thumbs: { kind: 'none', reason } }).reply.catch((thrown: unknown) => thrown);
    t.match(fault, { code: 'thumbnail_unavailable', members: { reason } });
    details.add((fault as Fault).detail);
  }
  t.equal(details.size, 5);
});

void t.test('one that is not made yet is waited for, and what holds afterwards is answered', async (t) => {
  const { reply, waited, counted } = show({});
  const { status, headers } = await reply;
  t.equal(status, 202);
  t.same(Object.fromEntries(headers), {
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
    'retry-after': '2',
    vary: 'Accept',
  });
  t.same(documentIn(await reply), { status: 202, code: 'thumbnail_pending', title: 'The thumbnail is being made' });
  t.same(waited, [
    ['find', 0],
    ['prioritize', SHA],
    ['wait', config.waitMs],
    ['find', 900],
  ]);
  t.same(counted, ['download', `used ${ID} 900`]);
  t.equal((await show({ later: ready, fields: { accept: 'image/webp' } }).reply).status, 200);
  t.equal(await codeOf(show({ later: 'deleted' }).reply), 'deleted', 'media may be taken down meanwhile');
});

void t.test('a picture element gets a picture in any case', async (t) => {
  const none = show({ fields: IMG });
  t.same(await fieldsOf(none.reply), {
    'content-type': 'image/png',
    'content-disposition': 'inline',
    'cache-control': 'no-store',
    'media-placeholder': '?1',
    vary: 'Accept',
  });
  t.same(none.waited.slice(2, 3), [['early', config.pictureWaitMs]]);
  const png = await bytesOf(none.reply);
  t.same([png.readUInt32BE(16), png.readUInt32BE(20)], [320, 240], 'of the size that the thumbnail will have');

  const first = show({ fields: IMG, early: [early()] });
  t.match(await fieldsOf(first.reply), {
    'content-type': 'image/webp',
    etag: `"sha256:${early().sha256}"`,
    'media-width': '320',
  });
  t.equal((await bytesOf(first.reply)).toString(), '0123456789');
  const part = show({ fields: { ...IMG, range: 'bytes=2-4' }, early: [early()] });
  t.equal((await part.reply).status, 206);
  t.equal((await bytesOf(part.reply)).toString(), '234');

  const smaller = show({ fields: IMG, query: 'w=100', early: [early()] });
  t.same(await fieldsOf(smaller.reply), {
    'content-type': 'image/webp',
    'content-disposition': 'inline',
    'media-width': '320',
    'media-height': '320',
    vary: 'Accept',
    'cache-control': 'no-store',
  });
  t.equal((await bytesOf(smaller.reply)).toString(), '0123456789');
  t.same(smaller.waited[2], ['early', config.pictureWaitMs], 'the default one is large enough for it');
  const larger = show({ fields: IMG, query: 'w=640', early: [early()] });
  await larger.reply;
  t.same(larger.waited[2], ['wait', config.pictureWaitMs], 'and too small for this one');
  const jpeg = show({ fields: { 'sec-fetch-dest': 'image', accept: 'image/jpeg' }, early: [early()] });
  t.match(await fieldsOf(jpeg.reply), { 'media-placeholder': '?1' }, 'in no format that it reads');
});
