/**
 * Standard output for the lines of a log. Lines of one turn of the event loop are written together, so that a line for
 * every request does not cost a system call each. A reader that is slow or stuck (a pipe) costs memory up to a limit and
 * then lines, never the service; how many lines were lost is said as soon as it reads again. At the end of the process
 * what waits is written at once, unless nobody reads.
 */
import { writeSync } from 'node:fs';
import { type Clock, systemClock } from '../clock.js';

export type StandardOutput = {
  write(line: string): void;
  /** For frequent lines: they are written with the next other line, or a moment later. */
  gather(line: string): void;
};

/** What this module needs of `process.stdout`. */
export type Output = {
  write(chunk: Buffer, done: (error?: Error | null) => void): unknown;
  /** How many bytes of the chunks that are not done the system has not taken. */
  unsentBytes(): number;
  /** Takes some of the bytes at once and says how many. Throws EAGAIN while the reader has no room. */
  writeSync(chunk: Buffer): number;
};

export type LinesDeps = {
  readonly output: Output;
  readonly clock: Pick<Clock, 'after'>;
  /** How much may wait beside the chunk that is under way. */
  readonly waitingMaxBytes: () => number;
  /** What is written once lines were lost. */
  readonly lost: (count: number) => string;
  /** Blocks the thread, in ms. */
  readonly pause: (ms: number) => void;
};

export type Lines = StandardOutput & {
  /** Writes what waits before it returns. Gives up once the reader has taken nothing for `EXIT_WAIT_MS`. */
  end(): void;
};

/** This much is written before the turn ends. */
const GATHERED_MAX = 65_536;
const GATHERED_MS = 20;
const EXIT_WAIT_MS = 5_000;
const EXIT_PAUSE_MS = 5;

/** One chunk at a time is given to `output`, so that its unsent bytes are the end of that chunk. */
export function createLines(deps: LinesDeps): Lines {
  let waiting = '';
  let lost = 0;
  let underway: Buffer | null = null;
  const flush = (): void => {
    if (underway !== null || waiting === '') return;
    underway = Buffer.from(waiting);
    waiting = '';
    deps.output.write(underway, () => {
      underway = null;
      if (lost > 0) waiting += deps.lost(lost);
      lost = 0;
      flush();
    });
  };
  const add = (line: string): void => {
    if (waiting.length + line.length > deps.waitingMaxBytes()) {
      lost += 1;
      return;
    }
    waiting += line;
    if (waiting.length >= GATHERED_MAX) flush();
  };
  let soon = false;
  let later = false;
  return {
    write(line) {
      if (!soon) {
        soon = true;
        setImmediate(() => {
          soon = false;
          flush();
        });
      }
      add(line);
    },
    gather(line) {
      if (!later) {
        later = true;
        deps.clock.after(GATHERED_MS, () => {
          later = false;
          flush();
        });
      }
      add(line);
    },
    end() {
      const unsent = underway === null ? [] : [underway.subarray(underway.length - deps.output.unsentBytes())];
      if (lost > 0) waiting += deps.lost(lost);
      lost = 0;
      underway = null;
      writeAll(Buffer.concat([...unsent, Buffer.from(waiting)]), deps);
      waiting = '';
    },
  };
}

function writeAll(bytes: Buffer, { output, pause }: LinesDeps): void {
  let waitedMs = 0;
  for (let at = 0; at < bytes.length && waitedMs < EXIT_WAIT_MS; ) {
    const taken = takenOf(bytes.subarray(at), output);
    if (taken === null) return;
    at += taken;
    waitedMs = taken > 0 ? 0 : waitedMs + EXIT_PAUSE_MS;
    if (taken === 0) pause(EXIT_PAUSE_MS);
  }
}

/** Null: nobody will read it. */
function takenOf(bytes: Buffer, output: Output): number | null {
  try {
    return output.writeSync(bytes);
  } catch (thrown) {
    return thrown instanceof Error && 'code' in thrown && thrown.code === 'EAGAIN' ? 0 : null;
  }
}

/**
 * One for all logs of the process. pino's own destination blocks for ever at exit if nobody reads the output any more
 * (sonic-boom's flush).
 */
export function standardOutput(): StandardOutput {
  opened ??= openStandardOutput();
  return opened;
}

/** How much may wait for a slow reader. There is no limit until the configuration is read. */
export function limitStandardOutput(waitingMaxBytes: number): void {
  limit = waitingMaxBytes;
}

let opened: StandardOutput | undefined;
let limit = Number.POSITIVE_INFINITY;

function openStandardOutput(): StandardOutput {
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
    pause: (ms) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
  });
  // Unless the process is killed.
  process.once('exit', () => lines.end());
  return lines;
}

function lostLine(count: number): string {
  const msg = `lines of the log were lost, as nobody read them in time: ${count}`;
  return `${JSON.stringify({ level: 'warn', time: new Date(systemClock.now()).toISOString(), pid: process.pid, msg })}\n`;
}
