/**
 * Which edges follow the journal, and up to which entry each has applied it. An
 * edge that reconnects says where it wants to continue, and that counts as its
 * confirmation.
 *
 * Promises: an edge that left without saying so is counted for a while, since it
 * may still be serving; the same edge, restarted or not, is counted once. Leaves
 * to known-edges.ts what is remembered over a restart.
 */
import { onAbort } from '../abort.js';
import type { Clock, EpochMs } from '../clock.js';
import { type Confirmation, type EdgeCount, type EdgesBehind, edgesIn, NOBODY_BEHIND, summed } from './confirmation.js';

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
  /** Edges that are connected, or left without saying so and not long ago. */
  readonly known: number;
}

/** One connected edge. */
export interface ConnectedEdge {
  /** Milliseconds since the edge last confirmed anything. */
  silentMs(): number;
  disconnect(): void;
}

/**
 * An edge as it is remembered over a restart of this process. Not what it has confirmed: the metadata may have been set
 * back meanwhile, and then the same numbers stand for other entries.
 */
export interface KnownEdge {
  readonly edge: string;
  readonly instance: string;
  /** How many edges were known behind it. */
  readonly behind: number;
}

/** An edge and those behind it that follows this journal, or has followed it last. */
export interface FollowingEdge {
  readonly edge: string;
  readonly instance: string;
  readonly connected: boolean;
  /** How long ago it connected. */
  readonly connectedAgoMs: number;
  /** How long ago it was heard of. */
  readonly heardAgoMs: number;
  readonly confirmed: number;
  /** How many edges these are. */
  readonly edges: number;
}

export interface Confirmations {
  /**
   * Call it when a stream begins. `applied`: null if the edge starts with nothing; `gap`: what it has applied
   * is not of this history, so nothing that it confirmed counts any more.
   */
  connect(edge: string, instance: string, applied: number | null | 'gap'): ConnectedEdge;
  /** False if no such edge is connected. */
  confirm(confirmation: Confirmation): boolean;
  /** The connected edges, and those that have left as far as they are remembered. */
  positions(): readonly EdgePosition[];
  /** The edges of this journal and all that are behind them, as counts. */
  counts(): EdgesBehind;
  known(): readonly KnownEdge[];
  /** Each edge that is connected, or left not long ago, with how many it is together with those behind it. */
  following(): readonly FollowingEdge[];
  /** Edges with these names follow another origin: those that have left are counted here no longer. */
  forget(names: readonly string[]): void;
  /** Waits until every edge that is connected now has confirmed `seq`, or until the time is over or the signal aborts. */
  wait(seq: number, timeoutMs: number, signal: AbortSignal | undefined): Promise<EdgesConfirmed>;
}

export interface ConfirmationsDeps {
  /** How many edges that have left are remembered. */
  readonly goneMax: number;
  /** How long an edge that has left is counted. */
  readonly awayMs: number;
  /** The edges that were known when this process last ended. They count as having left now. */
  readonly known: readonly KnownEdge[];
  readonly clock: Clock;
  /** Called after an edge came, left or confirmed something new. `which`: whether there are other edges now. */
  onChange(which: 'edges' | 'counts'): void;
}

interface Position {
  readonly edge: string;
  readonly instance: string;
  connected: boolean;
  confirmed: number;
  behind: EdgesBehind;
  heardAt: EpochMs;
  heardMonotonicMs: number;
  connectedMonotonicMs: number;
  leftMonotonicMs: number;
}

export function createConfirmations(deps: ConfirmationsDeps): Confirmations {
  const { clock, goneMax } = deps;
  /** In the order in which the edges last connected. */
  const edges = new Map<string, Position>();
  for (const known of deps.known) edges.set(keyOf(known.edge, known.instance), remembered(known, clock));
  const waiting = new Set<() => void>();
  const changed = (which: 'edges' | 'counts'): void => {
    for (const check of waiting) check();
    deps.onChange(which);
  };
  const isCounted = ({ connected, leftMonotonicMs }: Position): boolean =>
    connected || clock.monotonicMs() - leftMonotonicMs < deps.awayMs;

  function leave(position: Position): void {
    if (!position.connected) return;
    position.connected = false;
    position.leftMonotonicMs = clock.monotonicMs();
    forgetGone(edges, goneMax);
    changed('edges');
  }

  return {
    connect(edge, instance, applied) {
      const key = keyOf(edge, instance);
      const before = edges.get(key);
      const position: Position = {
        edge,
        instance,
        connected: true,
        confirmed: applied === 'gap' ? 0 : Math.max(before?.confirmed ?? 0, applied ?? 0),
        behind: before?.behind ?? NOBODY_BEHIND,
        heardAt: clock.now(),
        heardMonotonicMs: clock.monotonicMs(),
        connectedMonotonicMs: clock.monotonicMs(),
        leftMonotonicMs: 0,
      };
      edges.delete(key);
      forgetEarlier(edges, edge);
      edges.set(key, position);
      forgetGone(edges, goneMax);
      changed('edges');
      return {
        silentMs: () => clock.monotonicMs() - position.heardMonotonicMs,
        disconnect: () => leave(position),
      };
    },
    confirm({ edge, instance, seq, behind, leaves }) {
      const key = keyOf(edge, instance);
      const position = edges.get(key);
      if (position?.connected !== true) return false;
      const news = seq > position.confirmed || JSON.stringify(behind) !== JSON.stringify(position.behind);
      position.confirmed = Math.max(position.confirmed, seq);
      position.behind = behind;
      position.heardAt = clock.now();
      position.heardMonotonicMs = clock.monotonicMs();
      if (leaves) {
        position.connected = false;
        edges.delete(key);
        changed('edges');
      } else if (news) changed('counts');
      return true;
    },
    positions: () =>
      [...edges.values()].map(({ edge, connected, confirmed, heardAt }) => ({ edge, connected, confirmed, heardAt })),
    counts() {
      const counted = [...edges.values()].filter(isCounted).map(countsOf);
      return {
        connected: summed(counted.flatMap(({ connected }) => connected)),
        away: summed(counted.flatMap(({ away }) => away)),
      };
    },
    known: () =>
      [...edges.values()].filter(isCounted).map(({ edge, instance, behind }) => ({
        edge,
        instance,
        behind: edgesIn(behind.connected) + edgesIn(behind.away),
      })),
    following: () =>
      [...edges.values()].filter(isCounted).map((position) => ({
        edge: position.edge,
        instance: position.instance,
        connected: position.connected,
        connectedAgoMs: clock.monotonicMs() - position.connectedMonotonicMs,
        heardAgoMs: clock.monotonicMs() - position.heardMonotonicMs,
        confirmed: position.confirmed,
        edges: 1 + edgesIn(position.behind.connected) + edgesIn(position.behind.away),
      })),
    forget(names) {
      if (names.length === 0) return;
      for (const name of names) forgetEarlier(edges, name);
      changed('edges');
    },
    async wait(seq, timeoutMs, signal) {
      // An edge that connects later applies the entry before it serves anything. One that leaves may still be serving.
      const counted = [...edges].filter(([, position]) => isCounted(position));
      const waitedFor = counted.filter(([, { connected }]) => connected).map(([key]) => key);
      const now = (keys: readonly string[]): readonly EdgesBehind[] =>
        keys.flatMap((key) => {
          const position = edges.get(key);
          return position === undefined ? [] : [countsOf(position)];
        });
      const missing = (key: string): boolean => {
        const position = edges.get(key);
        if (position === undefined) return false;
        return position.confirmed < seq || position.behind.connected.some((count) => count.seq < seq);
      };
      const all = (): boolean => !waitedFor.some(missing);
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
      const lists = now(counted.map(([key]) => key)).flatMap(({ connected, away }) => [...connected, ...away]);
      return { confirmed: edgesIn(lists, seq), known: edgesIn(lists) };
    },
  };
}

/** One edge and those behind it. While it is away, so are they, as far as anyone here knows. */
function countsOf({ connected, confirmed, behind }: Position): EdgesBehind {
  const own: EdgeCount = { seq: confirmed, edges: 1 };
  return connected
    ? { connected: [own, ...behind.connected], away: behind.away }
    : { connected: [], away: [own, ...behind.connected, ...behind.away] };
}

function remembered({ edge, instance, behind }: KnownEdge, clock: Clock): Position {
  return {
    edge,
    instance,
    connected: false,
    confirmed: 0,
    behind: behind === 0 ? NOBODY_BEHIND : { connected: [], away: [{ seq: 0, edges: behind }] },
    heardAt: clock.now(),
    heardMonotonicMs: clock.monotonicMs(),
    connectedMonotonicMs: clock.monotonicMs(),
    leftMonotonicMs: clock.monotonicMs(),
  };
}

/** Two edges of one name are told apart by their instance. */
function keyOf(edge: string, instance: string): string {
  return JSON.stringify([edge, instance]);
}

/** An edge that was started again has another instance. Its former one serves nothing any more. */
function forgetEarlier(edges: Map<string, Position>, edge: string): void {
  for (const [key, position] of edges) if (position.edge === edge && !position.connected) edges.delete(key);
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
