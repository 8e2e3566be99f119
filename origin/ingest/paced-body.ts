/**
 * Reads bytes from a sender that may be slow, silent or gone. It never destroys the
 * stream, because the refusal is still to be written on the same connection.
 */
import type { Readable } from 'node:stream';
import { waitFor } from '../../src/abort.js';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';

/** Gives chunks in order, and undefined after the last. Rejects if the sender breaks off. */
export interface ChunkSource {
  next(): Promise<Buffer | undefined>;
}

export interface Pace {
  /** Longest single wait. */
  readonly idleMs: number;
  /** All waits together may take this long, plus the time that the received bytes need at `rateMinBytes` per second. */
  readonly graceMs: number;
  readonly rateMinBytes: number;
}

/** The members of a request that are used here. */
export interface PacedRequest {
  readonly body: { open(): Readable };
  /** Counts every byte that arrives. */
  readonly meter: { uploaded(sizeBytes: number): void };
}

/** Reads a request's body and requires a pace of its sender. Only time spent waiting for the sender counts. */
export function pacedChunks({ body, meter }: PacedRequest, pace: Pace, clock: Clock, signal: AbortSignal): ChunkSource {
  let receivedBytes = 0;
  let waitedMs = 0;
  const reader = openReader(body.open());
  return {
    async next() {
      const ready = reader.take();
      if (ready !== 'wait') return count(ready);
      const allowedMs = pace.graceMs + (receivedBytes / pace.rateMinBytes) * 1_000;
      const startedMs = clock.monotonicMs();
      const event = await waitFor<'ready' | 'late'>((come) => {
        const timer = clock.after(Math.min(pace.idleMs, allowedMs - waitedMs), () => come('late'));
        void reader.ready().then(() => come('ready'));
        return () => timer.cancel();
      }, signal);
      if (event === 'late') throw new Fault('request_timeout', 'The body arrives too slowly.');
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
}

/** The same bytes. Room for them is reserved before they are given on. */
export function heldChunks(
  source: ChunkSource,
  { hold }: { readonly hold: (receivedBytes: number) => Promise<void> | undefined },
): ChunkSource {
  let receivedBytes = 0;
  return {
    async next() {
      const chunk = await source.next();
      receivedBytes += chunk?.length ?? 0;
      await hold(receivedBytes);
      return chunk;
    },
  };
}

/** The same without a pace, for files and for streams that are fed from a paced one. */
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
  /** A chunk, undefined at the end, or `wait` if no bytes are available yet. */
  take(): Buffer | undefined | 'wait';
  /** Resolves when `take` should be called again. */
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
    // If this read() ended the stream, its `end` event follows in a later turn.
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
