/** What readers get: every field of every kind of answer, and every refusal, without sockets. */
import { Readable } from 'node:stream';
import t from 'tap';
import {
  admitViewer,
  requireAdmin,
  requireCaller,
  requireUploader,
  type Viewer,
  viewerOf,
} from '../../../origin/authorize.js';
import { download } from '../../../origin/download.js';
import { link } from '../../../origin/link.js';
import type { BlobRecord, Found, Media, MediaRecord, PictureFacts } from '../../../origin/meta/media.js';
import { type DownloadConfig, downloadSection } from '../../../origin/respond/config.js';
import { cacheHeaders, type Lifetime, lifetimeFor } from '../../../origin/respond/lifetime.js';
import { describeDuplicate, describeMedia } from '../../../origin/respond/media-json.js';
import type { OriginRequest } from '../../../origin/server/request.js';
import type { Grant } from '../../../src/access/grant.js';
import { signLink } from '../../../src/access/link.js';
import { Fault } from '../../../src/errors.js';
import { MEDIA_CORS_HEADERS } from '../../../src/http/browser.js';
import type { Reply } from '../../../src/http/reply.js';
import type { Sha256 } from '../../../src/ids.js';
import { configured } from '../../kit/deps.js';
import { ANONYMOUS, type Asked, gateOf, granted, ID, NOW, requestOf } from '../../kit/origin/doubles/request.js';
import { mediaKey, PLACE } from '../../kit/origin/keys.js';

const SHA = 'ab'.repeat(32) as Sha256;
const NO_PICTURE: PictureFacts = {
  width: null,
  height: null,
  durationMs: null,
  frames: null,
  orientation: null,
  thumbhash: null,
};

const record: MediaRecord = {
  id: ID,
  sha256: SHA,
  sentSha256: SHA,
  public: true,
  owner: 'ada',
  filename: null,
  createdAt: NOW - 60_000,
  expiresAt: null,
  usedAt: NOW,
  state: { kind: 'live' },
};
const blob: BlobRecord = {
  sha256: SHA,
  place: PLACE,
  sizeBytes: 10,
  mime: 'image/png',
  storedAt: NOW,
  picture: NO_PICTURE,
  thumbs: { kind: 'none', reason: 'failed' },
  quarantine: null,
};

const refusalOf = async (work: Promise<unknown>): Promise<string> =>
  await work.then(
    () => 'admitted',
    (thrown: unknown) => (thrown instanceof Fault ? thrown.code : String(thrown)),
  );

interface Served extends Asked {
  readonly grant?: Grant;
  readonly found?: Found;
  readonly record?: Partial<MediaRecord>;
  readonly blob?: Partial<BlobRecord>;
  readonly stored?: Buffer | null;
  readonly thumbs?: boolean;
}

/** Serves media whose bytes are 0123456789. */
function serve(given: Served = {}) {
  const { request, counted } = requestOf(given);
  const media: Media = { record: { ...record, ...given.record }, blob: { ...blob, ...given.blob } };
  const read: unknown[] = [];
  const bytes = given.stored === undefined ? Buffer.from('0123456789') : given.stored;
  const reply = download(
    {
      gate: gateOf(given.grant ?? ANONYMOUS),
      meta: {
        find: async (id, now) => {
          t.same([id, now], [ID, NOW]);
          return given.found ?? { kind: 'live', media };
        },
      },
      blobs: {
        read: async (key, span) => {
          read.push([key, span]);
          if (bytes === null) return { kind: 'missing' };
          const body = Readable.from([bytes.subarray(span?.first ?? 0, (span?.last ?? 9) + 1)]);
          return { kind: 'found', sizeBytes: bytes.length, body };
        },
      },
      useReports: { note: (used) => void counted.push(`used ${used.id}`) },
      config: { download: configured(downloadSection), thumbs: { enabled: given.thumbs ?? true } },
    },
    request,
    ID,
  );
  return { reply, counted, read };
}

async function bodyOf({ body }: Reply): Promise<string> {
  if (body.kind !== 'stream') return body.kind;
  const bytes = Buffer.concat(await (await body.open(new AbortController().signal)).toArray());
  if (bytes.length !== body.sizeBytes) throw new Error(`it has ${bytes.length} bytes, and not ${body.sizeBytes}`);
  return bytes.toString();
}

const DIGEST = `sha-256=:${Buffer.from(SHA, 'hex').toString('base64')}:`;
/** Of every answer with these media. */
const COMMON = [
  ['etag', `"sha256:${SHA}"`],
  ['last-modified', 'Fri, 02 Jan 2026 03:03:05 GMT'],
  ['accept-ranges', 'bytes'],
  ['repr-digest', DIGEST],
  ['content-disposition', `inline; filename="${ID}.png"`],
] as const;
const CLIENT = [['cache-control', 'public, max-age=60'], ...MEDIA_CORS_HEADERS] as const;

void t.test('a reader gets the bytes, or the part that was asked for, with exactly these fields', async (t) => {
  const whole = serve();
  const reply = await whole.reply;
  t.same([reply.status, reply.headers], [200, [...COMMON, ...CLIENT, ['content-type', 'image/png']]]);
  t.same(whole.read, [], 'nothing is read before it is sent');
  t.equal(await bodyOf(reply), '0123456789');
  t.same(whole.read, [[mediaKey(SHA), undefined]]);
  t.same(whole.counted, ['download', `used ${ID}`]);

  const head = await serve({ method: 'HEAD', fields: { range: 'bytes=2-4' } }).reply;
  t.same([head.status, head.headers], [200, reply.headers], 'HEAD has no ranges');

  const part = serve({ fields: { range: 'bytes=2-4' } });
  const partReply = await part.reply;
  t.same(
    [partReply.status, partReply.headers],
    [206, [...COMMON, ...CLIENT, ['content-type', 'image/png'], ['content-range', 'bytes 2-4/10']]],
  );
  t.equal(await bodyOf(partReply), '234');
  t.same(part.read, [[mediaKey(SHA), { first: 2, last: 4 }]]);

  const parts = await serve({ fields: { range: 'bytes=0-1,8-' } }).reply;
  const type = parts.headers.at(-1)?.[1] ?? '';
  const [, boundary] = /^multipart\/byteranges; boundary=([0-9a-f]{36})$/.exec(type) ?? [];
  t.same([parts.status, parts.headers], [206, [...COMMON, ...CLIENT, ['content-type', type]]]);
  const framed = (range: string, bytes: string): string =>
    `--${boundary}\r\nContent-Type: image/png\r\nContent-Range: bytes ${range}/10\r\n\r\n${bytes}\r\n`;
  t.equal(await bodyOf(parts), `${framed('0-1', '01')}${framed('8-9', '89')}--${boundary}--\r\n`);

  const current = await serve({ fields: { 'if-none-match': `"sha256:${SHA}"`, range: 'bytes=2-4' } }).reply;
  t.same(current, { status: 304, headers: [...COMMON, ...CLIENT], body: { kind: 'none' } });
});

void t.test('what cannot be answered with bytes is refused', async (t) => {
  t.equal(await refusalOf(serve({ fields: { 'if-match': '"other"' } }).reply), 'precondition_failed');
  const beyond = await serve({ fields: { range: 'bytes=10-' } }).reply.catch((thrown: unknown) => thrown);
  t.match(beyond, { code: 'range_not_satisfiable', detail: 'The media has 10 bytes.' });
  t.same((beyond as Fault).headers, { 'content-range': 'bytes */10', etag: `"sha256:${SHA}"` });
  for (const [stored, why] of [
    [null, 'is missing'],
    [Buffer.from('012345678'), 'is of another size'],
  ] as const) {
    const fault = await bodyOf(await serve({ stored }).reply).catch((thrown: unknown) => thrown);
    t.match(fault, { code: 'storage_unavailable', cause: { message: `blob ${mediaKey(SHA)} ${why}` } });
  }
});

void t.test('facts of the media are fields, and a file that may not be shown is to be saved', async (t) => {
  const fieldsOf = async (given: Served): Promise<Readonly<Record<string, string>>> =>
    Object.fromEntries((await serve(given).reply).headers);
  const picture = { width: 640, height: 480, durationMs: 1_500, frames: 3, orientation: 6, thumbhash: 'abc=' };
  const {
    'media-width': width,
    'media-height': height,
    'media-duration': duration,
    'media-thumbhash': hash,
  } = await fieldsOf({
    blob: { picture },
  });
  t.same([width, height, duration, hash], ['640', '480', '1.500', 'abc=']);
  const bare = await fieldsOf({});
  t.notOk(Object.keys(bare).some((name) => name.startsWith('media-')));
  const disposition = async (mime: string, filename: string | null): Promise<string | undefined> =>
    (await fieldsOf({ blob: { mime }, record: { filename } }))['content-disposition'];
  t.equal(await disposition('image/png', 'a.png'), 'inline; filename="a.png"');
  t.equal(await disposition('application/pdf', null), `attachment; filename="${ID}.pdf"`);
  t.equal(await disposition('image/svg+xml', 'a.svg'), 'attachment; filename="a.svg"');
});

void t.test('an edge gets its own lifetime and the id; facts that may still come make it short', async (t) => {
  const edge = async (given: Served): Promise<readonly (readonly [string, string])[]> =>
    (await serve({ sender: 'edge', ...given }).reply).headers.slice(5, -1);
  const cors = MEDIA_CORS_HEADERS;
  const stale = 'stale-while-revalidate=3600, stale-if-error=86400';
  t.same(await edge({}), [
    ['cache-control', 'public, max-age=60'],
    ['cdn-cache-control', `public, max-age=86400, ${stale}`],
    ...cors,
    ['media-id', ID],
  ]);
  const pending = { blob: { thumbs: { kind: 'pending' } } } as const;
  t.same((await edge(pending))[1], ['cdn-cache-control', `public, max-age=5, ${stale}, provisional`]);
  t.same((await edge({ ...pending, thumbs: false }))[1], ['cdn-cache-control', `public, max-age=86400, ${stale}`]);
  t.same((await edge({ record: { public: false } })).slice(0, 2), [
    ['cache-control', 'private, max-age=60'],
    ['cdn-cache-control', `max-age=86400, ${stale}`],
  ]);
  const ends = { expiresAt: NOW + 7_200_000 };
  t.same((await edge({ record: ends })).slice(0, 3), [
    ['cache-control', 'public, max-age=60'],
    ['cdn-cache-control', 'public, max-age=7200, stale-while-revalidate=0, stale-if-error=0'],
    ['sunset', 'Fri, 02 Jan 2026 05:04:05 GMT'],
  ]);
  const anonymous = await serve({ sender: 'edge_for_anonymous' }).reply;
  t.ok(anonymous.headers.some(([name]) => name === 'cdn-cache-control'));
  t.equal(await refusalOf(serve({ sender: 'edge_for_anonymous', record: { public: false } }).reply), 'unauthorized');
  t.equal(await refusalOf(serve({ sender: 'edge', record: { public: false } }).reply), 'admitted');
});

void t.test('no copy outlives the media, or the link that opened it', (t) => {
  const config: DownloadConfig = {
    ...configured(downloadSection),
    clientMaxAgeMs: 60_000,
    edgeMaxAgeMs: 100_000,
    edgeMaxAgePendingMs: 5_000,
    edgeStaleWhileRevalidateMs: 10_000,
    edgeStaleIfErrorMs: 50_000,
  };
  const client = (grant: Grant, edge = false): Viewer => ({ kind: 'client', grant, edge });
  const lifetime = (viewer: Viewer, provisional = false, expiresAt: number | null = null): Lifetime =>
    lifetimeFor(viewer, { ...record, expiresAt }, config, NOW, provisional);
  const forEdge = { maxAgeMs: 100_000, provisional: false, staleWhileRevalidateMs: 10_000, staleIfErrorMs: 50_000 };
  const forClient = { public: true, endsAt: null, clientMaxAgeMs: 60_000, edge: null };
  t.same(lifetime(client(ANONYMOUS)), forClient);
  t.same(lifetime({ kind: 'edge' }, false, 7), { ...forClient, endsAt: 7, edge: forEdge });
  t.same(lifetime(client(ANONYMOUS, true)), { ...forClient, edge: forEdge });
  t.same(lifetime({ kind: 'edge' }, true).edge, { ...forEdge, maxAgeMs: 5_000, provisional: true });
  t.equal(
    lifetimeFor({ kind: 'edge' }, record, { ...config, edgeMaxAgePendingMs: 200_000 }, NOW, true).edge?.maxAgeMs,
    100_000,
    'one that is longer than usual does not prolong it',
  );
  const linked = (leftMs: number): number => lifetime(client({ kind: 'link', expiresAt: NOW + leftMs })).clientMaxAgeMs;
  t.same([linked(30_000), linked(90_000), linked(-1)], [30_000, 60_000, 0]);

  const whole: Lifetime = { ...forClient, edge: forEdge };
  const fields = (given: Partial<Lifetime>, leftMs?: number): object =>
    Object.fromEntries(
      cacheHeaders({ ...whole, ...given, ...(leftMs !== undefined && { endsAt: NOW + leftMs }) }, NOW),
    );
  t.same(fields({}), {
    'cache-control': 'public, max-age=60',
    'cdn-cache-control': 'public, max-age=100, stale-while-revalidate=10, stale-if-error=50',
  });
  t.match(fields({}, 130_000), {
    'cdn-cache-control': 'public, max-age=100, stale-while-revalidate=10, stale-if-error=30',
  });
  t.match(fields({}, 1_999), {
    'cache-control': 'public, max-age=1',
    'cdn-cache-control': 'public, max-age=1, stale-while-revalidate=0, stale-if-error=0',
  });
  t.match(fields({}, -5_000), { 'cache-control': 'public, max-age=0', 'cdn-cache-control': /^public, max-age=0, / });
  t.same(fields({ public: false, edge: null }), { 'cache-control': 'private, max-age=60' });
  t.end();
});

void t.test('who may not read media cannot tell whether they are private, gone or unknown', (t) => {
  const media = (isPublic: boolean): Media => ({ record: { ...record, public: isPublic }, blob });
  const marked = (cause: 'admin' | 'held', isPublic: boolean): Found => ({
    kind: 'quarantined',
    media: { ...media(isPublic), blob: { ...blob, quarantine: { at: 0, by: '', reason: null, cause } } },
  });
  const states = (isPublic: boolean): readonly Found[] => [
    { kind: 'live', media: media(isPublic) },
    marked('admin', isPublic),
    marked('held', isPublic),
    { kind: 'deleted', record: media(isPublic).record },
    { kind: 'expired', record: media(isPublic).record },
    { kind: 'unknown' },
  ];
  const seen = (viewer: Viewer, isPublic: boolean): string =>
    states(isPublic)
      .map((found) => {
        try {
          return admitViewer(viewer, found) === (found as { readonly media?: Media }).media ? 'media' : 'other media';
        } catch (thrown) {
          return thrown instanceof Fault ? thrown.code : String(thrown);
        }
      })
      .join(' ');
  const client = (grant: Grant): Viewer => ({ kind: 'client', grant, edge: false });
  const all = 'media quarantined quarantined deleted expired not_found';
  const none = 'unauthorized unauthorized unauthorized unauthorized unauthorized unauthorized';
  for (const viewer of [{ kind: 'edge' } as const, client(granted()), client({ kind: 'link', expiresAt: NOW })]) {
    t.same([seen(viewer, true), seen(viewer, false)], [all, all]);
  }
  t.equal(seen(client(ANONYMOUS), true), 'media quarantined quarantined deleted expired unauthorized');
  t.equal(seen(client(ANONYMOUS), false), none);
  t.equal(seen(client(granted({ scope: 'upload' })), false), none.replaceAll('unauthorized', 'forbidden'));
  const why = (cause: 'admin' | 'held'): string => {
    try {
      return admitViewer({ kind: 'edge' }, marked(cause, true)).record.id;
    } catch (thrown) {
      return thrown instanceof Fault ? thrown.detail : '';
    }
  };
  t.same(
    [why('held'), why('admin')],
    ['The media is withheld until it has been scanned.', 'The media is quarantined.'],
  );
  t.end();
});

void t.test('a credential decides who uploads and administers', async (t) => {
  const admitted = async (grant: Grant): Promise<string> => {
    const ask = async (require: typeof requireCaller): Promise<string> => {
      const { request, counted } = requestOf();
      const outcome = await refusalOf(require(gateOf(grant), request));
      t.same(counted, grant.kind === 'caller' ? ['identify', 'subject ada'] : []);
      return outcome;
    };
    return [await ask(requireCaller), await ask(requireUploader), await ask(requireAdmin)].join(' ');
  };
  t.equal(await admitted(granted()), 'admitted admitted forbidden');
  t.equal(await admitted(granted({ roles: new Set(['admin'] as const) })), 'admitted admitted admitted');
  t.equal(await admitted(granted({ scope: 'read' })), 'admitted forbidden forbidden');
  t.equal(await admitted(granted({ scope: 'upload' })), 'admitted admitted forbidden');
  t.equal(await admitted(ANONYMOUS), 'unauthorized unauthorized unauthorized');
  t.equal(await admitted({ kind: 'link', expiresAt: NOW + 1 }), 'unauthorized unauthorized unauthorized');
  t.equal(
    await admitted({ kind: 'unavailable', retryAfterMs: 1 }),
    'auth_unavailable auth_unavailable auth_unavailable',
  );
  const viewer = async (sender: OriginRequest['sender']): Promise<Viewer> =>
    await viewerOf(gateOf(granted()), requestOf({ sender }).request);
  t.same(await viewer('edge'), { kind: 'edge' });
  t.same(await viewer('edge_for_anonymous'), { kind: 'client', grant: ANONYMOUS, edge: true });
  t.same(await viewer('client'), { kind: 'client', grant: granted(), edge: false });
});

void t.test('a link is valid for as long as asked for, and no longer than it may be or the media live', async (t) => {
  const key = { kid: 'k1', secret: 'secret'.repeat(8) };
  const links = { key: () => key, lifetimeMs: 600_000, lifetimeMaxMs: 900_000, windowMs: 1_000, idsMax: 2 };
  const ask = (
    options: Partial<Parameters<typeof link>[3]>,
    given: { record?: Partial<MediaRecord>; grant?: Grant; links?: Partial<Parameters<typeof link>[0]['links']> } = {},
  ): Promise<Reply> =>
    link(
      {
        gate: gateOf(given.grant ?? granted()),
        meta: { find: async () => ({ kind: 'live', media: { record: { ...record, ...given.record }, blob } }) },
        links: { ...links, ...given.links },
        baseUri: 'https://media.example',
      },
      requestOf({ method: 'POST' }).request,
      ID,
      { expiresInSeconds: undefined, width: undefined, height: undefined, ...options },
    );
  const made = async (...of: Parameters<typeof ask>): Promise<object> => {
    const { body } = await ask(...of);
    return JSON.parse(body.kind === 'bytes' ? Buffer.from(body.bytes).toString() : '{}') as object;
  };
  const expected = (expiresAt: number, size = ''): object => ({
    url: `https://media.example${signLink({ kind: 'original', id: ID }, expiresAt, key)}`,
    thumb_url: `https://media.example${signLink({ kind: 'thumb', id: ID }, expiresAt, key)}`.replace('?', `?${size}`),
    info_url: `https://media.example${signLink({ kind: 'info', id: ID }, expiresAt, key)}`,
    expires_at: new Date(expiresAt).toISOString(),
  });
  t.same(await made({}), expected(NOW + 600_000));
  t.same(await made({ expiresInSeconds: 900, width: 5, height: 6 }), expected(NOW + 900_000, 'w=5&h=6&'));
  t.same(await made({}, { record: { expiresAt: NOW + 1_999, public: false } }), expected(NOW + 1_000));
  const tooLong = await ask({ expiresInSeconds: 901 }).catch((thrown: unknown) => thrown);
  t.match(tooLong, { code: 'malformed', detail: 'A link is valid for at most 900 seconds.' });
  t.equal(await refusalOf(ask({}, { links: { key: () => undefined as never } })), 'not_found');
  t.equal(await refusalOf(ask({}, { grant: granted({ scope: 'upload' }) })), 'forbidden');
  t.equal(await refusalOf(ask({}, { grant: ANONYMOUS })), 'unauthorized');
});

void t.test('media as JSON, and what of it the sender of the same bytes may know', (t) => {
  const picture = { width: 640, height: 480, durationMs: 1_500, frames: 3, orientation: 6, thumbhash: 'abc=' };
  const media: Media = {
    record: { ...record, filename: 'theirs.png', expiresAt: NOW },
    blob: { ...blob, picture, thumbs: { kind: 'pending' } },
  };
  const described = {
    id: ID,
    url: `https://media.example/v1/media/${ID}`,
    thumb_url: `https://media.example/v1/media/${ID}/thumb`,
    etag: `"sha256:${SHA}"`,
    sha256: SHA,
    size: 10,
    mime: 'image/png',
    public: true,
    width: 640,
    height: 480,
    duration: 1.5,
    thumbhash: 'abc=',
    filename: 'theirs.png',
    created_at: '2026-01-02T03:03:05.000Z',
    expires_at: '2026-01-02T03:04:05.000Z',
  };
  t.same(describeMedia(media, 'https://media.example'), described);
  t.same(describeMedia({ record, blob }, ''), {
    ...described,
    url: `/v1/media/${ID}`,
    thumb_url: null,
    width: null,
    height: null,
    duration: null,
    thumbhash: null,
    filename: null,
    expires_at: null,
  });
  const sent = { sha256: 'cd'.repeat(32), sizeBytes: 12, mime: 'image/gif', filename: 'own.gif' };
  t.same(describeDuplicate(media, sent, true, 'https://media.example'), { ...described, filename: 'own.gif' });
  t.same(describeDuplicate(media, sent, false, 'https://media.example'), {
    ...described,
    thumb_url: null,
    sha256: sent.sha256,
    size: 12,
    mime: 'image/gif',
    filename: 'own.gif',
    width: null,
    height: null,
    duration: null,
    thumbhash: null,
    created_at: null,
    expires_at: null,
  });
  t.end();
});
