/**
 * Trips to the origin that are under way: one per key, shared by all who want
 * its answer. A flight has one owner here, who counts it, ends it when nobody
 * wants it any more, and breaks it off when what it fetches is taken down, also
 * before its head has come and the cache knows of it.
 *
 * Leaves to others: what is fetched and what becomes of it (fill.ts).
 */
import type { MediaId } from '../../src/ids.js';
import type { Fill } from '../cache/cache.js';

export interface FlightSpec<T> {
  /** Who comes with the same key shares the flight. */
  readonly key: string;
  readonly primaryKey: string;
  readonly mediaId: MediaId | null;
  /** Goes on although nobody waits: revalidation in the background, warming. */
  readonly background: boolean;
  /** Makes the trip. Never rejects. The flight stays under way until `flight.land()`, which it calls at the very end. */
  run(flight: Flight<T>): Promise<T>;
}

/** Why a flight was ended from outside. */
export type FlightEnd = 'unwanted' | 'taken_down' | 'purged' | 'closing';

export class FlightEnded extends Error {
  override readonly name = 'FlightEnded';
  readonly why: FlightEnd;

  constructor(why: FlightEnd) {
    super(`the flight was ended: ${why}`);
    this.why = why;
  }
}

export interface Flight<T> {
  readonly spec: FlightSpec<T>;
  /** Ends the trip; its reason is a FlightEnded. */
  readonly signal: AbortSignal;
  /** What it came to, as soon as that can be told. */
  readonly result: Promise<T>;
  /** Resolves when the trip is over, body and all. */
  readonly finished: Promise<void>;
  readonly isFinished: boolean;
  /** Whether `outcome` is known by now. */
  readonly settled: boolean;
  /** The body that it brings, while it comes: for those who join now. Set by who runs it. */
  fill: Fill | undefined;
  /** Those who want it now. */
  readonly waiters: number;
  /** Asked when nobody wants it any more: true lets it go on. */
  keepOn: () => boolean;
  /** Nobody new may join; who has joined keeps it. */
  close(): void;
  /** The trip is over. May be called twice. */
  finish(): void;
}

export type JoinOutcome<T> =
  | { readonly kind: 'started'; readonly flight: Flight<T> }
  | { readonly kind: 'joined'; readonly flight: Flight<T> }
  /** At a limit. */
  | { readonly kind: 'full'; readonly limit: 'flights' | 'waiters' };

export interface FlightLimits {
  /** Flights at once. */
  readonly flightsMax: number;
  /** Those who want one flight. */
  readonly waitersMax: number;
}

export interface Flights<T> {
  /** Shares the flight of the key, or starts it. `leaving` ends the wish; without one it is a background flight's own. */
  joinOrStart(spec: FlightSpec<T>, gone: AbortSignal | undefined): JoinOutcome<T>;
  /** The flight under way for a key, if it can be joined. */
  find(key: string): Flight<T> | undefined;
  readonly underWay: number;
  breakOff(id: MediaId): void;
  breakOffWhere(matches: (primaryKey: string) => boolean): void;
  /** Breaks off all there are; resolves when the last has landed. */
  close(): Promise<void>;
}

export function createFlights<T>(limits: () => FlightLimits): Flights<T> {
  const joinable = new Map<string, Trip<T>>();
  const underWay = new Set<Trip<T>>();
  const byMedia = new Map<MediaId, Set<Trip<T>>>();
  const closed = { now: false, landed: (): void => undefined };

  const start = (spec: FlightSpec<T>): Trip<T> => {
    const trip = new Trip(spec, {
      closed: () => {
        if (joinable.get(spec.key) === trip) joinable.delete(spec.key);
      },
      finished: () => {
        underWay.delete(trip);
        unlist(byMedia, trip);
        if (underWay.size === 0) closed.landed();
      },
    });
    joinable.set(spec.key, trip);
    underWay.add(trip);
    list(byMedia, trip);
    trip.run();
    return trip;
  };

  const endAll = (trips: Iterable<Trip<T>>, why: FlightEnd): void => {
    for (const trip of trips) trip.end(why);
  };

  return {
    joinOrStart(spec, gone) {
      const found = joinable.get(spec.key);
      if (found !== undefined) {
        if (gone === undefined) {
          if (spec.background) found.keepOn = () => true;
          return { kind: 'joined', flight: found };
        }
        if (found.waiters >= limits().waitersMax) return { kind: 'full', limit: 'waiters' };
        found.addWaiter(gone);
        return { kind: 'joined', flight: found };
      }
      if (closed.now || underWay.size >= limits().flightsMax) return { kind: 'full', limit: 'flights' };
      const trip = start(spec);
      if (gone !== undefined) trip.addWaiter(gone);
      return { kind: 'started', flight: trip };
    },
    find: (key) => joinable.get(key),
    get underWay() {
      return underWay.size;
    },
    breakOff: (id) => endAll(byMedia.get(id) ?? [], 'taken_down'),
    breakOffWhere(matches) {
      const hit = [...underWay].filter(({ spec }) => matches(spec.primaryKey));
      endAll(hit, 'purged');
    },
    close() {
      closed.now = true;
      if (underWay.size === 0) return Promise.resolve();
      const done = new Promise<void>((resolve) => {
        closed.landed = resolve;
      });
      endAll(underWay, 'closing');
      return done;
    },
  };
}

class Trip<T> implements Flight<T> {
  readonly spec: FlightSpec<T>;
  readonly #ending = new AbortController();
  readonly #settled: { readonly closed: () => void; readonly finished: () => void };
  readonly result: Promise<T>;
  readonly finished: Promise<void>;
  #touchDown: () => void = () => undefined;
  #tell: (result: T) => void = () => undefined;
  #waiters = 0;
  #isTold = false;
  #open = true;
  #flying = true;
  keepOn: () => boolean;
  fill: Fill | undefined;

  constructor(spec: FlightSpec<T>, settled: { readonly closed: () => void; readonly finished: () => void }) {
    this.spec = spec;
    this.#settled = settled;
    this.keepOn = () => spec.background;
    this.result = new Promise((resolve) => {
      this.#tell = resolve;
    });
    this.finished = new Promise((resolve) => {
      this.#touchDown = resolve;
    });
  }

  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  get isFinished(): boolean {
    return !this.#flying;
  }

  get settled(): boolean {
    return this.#isTold;
  }

  get waiters(): number {
    return this.#waiters;
  }

  /** Apart from the constructor, so that whoever runs it finds the flight listed. */
  run(): void {
    void this.spec.run(this).then((result) => {
      this.#isTold = true;
      this.#tell(result);
    });
  }

  addWaiter(gone: AbortSignal): void {
    this.#waiters += 1;
    const leave = (): void => {
      this.#waiters -= 1;
      if (this.#waiters === 0 && this.#flying && !this.keepOn()) this.end('unwanted');
    };
    if (gone.aborted) leave();
    else gone.addEventListener('abort', leave, { once: true });
  }

  end(why: FlightEnd): void {
    if (!this.#flying || this.signal.aborted) return;
    // Who comes now must not get what was broken off.
    this.close();
    this.#ending.abort(new FlightEnded(why));
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#settled.closed();
  }

  finish(): void {
    if (!this.#flying) return;
    this.#flying = false;
    this.close();
    this.#settled.finished();
    this.#touchDown();
  }
}

function list<T>(byMedia: Map<MediaId, Set<Trip<T>>>, trip: Trip<T>): void {
  const { mediaId } = trip.spec;
  if (mediaId === null) return;
  const held = byMedia.get(mediaId) ?? new Set();
  byMedia.set(mediaId, held.add(trip));
}

function unlist<T>(byMedia: Map<MediaId, Set<Trip<T>>>, trip: Trip<T>): void {
  const { mediaId } = trip.spec;
  const held = mediaId === null ? undefined : byMedia.get(mediaId);
  held?.delete(trip);
  if (mediaId !== null && held?.size === 0) byMedia.delete(mediaId);
}
