/**
 * Cuts a body that arrives into parts, each to be stored before the next one is read: after so many bytes, or so long
 * after its first byte. Bytes that have arrived when the sender breaks off are a part too.
 */
import { waitFor } from '../../../src/abort.js';
import type { Clock } from '../../../src/clock.js';
import type { ChunkSource } from '../paced-body.js';

export interface PartSize {
  readonly partSizeBytes: number;
  readonly partEveryMs: number;
}

export interface CutBody {
  /** Waits for the next byte. False at the end of the body, and when it has broken off. */
  more(): Promise<boolean>;
  /** The bytes of the next part. It is read to its end before `more` is called again. */
  part(): ChunkSource;
  /** Throws what the body broke off with. */
  requireWhole(): void;
}

type Arrival =
  | { readonly kind: 'chunk'; readonly chunk: Buffer }
  | { readonly kind: 'end' }
  | { readonly kind: 'broken'; readonly cause: unknown };

export function cutIntoParts(source: ChunkSource, { partSizeBytes, partEveryMs }: PartSize, clock: Clock): CutBody {
  /** What arrives next, or has arrived and was not used up. */
  let arriving: Promise<Arrival> | undefined;
  let arrived: Arrival | undefined;

  function arrive(): Promise<Arrival> {
    arriving ??= receive(source).then((arrival) => {
      arrived = arrival;
      return arrival;
    });
    return arriving;
  }

  function use(bytes: number): void {
    if (arrived?.kind !== 'chunk') return;
    const rest = arrived.chunk.subarray(bytes);
    arrived = rest.length === 0 ? undefined : { kind: 'chunk', chunk: rest };
    arriving = arrived === undefined ? undefined : Promise.resolve(arrived);
  }

  return {
    async more() {
      return (await arrive()).kind === 'chunk';
    },
    part() {
      const endsAtMs = clock.monotonicMs() + partEveryMs;
      let bytes = 0;
      return {
        async next() {
          if (bytes >= partSizeBytes) return undefined;
          const arrival = arrived ?? (await before(endsAtMs, arrive(), clock));
          if (arrival?.kind !== 'chunk') return undefined;
          const chunk = arrival.chunk.subarray(0, partSizeBytes - bytes);
          use(chunk.length);
          bytes += chunk.length;
          return chunk;
        },
      };
    },
    requireWhole() {
      if (arrived?.kind === 'broken') throw arrived.cause;
    },
  };
}

/** Never rejects, and passes over empty chunks. */
async function receive(source: ChunkSource): Promise<Arrival> {
  try {
    for (;;) {
      const chunk = await source.next();
      if (chunk === undefined) return { kind: 'end' };
      if (chunk.length > 0) return { kind: 'chunk', chunk };
    }
  } catch (cause) {
    return { kind: 'broken', cause };
  }
}

/** What arrives before an instant, or undefined. */
function before<T>(atMs: number, arriving: Promise<T>, clock: Clock): Promise<T | undefined> {
  return waitFor<T | undefined>((come) => {
    const timer = clock.after(Math.max(0, atMs - clock.monotonicMs()), () => come(undefined));
    void arriving.then(come);
    return () => timer.cancel();
  }, undefined);
}
