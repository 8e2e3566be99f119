/** The outbox (outbox.ts) in ordered tables. */
import type { EpochMs } from '../../../src/clock.js';
import { type Change, readOrSkip } from '../database.js';
import {
  before,
  type Key,
  OUTBOX,
  type Reader,
  read,
  startingWith,
  targets,
  until,
  type Writer,
  write,
} from '../tables.js';
import type { MediaEvent, Outbox, OutboxEvent } from './outbox.js';

type Run = <T>(body: (change: Change) => T) => Promise<T>;

/** Adds the events of a transaction to it. */
export function keepEvents(writer: Writer, events: readonly MediaEvent[]): void {
  for (const event of events) {
    const turn = Math.max(event.at, lastTurn(writer, event) + 1);
    const waits = { turn, since: event.at, readyAt: event.at, attempts: 0, fault: null, diedAt: null };
    write(writer, OUTBOX, event.name, { ...event, ...waits });
  }
}

export function createOutbox(reader: Reader, run: Run): Outbox {
  const change = (name: string, next: (event: OutboxEvent, writer: Writer) => OutboxEvent | undefined): Promise<void> =>
    run(({ writer }) => {
      const event = read(writer, OUTBOX, name);
      if (event?.diedAt === null) write(writer, OUTBOX, name, next(event, writer));
    });
  return {
    due: async (now, limit) => dueEvents(reader, now, limit),
    sent: (name) => change(name, () => undefined),
    failed: (name, fault, readyAt) =>
      change(name, (event, writer) => {
        for (const other of waitingOf(writer, event)) {
          if (other.name === name) continue;
          write(writer, OUTBOX, other.name, { ...other, readyAt: Math.max(other.readyAt, readyAt) });
        }
        return { ...event, attempts: event.attempts + 1, fault, readyAt };
      }),
    bury: (name, fault, now) =>
      change(name, (event) => ({ ...event, attempts: event.attempts + 1, fault, diedAt: now })),
    async dead(limit) {
      const names = [...targets<string>(reader, 'hook_dead', { reverse: true, limit })];
      return eventsOf(reader, names);
    },
    revive: (limit, now) =>
      run(({ writer }) => {
        const events = eventsOf(writer, [...targets<string>(writer, 'hook_dead', { limit })]);
        const waits = { since: now, readyAt: now, attempts: 0, diedAt: null };
        for (const event of events) write(writer, OUTBOX, event.name, { ...event, ...waits });
        return events.length;
      }),
    async forget(diedBefore, limit) {
      const span = { ...before(diedBefore), limit };
      if ([...reader.range('hook_dead', { ...span, limit: 1 })].length === 0) return 0;
      return run(({ writer }) => {
        const events = eventsOf(writer, [...targets<string>(writer, 'hook_dead', span)]);
        for (const { name } of events) write(writer, OUTBOX, name, undefined);
        return events.length;
      });
    },
    async counts() {
      const dead = reader.count('hook_dead');
      const [oldest] = reader.range('hook_since', { limit: 1 });
      return {
        waiting: reader.count(OUTBOX.name) - dead,
        dead,
        oldestSince: oldest === undefined ? null : instantIn(oldest.key),
      };
    },
  };
}

function dueEvents(reader: Reader, now: EpochMs, limit: number): readonly OutboxEvent[] {
  const due: OutboxEvent[] = [];
  for (const name of targets<string>(reader, 'hook_ready', until(now))) {
    if (due.length >= limit) break;
    const event = readOrSkip(reader, OUTBOX, name, []);
    if (event !== undefined && waitingOf(reader, event, 1)[0]?.name === name) due.push(event);
  }
  return due;
}

/** The waiting events of the same id, in their order. */
function waitingOf(reader: Reader, { id }: MediaEvent, limit?: number): readonly OutboxEvent[] {
  const names = [
    ...targets<string>(reader, 'hook_media', { ...startingWith(id), ...(limit !== undefined && { limit }) }),
  ];
  return eventsOf(reader, names);
}

function lastTurn(reader: Reader, event: MediaEvent): number {
  return waitingOf(reader, event).at(-1)?.turn ?? 0;
}

/** Without those that cannot be read, which fsck moves aside. */
function eventsOf(reader: Reader, names: readonly string[]): readonly OutboxEvent[] {
  return names.map((name) => readOrSkip(reader, OUTBOX, name, [])).filter((event) => event !== undefined);
}

function instantIn(key: Key): EpochMs {
  return typeof key === 'object' ? Number(key[0]) : Number.NaN;
}
