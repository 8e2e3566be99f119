/**
 * The origin as a process that receives uploads, deletes and quarantines, killed with SIGKILL at random moments, sometimes
 * while it starts, over and over, in the same folder. After each kill: what was answered is there; what was not answered
 * is there as a whole or not at all; no bytes are live twice with the same visibility; fsck finds nothing. The bytes of
 * files that a round did not touch are read at the end only.
 */
import t from 'tap';
import { originSection } from '../../origin/config.js';
import { runFsck } from '../../origin/upkeep/commands.js';
import { systemClock } from '../../src/clock.js';
import { formatFaults, loadConfig } from '../../src/config/load.js';
import type { Sha256 } from '../../src/ids.js';
import { createLog } from '../../src/log.js';
import { json, member, sendRequest } from '../kit/http/request.js';
import { gif, largePng, pdf, png, text } from '../kit/media.js';
import { sha256Of } from '../kit/origin/stores.js';
import { asCaller, type Launched, openProcesses, type Processes } from '../kit/processes.js';
import { seeded } from '../kit/random.js';
import { until } from '../kit/until.js';

const ROUNDS = Number(process.env['ORIGIN_CRASH_ROUNDS'] ?? 70);
const SEED = Number(process.env['CRASH_SEED'] ?? 1);
const TIMEOUT_MS = 1_800_000;
const CLIENTS = 8;
/** The kill comes a moment after at most so many answers, however fast the machine is. */
const ANSWERS_MAX = 40;
const MOMENT_MAX_MS = 30;
/** One kill in so many comes while the origin starts. */
const STARTS_KILLED = 8;
const START_MAX_MS = 400;
/** An upload is of a new file, or of one of the last so many. */
const RECENT = 24;
const PAGE = 1_000;
const SILENT = createLog('fsck', { level: 'silent' });

/** One run in so many makes thumbnails, also those of the runs before: thumbnail processes take long to start. */
const MAKES_THUMBS = 3;

/** With a short grace period and a frequent sweep, so that blobs are removed during the test. */
const sectionOf = (life: number) => ({
  upload: { free_min: '0B' },
  retention: { grace: '1s', sweep_every: '100ms' },
  thumbs: { children: { count: 1 }, video: { enabled: false }, enabled: life % MAKES_THUMBS === 0 },
});

interface File {
  readonly bytes: Buffer;
  readonly sha256: Sha256;
  /** Undefined after a quarantine, or its end, that was not answered. */
  withheld: boolean | undefined;
  everWithheld: boolean;
  /** A client is deleting, quarantining or restoring it. */
  busy: boolean;
  readonly copies: Copy[];
}

interface Copy {
  readonly id: string;
  readonly public: boolean;
  deletion: 'none' | 'requested' | 'answered';
}

interface Listed {
  readonly id: string;
  readonly state: string;
  readonly public: boolean;
  readonly sha256: string;
}

class Traffic {
  readonly files: File[] = [];
  readonly touched = new Set<File>();
  answered = 0;
  private readonly random: () => number;
  private readonly processes: Processes;
  private url = '';
  private dying = false;

  constructor(processes: Processes, random: () => number) {
    this.processes = processes;
    this.random = random;
  }

  /** Sends requests until the origin is killed. */
  async run(url: string, kill: () => Promise<void>): Promise<void> {
    this.url = url;
    this.dying = false;
    const enough = this.answered + this.random() * ANSWERS_MAX;
    const clients = Promise.all(Array.from({ length: CLIENTS }, () => this.client()));
    await Promise.race([clients, until('answers', () => this.answered >= enough)]);
    await new Promise((resolve) => setTimeout(resolve, this.random() * MOMENT_MAX_MS));
    this.dying = true;
    await kill();
    await clients;
  }

  private async client(): Promise<void> {
    while (!this.dying) {
      try {
        const dice = this.random();
        const file = this.pick();
        this.touched.add(file);
        if (dice < 0.5) await this.upload(file, this.random() < 0.5);
        else if (dice < 0.7) await Promise.all([this.upload(file, true), this.upload(file, false)]);
        else await this.takeDown(file);
      } catch (thrown) {
        // Only the kill may break an exchange.
        if (!(this.dying && thrown instanceof Unanswered)) throw thrown;
      }
    }
  }

  private pick(): File {
    const back = Math.floor(this.random() * RECENT);
    const known = this.random() < 0.5 ? this.files.at(-1 - back) : undefined;
    if (known !== undefined) return known;
    const bytes = bytesOf(this.files.length);
    const file = {
      bytes,
      sha256: sha256Of(bytes),
      withheld: false,
      everWithheld: false,
      busy: false,
      copies: [],
    };
    this.files.push(file);
    return file;
  }

  private async upload(file: File, isPublic: boolean): Promise<void> {
    const gone = new Set(file.copies.filter(({ deletion }) => deletion === 'answered').map(({ id }) => id));
    const answer = await this.request(`?public=${isPublic}`, this.processes.user, 'POST', file.bytes);
    if (answer.status === 403 && file.everWithheld) return;
    if (answer.status !== 201 && answer.status !== 200)
      throw new Error(`an upload: ${answer.status} ${answer.bytes.toString()}`);
    const id = member(answer, 'id');
    if (gone.has(id)) throw new Error(`${id} was deleted and is answered for an upload`);
    if (!file.copies.some((copy) => copy.id === id)) file.copies.push({ id, public: isPublic, deletion: 'none' });
  }

  private async takeDown(file: File): Promise<void> {
    const copy = file.copies.findLast(({ deletion }) => deletion === 'none');
    if (file.busy || copy === undefined) return this.upload(file, this.random() < 0.5);
    file.busy = true;
    if (file.withheld === false && this.random() < 0.6) {
      copy.deletion = 'requested';
      await this.done(`/${copy.id}`, 'DELETE');
      copy.deletion = 'answered';
    } else {
      const withhold = file.withheld === false;
      file.withheld = undefined;
      file.everWithheld = true;
      await this.done(`/${copy.id}/quarantine`, withhold ? 'POST' : 'DELETE');
      file.withheld = withhold;
    }
    file.busy = false;
  }

  private async done(path: string, method: string): Promise<void> {
    const { status, bytes } = await this.request(path, this.processes.admin, method);
    if (status !== 204) throw new Error(`${method} ${path}: ${status} ${bytes.toString()}`);
  }

  private async request(path: string, caller: Readonly<Record<string, string>>, method: string, body?: Buffer) {
    const options = { method, ...(body !== undefined && { body }) };
    const answer = await sendRequest(`${this.url}/v1/media${path}`, asCaller(caller, options)).catch(
      (thrown: unknown) => {
        throw new Unanswered('the connection broke', { cause: thrown });
      },
    );
    if (!answer.whole) throw new Unanswered('the answer broke off');
    this.answered += 1;
    return answer;
  }
}

class Unanswered extends Error {}

/** Small files of several types, different for each number; some are so large that they need several writes. */
function bytesOf(number: number): Buffer {
  const make = [png, gif, pdf, text, (seed: number) => largePng(seed, 300_000)][number % 5] ?? png;
  return make(number + 1);
}

t.setTimeout(TIMEOUT_MS);
void t.test('what the origin answered survives kill -9 at any moment', { timeout: TIMEOUT_MS }, async (t) => {
  const processes = await openProcesses(t.testdir());
  t.teardown(() => processes.close());
  const random = seeded(SEED);
  const traffic = new Traffic(processes, random);
  let starts = 0;
  for (let deaths = 0; deaths < ROUNDS; deaths += 1) {
    const origin = await processes.launch('origin', sectionOf(deaths));
    if (random() * STARTS_KILLED < 1) {
      await new Promise((resolve) => setTimeout(resolve, random() * START_MAX_MS));
      await origin.kill();
      starts += 1;
    } else {
      const url = await origin.ready;
      processes.preload();
      await check(processes, url, traffic.files, traffic.touched);
      traffic.touched.clear();
      await traffic.run(url, () => origin.kill());
    }
    await checkSound(origin, processes.folder);
  }
  const origin = await processes.launch('origin', sectionOf(0));
  const all = await check(processes, await origin.ready, traffic.files, new Set(traffic.files));
  t.comment(
    `${ROUNDS} kills, ${starts} of them while it started, ${traffic.answered} answers, ${all} ids, seed ${SEED}`,
  );
  t.ok(traffic.answered > ROUNDS * 10, 'the origin was at work');
  t.equal(await origin.stop(), 0);
  await checkSound(origin, processes.folder);
});

/** Compares the state of the origin with its answers. Throws at the first difference. Resolves with the number of ids. */
async function check(
  processes: Processes,
  url: string,
  files: readonly File[],
  touched: ReadonlySet<File>,
): Promise<number> {
  const bySha256 = new Map<string, Listed[]>();
  for (const each of await listAll(processes, url)) {
    bySha256.set(each.sha256, [...(bySha256.get(each.sha256) ?? []), each]);
  }
  let ids = 0;
  for (const file of files) {
    const listed = bySha256.get(file.sha256) ?? [];
    bySha256.delete(file.sha256);
    ids += listed.length;
    file.busy = false;
    resolvePending(file, listed);
  }
  for (const sha256 of bySha256.keys()) throw new Error(`nobody uploaded ${sha256}`);
  // All workers take from one iterator.
  const left = touched.values();
  await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      for (const file of left) for (const copy of file.copies) await checkCopy(processes, url, file, copy);
    }),
  );
  return ids;
}

/** Takes the listed state as the outcome of requests that were not answered. */
function resolvePending(file: File, listed: readonly Listed[]): void {
  const states = new Map(listed.map(({ id, state }) => [id, state]));
  for (const copy of file.copies) {
    const state = states.get(copy.id);
    if (state === undefined) throw new Error(`${copy.id} was answered and is lost`);
    const exists = state !== 'deleted';
    if (exists && copy.deletion === 'answered') throw new Error(`${copy.id} was deleted and is ${state}`);
    if (!exists && copy.deletion === 'none') throw new Error(`${copy.id} is ${state}, without a request`);
    copy.deletion = exists ? 'none' : 'answered';
  }
  for (const { id, state, public: isPublic } of listed) {
    if (file.copies.some((copy) => copy.id === id)) continue;
    if (state === 'deleted') throw new Error(`${id} is deleted and was not known`);
    file.copies.push({ id, public: isPublic, deletion: 'none' });
  }
  const existing = file.copies.filter(({ deletion }) => deletion === 'none');
  for (const visibility of [true, false]) {
    const twins = existing.filter((copy) => copy.public === visibility);
    if (twins.length > 1) throw new Error(`${twins.map(({ id }) => id).join(' and ')} have the same bytes`);
  }
  const [first] = existing;
  if (first !== undefined) file.withheld ??= states.get(first.id) === 'quarantined';
  for (const { id } of existing) {
    const wanted = file.withheld === true ? 'quarantined' : 'live';
    if (states.get(id) !== wanted) throw new Error(`${id} is ${String(states.get(id))} instead of ${wanted}`);
  }
}

async function checkCopy(processes: Processes, url: string, file: File, { id, deletion }: Copy): Promise<void> {
  const { status, bytes } = await sendRequest(`${url}/v1/media/${id}`, asCaller(processes.user));
  const wanted = deletion === 'answered' ? 410 : file.withheld === true ? 403 : 200;
  if (status !== wanted) throw new Error(`${id} answers ${status} instead of ${wanted}`);
  if (status === 200 && !bytes.equals(file.bytes)) throw new Error(`the bytes of ${id} are not what they were`);
}

async function listAll(processes: Processes, url: string): Promise<readonly Listed[]> {
  const found: Listed[] = [];
  for (let cursor = ''; ; ) {
    const page = await sendRequest(`${url}/v1/admin/media?limit=${PAGE}${cursor}`, asCaller(processes.admin));
    if (page.status !== 200) throw new Error(`the list: ${page.status} ${page.bytes.toString()}`);
    const { items, next } = json(page) as { readonly items: readonly Listed[]; readonly next: string | null };
    found.push(...items);
    if (next === null) return found;
    cursor = `&cursor=${next}`;
  }
}

/** Throws if fsck finds anything. */
async function checkSound({ configPath }: Launched, folder: string): Promise<void> {
  const loaded = loadConfig(configPath, { origin: originSection });
  if (loaded.kind === 'faulty') throw new Error(formatFaults(loaded.faults));
  const { origin } = loaded.config;
  const printed: string[] = [];
  const below = (path: string): string => `${folder}/${path}`;
  const code = await runFsck(
    {
      config: {
        ...origin,
        meta: { ...origin.meta, folder: below(origin.meta.folder) },
        blobs: { ...origin.blobs, folder: below(origin.blobs.folder), stageFolder: below(origin.blobs.stageFolder) },
        // A crash may leave blobs without a record. Within the grace period they are no finding.
        retention: { ...origin.retention, graceMs: TIMEOUT_MS },
      },
      clock: systemClock,
      log: SILENT,
      signal: new AbortController().signal,
      print: (line) => void printed.push(line),
      complain: (line) => void printed.push(line),
      progress: () => undefined,
    },
    { repair: false },
  );
  if (code !== 0 || printed.join() !== '0 found, 0 repaired') throw new Error(`fsck: ${printed.join('\n')}`);
}
