/**
 * `media-service explain`, `top`, `log` and `purge`: ask the running edge through its
 * operators' listener, and print what it says.
 */
import { keepAlive, sleep, withDeadline } from '../../src/clock.js';
import { type MediaId, parseMediaId } from '../../src/ids.js';
import type { ChoreTools } from '../../src/process.js';
import { operatorTarget } from '../../src/server/operators.js';
import type { OperatorsConfig } from './config.js';
import type { Explanation } from './explain.js';
import type { PurgeOrder } from './purge.js';
import { TOP_LISTS, type Top, type TopList, type WatchedRequest } from './watch.js';
import type { Cursor, MergedLog } from './watching.js';
import { writeCursor } from './watching-routes.js';

export interface EdgeCommand extends Pick<ChoreTools, 'clock' | 'print' | 'complain' | 'signal'> {
  readonly config: Pick<OperatorsConfig, 'host' | 'hostNames' | 'token' | 'port'>;
}

/** Exit codes: 0 done, 1 refused by the edge, 2 no edge answers. */
type ExitCode = 0 | 1 | 2;

export interface ExplainWords {
  readonly url: string;
  /** Fields as `name: value`. */
  readonly headers: readonly string[];
  readonly head: boolean;
}

export async function runExplain(command: EdgeCommand, { url, headers, head }: ExplainWords): Promise<ExitCode> {
  const pairs = headers.map((line) => /^([^:]+):\s*(.*)$/.exec(line) ?? ['', line, '']);
  const body = {
    url,
    method: head ? 'HEAD' : 'GET',
    headers: Object.fromEntries(pairs.map(([, name = '', value = '']) => [name, value])),
  };
  const answered = await ask<{ readonly explanations: readonly Explanation[] }>(command, '/explain', body);
  if (answered.kind !== 'answered') return answered.code;
  for (const { edge, target, says } of answered.value.explanations) {
    command.print(`${target} at ${edge}`);
    for (const line of says) command.print(`  ${line}`);
  }
  return 0;
}

const POLL_MS = 1_000;

/** Prints requests as they end, until it is stopped. With `seconds`, for so long. */
export async function runLog(
  command: EdgeCommand,
  filter: Readonly<Record<string, string>>,
  { seconds, json }: { readonly seconds: number | undefined; readonly json: boolean },
): Promise<ExitCode> {
  let after: Cursor = {};
  for (let polls = 0; !command.signal.aborted; polls += 1) {
    const query = new URLSearchParams({ ...filter, after: writeCursor(after) });
    const answered = await ask<MergedLog>(command, `/log?${query.toString()}`);
    if (answered.kind !== 'answered') return answered.code;
    for (const request of answered.value.requests) command.print(json ? JSON.stringify(request) : lineOf(request));
    const { skipped } = answered.value;
    if (skipped > 0) command.print(`(${skipped} requests were too many to keep)`);
    after = answered.value.after;
    if (seconds !== undefined && polls * POLL_MS >= seconds * 1_000) return 0;
    await pause(command, POLL_MS);
  }
  return 0;
}

function lineOf(request: WatchedRequest): string {
  const { time, address, method, target, status, ...rest } = request;
  const named = SHOWN.flatMap((name) => {
    const value = rest[name];
    return value === undefined ? [] : [`${name}=${String(value).replaceAll(' ', '_')}`];
  });
  return `${time} ${address} ${method} ${target} ${status} ${named.join(' ')}`;
}

/** Named as in the log. */
const SHOWN = [
  'outcome',
  'tier',
  'reason',
  'rule',
  'bytes',
  'first_byte_ms',
  'total_ms',
  'range',
  'subject',
  'request_id',
] as const satisfies readonly (keyof WatchedRequest)[];

export interface TopWords {
  /** Undefined: all. */
  readonly list: TopList | undefined;
  readonly lines: number;
  readonly seconds: number;
  readonly once: boolean;
}

/** Counts for `seconds`, prints, and goes on until it is stopped. */
export async function runTop(command: EdgeCommand, { list, lines, seconds, once }: TopWords): Promise<ExitCode> {
  // The first question starts the counting.
  const begun = await ask<Top>(command, '/top');
  if (begun.kind !== 'answered') return begun.code;
  while (!command.signal.aborted) {
    await pause(command, seconds * 1_000);
    const answered = await ask<Top>(command, '/top');
    if (answered.kind !== 'answered') return answered.code;
    for (const line of topLines(answered.value, list === undefined ? TOP_LISTS : [list], lines)) command.print(line);
    if (once) return 0;
  }
  return 0;
}

function topLines({ requests, seconds, lists }: Top, names: readonly TopList[], lines: number): readonly string[] {
  return [
    `${requests} requests in ${seconds} s`,
    ...names.flatMap((name) => [
      `${name}:`,
      ...lists[name]
        .slice(0, lines)
        .map((each) => `${String(each.requests).padStart(9)}  ${each.bytes} B  ${each.name}`),
    ]),
  ];
}

export interface PurgeWords {
  readonly ids: readonly string[];
  readonly prefix: string | undefined;
  readonly all: boolean;
}

export interface PurgeCommand extends EdgeCommand {
  readonly config: EdgeCommand['config'] & Pick<OperatorsConfig, 'orderMaxBytes'>;
}

/** Prints how far it is, at the end the number of copies that were dropped. */
export async function runPurge(command: PurgeCommand, words: PurgeWords): Promise<ExitCode> {
  const orders = ordersOf(words, command.config.orderMaxBytes);
  if (typeof orders === 'string') {
    command.print(orders);
    return 1;
  }
  let dropped = 0;
  let done = 0;
  for (const order of orders) {
    const answered = await showStored(command, (from) => purgeOnce(from, order));
    if (answered.kind !== 'answered') return answered.code;
    dropped += answered.value.dropped;
    if (order.kind === 'ids') {
      done += order.ids.length;
      if (orders.length > 1) command.print(`${done} of ${words.ids.length} ids`);
    }
  }
  command.print(`copies dropped: ${dropped}`);
  return 0;
}

/** Most ids of one order, and how many bytes each takes in it. */
const ORDER_IDS_MAX = 500;
const ID_BYTES = 29;
const ORDER_BYTES = 16;

/** The orders, or what is wrong with the words. Nothing is purged if one id is wrong. */
function ordersOf({ ids, prefix, all }: PurgeWords, orderMaxBytes: number): readonly PurgeOrder[] | string {
  if ([ids.length > 0, prefix !== undefined, all].filter(Boolean).length !== 1) {
    return 'Give exactly one of --id, --prefix and --all.';
  }
  if (all) return [{ kind: 'all' }];
  if (prefix !== undefined) return [{ kind: 'prefix', prefix }];
  const parsed: MediaId[] = [];
  for (const text of ids) {
    const id = parseMediaId(text);
    if (id === undefined) return `${text} is not a media id.`;
    parsed.push(id);
  }
  const step = Math.min(ORDER_IDS_MAX, Math.floor((orderMaxBytes - ORDER_BYTES) / ID_BYTES));
  return Array.from({ length: Math.ceil(parsed.length / step) }, (_, n) => ({
    kind: 'ids',
    ids: parsed.slice(n * step, (n + 1) * step),
  }));
}

/** A large cache on disk takes a while. */
const PURGED_WITHIN_MS = 10 * 60_000;

function purgeOnce(command: EdgeCommand, order: PurgeOrder): Promise<Asked<{ readonly dropped: number }>> {
  return ask(command, '/purge', bodyOf(order), PURGED_WITHIN_MS);
}

function bodyOf(order: PurgeOrder): object {
  switch (order.kind) {
    case 'ids':
      return { ids: order.ids };
    case 'prefix':
      return { prefix: order.prefix };
    case 'all':
      return { all: true };
  }
}

interface Stored {
  readonly cache: Readonly<Record<'memory' | 'disk', { readonly entries: number }>>;
}

/** While the work lasts, prints how many copies are left. */
async function showStored<T>(command: EdgeCommand, work: (command: EdgeCommand) => Promise<T>): Promise<T> {
  const ended = new AbortController();
  const watching = { ...command, signal: AbortSignal.any([command.signal, ended.signal]) };
  const showing = (async () => {
    for (;;) {
      await pause(watching, POLL_MS);
      if (watching.signal.aborted) return;
      const asked = await ask<Stored>(watching, '/stats');
      if (asked.kind !== 'answered') return;
      const { memory, disk } = asked.value.cache;
      command.print(`stored now: ${memory.entries} copies in memory, ${disk.entries} on disk`);
    }
  })();
  try {
    return await work(command);
  } finally {
    ended.abort();
    await showing;
  }
}

/** Ends early when the command is stopped. */
async function pause({ clock, signal }: EdgeCommand, ms: number): Promise<void> {
  const alive = keepAlive();
  await sleep(clock, ms, signal).catch(() => undefined);
  alive.release();
}

type Asked<T> = { readonly kind: 'answered'; readonly value: T } | { readonly kind: 'failed'; readonly code: 1 };

const ANSWER_WITHIN_MS = 10_000;

/** With a body it is a POST. */
async function ask<T>(
  command: EdgeCommand,
  path: string,
  body?: object,
  ms: number = ANSWER_WITHIN_MS,
): Promise<Asked<T>> {
  const { config, complain, clock, signal } = command;
  const { base, headers } = operatorTarget(config);
  const late = (): Error => new Error('the edge did not answer in time');
  const send = async (within: AbortSignal): Promise<{ readonly status: number; readonly text: string }> => {
    const answer = await fetch(base + path, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { ...headers, ...(body !== undefined && { 'content-type': 'application/json' }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: within,
    });
    return { status: answer.status, text: await answer.text() };
  };
  let answer: { readonly status: number; readonly text: string };
  try {
    answer = await withDeadline({ clock, ms, late, signal }, send);
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    throw new Error(`No edge answers at ${base}. This command needs a running edge.`, { cause: thrown });
  }
  if (answer.status === 200) return { kind: 'answered', value: JSON.parse(answer.text) as T };
  complain(`The edge at ${base} refused: ${detailIn(answer.text) ?? String(answer.status)}`);
  return { kind: 'failed', code: 1 };
}

function detailIn(text: string): string | undefined {
  try {
    const { detail } = JSON.parse(text) as { readonly detail?: unknown };
    return typeof detail === 'string' ? detail : undefined;
  } catch {
    return undefined;
  }
}
