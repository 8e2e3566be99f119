/**
 * A process that writes to the stores is killed at a random moment, over and over, in the same folders. After each kill:
 * what was acknowledged is complete, nothing is there in part, and fsck finds nothing.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { mediaKey } from '../../origin/blobs/blob-store.js';
import { fsck } from '../../origin/upkeep/fsck.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import { ManualClock } from '../kit/clock.js';
import { testDeps } from '../kit/deps.js';
import type { CrashLine } from '../kit/origin/crash-record.js';
import { openStores, type Stores, sha256Of } from '../kit/origin/stores.js';
import { seeded } from '../kit/random.js';

const ROUNDS = 120;
/** Rounds in the same folders. New folders keep the rounds short. */
const ROUNDS_EACH = 15;
const TIMEOUT_MS = 900_000;
/** The longest time from the first write to the kill. */
const LIFE_MAX_MS = 250;
const WRITER = fileURLToPath(new URL('../kit/origin/crash-writer.js', import.meta.url));
const SEED = Number(process.env['CRASH_SEED'] ?? 1);

/** What must be true of an id. */
interface Expected {
  readonly sha256: Sha256;
  readonly sizeBytes: number;
  mortal: boolean;
  /** A removal was started and not acknowledged. */
  maybeRemoved: boolean;
  removed: boolean;
}

t.setTimeout(TIMEOUT_MS);
void t.test('what was acknowledged survives kill -9 at any moment', { timeout: TIMEOUT_MS }, async (t) => {
  const random = seeded(SEED);
  let acknowledged = 0;
  let deaths = 0;
  while (deaths < ROUNDS) {
    const folder = t.testdir();
    const expected = new Map<MediaId, Expected>();
    let newestSeq = 0;
    for (let round = 1; round <= ROUNDS_EACH; round += 1) {
      const lines = await runAndKill(folder, round, random() * LIFE_MAX_MS);
      const changed = note(expected, lines);
      acknowledged += lines.filter((line) => 'did' in line).length;
      deaths += 1;
      // The next day, as in the next writer.
      const clock = new ManualClock(Date.UTC(2200, 0, 1) + (round + 1) * 86_400_000);
      const stores = await openStores(folder, clock, testDeps());
      try {
        newestSeq = await checkJournal(stores, lines, newestSeq);
        await checkMedia(stores, expected, changed);
        await checkSound(t, stores, deaths);
      } finally {
        await stores.close();
      }
    }
  }
  t.comment(`${deaths} kills, ${acknowledged} acknowledged writes, seed ${SEED}`);
  t.ok(acknowledged > deaths * 10, 'the writers were at work');
});

async function runAndKill(folder: string, round: number, lifeMs: number): Promise<readonly CrashLine[]> {
  const record = join(folder, 'record');
  writeFileSync(record, '');
  const child = fork(WRITER, [folder, record, String(round)], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  const errors = child.stderr === null ? Promise.resolve(Buffer.alloc(0)) : buffer(child.stderr);
  await Promise.race([once(child, 'message'), once(child, 'exit')]);
  const signal = await killAfter(child, lifeMs);
  if (signal !== 'SIGKILL') throw new Error(`the writer of round ${round} ended by itself: ${String(await errors)}`);
  const text = readFileSync(record, 'utf8');
  rmSync(record);
  // A line that is incomplete was not acknowledged.
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  return whole
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as CrashLine);
}

async function killAfter(child: ChildProcess, lifeMs: number): Promise<unknown> {
  if (child.exitCode !== null || child.signalCode !== null) return child.signalCode;
  const exited = once(child, 'exit');
  const timer = setTimeout(() => child.kill('SIGKILL'), lifeMs);
  const [, signal] = await exited;
  clearTimeout(timer);
  return signal;
}

/** Updates what is expected. Returns the ids that occur in a round. */
function note(expected: Map<MediaId, Expected>, lines: readonly CrashLine[]): ReadonlySet<MediaId> {
  const changed = new Set<MediaId>();
  for (const line of lines) {
    if ('id' in line) changed.add(line.id);
    if ('will' in line) {
      const known = expected.get(line.id);
      if (known !== undefined) known.maybeRemoved = true;
    } else if (line.did === 'upload') {
      const known = expected.get(line.id);
      if (known !== undefined) known.mortal &&= line.mortal;
      else expected.set(line.id, { ...line, maybeRemoved: false, removed: false });
    } else if (line.did === 'remove') {
      const known = expected.get(line.id);
      if (known !== undefined) known.removed = true;
    }
  }
  return changed;
}

/** Checks that the journal has no gaps and has every entry that was acknowledged or sent to a subscriber. */
async function checkJournal(stores: Stores, lines: readonly CrashLine[], after: number): Promise<number> {
  const { journal } = stores.meta;
  const entries = await journal.read(after, Number.MAX_SAFE_INTEGER);
  const bySeq = new Map(entries.map((entry) => [entry.seq, entry]));
  for (const [index, { seq }] of entries.entries()) {
    if (seq !== after + index + 1) throw new Error(`the journal goes from ${after + index} to ${seq}`);
  }
  for (const line of lines) {
    if (!('did' in line) || line.did === 'upload') continue;
    const entry = bySeq.get(line.seq);
    if (entry === undefined) throw new Error(`entry ${line.seq} was sent to a subscriber and is gone`);
    if (line.did === 'remove' && !entry.ids.includes(line.id)) throw new Error(`entry ${line.seq} lost ${line.id}`);
  }
  return journal.newest();
}

async function checkMedia(
  stores: Stores,
  expected: ReadonlyMap<MediaId, Expected>,
  changed: ReadonlySet<MediaId>,
): Promise<void> {
  for (const [id, known] of expected) {
    // At instant 0 nothing has expired.
    const found = await stores.meta.find(id, 0);
    const exists = found.kind === 'live' || found.kind === 'quarantined';
    if (known.removed && exists) throw new Error(`${id} was deleted and is back`);
    if (!exists && !known.removed && !known.maybeRemoved && !known.mortal) throw new Error(`${id} is ${found.kind}`);
    if (!exists || !changed.has(id)) continue;
    if (!('media' in found)) continue;
    const read = await stores.blobs.read(mediaKey(found.media.blob));
    if (read.kind !== 'found') throw new Error(`the bytes of ${id} are ${read.kind}`);
    const bytes = await buffer(read.body);
    if (sha256Of(bytes) !== known.sha256) throw new Error(`the bytes of ${id} are not what they were`);
  }
}

async function checkSound(t: Test, { meta, blobs, clock }: Stores, round: number): Promise<void> {
  const found: string[] = [];
  await fsck(
    // Bytes without a record are what a crash may leave; younger than the grace they are no finding.
    { meta, blobs, makesThumbs: () => true, clock, graceMs: 1e15 },
    {
      repair: false,
      signal: new AbortController().signal,
      onFinding: ({ kind, subject, detail }) => found.push(`${kind} ${subject}: ${detail}`),
      onProgress: () => undefined,
    },
  );
  t.same(found, [], `fsck after death ${round}`);
}
