/**
 * Has a virus scanner check each upload before it becomes visible, if configured:
 * a command of the operator, or clamd over its socket.
 *
 * Promises: a verdict within the time limit, and never more scans at once than
 * configured. If the scanner does not answer, the configured policy gives the
 * verdict. The caller acts on the verdict.
 */
import { open } from 'node:fs/promises';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { addAbortSignal, Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Clock, withDeadline } from '../../src/clock.js';
import { choice, duration, integer, list, section, size, text, type ValueOf } from '../../src/config/field.js';
import type { ConfigFault } from '../../src/config/load.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import { createSlots } from '../../src/slots.js';
import type { Launcher } from '../thumbs/render/launcher.js';
import { runProgram } from '../thumbs/render/program.js';

export const scanSection = section('A virus scanner that checks each upload before it becomes visible.', {
  by: choice({
    default: 'off',
    of: ['off', 'command', 'clamd'],
    help: 'Who scans: nobody, a command, or clamd (or another server with its INSTREAM command).',
  }),
  command: list({
    default: [],
    of: text({ default: '', help: '' }),
    max: 64,
    help: 'Program and arguments; {file} is replaced by the path. Exit code 0 means clean, 1 infected, any other no answer.',
  }),
  address: text({
    default: 'unix:/run/clamav/clamd.ctl',
    pattern: /^(?:unix:\/.+|tcp:[^:]+:\d{1,5})$/,
    accepts: 'unix:/PATH or tcp:HOST:PORT',
    help: 'The address of clamd.',
  }),
  timeLimitMs: duration({
    default: '30s',
    min: 10,
    help: 'Longest time of one scan, including the wait for its turn.',
  }),
  memoryMaxBytes: size({ default: '4GiB', min: 2 ** 26, help: 'Most memory of one run of the command.' }),
  scansMax: integer({ default: 4, min: 1, max: 1_000, help: 'Most scans at once.' }),
  whenAway: choice({
    default: 'hold',
    of: ['hold', 'admit'],
    help: 'If the scanner does not answer: `hold` stores the upload but withholds it until it is scanned, `admit` accepts it unscanned.',
  }),
  retryMs: duration({
    default: '30s',
    min: 100,
    help: 'Time until a withheld upload is scanned again; it doubles with each try without an answer.',
  }),
  retryMaxMs: duration({ default: '10m', min: 100, help: 'Longest time between two such tries.' }),
});

export type ScanConfig = ValueOf<typeof scanSection>;

export function scanFaults(config: ScanConfig): readonly ConfigFault[] {
  if (config.by !== 'command' || config.command.some((word) => word.includes('{file}'))) return [];
  return [{ path: 'command', message: 'must name a program and have {file} among its arguments' }];
}

export type ScanVerdict =
  | { readonly kind: 'admit' }
  /** `reason`: the scanner's name for what it found, without control characters, cut to a maximum length. */
  | { readonly kind: 'quarantine'; readonly reason: string }
  /** The scanner does not answer. The upload is withheld until it does. */
  | { readonly kind: 'await_scan' };

export interface Scanner {
  /** Rejects only if `signal` aborts. */
  scan(path: string, signal: AbortSignal): Promise<ScanVerdict>;
}

type ScanAnswer =
  | { readonly kind: 'clean' }
  | { readonly kind: 'infected'; readonly reason: string }
  | { readonly kind: 'none'; readonly detail: string };

export interface ScannerDeps {
  readonly config: ScanConfig;
  readonly launcher: Launcher;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export function createScanner({ config, launcher, clock, log, metrics }: ScannerDeps): Scanner {
  if (config.by === 'off') return { scan: async () => ({ kind: 'admit' }) };
  const slots = createSlots(config.scansMax);
  const scans = metrics.counter('scans_total', 'Scans of uploads, by the answer of the scanner.', ['answer']);

  async function runScan(path: string, signal: AbortSignal): Promise<ScanAnswer> {
    const release = await slots.take(signal);
    try {
      if (config.by === 'clamd') return await askClamd(path, config, signal);
      return await runCommand(launcher, path, config, clock, signal);
    } finally {
      release();
    }
  }

  async function answerFor(path: string, signal: AbortSignal): Promise<ScanAnswer> {
    const late = (): Error => new Error('the scanner took too long');
    try {
      return await withDeadline({ clock, ms: config.timeLimitMs, late, signal }, (ended) => runScan(path, ended));
    } catch (thrown) {
      signal.throwIfAborted();
      return { kind: 'none', detail: String(errorFields(thrown)['error']) };
    }
  }

  return {
    async scan(path, signal) {
      const answer = await answerFor(path, signal);
      scans.add(1, { answer: answer.kind });
      switch (answer.kind) {
        case 'clean':
          return { kind: 'admit' };
        case 'infected':
          return { kind: 'quarantine', reason: answer.reason };
        case 'none':
          log.warn({ detail: answer.detail, policy: config.whenAway }, 'the scanner did not answer');
          return { kind: config.whenAway === 'hold' ? 'await_scan' : 'admit' };
      }
    },
  };
}

const CLEAN_EXIT = 0;
const INFECTED_EXIT = 1;

async function runCommand(
  launcher: Launcher,
  path: string,
  config: ScanConfig,
  clock: Clock,
  signal: AbortSignal,
): Promise<ScanAnswer> {
  const [program = '', ...args] = config.command.map((word) => word.replaceAll('{file}', path));
  const { timeLimitMs, memoryMaxBytes } = config;
  // Several threads use processor time faster than time passes.
  const limits = { timeLimitMs, cpuLimitMs: timeLimitMs * 4, memoryMaxBytes, fileMaxBytes: memoryMaxBytes };
  const ended = await runProgram(
    launcher,
    { command: { program, args }, limits, folder: dirname(path), network: 'shared' },
    clock,
    signal,
  );
  if (ended.kind !== 'ended') return { kind: 'none', detail: `the command is ${ended.kind}` };
  if (ended.code === CLEAN_EXIT) return { kind: 'clean' };
  if (ended.code === INFECTED_EXIT) return { kind: 'infected', reason: reasonOf(ended.output, path) };
  return { kind: 'none', detail: `exit code ${ended.code}: ${cleaned(ended.stderr)}` };
}

/** The first line of the output, without the path of the file, which must not be shown. */
function reasonOf(output: string, path: string): string {
  const line = output.replaceAll(path, '').trim().split('\n', 1)[0] ?? '';
  return cleaned(line.replace(/^[\s:]+/, '').replace(/\s+FOUND$/, '')) || 'infected';
}

const REASON_CHARS_MAX = 200;

function cleaned(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, REASON_CHARS_MAX);
}

const CHUNK_BYTES = 64 * 1_024;
const REPLY_BYTES_MAX = 4_096;

/** INSTREAM of clamd(8): chunks with their length in front, one of length 0 at the end; then one line as the answer. */
async function askClamd(path: string, config: ScanConfig, signal: AbortSignal): Promise<ScanAnswer> {
  const socket = addAbortSignal(signal, connect(addressOptions(config.address)));
  const answer = readReply(socket);
  const sent = pipeline(Readable.from(framed(path)), socket, { end: false }).catch((thrown: unknown) => {
    socket.destroy(thrown instanceof Error ? thrown : undefined);
  });
  try {
    return readVerdict(await answer);
  } finally {
    socket.destroy();
    await sent;
  }
}

function addressOptions(address: string): NetConnectOpts {
  if (address.startsWith('unix:')) return { path: address.slice('unix:'.length) };
  const [, host = '', port = ''] = address.split(':');
  return { host, port: Number(port) };
}

async function* framed(path: string): AsyncGenerator<Buffer> {
  yield Buffer.from('zINSTREAM\0', 'latin1');
  const file = await open(path);
  for await (const chunk of file.createReadStream({ highWaterMark: CHUNK_BYTES }) as AsyncIterable<Buffer>) {
    yield lengthOf(chunk.length);
    yield chunk;
  }
  yield lengthOf(0);
}

function lengthOf(bytes: number): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes);
  return length;
}

function readReply(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let reply = '';
    socket.setEncoding('latin1').on('data', (text: string) => {
      reply += text;
      if (/[\0\n]/.test(reply)) resolve(reply.split(/[\0\n]/, 1)[0] ?? '');
      else if (reply.length > REPLY_BYTES_MAX) reject(new Error('the answer of the scanner is too long'));
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('the scanner closed the connection')));
  });
}

/** `stream: OK`, `stream: NAME FOUND`, `… ERROR`. */
function readVerdict(reply: string): ScanAnswer {
  if (reply.endsWith(': OK')) return { kind: 'clean' };
  const found = /^[^:]*: (.+) FOUND$/.exec(reply)?.[1];
  return found === undefined ? { kind: 'none', detail: cleaned(reply) } : { kind: 'infected', reason: cleaned(found) };
}
