/** A download that a test reads step by step: it may wait for a number of bytes, pause, or close the connection. */
import { type IncomingHttpHeaders, request } from 'node:http';

export interface Download {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Everything received so far. */
  readonly bytes: Buffer;
  /** Resolves once this many bytes were received. */
  until(count: number): Promise<void>;
  /** Stops reading, so that bytes pile up on the other side. */
  pause(): void;
  resume(): void;
  /** Closes the connection. */
  abort(): void;
  /** Resolves when the response has ended. `whole` is false if the connection broke before the announced end. */
  readonly ended: Promise<{ readonly bytes: Buffer; readonly whole: boolean }>;
}

/** Sends a GET and resolves when the head has arrived. */
export function startDownload(url: string, headers: Readonly<Record<string, string>> = {}): Promise<Download> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      const watchers = new Set<() => void>();
      const received = (): Buffer => Buffer.concat(chunks);
      const ended = new Promise<{ bytes: Buffer; whole: boolean }>((end) => {
        response.on('close', () => end({ bytes: received(), whole: response.complete }));
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
          return received();
        },
        until(count) {
          return new Promise((done) => {
            const watch = (): void => {
              if (received().length < count) return;
              watchers.delete(watch);
              done();
            };
            watchers.add(watch);
            watch();
          });
        },
        pause: () => void response.pause(),
        resume: () => void response.resume(),
        abort: () => void response.destroy(),
        ended,
      });
    });
    sent.on('error', reject);
    sent.end();
  });
}
