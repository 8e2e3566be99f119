/** A download in the hand: read as far as the test wants, paused, left, or taken to its end. */
import { type IncomingHttpHeaders, request } from 'node:http';

export interface Download {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** All that has come. */
  readonly bytes: Buffer;
  /** Resolves once so many bytes have come. */
  until(count: number): Promise<void>;
  /** Stops taking bytes, so that they pile up on the other side. */
  pause(): void;
  resume(): void;
  /** Closes the connection. */
  leave(): void;
  /** Resolves when it is over: whole, or broken off before its announced end. */
  readonly over: Promise<{ readonly bytes: Buffer; readonly whole: boolean }>;
}

/** Resolves with the head. */
export function startDownload(url: string, headers: Readonly<Record<string, string>> = {}): Promise<Download> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      const watchers = new Set<() => void>();
      const all = (): Buffer => Buffer.concat(chunks);
      const over = new Promise<{ bytes: Buffer; whole: boolean }>((end) => {
        response.on('close', () => end({ bytes: all(), whole: response.complete }));
      });
      response.on('error', () => undefined);
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        for (const watch of watchers) watch();
      });
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        get bytes() {
          return all();
        },
        until(count) {
          return new Promise((done) => {
            const watch = (): void => {
              if (all().length < count) return;
              watchers.delete(watch);
              done();
            };
            watchers.add(watch);
            watch();
          });
        },
        pause: () => void response.pause(),
        resume: () => void response.resume(),
        leave: () => void response.destroy(),
        over,
      });
    });
    sent.on('error', reject);
    sent.end();
  });
}
