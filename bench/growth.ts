/**
 * `npm run bench growth [ENTRIES…]`: what an entry of the memory tier costs as their number grows: memory beside its body,
 * as stored, once it has been served twice, and as the tier counts it; and processor time for finding it and counting a
 * use. Keys and fields are new strings for each entry, as they come from
 * a socket; a third of the fields differ from entry to entry. Run by itself for exact figures of memory, with
 * `node --expose-gc`.
 */
import { MemoryTier } from '../edge/cache/memory.js';
import { Readers } from '../edge/cache/readers.js';
import type { CacheKey, Entry } from '../edge/entry.js';
import type { EdgeRequest } from '../edge/request.js';
import { respond } from '../edge/respond/respond.js';
import { createHeadWriter } from '../edge/server/fastlane/write-head.js';

const LOOK_UPS = 300_000;
const ROUNDS = 5;
/** So many of the entries are served. */
const SERVED_MAX = 20_000;
const COMMON: Entry['headers'] = [
  ['content-type', 'image/jpeg'],
  ['cache-control', 'private, max-age=300'],
  ['cdn-cache-control', 'max-age=86400, stale-while-revalidate=60, stale-if-error=3600'],
  [
    'content-security-policy',
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
  ],
  ['cross-origin-resource-policy', 'cross-origin'],
  ['referrer-policy', 'no-referrer'],
  ['access-control-allow-origin', '*'],
  ['access-control-expose-headers', 'etag, content-range, accept-ranges, media-width, media-height, age, sunset'],
  ['accept-ranges', 'bytes'],
  ['last-modified', 'Thu, 01 Jan 2026 00:00:00 GMT'],
  ['media-width', '4032'],
  ['media-height', '3024'],
  ['vary', 'accept'],
  ['x-content-type-options', 'nosniff'],
];
const BODY = Buffer.alloc(10);

function ownFields(n: number): Entry['headers'] {
  return [
    ['content-disposition', `inline; filename="photograph-${n}.jpg"; filename*=UTF-8''photograph-${n}.jpg`],
    ['etag', `"sha256:${String(n).padStart(64, 'a')}"`],
    ['repr-digest', `sha-256=:${String(n).padStart(43, 'b')}=:`],
    ['media-thumbhash', `x${n}yyyyyyyyyyyyyyyyyyyy`],
    ['media-id', keyOf(n).slice(-26)],
    ['content-length', String(n)],
  ];
}

function keyOf(n: number): CacheKey {
  return `/v1/media/01ARZ3NDEKTSV4RR${String(n).padStart(10, '0')}` as CacheKey;
}

/** A string of its own, as it is made of the bytes of a socket. */
function anew<T extends string>(text: T): T {
  return Buffer.from(text, 'latin1').toString('latin1') as T;
}

function entryOf(n: number): Entry {
  const key = anew(keyOf(n));
  const at = n + 0.5;
  return {
    key,
    primaryKey: key,
    mediaId: anew(key.slice(-26)) as NonNullable<Entry['mediaId']>,
    status: 200,
    headers: [...COMMON, ...ownFields(n)].map(([name, value]) => [anew(name), anew(value)]),
    selectedBy: {},
    requestedAt: at,
    receivedAt: at,
    bornAt: at,
    staleAt: at,
    revalidateUntil: at,
    errorUntil: at,
    deleteAt: Number.POSITIVE_INFINITY,
    audience: 'authorised',
    sizeBytes: BODY.length,
    sha256: anew(String(n).padStart(64, 'c')),
  };
}

function usedBytes(): number {
  // Memory of buffers is given back by the second one.
  for (let time = 0; time < 2; time += 1) globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function nanosecondsEach(run: (n: number) => void): number {
  const times = Array.from({ length: ROUNDS }, () => {
    const from = process.cpuUsage();
    for (let n = 0; n < LOOK_UPS; n += 1) run(n);
    const { user, system } = process.cpuUsage(from);
    return ((user + system) / LOOK_UPS) * 1_000;
  });
  return Math.min(...times);
}

/** Serves each of the first entries twice within a second, and returns what that leaves behind, in bytes an entry. */
function serve(tier: MemoryTier, entries: number): number {
  const now = 1_000_000;
  const request = {
    method: 'GET',
    requestId: 'x',
    header: () => undefined,
  } satisfies Partial<EdgeRequest> as unknown as EdgeRequest;
  const rules = { rangesMax: 1, edgeName: 'edge', to: 'client', newBoundary: () => 'x' } as const;
  const writer = createHeadWriter({ now: () => now }, 5_000);
  const served = Math.min(entries, SERVED_MAX);
  const before = usedBytes();
  for (let n = 0; n < 2 * served; n += 1) {
    const stored = tier.peek(keyOf(n % served));
    if (stored === undefined) throw new Error('an entry is not found');
    const sending = { cacheStatus: 'edge; hit; ttl=86000', endsAt: Number.POSITIVE_INFINITY, now };
    writer.write(respond(request, stored, sending, rules), 'GET', false);
  }
  const bytes = (usedBytes() - before) / served;
  // What the writer has encoded stays as long as the writer is in use.
  writer.interim(103, []);
  return bytes;
}

function measure(entries: number): string {
  const before = usedBytes();
  const parameters = { smallShare: 0.1, promoteAt: 1, windowShare: 0.1 };
  const policy = { name: 'gdsf', capacityBytes: Number.MAX_SAFE_INTEGER, parameters } as const;
  const tier = new MemoryTier(policy, Number.MAX_SAFE_INTEGER, new Readers());
  for (let n = 0; n < entries; n += 1) tier.put(entryOf(n), BODY);
  const bytes = (usedBytes() - before) / entries;
  const counted = tier.stats().usedBytes / entries - BODY.length;
  const served = bytes + serve(tier, entries);
  const keyOnly = nanosecondsEach((n) => void keyOf((n * 7_919) % entries));
  const found = nanosecondsEach((n) => {
    if (tier.get(keyOf((n * 7_919) % entries)) === undefined) throw new Error('an entry is not found');
  });
  if (tier.stats().entries !== entries) throw new Error('entries are missing');
  const columns = [bytes, served, counted, found - keyOnly].map((value) => String(Math.round(value)).padStart(14));
  return `${entries.toLocaleString('en').padStart(12)} ${columns.join(' ')}\n`;
}

const given = process.argv.slice(2).map(Number);
process.stdout.write(`node ${process.version}${globalThis.gc === undefined ? ', without --expose-gc' : ''}\n`);
process.stdout.write('     entries  bytes: stored         served        counted  get, touch: ns\n');
for (const entries of given.length > 0 ? given : [10_000, 100_000, 1_000_000]) process.stdout.write(measure(entries));
