/**
 * The model test of the cache: one engine without sockets, or several in a row, an origin that
 * remembers all its responses, and steps drawn by fast-check. Whatever is
 * requested, changed, broken, taken down or restarted, the oracle must allow
 * every response.
 */

import * as fc from 'fast-check';
import type { EdgeCache } from '../../../edge/cache/cache.js';
import { openCache } from '../../../edge/cache/open.js';
import { edgeSection } from '../../../edge/config.js';
import { createEngine } from '../../../edge/create-engine.js';
import { createAbsences } from '../../../edge/fetch/absences.js';
import type { Engine } from '../../../edge/fetch/engine.js';
import { createFlights } from '../../../edge/fetch/flight.js';
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
import {
  type Context,
  checkResponse,
  isUnshareable,
  type ModelRequest,
  type ModelResponse,
  type RequestDirectives,
} from './cache-oracle.js';
import { upstreamOf } from './engine-upstream.js';
import { type Directives, ModelOrigin, type ResponseSettings, type Trouble } from './model-origin.js';

/** One request. The values of its conditions are known only when it is sent. */
export interface RequestStep {
  readonly method: 'GET' | 'HEAD';
  readonly path: number;
  readonly kind: 'a' | 'b' | null;
  readonly range: { readonly first: number; readonly length: number | null } | null;
  readonly ifRange: boolean;
  readonly condition: 'none' | 'tag' | 'old_tag' | 'date' | 'old_date';
  readonly directives: RequestDirectives;
  readonly credential: boolean;
  /** The client goes away after so many bytes. */
  readonly abortsAfter: number | null;
  /** Of a row, the edge that is asked: 0 is the farthest from the origin. */
  readonly tier: number;
}

export type Removal = 'take_down' | 'purge_prefix' | 'purge_all' | 'unsafe';

export type Step =
  | { readonly kind: 'requests'; readonly requests: readonly RequestStep[]; readonly meanwhile: Removal | null }
  | { readonly kind: 'advance'; readonly seconds: number }
  | { readonly kind: 'change'; readonly path: number }
  | { readonly kind: 'configure'; readonly path: number; readonly settings: ResponseSettings }
  | { readonly kind: 'trouble'; readonly path: number; readonly troubles: readonly Trouble[] }
  | { readonly kind: 'remove'; readonly path: number; readonly how: Removal }
  /** `tiers`: so many of the edges, the farthest from the origin first, have this verdict. A lease never outlives one nearer to it. */
  | { readonly kind: 'lease'; readonly verdict: LeaseVerdict; readonly tiers: number }
  | { readonly kind: 'restart' };

const PATHS = 3;
const some = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arbitrary, { nil: undefined });
const seldom = fc.integer({ min: 0, max: 7 }).map((drawn) => drawn === 0);
const seconds = fc.constantFrom(0, 1, 2, 5, 10, 60);

const responseDirectives: fc.Arbitrary<Directives> = fc
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

const responseSettings: fc.Arbitrary<ResponseSettings> = fc.record({
  cc: fc.option(responseDirectives, { nil: null, freq: 4 }),
  cdn: fc.option(responseDirectives, { nil: null, freq: 1 }),
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

/** A usual origin, so that there is something to reuse. */
const plainSettings: ResponseSettings = {
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

const requestDirectives: fc.Arbitrary<RequestDirectives> = fc.oneof(
  { weight: 5, arbitrary: fc.constant<RequestDirectives>({}) },
  {
    weight: 2,
    arbitrary: fc.constantFrom<RequestDirectives>(
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

/** Most steps use the same path, so that they affect each other. */
const path = fc.constantFrom(...[0, 0, 0, 1, 2].map((number) => number % PATHS));

const request: fc.Arbitrary<RequestStep> = fc.record({
  method: fc.constantFrom('GET', 'GET', 'GET', 'HEAD'),
  path,
  kind: fc.constantFrom('a', 'b', null),
  range: fc.option(
    fc.record({ first: fc.constantFrom(0, 0, 10, 70, 110), length: fc.option(fc.constantFrom(1, 20, 50, 90)) }),
    { freq: 2 },
  ),
  ifRange: fc.boolean(),
  condition: fc.constantFrom('none', 'none', 'none', 'tag', 'old_tag', 'date', 'old_date'),
  directives: requestDirectives,
  credential: fc.constantFrom(true, true, false),
  abortsAfter: fc.constantFrom(null, null, null, null, 0, 60, 130),
  tier: fc.constantFrom(0, 0, 1, 2),
});

const removal = fc.constantFrom<Removal>('take_down', 'purge_prefix', 'purge_all', 'unsafe');

const oneRequest = (requests: fc.Arbitrary<RequestStep>): fc.Arbitrary<Step> =>
  fc.record({ kind: fc.constant('requests' as const), requests: fc.tuple(requests), meanwhile: fc.constant(null) });
const plainRequest: fc.Arbitrary<RequestStep> = request.map((drawn) => ({
  ...drawn,
  method: 'GET',
  path: 0,
  kind: null,
  range: null,
  condition: 'none',
  directives: {},
  credential: true,
  abortsAfter: null,
  tier: drawn.tier,
}));
const rangeWithin = plainRequest.map(
  (drawn): RequestStep => ({ ...drawn, range: { first: 5, length: 20 }, ifRange: false }),
);

const rangeBeyond = plainRequest.map(
  (drawn): RequestStep => ({ ...drawn, range: { first: 70, length: null }, ifRange: false }),
);

/**
 * Sequences that random steps seldom produce: an incomplete response, a change, a request for it; a
 * lifetime and its end.
 */
const scenarios: fc.Arbitrary<readonly Step[]> = fc.oneof(
  fc.tuple(
    fc.constant<Step>({ kind: 'trouble', path: 0, troubles: ['break'] }),
    oneRequest(plainRequest),
    fc.oneof(
      fc.record({ kind: fc.constant('remove' as const), path: fc.constant(0), how: removal }),
      fc.constant<Step>({ kind: 'change', path: 0 }),
      fc.constant<Step>({ kind: 'advance', seconds: 12 }),
    ),
    fc.constantFrom<Step>(
      { kind: 'trouble', path: 0, troubles: [] },
      { kind: 'trouble', path: 0, troubles: ['no_if_range'] },
    ),
    oneRequest(fc.oneof(rangeWithin, plainRequest, rangeBeyond)),
  ),
  fc.tuple(
    fc.constant<Step>({ kind: 'remove', path: 0, how: 'purge_all' }),
    fc.constant<Step>({ kind: 'configure', path: 0, settings: plainSettings }),
    oneRequest(plainRequest),
    responseSettings.map(
      (settings): Step => ({ kind: 'configure', path: 0, settings: { ...settings, etag: 'strong', missing: false } }),
    ),
    fc.constant<Step>({ kind: 'advance', seconds: 70 }),
    oneRequest(plainRequest.map((drawn): RequestStep => ({ ...drawn, credential: false }))),
  ),
  fc.tuple(
    fc.constant<Step>({ kind: 'remove', path: 0, how: 'purge_all' }),
    responseSettings.map(
      (settings): Step => ({ kind: 'configure', path: 0, settings: { ...settings, missing: false } }),
    ),
    oneRequest(plainRequest),
    fc.constantFrom<Step>(
      { kind: 'advance', seconds: 3 },
      { kind: 'advance', seconds: 6 },
      { kind: 'advance', seconds: 12 },
    ),
    fc.constantFrom<Step>({ kind: 'trouble', path: 0, troubles: ['connect'] }, { kind: 'change', path: 0 }),
    oneRequest(plainRequest),
  ),
);

const single = (restarts: boolean): fc.Arbitrary<Step> =>
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({
        kind: fc.constant('requests' as const),
        requests: fc.array(request, { minLength: 1, maxLength: 3 }),
        meanwhile: fc.oneof({ weight: 7, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: removal }),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant('advance' as const), seconds: fc.constantFrom(0.4, 1, 3, 6, 12, 70) }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('change' as const), path }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('configure' as const), path, settings: responseSettings }) },
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
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), path, how: removal }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('lease' as const),
        verdict: fc.constantFrom<LeaseVerdict>('yes', 'yes', 'yes', 'revalidate', 'refuse'),
        tiers: fc.constantFrom(1, 2, 3),
      }),
    },
    ...(restarts ? [{ weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) }] : []),
  );

/** Single steps, with some scenarios among them. */
export const steps = (sizes: {
  readonly lengthMax: number;
  readonly restarts: boolean;
}): fc.Arbitrary<readonly Step[]> =>
  fc
    .array(
      fc.oneof(
        { weight: 5, arbitrary: single(sizes.restarts).map((step): readonly Step[] => [step]) },
        { weight: 1, arbitrary: scenarios },
      ),
      { minLength: 2, maxLength: sizes.lengthMax, size: 'max' },
    )
    .map((drawn) => drawn.flat());

export interface ModelOptions {
  readonly mode: 'media' | 'off';
  /** The folder of the disk tier. Absent: no disk tier. */
  readonly folder?: string;
  /** How many edges stand in a row; 1 by default. */
  readonly tiers?: number;
}

/** How often each kind of response occurred, so that a test can see that all kinds were checked. */
export type Counts = Map<string, number>;

/** Runs the steps. Throws at the first response that was not allowed. */
export async function runModel(options: ModelOptions, drawn: readonly Step[], counts: Counts): Promise<void> {
  const model = new Model(options, counts);
  try {
    await model.open();
    for (const step of drawn) await model.take(step);
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
  issuers: () => ({}),
  renewLinks: () => undefined,
  close: async () => undefined,
};

class Model {
  readonly #options: ModelOptions;
  readonly #counts: Counts;
  readonly #clock = new ManualClock(Date.UTC(2026, 0, 1) + 300);
  readonly #origin: ModelOrigin;
  readonly #removedSeq = new Map<string, number>();
  /** The nearest to the origin first. */
  #tiers: readonly Tier[] = [];
  #leases: readonly LeaseVerdict[];

  constructor(options: ModelOptions, counts: Counts) {
    this.#options = options;
    this.#counts = counts;
    this.#origin = new ModelOrigin(this.#clock, options.mode, plainSettings);
    this.#leases = Array.from({ length: options.tiers ?? 1 }, () => 'yes');
  }

  async open(): Promise<void> {
    const tiers: Tier[] = [];
    for (const index of this.#leases.keys()) tiers.push(await this.#openTier(index));
    this.#tiers = tiers;
  }

  async #openTier(index: number): Promise<Tier> {
    const { mode } = this.#options;
    const folder = this.#options.folder === undefined ? undefined : `${this.#options.folder}/${index}`;
    const defaults = configured(edgeSection, { access: mode });
    const { cache } = defaults;
    const config = {
      ...defaults,
      // Most ranges are far ahead of the fill, and few fills go on without readers: rare code paths otherwise.
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
    const deps = { ...testDeps(), clock: this.#clock };
    const opened = await openCache(config.cache, deps);
    const engine = createEngine(
      { ...config, name: `edge-${index}` },
      {
        gate: mode === 'media' ? GATE : null,
        isEdge: (proof) => proof === 'p',
        identity: { proof: 'p', edgeName: `edge-${index}` },
        cache: opened,
        upstream: index === 0 ? this.#origin.upstream() : upstreamOf(() => this.#tierAt(index - 1).engine, this.#clock),
        rates: { admit: () => undefined },
        signsLinks: () => false,
        thumbOptions: () => undefined,
        caughtUp: () => undefined,
        lease: () => this.#leases[index] ?? 'yes',
        flights: createFlights(() => config.fill),
        // Media of the model come and go under one id, which real ones never do.
        absences: createAbsences(() => ({ absentMax: 1, absentMs: 0 }), this.#clock),
        policy: () => config,
      },
      deps,
    );
    return { engine, cache: opened };
  }

  #tierAt(index: number): Tier {
    const tier = this.#tiers.at(index);
    if (tier === undefined) throw new Error('the model is not open');
    return tier;
  }

  async close(): Promise<void> {
    for (const { engine, cache } of this.#tiers.toReversed()) {
      await engine.flights.close();
      await cache.close();
    }
    this.#tiers = [];
  }

  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'requests':
        return this.#sendAll(step);
      case 'advance':
        this.#clock.advance(step.seconds * 1_000);
        return;
      case 'change':
        this.#origin.change(this.#pathOf(step.path));
        return;
      case 'configure':
        this.#origin.configure(this.#pathOf(step.path), this.#possibleIn(step.settings));
        return;
      case 'trouble':
        this.#origin.at(this.#pathOf(step.path)).troubles.push(...step.troubles);
        return;
      case 'remove':
        return this.#remove(this.#pathOf(step.path), step.how);
      case 'lease':
        if (this.#options.mode === 'media') this.#leases = leasesOf(step, this.#leases.length);
        return;
      case 'restart':
        await this.close();
        return this.open();
    }
  }

  /** Media never vary, and only media have an end. */
  #possibleIn(settings: ResponseSettings): ResponseSettings {
    return this.#options.mode === 'media' ? { ...settings, vary: false } : { ...settings, sunsetIn: null };
  }

  #pathOf(number: number): string {
    return this.#options.mode === 'media' ? `/v1/media/01J9ZC8GZ0000000000000000${number}` : `/page/${number}`;
  }

  async #sendAll({ requests, meanwhile }: Extract<Step, { kind: 'requests' }>): Promise<void> {
    const startedSeq = this.#origin.seq;
    const contexts = requests.map(({ tier }) => this.#contextOf(tier, meanwhile));
    const modelRequests = requests.map((each) => this.#modelRequest(each, startedSeq));
    const sent = modelRequests.map((each, index) => this.#send(each, requests[index]));
    if (meanwhile !== null) {
      for (let turn = this.#origin.seq % 4; turn > 0; turn -= 1) await new Promise(setImmediate);
      await this.#remove(modelRequests[0]?.path ?? '', meanwhile);
    }
    const responses = await Promise.all(sent);
    await this.#flightsDone();
    const unshareable = new Set<string>();
    for (const [index, response] of responses.entries()) {
      const request = modelRequests[index];
      const context = contexts[index];
      if (request === undefined || context === undefined) continue;
      const number = response.headers.get('x-response') ?? '';
      const forOne = isUnshareable(context, response);
      const fault =
        checkResponse(context, request, response) ??
        (forOne && unshareable.has(number) ? 'a response for one client was sent to another' : undefined);
      if (forOne) unshareable.add(number);
      if (fault !== undefined) throw new Error(`${fault}: ${describe(request, response, this.#origin)}`);
      this.#count(response);
    }
  }

  #contextOf(tier: number, meanwhile: Removal | null): Context {
    const asked = this.#indexOf(tier);
    const leases = this.#leases.slice(0, asked + 1);
    return {
      mode: this.#options.mode,
      origin: this.#origin,
      removedSeq: new Map(this.#removedSeq),
      cutOff: leases.every((lease) => lease !== 'yes'),
      anyCutOff: leases.some((lease) => lease !== 'yes'),
      tiers: asked + 1,
      disturbed: meanwhile !== null,
    };
  }

  #indexOf(tier: number): number {
    return Math.max(0, this.#leases.length - 1 - tier);
  }

  #modelRequest(step: RequestStep, startedSeq: number): ModelRequest {
    const target = this.#pathOf(step.path);
    const { version, changedAt } = this.#origin.at(target);
    const known = this.#origin.responses.filter(({ path, etag }) => path === target && etag !== null);
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
    const cacheControl = directivesText(step.directives);
    if (cacheControl !== '') headers.set('cache-control', cacheControl);
    if (step.credential && this.#options.mode === 'media') headers.set('authorization', 'Bearer x');
    if (!step.credential && this.#options.mode === 'off') headers.set('authorization', 'Basic x');
    return {
      method: step.method,
      path: target,
      headers,
      directives: step.directives,
      credential: step.credential,
      startedSeq,
      startedAt: this.#clock.now(),
    };
  }

  async #send(request: ModelRequest, step: RequestStep | undefined): Promise<ModelResponse> {
    const { engine } = this.#tierAt(this.#indexOf(step?.tier ?? 0));
    const client = new AbortController();
    const answer = await handle(engine, edgeRequestOf(request), { gone: () => client.signal });
    const endedAt = this.#clock.now();
    try {
      const reply = replyOf(answer);
      const { status, body } = reply;
      const sends = request.method !== 'HEAD' && status !== 304;
      const read = sends ? await readBody(body, client.signal, step?.abortsAfter ?? null) : NOTHING_READ;
      return { status, headers: new Map(linesOf(reply)), ...read, endedAt };
    } finally {
      client.abort(new Error('the exchange is over'));
    }
  }

  async #remove(path: string, how: Removal): Promise<void> {
    // A takedown is told to the next edge once it is applied, and a change is answered through all of them.
    for (const tier of this.#tiers) await this.#removeFrom(tier, path, how);
  }

  async #removeFrom(tier: Tier, path: string, how: Removal): Promise<void> {
    const { engine, cache } = tier;
    // What the first edge fetches after its own removal, for one that is not told yet, is new and may stay.
    const mark = (paths: readonly string[]): void => {
      if (tier === this.#tiers[0]) this.#mark(paths);
    };
    const id = parseMediaId(path.slice('/v1/media/'.length));
    switch (how) {
      case 'take_down':
        if (id === undefined) return;
        engine.flights.breakOff(id);
        mark([path]);
        await cache.takeDown(id);
        return;
      case 'purge_prefix':
        engine.flights.breakOffWhere((key) => key.startsWith(path));
        mark([path]);
        await cache.purge({ prefix: path });
        return;
      case 'purge_all':
        engine.flights.breakOffWhere(() => true);
        mark(Array.from({ length: PATHS }, (_, number) => this.#pathOf(number)));
        await cache.purge({ all: true });
        return;
      case 'unsafe':
        mark([path]);
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
    for (const path of paths) this.#removedSeq.set(path, this.#origin.seq);
  }

  /** Waits for everything that goes on after the responses. */
  async #flightsDone(): Promise<void> {
    while (this.#tiers.some(({ engine }) => engine.flights.underWay > 0)) await new Promise(setImmediate);
  }

  #count({ status, headers }: ModelResponse): void {
    const [, how = 'own'] = /; (hit|fwd=[a-z-]+)/.exec(headers.get('cache-status') ?? '') ?? [];
    const detail = /detail=([a-z-]+)/.exec(headers.get('cache-status') ?? '')?.[1];
    for (const name of [String(status), how, ...(detail === undefined ? [] : [detail])]) {
      this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    }
  }
}

interface Tier {
  readonly engine: Engine;
  readonly cache: EdgeCache;
}

function leasesOf({ verdict, tiers }: Extract<Step, { kind: 'lease' }>, count: number): readonly LeaseVerdict[] {
  return Array.from({ length: count }, (_, index) => (index >= count - tiers ? verdict : 'yes'));
}

const NOTHING_READ = { bytes: Buffer.alloc(0), whole: true, aborted: false };

function replyOf(answer: Answer): Extract<Answer, { kind: 'reply' }>['reply'] {
  if (answer.kind === 'reply') return answer.reply;
  throw new Error('a GET or HEAD was passed on');
}

function edgeRequestOf({ method, path: target, headers }: ModelRequest): EdgeRequest {
  return {
    method,
    target,
    ...splitTarget(target),
    header: (name) => headers.get(name),
    fields: () => [...headers],
    sender: () => ({ address: '192.0.2.1', scheme: 'http' }),
    requestId: 'model-request',
  };
}

function directivesText({ noCache, noStore, onlyIfCached, maxAge, minFresh, maxStale }: RequestDirectives): string {
  const members: string[] = [];
  if (noCache === true) members.push('no-cache');
  if (noStore === true) members.push('no-store');
  if (onlyIfCached === true) members.push('only-if-cached');
  if (maxAge !== undefined) members.push(`max-age=${maxAge}`);
  if (minFresh !== undefined) members.push(`min-fresh=${minFresh}`);
  if (maxStale !== undefined) members.push(Number.isFinite(maxStale) ? `max-stale=${maxStale}` : 'max-stale');
  return members.join(', ');
}

/** Reads to the end, to where the transfer breaks, or to where the client goes away. */
async function readBody(
  body: ReplyBody,
  signal: AbortSignal,
  abortsAfter: number | null,
): Promise<Pick<ModelResponse, 'bytes' | 'whole' | 'aborted'>> {
  if (body.kind === 'none') return NOTHING_READ;
  if (body.kind === 'bytes') return { bytes: Buffer.from(body.bytes), whole: true, aborted: false };
  const pieces: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const piece of body.open(signal) as AsyncIterable<Buffer>) {
      pieces.push(piece);
      sizeBytes += piece.length;
      if (abortsAfter !== null && sizeBytes > abortsAfter) break;
    }
  } catch {
    return { bytes: Buffer.concat(pieces), whole: false, aborted: false };
  }
  const aborted = abortsAfter !== null && sizeBytes > abortsAfter;
  return { bytes: Buffer.concat(pieces), whole: !aborted, aborted };
}

function describe(request: ModelRequest, response: ModelResponse, origin: ModelOrigin): string {
  const { method, path: target, headers, startedSeq } = request;
  const { status, bytes, whole } = response;
  return JSON.stringify(
    {
      request: { method, target, headers: [...headers], startedSeq },
      response: { status, headers: [...response.headers], bytes: bytes.toString(), whole },
      origin: origin.responses
        .filter((each) => each.path === target)
        .slice(-4)
        .map(({ sent, ...each }) => ({ ...each, sent: [...sent] })),
      failures: origin.failures,
    },
    null,
    1,
  );
}
