/**
 * Replays a trace through the policies, the admission and the rules of a
 * configuration, and counts what the cache would have answered.
 *
 * Simulated: which tiers store a response (rules, largest sizes), what they
 * evict, admission, promotion, and freshness (lifetimes as the origin stated
 * them, as changed by the rules). As recorded: takedowns, purges and expiry, at
 * the instant when the edge dropped its copy; bodies that were fetched because of
 * a HEAD; and what could not be stored. A fetch takes no time.
 */
import { setImmediate } from 'node:timers/promises';
import type { TierName } from '../cache/cache.js';
import { diskWeightOf } from '../cache/disk/record.js';
import { rememberedBytes } from '../cache/limits.js';
import { memoryWeight } from '../cache/memory.js';
import { type AdmissionName, createAdmission, createPolicy } from '../cache/policy/registry.js';
import type { Admission } from '../cache/policy/second-hit.js';
import { applyRules } from '../fetch/rules.js';
import { lifetimesOf } from '../rfc9111/freshness.js';
import type { TraceColumns, TraceFacts, TraceStep } from './read-trace.js';
import type { SimulatedEdge } from './settings.js';
import { kindOfFacts, Tally } from './tally.js';
import { SimulatedTiers, type TierWeights } from './tiers.js';

/** What the configuration does with a response. */
interface Plan extends TierWeights {
  readonly admission: AdmissionName;
  readonly ageMs: number;
  readonly freshMs: number;
  readonly revalidateMs: number;
  readonly kind: number;
}

export interface Replaying {
  /** So many events fill the cache and are not counted. */
  readonly skip: number;
  readonly signal: AbortSignal;
  progress(done: number): void;
}

/** How many events are replayed between two turns of the event loop. */
const EVENTS_PER_TURN = 16_384;

export async function replay(trace: TraceColumns, edge: SimulatedEdge, replaying: Replaying): Promise<Tally> {
  const run = new Replay(trace, edge);
  for (let at = 0; at < trace.count; ) {
    replaying.signal.throwIfAborted();
    const end = Math.min(at + EVENTS_PER_TURN, trace.count);
    for (; at < end; at += 1) {
      if (at === replaying.skip) run.countFromHere();
      run.step(at);
    }
    replaying.progress(at);
    await setImmediate();
  }
  return run.ended();
}

class Replay {
  readonly #trace: TraceColumns;
  readonly #tiers: SimulatedTiers;
  readonly #plans: readonly Plan[];
  readonly #admissions: ReadonlyMap<AdmissionName, Admission>;
  /** By object: until when the stored response is fresh and may be served stale, and which content it has. */
  readonly #staleAt: Float64Array;
  readonly #revalidateUntil: Float64Array;
  readonly #content: Float64Array;
  #tally = new Tally();
  #evictedBefore: Readonly<Record<TierName, number>> = { memory: 0, disk: 0 };

  constructor(trace: TraceColumns, edge: SimulatedEdge) {
    const { memory, disk, parameters } = edge;
    const share = trace.sampleShare;
    const capacityOf = (bytes: number): number => Math.floor(bytes * share);
    this.#trace = trace;
    this.#plans = trace.facts.map((facts) => planFor(edge, facts));
    this.#tiers = new SimulatedTiers(
      memory && createPolicy(memory.policy, capacityOf(memory.capacityBytes), parameters),
      disk && createPolicy(disk.policy, capacityOf(disk.capacityBytes), parameters),
    );
    const remembered = rememberedBytes(capacityOf(disk?.capacityBytes ?? 0));
    const names: readonly AdmissionName[] = ['always', 'second_hit'];
    this.#admissions = new Map(names.map((name) => [name, createAdmission(name, remembered)]));
    this.#staleAt = new Float64Array(trace.keys.length);
    this.#revalidateUntil = new Float64Array(trace.keys.length);
    this.#content = new Float64Array(trace.keys.length);
  }

  countFromHere(): void {
    this.#tally = new Tally();
    this.#evictedBefore = this.#tiers.evictions;
  }

  ended(): Tally {
    const { memory, disk } = this.#tiers.evictions;
    this.#tally.evictions = { memory: memory - this.#evictedBefore.memory, disk: disk - this.#evictedBefore.disk };
    return this.#tally;
  }

  step(at: number): void {
    const trace = this.#trace;
    const row = trace.rows[at] ?? 0;
    const facts = trace.facts[row];
    const plan = this.#plans[row];
    const step = trace.steps[trace.kinds[at] ?? 0];
    if (facts === undefined || plan === undefined || step === undefined) return;
    const key = trace.keys[facts.object] ?? '';
    const now = trace.times[at] ?? 0;
    switch (step.event) {
      case 'request':
        this.#request(key, facts, plan, step, now, trace.sentBytes[at] ?? 0);
        break;
      case 'dropped':
        this.#tiers.remove(key);
        break;
      case 'emptied':
        this.#tiers.clear();
        break;
      case 'warmed':
        if (!this.#tiers.has(key) || this.#content[facts.object] !== facts.content) this.#fetch(key, facts, plan, now);
    }
  }

  #request(key: string, facts: TraceFacts, plan: Plan, step: TraceStep, now: number, sentBytes: number): void {
    const tally = this.#tally;
    tally.recorded(step.outcome, sentBytes);
    if (!facts.cacheable) {
      tally.missed(plan.kind, sentBytes);
      tally.fetched(sentBytes);
      return;
    }
    const tier = this.#tiers.find(key, plan);
    if (tier === undefined) {
      tally.missed(plan.kind, sentBytes);
      if (step.head) tally.fetched(0);
      else this.#fetch(key, facts, plan, now);
      return;
    }
    if (!step.demanded && now < (this.#staleAt[facts.object] ?? 0)) {
      tally.hit(tier, plan.kind, sentBytes);
      return;
    }
    const stale = !step.demanded && now < (this.#revalidateUntil[facts.object] ?? 0);
    if (stale) tally.hit('stale', plan.kind, sentBytes);
    if (this.#content[facts.object] === facts.content) {
      // Confirmed by the origin with a 304.
      tally.fetched(0);
      this.#note(facts, plan, now);
      if (!stale) tally.revalidated(plan.kind, sentBytes);
      return;
    }
    if (!stale) tally.missed(plan.kind, sentBytes);
    this.#fetch(key, facts, plan, now);
  }

  #fetch(key: string, facts: TraceFacts, plan: Plan, now: number): void {
    this.#tally.fetched(facts.sizeBytes);
    const admission = this.#admissions.get(plan.admission);
    if (admission !== undefined && this.#tiers.store(key, plan, admission)) this.#tally.wrote(facts.sizeBytes);
    this.#note(facts, plan, now);
  }

  /** The origin has just sent or confirmed it. */
  #note(facts: TraceFacts, { ageMs, freshMs, revalidateMs }: Plan, now: number): void {
    const staleAt = now - ageMs + freshMs;
    this.#staleAt[facts.object] = staleAt;
    this.#revalidateUntil[facts.object] = staleAt + revalidateMs;
    this.#content[facts.object] = facts.content;
  }
}

function planFor(edge: SimulatedEdge, facts: TraceFacts): Plan {
  const { path, type, sizeBytes, stated, ageMs } = facts;
  const { memory, disk, rules, freshness, objectMaxBytes } = edge;
  const result = applyRules(rules, { pathKind: path, headers: [['content-type', type]], sizeBytes });
  const { tiers } = result;
  const { freshMs, revalidateMs } = lifetimesOf(stated, freshness, result);
  const mayBeStored = facts.cacheable && sizeBytes <= objectMaxBytes;
  const inMemory = mayBeStored && tiers.memory && memory !== null && sizeBytes <= memory.maxObjectBytes;
  const onDisk = mayBeStored && tiers.disk && disk !== null && sizeBytes <= disk.maxObjectBytes;
  return {
    memoryBytes: inMemory ? memoryWeight(facts.memoryHeadBytes, sizeBytes) : null,
    diskBytes: onDisk ? diskWeightOf(facts.diskHeadBytes, sizeBytes) : null,
    admission: tiers.admission ?? disk?.admission ?? 'always',
    ageMs,
    freshMs,
    revalidateMs,
    kind: kindOfFacts(facts),
  };
}
