/**
 * Lines of a log on their way to an output. Lines of one turn of the event loop are written together, so that a line for
 * every request does not cost a system call each. An output that is slow, stuck (a pipe) or fails (a full disk) costs
 * memory up to a limit and then lines, never the service; how many lines were lost is counted, and said as soon as the
 * output takes some again. At the end of the process what waits is written at once, unless nobody reads.
 */
import type { Clock } from '../clock.js';

/** Where lines go. Several whole lines may be given as one. */
export type LineSink = {
  write(line: string): void;
  /** For frequent lines: they are written with the next other line, or a moment later. */
  gather(line: string): void;
};

export type Output = {
  /** `error`: the lines of the chunk are lost. */
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
  /** What is written once lines were lost; empty: it is told elsewhere. */
  readonly lost: (count: number) => string;
  /** Blocks the thread, in ms. */
  readonly pause: (ms: number) => void;
};

export type Lines = LineSink & {
  /** How many lines were lost since the start. */
  readonly lost: number;
  /** Resolves when all lines of before have been written or are lost. */
  flush(): Promise<void>;
  /** Writes what waits before it returns. Gives up once the reader has taken nothing for `EXIT_WAIT_MS`. */
  end(): void;
};

/** This much is written before the turn ends. */
const GATHERED_MAX = 65_536;
const GATHERED_MS = 20;
const EXIT_WAIT_MS = 5_000;
const EXIT_PAUSE_MS = 5;

/** What could not be written is tried again after this time, if nothing else is written before. */
const RETRY_MS = 1_000;

/** One chunk at a time is given to `output`, so that its unsent bytes are the end of that chunk. */
export function createLines(deps: LinesDeps): Lines {
  let waiting = '';
  let underway: Buffer | null = null;
  let lostInAll = 0;
  /** Lost, and not told yet. */
  let untold = 0;
  /** Lost, and told of in the lines that wait, or in those under way. */
  const told = { waiting: 0, underway: 0 };
  let flushed: (() => void)[] = [];

  const lose = (count: number): void => {
    lostInAll += count;
    untold += count;
  };
  const tell = (): void => {
    const line = untold === 0 ? '' : deps.lost(untold);
    waiting += line;
    if (line !== '') told.waiting += untold;
    untold = 0;
  };
  const flush = (): void => {
    if (underway !== null) return;
    if (waiting === '') {
      for (const done of flushed) done();
      flushed = [];
      return;
    }
    const chunk = Buffer.from(waiting);
    underway = chunk;
    waiting = '';
    told.underway = told.waiting;
    told.waiting = 0;
    deps.output.write(chunk, (error) => {
      underway = null;
      if ((error ?? null) === null) {
        tell();
        flush();
        return;
      }
      // The line that tells of lost lines is lost too, and is told again.
      lose(countLines(chunk) - (told.underway > 0 ? 1 : 0));
      untold += told.underway;
      if (waiting === '') tell();
      deps.clock.after(RETRY_MS, flush);
      for (const done of flushed) done();
      flushed = [];
    });
  };
  const add = (line: string): void => {
    if (waiting.length + line.length > deps.waitingMaxBytes()) {
      lose(countLines(line));
      return;
    }
    waiting += line;
    if (waiting.length >= GATHERED_MAX) flush();
  };
  let soon = false;
  let later = false;
  return {
    get lost() {
      return lostInAll;
    },
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
    flush() {
      return new Promise((resolve) => {
        flushed.push(resolve);
        flush();
      });
    },
    end() {
      const unsent = underway === null ? [] : [underway.subarray(underway.length - deps.output.unsentBytes())];
      tell();
      underway = null;
      writeAll(Buffer.concat([...unsent, Buffer.from(waiting)]), deps);
      waiting = '';
    },
  };
}

const NEWLINE = 10;

function countLines(text: string | Buffer): number {
  let count = 0;
  for (const byte of typeof text === 'string' ? Buffer.from(text) : text) if (byte === NEWLINE) count += 1;
  return count;
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
