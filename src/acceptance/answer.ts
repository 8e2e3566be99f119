/**
 * An answer with what was expected of it. Each expectation that does not hold throws a Broken, which says what was sent,
 * what was expected and what came, with tokens and signatures left out.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Received, Sent } from './client.js';

/** A promise that was not kept. */
export class Broken extends Error {
  override readonly name = 'Broken';
  readonly expected: string;
  readonly sent: readonly string[];
  readonly got: readonly string[];

  constructor(expected: string, sent: readonly string[], got: readonly string[]) {
    super(expected);
    this.expected = expected;
    this.sent = sent;
    this.got = got;
  }
}

/** A promise that this run cannot try. */
export class NotTried extends Error {
  override readonly name = 'NotTried';
}

/** What the body of a refusal never contains. */
const INTERNAL =
  /^\s+at \S|node_modules|\bnode:|\bfile:\/\/|\/(?:home|usr|var|srv|opt|root|tmp)\/|\b\d{1,3}(?:\.\d{1,3}){3}\b/m;
const LINES_MAX = 30;
const BODY_SHOWN_MAX = 400;

export class Answer {
  readonly sent: Sent;
  readonly got: Received;

  constructor(sent: Sent, got: Received) {
    this.sent = sent;
    this.got = got;
  }

  get status(): number {
    return this.got.status;
  }

  get body(): Buffer {
    return this.got.body;
  }

  field(name: string): string | undefined {
    return this.got.fields[name];
  }

  is(...statuses: readonly number[]): this {
    return this.holds(`status ${statuses.join(' or ')}`, statuses.includes(this.status));
  }

  /** A refusal in its whole form (RFC 9457). A HEAD has only the fields of it. */
  refuses(status: number, ...codes: readonly string[]): this {
    this.is(status)
      .has('content-type', /^application\/problem\+json\b/)
      .has('cache-control', /\bno-store\b/);
    if (status === 401) this.has('www-authenticate', /^Bearer\b/);
    if (this.sent.method === 'HEAD') return this;
    const problem = this.json;
    for (const name of ['type', 'title', 'detail', 'code']) {
      this.holds(`a problem document with the text "${name}"`, typeof problem[name] === 'string');
    }
    this.equals('"status" of the problem document', problem['status'], status);
    this.holds('nothing internal in the refusal', !INTERNAL.test(this.body.toString()));
    if (codes.length > 0) this.holds(`code ${codes.join(' or ')}`, codes.includes(String(problem['code'])));
    return this;
  }

  has(name: string, expected: string | RegExp = /./): this {
    const value = this.field(name);
    const fits = value !== undefined && (typeof expected === 'string' ? value === expected : expected.test(value));
    return this.holds(
      `field ${name}${typeof expected === 'string' ? `: ${expected}` : ` like ${String(expected)}`}`,
      fits,
    );
  }

  lacks(name: string): this {
    return this.holds(`no field ${name}`, this.field(name) === undefined);
  }

  equals(what: string, actual: unknown, expected: unknown): this {
    if (isDeepStrictEqual(actual, expected)) return this;
    return this.holds(`${what} is ${shown(expected)}, not ${shown(actual)}`, false);
  }

  holds(expected: string, condition: boolean): this {
    if (!condition) throw new Broken(expected, sentLines(this.sent), gotLines(this.got));
    return this;
  }

  get json(): Readonly<Record<string, unknown>> {
    try {
      const document: unknown = JSON.parse(this.body.toString());
      if (typeof document === 'object' && document !== null) return document as Readonly<Record<string, unknown>>;
    } catch {
      // Said below.
    }
    throw new Broken('a JSON object', sentLines(this.sent), gotLines(this.got));
  }

  text(name: string): string {
    const value = this.json[name];
    this.holds(`"${name}" as a text`, typeof value === 'string');
    return String(value);
  }
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return redact(text.length > BODY_SHOWN_MAX ? `${text.slice(0, BODY_SHOWN_MAX)}…` : text);
}

export function sentLines({ method, url, fields, body }: Sent): readonly string[] {
  const { pathname, search, host } = new URL(url);
  return [
    redact(`${method} ${pathname}${search}   (to ${host})`),
    ...Object.entries(fields).map(([name, value]) => redact(`${name}: ${value}`)),
    ...(body === undefined ? [] : [bodyLine(body)]),
  ];
}

function gotLines({ status, fields, body }: Received): readonly string[] {
  const lines = Object.entries(fields).map(([name, value]) => redact(`${name}: ${value}`));
  return [String(status), ...lines.slice(0, LINES_MAX), ...(body.length === 0 ? [] : [bodyLine(body)])];
}

function bodyLine(body: Buffer): string {
  const text = body.subarray(0, BODY_SHOWN_MAX).toString('utf8');
  const readable = !/[\uFFFD\p{Cc}]/u.test(text.replace(/[\r\n\t]/g, ' '));
  return readable
    ? redact(`${text.replace(/\s+/g, ' ')}${body.length > BODY_SHOWN_MAX ? '…' : ''}`)
    : `(${body.length} bytes)`;
}

/** Leaves out what opens something: tokens, signatures, upload links. */
export function redact(text: string): string {
  return text
    .replace(/(\bauthorization: \S+) .*/i, '$1 [redacted]')
    .replace(/\beyJ[\w-]*\.[\w-]*\.[\w-]*/g, '[redacted]')
    .replace(/([?&](?:sig|upload)=)[^&\s"]+/g, '$1[redacted]');
}
