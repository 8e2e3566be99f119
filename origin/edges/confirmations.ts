/**
 * Which edges follow the journal, and up to which entry each has applied it. In
 * memory only: an edge that reconnects says where it wants to continue, and that
 * counts as its confirmation.
 */
import { onAbort } from '../../src/abort.js';
import type { Clock, EpochMs } from '../../src/clock.js';

export interface EdgePosition {
  readonly edge: string;
  readonly connected: boolean;
  /** The newest number that it has confirmed. */
  readonly confirmed: number;
  /** When it last connected or confirmed. */
  readonly heardAt: EpochMs;
}

export interface EdgesConfirmed {
  readonly confirmed: number;
  readonly connected: number;
}

/** One connected edge. */
export interface ConnectedEdge {
  /** Milliseconds since the edge last confirmed anything. */
  silentMs(): number;
  disconnect(): void;
}

export interface Confirmations {
  /** Call it when a stream begins. `applied`: null if the edge starts with nothing. */
  connect(edge: string, instance: string, applied: number | null): ConnectedEdge;
  /** False if no such edge is connected. */
  confirm(edge: string, instance: string, seq: number): boolean;
  /** The connected edges, and those that have left as far as they are remembered. */
  positions(): readonly EdgePosition[];
  /** Waits until every edge that is connected now has confirmed `seq`, or until the time is over or the signal aborts. */
  wait(seq: number, timeoutMs: number, signal: AbortSignal | undefined): Promise<EdgesConfirmed>;
}

interface Position {
  readonly edge: string;
  connected: boolean;
  confirmed: number;
  heardAt: EpochMs;
  heardMonotonicMs: number;
}

/** `goneMax`: how many edges that have left are remembered. */
export function createConfirmations(goneMax: number, clock: Clock): Confirmations {
  /** In the order in which the edges last connected. */
  const edges = new Map<string, Position>();
  const waiting = new Set<() => void>();
  const wake = (): void => {
    for (const check of waiting) check();
  };
  return {
    connect(edge, instance, applied) {
      const key = keyOf(edge, instance);
      const position: Position = {
        edge,
        connected: true,
        confirmed: Math.max(edges.get(key)?.confirmed ?? 0, applied ?? 0),
        heardAt: clock.now(),
        heardMonotonicMs: clock.monotonicMs(),
      };
      edges.delete(key);
      edges.set(key, position);
      forgetGone(edges, goneMax);
      wake();
      return {
        silentMs: () => clock.monotonicMs() - position.heardMonotonicMs,
        disconnect() {
          position.connected = false;
          forgetGone(edges, goneMax);
        },
      };
    },
    confirm(edge, instance, seq) {
      const position = edges.get(keyOf(edge, instance));
      if (position?.connected !== true) return false;
      position.confirmed = Math.max(position.confirmed, seq);
      position.heardAt = clock.now();
      position.heardMonotonicMs = clock.monotonicMs();
      wake();
      return true;
    },
    positions: () =>
      [...edges.values()].map(({ edge, connected, confirmed, heardAt }) => ({ edge, connected, confirmed, heardAt })),
    async wait(seq, timeoutMs, signal) {
      // An edge that connects later applies the entry before it serves anything. One that leaves may still be serving.
      const counted = [...edges].filter(([, position]) => position.connected).map(([key]) => key);
      const confirmed = (): number => counted.filter((key) => (edges.get(key)?.confirmed ?? 0) >= seq).length;
      const all = (): boolean => confirmed() === counted.length;
      if (!all() && timeoutMs > 0 && signal?.aborted !== true) {
        await new Promise<void>((resolve) => {
          const end = (): void => {
            timer.cancel();
            stopListening();
            waiting.delete(check);
            resolve();
          };
          const check = (): void => {
            if (all()) end();
          };
          const timer = clock.after(timeoutMs, end);
          const stopListening = onAbort(signal, end);
          waiting.add(check);
        });
      }
      return { confirmed: confirmed(), connected: counted.length };
    },
  };
}

/** Two edges of one name are told apart by their instance. */
function keyOf(edge: string, instance: string): string {
  return JSON.stringify([edge, instance]);
}

/** Forgets those that left longest ago. */
function forgetGone(edges: Map<string, Position>, goneMax: number): void {
  let surplus = [...edges.values()].filter((position) => !position.connected).length - goneMax;
  for (const [key, position] of edges) {
    if (surplus <= 0) return;
    if (position.connected) continue;
    edges.delete(key);
    surplus -= 1;
  }
}
