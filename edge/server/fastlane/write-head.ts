/**
 * Writes the head of a Reply for HTTP/1.1 and decides how its body is framed.
 * Fields that many answers share are encoded once, with those of the connection.
 */
import { STATUS_CODES } from 'node:http';
import type { Clock } from '../../../src/clock.js';
import { formatHttpDate } from '../../../src/http/date.js';
import type { HeaderList, Reply } from '../../../src/http/reply.js';
import { hasContent, lengthOf } from '../../../src/server/send.js';

export interface WrittenHead {
  /** The status line and the fields that other answers share. */
  readonly shared: Uint8Array;
  /** The rest of the head, one character for each byte. */
  readonly own: string;
  readonly sizeBytes: number;
  readonly framing: Framing;
}

/** RFC 9112 6. */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly sizeBytes: number }
  | { readonly kind: 'chunked' };

const NONE: Framing = { kind: 'none' };
const CHUNKED: Framing = { kind: 'chunked' };

export interface HeadWriter {
  /** `last`: the connection ends after this answer. Throws if a field value may not be sent. */
  write(reply: Reply, method: string, last: boolean): WrittenHead;
  /** An interim response (RFC 9110 15.2). */
  interim(status: number, headers: HeaderList): string;
}

/** At most twice as many lists are kept in their encoded form, which takes one to two kilobytes. */
const WRITTEN_MAX = 2_048;

export function createHeadWriter(clock: Pick<Clock, 'now'>, idleMs: number): HeadWriter {
  const kept = `connection: keep-alive\r\nkeep-alive: timeout=${Math.floor(idleMs / 1_000)}\r\n`;
  /** Those that were written last, and those before them. */
  let [written, before] = [new WeakMap<HeaderList, Shared>(), new WeakMap<HeaderList, Shared>()];
  let writtenCount = 0;
  let dateAt = 0;
  let dateLine = '';

  /** RFC 9110 6.6.1: the Date of an answer that has none. */
  function date(): string {
    const now = clock.now();
    if (Math.floor(now / 1_000) !== dateAt) {
      dateAt = Math.floor(now / 1_000);
      dateLine = `date: ${formatHttpDate(now)}\r\n`;
    }
    return dateLine;
  }

  /** Encodes a list that many answers share once, unless there are very many of them. A list nearly always goes with the same status. */
  function sharedOf(headers: HeaderList, status: number): Shared {
    const known = written.get(headers);
    if (known?.status === status) return known;
    const older = before.get(headers);
    const made = older?.status === status ? older : encode(headers, status, kept);
    if (writtenCount >= WRITTEN_MAX) {
      [written, before] = [new WeakMap(), written];
      writtenCount = 0;
    }
    written.set(headers, made);
    writtenCount += 1;
    return made;
  }

  return {
    interim: (status, headers) => `${statusLine(status)}${readOwn(headers).lines}\r\n`,
    write(reply, method, last) {
      const { status, leading, headers } = reply;
      const shared = sharedOf(leading ?? NOTHING, status);
      const own = readOwn(headers);
      const stated = own.sizeBytes ?? shared.sizeBytes;
      const sizeBytes = stated ?? lengthOf(reply);
      const framing = framingOf(reply, method, sizeBytes);
      const length = stated === null && sizeBytes !== null ? `content-length: ${sizeBytes}\r\n` : '';
      const coding = framing.kind === 'chunked' ? 'transfer-encoding: chunked\r\n' : '';
      const dated = shared.dated || own.dated ? '' : date();
      const text = `${own.lines}${length}${coding}${dated}${last ? 'connection: close\r\n' : leading === undefined ? kept : ''}\r\n`;
      const start = last || leading === undefined ? shared.bytes : shared.kept;
      return { shared: start, own: text, sizeBytes: start.length + text.length, framing };
    },
  };
}

function framingOf({ status, body }: Reply, method: string, sizeBytes: number | null): Framing {
  if (!hasContent(status, method) || body.kind === 'none') return NONE;
  return sizeBytes === null ? CHUNKED : { kind: 'length', sizeBytes };
}

interface Shared {
  readonly status: number;
  readonly bytes: Uint8Array;
  /** The same, and the fields of a connection that stays open. */
  readonly kept: Uint8Array;
  /** Whether there is a Date field. */
  readonly dated: boolean;
  /** The value of Content-Length, or null. */
  readonly sizeBytes: number | null;
}

const NOTHING: HeaderList = [];

function encode(headers: HeaderList, status: number, connection: string): Shared {
  const { lines, dated, sizeBytes } = readOwn(headers);
  const kept = Buffer.from(`${statusLine(status)}${lines}${connection}`, 'latin1');
  return { status, bytes: kept.subarray(0, kept.length - connection.length), kept, dated, sizeBytes };
}

interface Lines {
  readonly lines: string;
  readonly dated: boolean;
  readonly sizeBytes: number | null;
}

function readOwn(headers: HeaderList): Lines {
  let [lines, dated, sizeBytes]: [string, boolean, number | null] = ['', false, null];
  for (const [name, value] of headers) {
    lines += lineOf(name, value);
    if (name === 'date') dated = true;
    else if (name === 'content-length') sizeBytes ??= Number(value);
  }
  return { lines, dated, sizeBytes };
}

/** A line break in a value would begin another field or another response. */
const UNWRITABLE = /[^\t\x20-\x7e\x80-\xff]/;

function lineOf(name: string, value: string): string {
  if (UNWRITABLE.test(value)) throw new Error(`the field ${name} has a value that cannot be sent`);
  return `${name}: ${value}\r\n`;
}

function statusLine(status: number): string {
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Unknown'}\r\n`;
}
