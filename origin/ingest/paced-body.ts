/**
 * Bytes from a sender that may be slow, silent or gone. The stream is never
 * destroyed here: below a request lies the connection on which the refusal is
 * still to be told.
 */
import type { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';

/** Chunks in order; undefined after the last. Rejects when the sender breaks off. */
export interface ChunkSource {
  next(): Promise<Buffer | undefined>;
}

export interface Pace {
  /** Longest single wait. */
  readonly idleMs: number;
  /** Waiting in all may come to this, and to what the bytes received so far excuse at `rateMinBytes` a second. */
  readonly graceMs: number;
  readonly rateMinBytes: number;
}

/** What of a request is read here. */
export interface Sending {
  readonly body: { open(): Readable };
  /** Hears of every byte that comes. */
  readonly meter: { uploaded(sizeBytes: number): void };
}

/** Reads a request's body at the pace that is asked of its sender. Time that we take ourselves is not counted. */
export function pacedChunks({ body, meter }: Sending, pace: Pace, clock: Clock, signal: AbortSignal): ChunkSource {
  let receivedBytes = 0;
  let waitedMs = 0;
  const reader = openReader(body.open());
  return {
    async next() {
      const ready = reader.take();
      if (ready !== 'wait') return count(ready);
      const excusedMs = pace.graceMs + (receivedBytes / pace.rateMinBytes) * 1_000;
      const startedMs = clock.monotonicMs();
      await within(reader.ready(), Math.min(pace.idleMs, excusedMs - waitedMs));
      waitedMs += clock.monotonicMs() - startedMs;
      const chunk = reader.take();
      return chunk === 'wait' ? await this.next() : count(chunk);
    },
  };

  function count(chunk: Buffer | undefined): Buffer | undefined {
    const sizeBytes = chunk?.length ?? 0;
    receivedBytes += sizeBytes;
    meter.uploaded(sizeBytes);
    return chunk;
  }

  function within(ready: Promise<void>, waitMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (run: () => void): void => {
        timer.cancel();
        signal.removeEventListener('abort', onAbort);
        run();
      };
      const onAbort = (): void => settle(() => reject(signal.reason));
      const timer = clock.after(waitMs, () =>
        settle(() => reject(new Fault('request_timeout', 'The body arrives too slowly.'))),
      );
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
      ready.then(
        () => settle(resolve),
        (thrown: unknown) => settle(() => reject(thrown)),
      );
    });
  }
}

/** The same without a pace, for a stream that is fed by one that has it. */
export function chunksOf(source: Readable): ChunkSource {
  const reader = openReader(source);
  return {
    async next() {
      for (;;) {
        const ready = reader.take();
        if (ready !== 'wait') return ready;
        await reader.ready();
      }
    },
  };
}

interface Reader {
  /** A chunk, undefined at the end, or `wait` where nothing is there yet. */
  take(): Buffer | undefined | 'wait';
  /** Resolves when `take` is worth another try. */
  ready(): Promise<void>;
}

function openReader(source: Readable): Reader {
  let ended = source.readableEnded;
  let failure: Error | undefined;
  let wake: (() => void) | undefined;
  const onChange = (): void => {
    wake?.();
    wake = undefined;
  };
  source.on('readable', onChange);
  source.once('end', () => {
    ended = true;
    onChange();
  });
  source.on('error', (error) => {
    failure ??= error;
    onChange();
  });
  source.once('close', () => {
    if (!ended) failure ??= new Error('closed before its end');
    onChange();
  });

  function take(): Buffer | undefined | 'wait' {
    if (failure !== undefined) throw brokenOff(failure);
    const chunk: unknown = source.read();
    if (chunk !== null) return chunk as Buffer;
    // read() may have been what ended the stream; its event comes a turn later.
    return ended ? undefined : 'wait';
  }

  return {
    take,
    ready() {
      if (ended || failure !== undefined || source.readableLength > 0) return Promise.resolve();
      return new Promise((resolve) => {
        wake = resolve;
      });
    },
  };
}

function brokenOff(cause: Error): Fault {
  return new Fault('malformed', 'The body ended before it was complete.', { cause });
}
