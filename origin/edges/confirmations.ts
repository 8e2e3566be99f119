/**
 * Which edges follow the journal and how far each has applied it. In memory
 * only: an edge that comes back tells where it stands by where it asks to go
 * on from, and that counts as a confirmation.
 */
import type { Clock, EpochMs } from '../../src/clock.js';

export interface EdgePosition {
  readonly edge: string;
  readonly instance: string;
  readonly connected: boolean;
  readonly connectedAt: EpochMs;
  /** The newest number it has applied, as far as it has told. */
  readonly confirmed: number;
  readonly heardAt: EpochMs;
}

export interface EdgesConfirmed {
  readonly confirmed: number;
  readonly connected: number;
}

/** One connected edge. */
export interface EdgeLink {
  /** Milliseconds since the edge last told anything. */
  silentMs(): number;
  gone(): void;
}

export interface Confirmations {
  /** A stream has begun. `applied`: null where the edge starts with nothing. */
  connect(edge: string, instance: string, applied: number | null): EdgeLink;
  /** False where no such edge is connected. */
  confirm(edge: string, instance: string, seq: number): boolean;
  positions(): readonly EdgePosition[];
  wait(seq: number, timeoutMs: number, signal: AbortSignal | undefined): Promise<EdgesConfirmed>;
}

interface Held {
  readonly edge: string;
  readonly instance: string;
  connected: boolean;
  connectedAt: EpochMs;
  confirmed: number;
  heardAt: EpochMs;
  heardMonotonicMs: number;
}

/** `goneMax`: how many edges are remembered that no longer follow. */
export function createConfirmations(goneMax: number, clock: Clock): Confirmations {
  const edges = new Map<string, Held>();
  const waiting = new Set<() => void>();
  const wake = (): void => {
    for (const check of waiting) check();
  };
  return {
    connect(edge, instance, applied) {
      const key = keyOf(edge, instance);
      const held: Held = {
        edge,
        instance,
        connected: true,
        connectedAt: clock.now(),
        confirmed: Math.max(edges.get(key)?.confirmed ?? 0, applied ?? 0),
        heardAt: clock.now(),
        heardMonotonicMs: clock.monotonicMs(),
      };
      // Set anew, so that the map is in the order in which edges last came.
      edges.delete(key);
      edges.set(key, held);
      forgetGone(edges, goneMax);
      wake();
      return {
        silentMs: () => clock.monotonicMs() - held.heardMonotonicMs,
        gone: () => {
          held.connected = false;
          forgetGone(edges, goneMax);
        },
      };
    },
    confirm(edge, instance, seq) {
      const held = edges.get(keyOf(edge, instance));
      if (held?.connected !== true) return false;
      held.confirmed = Math.max(held.confirmed, seq);
      held.heardAt = clock.now();
      held.heardMonotonicMs = clock.monotonicMs();
      wake();
      return true;
    },
    positions: () =>
      [...edges.values()].map(({ edge, instance, connected, connectedAt, confirmed, heardAt }) => ({
        edge,
        instance,
        connected,
        connectedAt,
        confirmed,
        heardAt,
      })),
    async wait(seq, timeoutMs, signal) {
      // The edges of this moment: one that comes later replays before it serves, one that leaves still counts.
      const asked = [...edges].filter(([, held]) => held.connected).map(([key]) => key);
      const confirmed = (): number => asked.filter((key) => (edges.get(key)?.confirmed ?? 0) >= seq).length;
      await settled(() => confirmed() === asked.length, waiting, timeoutMs, clock, signal);
      return { confirmed: confirmed(), connected: asked.length };
    },
  };
}

/** Resolves when `done` says so, or after the time, or when the signal aborts. */
function settled(
  done: () => boolean,
  waiting: Set<() => void>,
  timeoutMs: number,
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (done() || timeoutMs <= 0 || signal?.aborted === true) return Promise.resolve();
  return new Promise((resolve) => {
    const check = (): void => {
      if (done()) finish();
    };
    const finish = (): void => {
      timer.cancel();
      waiting.delete(check);
      signal?.removeEventListener('abort', finish);
      resolve();
    };
    const timer = clock.after(timeoutMs, finish);
    waiting.add(check);
    signal?.addEventListener('abort', finish, { once: true });
  });
}

function keyOf(edge: string, instance: string): string {
  return JSON.stringify([edge, instance]);
}

function forgetGone(edges: Map<string, Held>, goneMax: number): void {
  let surplus = [...edges.values()].filter((held) => !held.connected).length - goneMax;
  for (const [key, held] of edges) {
    if (surplus <= 0) return;
    if (held.connected) continue;
    edges.delete(key);
    surplus -= 1;
  }
}
