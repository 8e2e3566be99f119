/** Standard output for the lines of a log, see lines.ts. */
import { writeSync } from 'node:fs';
import { systemClock } from '../clock.js';
import { createLines, type Lines } from './lines.js';

/**
 * One for all logs of the process. pino's own destination blocks for ever at exit if nobody reads the output any more
 * (sonic-boom's flush).
 */
export function standardOutput(): Lines {
  opened ??= openStandardOutput();
  return opened;
}

/** How much may wait for a slow reader. There is no limit until the configuration is read. */
export function limitStandardOutput(waitingMaxBytes: number): void {
  limit = waitingMaxBytes;
}

let opened: Lines | undefined;
let limit = Number.POSITIVE_INFINITY;

function openStandardOutput(): Lines {
  const { stdout } = process;
  stdout.on('error', () => undefined);
  const lines = createLines({
    output: {
      write: (chunk, done) => stdout.write(chunk, done),
      // A file or a terminal is written at once. Of a pipe, node writes what has room and keeps the rest in its handle.
      unsentBytes: () => (stdout as { _handle?: { writeQueueSize?: number } })._handle?.writeQueueSize ?? 0,
      writeSync: (chunk) => writeSync(stdout.fd, chunk),
    },
    clock: systemClock,
    waitingMaxBytes: () => limit,
    lost: lostLine,
    pause: pauseThread,
  });
  // Unless the process is killed.
  process.once('exit', () => lines.end());
  return lines;
}

/** `pause` of LinesDeps. */
export function pauseThread(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** `lost` of LinesDeps. */
export function lostLine(count: number): string {
  const msg = `lines of the log were lost, as they could not be written or nobody read them in time: ${count}`;
  return `${JSON.stringify({ level: 'warn', time: new Date(systemClock.now()).toISOString(), pid: process.pid, msg })}\n`;
}
