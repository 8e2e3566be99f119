/**
 * Fetches in progress: at most one for each key, shared by all callers who want
 * its result (collapsed forwarding). Every flight is listed here until its body
 * can be found in the cache or has been sent on. It takes one of the limited
 * places until the origin has sent everything: neither a slow disk nor a slow
 * client keeps others from the origin. It is ended when no caller wants it any
 * more, and when the media that it fetches is taken down, even before the
 * response head has arrived.
 *
 * Leaves to others: what is fetched, and what becomes of it (fill.ts).
 */
import type { MediaId } from '../../src/ids.js';
import type { Fill } from '../cache/cache.js';
import { KeyIndex } from '../cache/key-index.js';

export interface FlightSpec<T> {
  /** Callers with the same key share the flight. */
  readonly key: string;
  readonly primaryKey: string;
  readonly mediaId: MediaId | null;
  /** Goes on although no caller waits: revalidation in the background, warming. */
  readonly background: boolean;
  /** Does the fetch. Never rejects. Calls `flight.finish()` when all is done; the flight is in progress until then. */
  run(flight: Flight<T>): Promise<T>;
}

/** Why a flight was ended before its fetch was complete. */
export type FlightEnd = 'unwanted' | 'taken_down' | 'purged' | 'closing';

export class FlightEnded extends Error {
  override readonly name = 'FlightEnded';
  readonly why: FlightEnd;

  constructor(why: FlightEnd) {
    super(`the flight was ended: ${why}`);
    this.why = why;
  }
}

export type JoinOutcome<T> =
  | { readonly kind: 'started'; readonly flight: Flight<T> }
  | { readonly kind: 'joined'; readonly flight: Flight<T> }
  /** At a limit. */
  | { readonly kind: 'full'; readonly limit: 'flights' | 'waiters' };

export interface FlightLimits {
  /** Flights that the origin has not answered completely. */
  readonly concurrentMax: number;
  /** Callers who wait for one flight. */
  readonly waitersMax: number;
}

export interface Flights<T> {
  /**
   * Joins the flight of the key, or starts it. `gone` ends the caller's wait.
   * Without it nobody waits: the flight runs in the background.
   */
  joinOrStart(spec: FlightSpec<T>, gone: AbortSignal | undefined): JoinOutcome<T>;
  /** The flight of a key, if it can be joined. */
  find(key: string): Flight<T> | undefined;
  /** How many flights are in progress. */
  readonly underWay: number;
  /** How many of them the origin has not answered completely. */
  readonly fetching: number;
  breakOff(id: MediaId): void;
  breakOffWhere(matches: (primaryKey: string) => boolean): void;
  /** Breaks off all flights; resolves when the last has finished. */
  close(): Promise<void>;
}

export function createFlights<T>(limits: () => FlightLimits): Flights<T> {
  const joinable = new Map<string, Flight<T>>();
  const underWay = new Set<Flight<T>>();
  const byMedia = new KeyIndex<MediaId, Flight<T>>();
  let fetching = 0;
  let closing = false;
  let onIdle = (): void => undefined;

  function start(spec: FlightSpec<T>): Flight<T> {
    const flight = new Flight(spec, {
      onClosed() {
        if (joinable.get(spec.key) === flight) joinable.delete(spec.key);
      },
      onArrived() {
        fetching -= 1;
      },
      onFinished() {
        underWay.delete(flight);
        if (spec.mediaId !== null) byMedia.remove(spec.mediaId, flight);
        if (underWay.size === 0) onIdle();
      },
    });
    joinable.set(spec.key, flight);
    underWay.add(flight);
    fetching += 1;
    if (spec.mediaId !== null) byMedia.add(spec.mediaId, flight);
    flight.run();
    return flight;
  }

  function endAll(flights: Iterable<Flight<T>>, why: FlightEnd): void {
    for (const flight of flights) flight.end(why);
  }

  return {
    joinOrStart(spec, gone) {
      const found = joinable.get(spec.key);
      if (found === undefined) {
        if (closing || fetching >= limits().concurrentMax) return { kind: 'full', limit: 'flights' };
        const flight = start(spec);
        if (gone !== undefined) flight.addWaiter(gone);
        return { kind: 'started', flight };
      }
      if (gone !== undefined) {
        if (found.waiters >= limits().waitersMax) return { kind: 'full', limit: 'waiters' };
        found.addWaiter(gone);
      } else if (spec.background) found.keepsGoing = () => true;
      return { kind: 'joined', flight: found };
    },
    find: (key) => joinable.get(key),
    get underWay() {
      return underWay.size;
    },
    get fetching() {
      return fetching;
    },
    breakOff: (id) => endAll(byMedia.membersOf(id), 'taken_down'),
    breakOffWhere: (matches) =>
      endAll(
        [...underWay].filter(({ spec }) => matches(spec.primaryKey)),
        'purged',
      ),
    close() {
      closing = true;
      if (underWay.size === 0) return Promise.resolve();
      const idle = new Promise<void>((resolve) => {
        onIdle = resolve;
      });
      endAll([...underWay], 'closing');
      return idle;
    },
  };
}

interface FlightHooks {
  /** Nobody new may join. */
  onClosed(): void;
  onArrived(): void;
  onFinished(): void;
}

/** One fetch in progress. Made by `createFlights` alone. */
export class Flight<T> {
  readonly spec: FlightSpec<T>;
  /** The outcome of the fetch, as soon as callers can be answered: a body may still arrive then. */
  readonly result: Promise<T>;
  /** Resolves when the fetch is complete, with its body. */
  readonly finished: Promise<void>;
  /** The arriving body, for callers who join while it arrives. Set by `spec.run`. */
  fill: Fill | undefined;
  /** Whether the flight goes on when no caller wants it any more. */
  keepsGoing: () => boolean;
  readonly #hooks: FlightHooks;
  readonly #ending = new AbortController();
  #resolveResult: (result: T) => void = () => undefined;
  #resolveFinished: () => void = () => undefined;
  #ended: FlightEnd | undefined;
  #waiters = 0;
  #isSettled = false;
  #hasArrived = false;
  #isFinished = false;

  constructor(spec: FlightSpec<T>, hooks: FlightHooks) {
    this.spec = spec;
    this.#hooks = hooks;
    this.keepsGoing = () => spec.background;
    this.result = new Promise((resolve) => {
      this.#resolveResult = resolve;
    });
    this.finished = new Promise((resolve) => {
      this.#resolveFinished = resolve;
    });
  }

  /** Ends the fetch; its reason is a FlightEnded. */
  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  /** Why it was ended from outside; undefined while it was not. */
  get ended(): FlightEnd | undefined {
    return this.#ended;
  }

  /** Whether `result` is known. */
  get isSettled(): boolean {
    return this.#isSettled;
  }

  get isFinished(): boolean {
    return this.#isFinished;
  }

  /** How many callers want it now. */
  get waiters(): number {
    return this.#waiters;
  }

  /** Not done by the constructor, so that the flight is listed before its fetch starts. */
  run(): void {
    void this.spec.run(this).then((result) => {
      this.#isSettled = true;
      this.#resolveResult(result);
    });
  }

  /** Counts a caller, until `gone` aborts. Without callers the flight ends, unless it keeps going. */
  addWaiter(gone: AbortSignal): void {
    this.#waiters += 1;
    const leave = (): void => {
      this.#waiters -= 1;
      if (this.#waiters === 0 && !this.keepsGoing()) this.end('unwanted');
    };
    if (gone.aborted) leave();
    else gone.addEventListener('abort', leave, { once: true });
  }

  /** Breaks the fetch off. New callers start another one. */
  end(why: FlightEnd): void {
    if (this.#isFinished || this.#ended !== undefined) return;
    this.#ended = why;
    this.close();
    this.#ending.abort(new FlightEnded(why));
  }

  /** Nobody new may join. Callers who have joined keep it. May be called twice. */
  close(): void {
    this.#hooks.onClosed();
  }

  /** The origin has sent everything, or is not asked any more. May be called twice. */
  arrived(): void {
    if (this.#hasArrived) return;
    this.#hasArrived = true;
    this.#hooks.onArrived();
  }

  /** The fetch is complete. May be called twice. */
  finish(): void {
    this.#isFinished = true;
    this.arrived();
    this.close();
    this.#hooks.onFinished();
    this.#resolveFinished();
  }
}
