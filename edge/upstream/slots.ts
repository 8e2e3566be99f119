/**
 * Which requests hold a connection to the origin. A response whose client reads
 * more slowly than the origin sends keeps its connection for as long as that
 * takes; once another request would have to wait for one, it no longer counts, and
 * the request gets a connection beyond the limit. Only so many do not count. When
 * that is not enough, a response ends that has waited for its client: one of the
 * client that has the most of them, and the slowest of those.
 *
 * Promises: a slow client keeps no request of another from the origin for longer
 * than STALLED_MS.
 */
import type { Clock, Timer } from '../../src/clock.js';

export interface SlotLimits {
  readonly connectionsMax: number;
  /** Most responses for slow clients that do not count. */
  readonly slowMax: number;
}

/** A request, from when it waits for a connection until its response has arrived. */
export interface Claim {
  /** Begins to send the request: it has a connection. */
  start(): void;
  /** The network of the client that it is for. */
  client(): string;
  /** The bytes that have arrived and wait for the client. */
  waitingBytes(): number;
  /** Ends the response. `leave` follows. */
  drop(): void;
}

/** A response that ends has waited for its client for at least so long. */
export const STALLED_MS = 1_000;

interface Stall {
  readonly sinceMs: number;
  /** What waited for the client then. */
  readonly bytes: number;
}

export class ConnectionSlots {
  readonly #limits: SlotLimits;
  readonly #clock: Pick<Clock, 'monotonicMs' | 'after'>;
  readonly #onDropped: (() => void) | undefined;
  #counted = 0;
  readonly #waiting = new Set<Claim>();
  /** Responses that wait for their clients, the one that has waited longest first. */
  readonly #stalled = new Map<Claim, Stall>();
  /** Those that do not count. */
  readonly #uncounted = new Set<Claim>();
  #later: Timer | undefined;

  /** Without `onDropped` no response ends for others. */
  constructor(limits: SlotLimits, clock: Pick<Clock, 'monotonicMs' | 'after'>, onDropped?: () => void) {
    this.#limits = limits;
    this.#clock = clock;
    this.#onDropped = onDropped;
  }

  /** Responses for slow clients that do not count. */
  get uncounted(): number {
    return this.#uncounted.size;
  }

  /** Starts the request when there is a connection for it. */
  enter(claim: Claim): void {
    this.#waiting.add(claim);
    this.#serve();
  }

  /** The request needs no connection any more, or does not want one. Must be called once. */
  leave(claim: Claim): void {
    if (this.#waiting.delete(claim)) return;
    this.#stalled.delete(claim);
    if (!this.#uncounted.delete(claim)) this.#counted -= 1;
    this.#serve();
  }

  /** The response waits for its client. */
  stalled(claim: Claim): void {
    this.#stalled.set(claim, { sinceMs: this.#clock.monotonicMs(), bytes: claim.waitingBytes() });
    this.#serve();
  }

  /** Its client has read what waited for it. */
  moved(claim: Claim): void {
    this.#stalled.delete(claim);
  }

  #serve(): void {
    for (const claim of this.#waiting) {
      if (this.#counted >= this.#limits.connectionsMax && !this.#uncount()) {
        this.#makeRoom();
        return;
      }
      this.#waiting.delete(claim);
      this.#counted += 1;
      claim.start();
    }
  }

  /** Lets one response no longer count. */
  #uncount(): boolean {
    if (this.#uncounted.size >= this.#limits.slowMax) return false;
    for (const claim of this.#stalled.keys()) {
      if (this.#uncounted.has(claim)) continue;
      this.#uncounted.add(claim);
      this.#counted -= 1;
      return true;
    }
    return false;
  }

  /** Ends a response that has waited long enough for its client, now or as soon as one has. */
  #makeRoom(): void {
    if (this.#onDropped === undefined || this.#later !== undefined || this.#stalled.size === 0) return;
    const victim = this.#slowest();
    this.#later = this.#clock.after(victim === undefined ? STALLED_MS : 0, () => {
      this.#later = undefined;
      this.#serve();
    });
    if (victim === undefined) return;
    this.#stalled.delete(victim);
    this.#onDropped();
    victim.drop();
  }

  /** Of the client that has the most of those which have waited long enough, the one that has read least in its time. */
  #slowest(): Claim | undefined {
    const nowMs = this.#clock.monotonicMs();
    const byClient = new Map<string, { claim: Claim; rate: number }[]>();
    for (const [claim, { sinceMs, bytes }] of this.#stalled) {
      const waitedMs = nowMs - sinceMs;
      if (waitedMs < STALLED_MS) continue;
      const found = { claim, rate: (bytes - claim.waitingBytes()) / waitedMs };
      const client = claim.client();
      const others = byClient.get(client);
      if (others === undefined) byClient.set(client, [found]);
      else others.push(found);
    }
    const most = [...byClient.values()].reduce<readonly { claim: Claim; rate: number }[]>(
      (largest, each) => (each.length > largest.length ? each : largest),
      [],
    );
    return most.toSorted((a, b) => a.rate - b.rate)[0]?.claim;
  }
}
