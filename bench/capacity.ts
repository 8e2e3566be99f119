/**
 * What a service of a given size needs, computed from what was measured: for each resource its load, how many are needed
 * so that none is busier than UTILIZATION, and how long work waits there (M/M/c, Erlang C). No measurement itself: the
 * constants name where they come from. Prints the table of CONTRIBUTING.md.
 */

/** Beyond this share of the time, waits grow faster than the load. */
const UTILIZATION = 0.7;
const YEAR_SECONDS = 365 * 86_400;

/** Milliseconds of processor time, unless it is said otherwise. Measured on two shared cores; see bench/README.md. */
const MEASURED = {
  /** A hit in memory or on disk with a token, in the middle of the sizes. */
  edgeHit: 0.05,
  /** A miss of 8 KiB, at the edge and at the origin. */
  edgeMiss: 1.0,
  originMiss: 0.97,
  /** An upload of 20 KB, at 16 at once. */
  originUpload: 1.2,
  /** All thumbnails of one picture of 24 megapixels. */
  thumbs: 238,
  /** The journal's beat and its confirmation, for one edge and second. */
  edgeFollowing: 0.42,
  /** The database: one look-up, one upload in its own transaction group (900 a second at 16 at once). */
  databaseFind: 0.1,
  databaseUpload: 1.1,
  /** The walk over the bucket, for one key. */
  walkKey: 0.5,
  metadataKilobytes: 1.5,
} as const;

/** Estimates, which a service has to replace by its own. */
const ASSUMED = {
  peak: 5,
  readsPerMediaYear: 3_150,
  hitRatio: 0.54,
  pictures: 1,
  keysPerMedia: 7,
  relayFanOut: 100,
} as const;

interface Size {
  readonly name: string;
  readonly media: number;
  readonly edges: number;
  /** How many edges follow an origin; the others stand behind those. */
  readonly followers: number;
}

const SIZES: readonly Size[] = [
  { name: '10^6 media, 3 edges', media: 1e6, edges: 3, followers: 3 },
  { name: '10^8 media, 100 edges', media: 1e8, edges: 100, followers: 100 },
  { name: '10^9 media, 10^4 edges', media: 1e9, edges: 10_000, followers: 10_000 },
  { name: 'the same, in a tree', media: 1e9, edges: 10_000, followers: 10_000 / ASSUMED.relayFanOut },
];

interface Load {
  readonly resource: string;
  readonly perSecond: number;
  readonly serviceMs: number;
}

/** At the peak. The media are those of one year. */
function loadsOf({ media, followers }: Size): readonly Load[] {
  const uploads = (media / YEAR_SECONDS) * ASSUMED.peak;
  const reads = (media / YEAR_SECONDS) * ASSUMED.readsPerMediaYear;
  const misses = reads * (1 - ASSUMED.hitRatio);
  const edgeMs = MEASURED.edgeHit * ASSUMED.hitRatio + MEASURED.edgeMiss * (1 - ASSUMED.hitRatio);
  return [
    { resource: 'edge cores', perSecond: reads, serviceMs: edgeMs },
    { resource: 'origin cores, reads', perSecond: misses, serviceMs: MEASURED.originMiss },
    { resource: 'origin cores, uploads', perSecond: uploads, serviceMs: MEASURED.originUpload },
    { resource: 'origin cores, edges', perSecond: followers, serviceMs: MEASURED.edgeFollowing },
    { resource: 'thumbnail cores', perSecond: uploads * ASSUMED.pictures, serviceMs: MEASURED.thumbs },
    { resource: 'database cores, reads', perSecond: misses, serviceMs: MEASURED.databaseFind },
    { resource: 'database writers', perSecond: uploads, serviceMs: MEASURED.databaseUpload },
  ];
}

/** Erlang C: how likely it is that work waits, by the recursion of Erlang B. */
function waitProbability(servers: number, offered: number): number {
  let blocked = 1;
  for (let server = 1; server <= servers; server += 1) blocked = (offered * blocked) / (server + offered * blocked);
  const busy = offered / servers;
  return blocked / (1 - busy + busy * blocked);
}

function requireRight(): void {
  // With one server it is the share of the time that it is busy; with two that are asked for one, a third.
  const close = (found: number, expected: number): boolean => Math.abs(found - expected) < 1e-9;
  if (!close(waitProbability(1, 0.7), 0.7) || !close(waitProbability(2, 1), 1 / 3))
    throw new Error('Erlang C is wrong');
}

function rowOf({ resource, perSecond, serviceMs }: Load): readonly string[] {
  const offered = (perSecond * serviceMs) / 1_000;
  const needed = Math.max(1, Math.ceil(offered / UTILIZATION));
  const waitMs = (waitProbability(needed, offered) * serviceMs) / (needed - offered);
  return [
    resource,
    perSecond < 10 ? perSecond.toFixed(2) : Math.round(perSecond).toLocaleString('en'),
    `${serviceMs.toFixed(2)} ms`,
    String(needed),
    waitMs < 0.01 ? '< 0.01 ms' : `${waitMs.toFixed(2)} ms`,
  ];
}

requireRight();
for (const size of SIZES) {
  const { name, media } = size;
  process.stdout.write(
    `\n${name}\n\n| resource | a second at the peak | each | needed | mean wait |\n|---|---|---|---|---|\n`,
  );
  for (const load of loadsOf(size)) process.stdout.write(`| ${rowOf(load).join(' | ')} |\n`);
  const gigabytes = (media * MEASURED.metadataKilobytes) / 1e6;
  const walkDays = (media * ASSUMED.keysPerMedia * MEASURED.walkKey) / 86_400_000;
  process.stdout.write(
    `\nmetadata ${gigabytes.toFixed(1)} GB; one walk over the bucket ${walkDays.toFixed(2)} days of one origin\n`,
  );
}
