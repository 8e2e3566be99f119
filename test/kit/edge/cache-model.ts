/**
 * The whole cache, without sockets, before an origin that remembers all it said,
 * and steps that fast-check draws: whatever is asked, changed, broken, taken
 * down or restarted, every answer must be one that the oracle allows.
 */

import * as fc from 'fast-check';
import type { EdgeCache } from '../../../edge/cache/cache.js';
import { openCache } from '../../../edge/cache/open.js';
import { edgeSection, policyOf } from '../../../edge/config.js';
import { createEngine } from '../../../edge/create-engine.js';
import type { Engine } from '../../../edge/fetch/engine.js';
import { handle } from '../../../edge/handler.js';
import type { LeaseVerdict } from '../../../edge/journal/lease.js';
import { invalidate } from '../../../edge/pass/invalidate-after.js';
import type { Answer, EdgeRequest } from '../../../edge/request.js';
import type { Gate } from '../../../src/access/grant.js';
import { formatHttpDate } from '../../../src/http/date.js';
import { splitTarget } from '../../../src/http/head.js';
import { linesOf, type ReplyBody } from '../../../src/http/reply.js';
import { parseMediaId } from '../../../src/ids.js';
import { ManualClock } from '../clock.js';
import { configured, testDeps } from '../deps.js';
import { type Asked, type Given, isForOneAlone, judgeAnswer, type Wishes, type World } from './cache-oracle.js';
import { type Directives, ModelOrigin, type Sayings, type Trouble } from './model-origin.js';

/** One request, with its conditions still in words: what they name is known when it is made. */
export interface AskStep {
  readonly method: 'GET' | 'HEAD';
  readonly path: number;
  readonly kind: 'a' | 'b' | null;
  readonly range: { readonly first: number; readonly length: number | null } | null;
  readonly ifRange: boolean;
  readonly condition: 'none' | 'tag' | 'old_tag' | 'date' | 'old_date';
  readonly wishes: Wishes;
  readonly credential: boolean;
  /** Leaves after so many bytes. */
  readonly leavesAfter: number | null;
}

export type Forgetting = 'take_down' | 'purge_prefix' | 'purge_all' | 'unsafe';

export type Step =
  | { readonly kind: 'ask'; readonly asks: readonly AskStep[]; readonly meanwhile: Forgetting | null }
  | { readonly kind: 'advance'; readonly seconds: number }
  | { readonly kind: 'change'; readonly path: number }
  | { readonly kind: 'say'; readonly path: number; readonly says: Sayings }
  | { readonly kind: 'trouble'; readonly path: number; readonly troubles: readonly Trouble[] }
  | { readonly kind: 'forget'; readonly path: number; readonly how: Forgetting }
  | { readonly kind: 'lease'; readonly verdict: LeaseVerdict }
  | { readonly kind: 'restart' };

const PATHS = 3;
const some = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arbitrary, { nil: undefined });
const seldom = fc.integer({ min: 0, max: 7 }).map((drawn) => drawn === 0);
const seconds = fc.constantFrom(0, 1, 2, 5, 10, 60);

const directives: fc.Arbitrary<Directives> = fc
  .record({
    noStore: seldom,
    noCache: seldom,
    private: seldom,
    public: fc.boolean(),
    mustRevalidate: fc.constantFrom(true, false, false),
    proxyRevalidate: seldom,
    maxAge: some(seconds),
    sMaxage: some(seconds),
    swr: some(seconds),
    sie: some(seconds),
  })
  .map((drawn) => Object.fromEntries(Object.entries(drawn).filter(([, value]) => value !== undefined)));

const sayings: fc.Arbitrary<Sayings> = fc.record({
  cc: fc.option(directives, { nil: null, freq: 4 }),
  cdn: fc.option(directives, { nil: null, freq: 1 }),
  expiresIn: fc.option(fc.constantFrom(-5, 0, 5, 60), { nil: null, freq: 1 }),
  age: fc.constantFrom(0, 0, 0, 3, 30),
  dateBehind: fc.constantFrom(0, 0, 0, 4),
  vary: fc.boolean(),
  etag: fc.constantFrom('strong', 'strong', 'weak', 'none'),
  lastModified: fc.boolean(),
  length: fc.constantFrom(true, true, false),
  missing: seldom,
  sunsetIn: fc.constantFrom(null, null, null, 3, 90),
});

/** Most origins most of the time: so that there is something to reuse. */
const plain: Sayings = {
  cc: { maxAge: 10, public: true, swr: 5 },
  cdn: null,
  expiresIn: null,
  age: 0,
  dateBehind: 0,
  vary: false,
  etag: 'strong',
  lastModified: true,
  length: true,
  missing: false,
  sunsetIn: null,
};

const wishes: fc.Arbitrary<Wishes> = fc.oneof(
  { weight: 5, arbitrary: fc.constant<Wishes>({}) },
  {
    weight: 2,
    arbitrary: fc.constantFrom<Wishes>(
      { noCache: true },
      { noStore: true },
      { onlyIfCached: true },
      { maxAge: 0 },
      { maxAge: 4 },
      { minFresh: 5 },
      { maxStale: 3 },
      { maxStale: Number.POSITIVE_INFINITY },
      { onlyIfCached: true, maxStale: 100 },
    ),
  },
);

/** Most of it happens in one place, so that one thing meets another. */
const path = fc.constantFrom(...[0, 0, 0, 1, 2].map((number) => number % PATHS));

const asking: fc.Arbitrary<AskStep> = fc.record({
  method: fc.constantFrom('GET', 'GET', 'GET', 'HEAD'),
  path,
  kind: fc.constantFrom('a', 'b', null),
  range: fc.option(
    fc.record({ first: fc.constantFrom(0, 0, 10, 70, 110), length: fc.option(fc.constantFrom(1, 20, 50, 90)) }),
    { freq: 2 },
  ),
  ifRange: fc.boolean(),
  condition: fc.constantFrom('none', 'none', 'none', 'tag', 'old_tag', 'date', 'old_date'),
  wishes,
  credential: fc.constantFrom(true, true, false),
  leavesAfter: fc.constantFrom(null, null, null, null, 0, 60, 130),
});

const forgetting = fc.constantFrom<Forgetting>('take_down', 'purge_prefix', 'purge_all', 'unsafe');

const one = (asks: fc.Arbitrary<AskStep>): fc.Arbitrary<Step> =>
  fc.record({ kind: fc.constant('ask' as const), asks: fc.tuple(asks), meanwhile: fc.constant(null) });
const plainly: fc.Arbitrary<AskStep> = asking.map((drawn) => ({
  ...drawn,
  method: 'GET',
  path: 0,
  kind: null,
  range: null,
  condition: 'none',
  wishes: {},
  credential: true,
  leavesAfter: null,
}));
const within = plainly.map((drawn): AskStep => ({ ...drawn, range: { first: 5, length: 20 }, ifRange: false }));

const beyond = plainly.map((drawn): AskStep => ({ ...drawn, range: { first: 70, length: null }, ifRange: false }));

/** What seldom comes together by itself: a part, what becomes of it, and who wants it; a lifetime, and its end. */
const plots: fc.Arbitrary<readonly Step[]> = fc.oneof(
  fc.tuple(
    fc.constant<Step>({ kind: 'trouble', path: 0, troubles: ['break'] }),
    one(plainly),
    fc.oneof(
      fc.record({ kind: fc.constant('forget' as const), path: fc.constant(0), how: forgetting }),
      fc.constant<Step>({ kind: 'change', path: 0 }),
      fc.constant<Step>({ kind: 'advance', seconds: 12 }),
    ),
    fc.constantFrom<Step>(
      { kind: 'trouble', path: 0, troubles: [] },
      { kind: 'trouble', path: 0, troubles: ['no_if_range'] },
    ),
    one(fc.oneof(within, plainly, beyond)),
  ),
  fc.tuple(
    fc.constant<Step>({ kind: 'forget', path: 0, how: 'purge_all' }),
    fc.constant<Step>({ kind: 'say', path: 0, says: plain }),
    one(plainly),
    sayings.map((says): Step => ({ kind: 'say', path: 0, says: { ...says, etag: 'strong', missing: false } })),
    fc.constant<Step>({ kind: 'advance', seconds: 70 }),
    one(plainly.map((drawn): AskStep => ({ ...drawn, credential: false }))),
  ),
  fc.tuple(
    fc.constant<Step>({ kind: 'forget', path: 0, how: 'purge_all' }),
    sayings.map((says): Step => ({ kind: 'say', path: 0, says: { ...says, missing: false } })),
    one(plainly),
    fc.constantFrom<Step>(
      { kind: 'advance', seconds: 3 },
      { kind: 'advance', seconds: 6 },
      { kind: 'advance', seconds: 12 },
    ),
    fc.constantFrom<Step>({ kind: 'trouble', path: 0, troubles: ['connect'] }, { kind: 'change', path: 0 }),
    one(plainly),
  ),
);

const single = (restarts: boolean): fc.Arbitrary<Step> =>
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({
        kind: fc.constant('ask' as const),
        asks: fc.array(asking, { minLength: 1, maxLength: 3 }),
        meanwhile: fc.oneof({ weight: 7, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: forgetting }),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant('advance' as const), seconds: fc.constantFrom(0.4, 1, 3, 6, 12, 70) }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('change' as const), path }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('say' as const), path, says: sayings }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('trouble' as const),
        path,
        troubles: fc.array(
          fc.constantFrom<Trouble>('connect', 'error', 'break', 'break', 'break', 'no_ranges', 'no_if_range'),
          {
            minLength: 1,
            maxLength: 2,
          },
        ),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const), path, how: forgetting }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('lease' as const),
        verdict: fc.constantFrom<LeaseVerdict>('yes', 'yes', 'yes', 'revalidate', 'refuse'),
      }),
    },
    ...(restarts ? [{ weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) }] : []),
  );

/** Single steps, and some plots among them. */
export const steps = (sizes: {
  readonly partsMax: number;
  readonly restarts: boolean;
}): fc.Arbitrary<readonly Step[]> =>
  fc
    .array(
      fc.oneof(
        { weight: 5, arbitrary: single(sizes.restarts).map((step): readonly Step[] => [step]) },
        { weight: 1, arbitrary: plots },
      ),
      { minLength: 2, maxLength: sizes.partsMax, size: 'max' },
    )
    .map((drawn) => drawn.flat());

export interface ModelOptions {
  readonly mode: 'media' | 'off';
  /** Where the disk tier lies; none without. */
  readonly folder?: string;
}

/** What the answers were, so that a test can see that there was something to judge. */
export type Tally = Map<string, number>;

/** Runs the steps; throws at the first answer that was not allowed. */
export async function runModel(options: ModelOptions, given: readonly Step[], tally: Tally): Promise<void> {
  const model = new Model(options, tally);
  try {
    await model.open();
    for (const step of given) await model.take(step);
  } finally {
    await model.close();
  }
}

const GATE: Gate = {
  open: ({ authorization }) =>
    authorization === undefined
      ? { kind: 'anonymous', refusal: 'none' }
      : { kind: 'link', expiresAt: Number.MAX_SAFE_INTEGER },
  probe: async () => undefined,
  renewLinks: () => undefined,
  close: async () => undefined,
};

class Model {
  readonly #options: ModelOptions;
  readonly #tally: Tally;
  readonly #clock = new ManualClock(Date.UTC(2026, 0, 1) + 300);
  readonly #origin: ModelOrigin;
  readonly #forgottenSeq = new Map<string, number>();
  #lease: LeaseVerdict = 'yes';
  #engine: Engine | undefined;
  #cache: EdgeCache | undefined;

  constructor(options: ModelOptions, tally: Tally) {
    this.#options = options;
    this.#tally = tally;
    this.#origin = new ModelOrigin(this.#clock, options.mode, plain);
  }

  async open(): Promise<void> {
    const { mode, folder } = this.#options;
    const defaults = configured(edgeSection, { access: mode });
    const { cache } = defaults;
    const config = {
      ...defaults,
      // Everything is far ahead, and little is finished for nobody: the ways that are seldom taken otherwise.
      fill: { ...defaults.fill, aheadBytes: 60, finishShare: 0.7, finishBytes: 0, aloneMs: 5_000 },
      cache: {
        ...cache,
        folder: folder ?? '',
        memory: { ...cache.memory, sizeBytes: 14_000, maxObjectBytes: folder === undefined ? 10_000 : 180 },
        disk: {
          ...cache.disk,
          sizeBytes: folder === undefined ? 0 : 200_000,
          fillRoomBytes: 100_000,
          minFreeBytes: 0,
          verifyPerSecondBytes: 0,
        },
        parts: { ...cache.parts, sizeBytes: 14_000 },
      },
    };
    const parts = { ...testDeps(), clock: this.#clock };
    this.#cache = await openCache(config.cache, parts);
    this.#engine = createEngine(
      config,
      {
        gate: mode === 'media' ? GATE : null,
        identity: { proof: 'p', edgeName: 'edge' },
        cache: this.#cache,
        upstream: this.#origin.upstream(),
        thumbOptions: () => undefined,
        lease: () => this.#lease,
        policy: { current: policyOf(config) },
      },
      parts,
    );
  }

  async close(): Promise<void> {
    await this.#engine?.flights.close();
    await this.#cache?.close();
  }

  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'ask':
        return this.#askAll(step);
      case 'advance':
        this.#clock.advance(step.seconds * 1_000);
        return;
      case 'change':
        this.#origin.change(this.#pathOf(step.path));
        return;
      case 'say':
        this.#origin.say(this.#pathOf(step.path), this.#possible(step.says));
        return;
      case 'trouble':
        this.#origin.at(this.#pathOf(step.path)).troubles.push(...step.troubles);
        return;
      case 'forget':
        return this.#forget(this.#pathOf(step.path), step.how);
      case 'lease':
        if (this.#options.mode === 'media') this.#lease = step.verdict;
        return;
      case 'restart':
        await this.close();
        return this.open();
    }
  }

  /** Media never vary, and only they end. */
  #possible(says: Sayings): Sayings {
    return this.#options.mode === 'media' ? { ...says, vary: false } : { ...says, sunsetIn: null };
  }

  #pathOf(number: number): string {
    return this.#options.mode === 'media' ? `/v1/media/01J9ZC8GZ0000000000000000${number}` : `/page/${number}`;
  }

  async #askAll({ asks, meanwhile }: Extract<Step, { kind: 'ask' }>): Promise<void> {
    const startedSeq = this.#origin.seq;
    const world: World = {
      mode: this.#options.mode,
      origin: this.#origin,
      forgottenSeq: this.#forgottenSeq,
      cutOff: this.#lease !== 'yes',
      disturbed: meanwhile !== null,
    };
    const asked = asks.map((each) => this.#asked(each, startedSeq));
    const forgottenBefore = new Map(this.#forgottenSeq);
    const answering = asked.map((each, index) => this.#ask(each, asks[index]?.leavesAfter ?? null));
    if (meanwhile !== null) {
      for (let turn = this.#origin.seq % 4; turn > 0; turn -= 1) await new Promise(setImmediate);
      await this.#forget(asked[0]?.path ?? '', meanwhile);
    }
    const given = await Promise.all(answering);
    await this.#settled();
    const lonely = new Set<string>();
    for (const [index, each] of given.entries()) {
      const request = asked[index];
      if (request === undefined) continue;
      const fault =
        judgeAnswer({ ...world, forgottenSeq: forgottenBefore }, request, each) ??
        (isForOneAlone(world, each) && lonely.has(each.headers.get('x-answer') ?? '')
          ? 'one caller’s answer for another'
          : undefined);
      if (isForOneAlone(world, each)) lonely.add(each.headers.get('x-answer') ?? '');
      if (fault !== undefined) throw new Error(`${fault}: ${describe(request, each, this.#origin)}`);
      this.#count(each);
    }
  }

  #asked(step: AskStep, startedSeq: number): Asked {
    const target = this.#pathOf(step.path);
    const { version, changedAt } = this.#origin.at(target);
    const known = this.#origin.answers.filter(({ path, etag }) => path === target && etag !== null);
    const tag = known.at(step.condition === 'old_tag' ? 0 : -1)?.etag ?? `"v${version}"`;
    const headers = new Map<string, string>();
    if (step.kind !== null) headers.set('x-kind', step.kind);
    if (step.range !== null) {
      const { first, length } = step.range;
      headers.set('range', `bytes=${first}-${length === null ? '' : first + length - 1}`);
      if (step.ifRange) headers.set('if-range', tag);
    }
    if (step.condition === 'tag' || step.condition === 'old_tag') headers.set('if-none-match', tag);
    if (step.condition === 'date') headers.set('if-modified-since', formatHttpDate(changedAt));
    if (step.condition === 'old_date') headers.set('if-modified-since', formatHttpDate(changedAt - 2_000));
    const cacheControl = wishesText(step.wishes);
    if (cacheControl !== '') headers.set('cache-control', cacheControl);
    if (step.credential && this.#options.mode === 'media') headers.set('authorization', 'Bearer x');
    if (!step.credential && this.#options.mode === 'off') headers.set('authorization', 'Basic x');
    return {
      method: step.method,
      path: target,
      headers,
      wishes: step.wishes,
      credential: step.credential,
      startedSeq,
      startedAt: this.#clock.now(),
    };
  }

  async #ask(asked: Asked, leavesAfter: number | null): Promise<Given> {
    const engine = this.#engine;
    if (engine === undefined) throw new Error('the model is not open');
    const leaving = new AbortController();
    const answer = await handle(engine, askOf(asked), { gone: () => leaving.signal });
    const endedAt = this.#clock.now();
    try {
      const reply = replyOf(answer);
      const { status, body } = reply;
      const sends = asked.method !== 'HEAD' && status !== 304;
      const read = sends ? await readBody(body, leaving.signal, leavesAfter) : NOTHING_READ;
      return { status, headers: new Map(linesOf(reply)), ...read, endedAt };
    } finally {
      leaving.abort(new Error('the exchange is over'));
    }
  }

  async #forget(path: string, how: Forgetting): Promise<void> {
    const engine = this.#engine;
    const cache = this.#cache;
    if (engine === undefined || cache === undefined) throw new Error('the model is not open');
    const id = parseMediaId(path.slice('/v1/media/'.length));
    switch (how) {
      case 'take_down':
        if (id === undefined) return;
        engine.flights.breakOff(id);
        this.#mark([path]);
        await cache.takeDown(id);
        return;
      case 'purge_prefix':
        engine.flights.breakOffWhere((key) => key.startsWith(path));
        this.#mark([path]);
        await cache.purge({ prefix: path });
        return;
      case 'purge_all':
        engine.flights.breakOffWhere(() => true);
        this.#mark(Array.from({ length: PATHS }, (_, number) => this.#pathOf(number)));
        await cache.purge({ all: true });
        return;
      case 'unsafe':
        this.#mark([path]);
        await invalidate(engine, {
          method: 'PUT',
          target: path,
          status: 204,
          location: undefined,
          contentLocation: undefined,
        });
    }
  }

  #mark(paths: readonly string[]): void {
    for (const path of paths) this.#forgottenSeq.set(path, this.#origin.seq);
  }

  /** What goes on behind the answers comes to its end. */
  async #settled(): Promise<void> {
    while ((this.#engine?.flights.underWay ?? 0) > 0) await new Promise(setImmediate);
  }

  #count({ status, headers }: Given): void {
    const [, how = 'own'] = /; (hit|fwd=[a-z-]+)/.exec(headers.get('cache-status') ?? '') ?? [];
    const detail = /detail=([a-z-]+)/.exec(headers.get('cache-status') ?? '')?.[1];
    for (const name of [String(status), how, ...(detail === undefined ? [] : [detail])]) {
      this.#tally.set(name, (this.#tally.get(name) ?? 0) + 1);
    }
  }
}

const NOTHING_READ = { bytes: Buffer.alloc(0), whole: true, left: false };

function replyOf(answer: Answer): Extract<Answer, { kind: 'reply' }>['reply'] {
  if (answer.kind === 'reply') return answer.reply;
  throw new Error('a GET or HEAD was passed on');
}

function askOf({ method, path: target, headers }: Asked): EdgeRequest {
  return {
    method,
    target,
    ...splitTarget(target),
    header: (name) => headers.get(name),
    fields: () => [...headers],
    requestId: 'model-request',
  };
}

function wishesText({ noCache, noStore, onlyIfCached, maxAge, minFresh, maxStale }: Wishes): string {
  const members: string[] = [];
  if (noCache === true) members.push('no-cache');
  if (noStore === true) members.push('no-store');
  if (onlyIfCached === true) members.push('only-if-cached');
  if (maxAge !== undefined) members.push(`max-age=${maxAge}`);
  if (minFresh !== undefined) members.push(`min-fresh=${minFresh}`);
  if (maxStale !== undefined) members.push(Number.isFinite(maxStale) ? `max-stale=${maxStale}` : 'max-stale');
  return members.join(', ');
}

/** To its end, to where it breaks, or as far as the reader wants. */
async function readBody(
  body: ReplyBody,
  signal: AbortSignal,
  leavesAfter: number | null,
): Promise<Pick<Given, 'bytes' | 'whole' | 'left'>> {
  if (body.kind === 'none') return NOTHING_READ;
  if (body.kind === 'bytes') return { bytes: Buffer.from(body.bytes), whole: true, left: false };
  const pieces: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const piece of body.open(signal) as AsyncIterable<Buffer>) {
      pieces.push(piece);
      sizeBytes += piece.length;
      if (leavesAfter !== null && sizeBytes > leavesAfter) break;
    }
  } catch {
    return { bytes: Buffer.concat(pieces), whole: false, left: false };
  }
  const left = leavesAfter !== null && sizeBytes > leavesAfter;
  return { bytes: Buffer.concat(pieces), whole: !left, left };
}

function describe(asked: Asked, given: Given, origin: ModelOrigin): string {
  const { method, path: target, headers, startedSeq } = asked;
  const { status, bytes, whole } = given;
  return JSON.stringify(
    {
      asked: { method, target, headers: [...headers], startedSeq },
      given: { status, headers: [...given.headers], bytes: bytes.toString(), whole },
      answers: origin.answers
        .filter((each) => each.path === target)
        .slice(-4)
        .map(({ sent, ...each }) => ({ ...each, sent: [...sent] })),
      failures: origin.failures,
    },
    null,
    1,
  );
}
