/**
 * Replays a trace against policies: every request is a GET, and a miss inserts
 * the whole object. There is one tier, or memory over disk: a miss fills both,
 * and a disk hit fills memory. Also has the limits to compare a policy with: a
 * cache that keeps everything, and one that knows the future.
 */
import type { Policy } from '../../edge/cache/policy/policy.js';
import { type Admission, ALWAYS } from '../../edge/cache/policy/second-hit.js';
import { SimulatedTiers } from '../../edge/simulate/tiers.js';
import type { Trace } from './trace.js';

export interface Ratios {
  readonly objectHitRatio: number;
  readonly byteHitRatio: number;
  /** Bytes inserted for each byte requested; with two tiers, into the disk. */
  readonly writtenPerRequested: number;
}

/** One tier. */
export function simulate(trace: Trace, policy: Policy): Ratios {
  return replay(trace, new SimulatedTiers(null, policy), ALWAYS);
}

/** `admission` decides for the disk alone, and the disk sees only what misses memory. */
export function simulateTiers(trace: Trace, memory: Policy, disk: Policy, admission: Admission): Ratios {
  return replay(trace, new SimulatedTiers(memory, disk), admission);
}

function replay(trace: Trace, tiers: SimulatedTiers, admission: Admission): Ratios {
  const tally = new Tally(trace);
  const keys = keysOf(trace);
  for (let at = 0; at < trace.ids.length; at += 1) {
    const key = keys[trace.ids[at] ?? 0] ?? '';
    const size = trace.sizes[at] ?? 0;
    const weights = { memoryBytes: size, diskBytes: size };
    if (tiers.find(key, weights) !== undefined) tally.hit(size);
    else if (tiers.store(key, weights, admission)) tally.write(size);
  }
  return tally.ratios();
}

/** A cache that keeps everything: the most that the trace allows. */
export function infinite(trace: Trace): Ratios {
  const tally = new Tally(trace);
  const seen = new Set<number>();
  for (let at = 0; at < trace.ids.length; at += 1) {
    const id = trace.ids[at] ?? 0;
    const size = trace.sizes[at] ?? 0;
    if (seen.has(id)) tally.hit(size);
    else tally.write(size);
    seen.add(id);
  }
  return tally.ratios();
}

/** How many candidates are compared for each victim. */
const SAMPLES = 64;

/**
 * Knows when each object is requested next. It keeps no object that is never
 * requested again, and evicts from a sample the one that occupies the most bytes
 * for the longest time (Belady by size). This is close to the optimum, which is
 * NP-hard to find.
 */
export function clairvoyant(trace: Trace, capacityBytes: number): Ratios {
  const tally = new Tally(trace);
  const nextUses = nextUsesOf(trace);
  const nextUse = new Float64Array(trace.objects);
  const sizeOf = new Float64Array(trace.objects);
  const places = new Int32Array(trace.objects).fill(-1);
  const resident: number[] = [];
  const random = createRandom(1);
  let usedBytes = 0;

  const drop = (id: number): void => {
    const last = resident.pop() ?? id;
    const place = places[id] ?? 0;
    if (last !== id) {
      resident[place] = last;
      places[last] = place;
    }
    places[id] = -1;
    usedBytes -= sizeOf[id] ?? 0;
  };
  const costliest = (now: number): number => {
    let worst = -1;
    let worstCost = -1;
    for (let sample = 0; sample < Math.min(SAMPLES, resident.length); sample += 1) {
      const id = resident[resident.length <= SAMPLES ? sample : random(resident.length)] ?? 0;
      const cost = ((nextUse[id] ?? 0) - now) * (sizeOf[id] ?? 0);
      if (cost > worstCost) [worst, worstCost] = [id, cost];
    }
    return worst;
  };

  for (let at = 0; at < trace.ids.length; at += 1) {
    const id = trace.ids[at] ?? 0;
    const size = trace.sizes[at] ?? 0;
    const next = nextUses[at] ?? Number.POSITIVE_INFINITY;
    const resides = (places[id] ?? -1) >= 0;
    if (resides) tally.hit(size);
    if (resides && next === Number.POSITIVE_INFINITY) drop(id);
    nextUse[id] = next;
    if (resides || next === Number.POSITIVE_INFINITY || size > capacityBytes) continue;
    sizeOf[id] = size;
    places[id] = resident.push(id) - 1;
    usedBytes += size;
    tally.write(size);
    for (;;) {
      if (usedBytes <= capacityBytes) break;
      drop(costliest(at));
    }
  }
  return tally.ratios();
}

/** For each request, the index of the next one for the same object. */
function nextUsesOf(trace: Trace): Float64Array {
  const nexts = new Float64Array(trace.ids.length);
  const latest = new Float64Array(trace.objects).fill(Number.POSITIVE_INFINITY);
  for (let at = trace.ids.length - 1; at >= 0; at -= 1) {
    const id = trace.ids[at] ?? 0;
    nexts[at] = latest[id] ?? Number.POSITIVE_INFINITY;
    latest[id] = at;
  }
  return nexts;
}

function keysOf(trace: Trace): readonly string[] {
  return Array.from({ length: trace.objects }, (_, id) => `/v1/media/${id}`);
}

/** xorshift32: the same numbers for the same seed everywhere. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

class Tally {
  readonly #trace: Trace;
  #hits = 0;
  #hitBytes = 0;
  #writtenBytes = 0;

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  hit(sizeBytes: number): void {
    this.#hits += 1;
    this.#hitBytes += sizeBytes;
  }

  write(sizeBytes: number): void {
    this.#writtenBytes += sizeBytes;
  }

  ratios(): Ratios {
    const { ids, requestedBytes } = this.#trace;
    return {
      objectHitRatio: this.#hits / ids.length,
      byteHitRatio: this.#hitBytes / requestedBytes,
      writtenPerRequested: this.#writtenBytes / requestedBytes,
    };
  }
}
