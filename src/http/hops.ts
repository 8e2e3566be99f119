/**
 * What belongs to one connection and goes no further (RFC 9110 7.6.1), and the
 * trace that every intermediary leaves (7.6.3).
 */
import type { HeaderList } from './reply.js';

const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** The fields that may be forwarded: none of one connection alone, none that Connection names. Names are lower case. */
export function endToEnd(fields: HeaderList): HeaderList {
  const named = new Set(
    fields
      .filter(([name]) => name === 'connection')
      .flatMap(([, value]) => value.split(','))
      .map((option) => option.trim().toLowerCase()),
  );
  return fields.filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name));
}

/** Node's flat list of names and values as fields with lower-case names. */
export function fieldsOf(rawHeaders: readonly string[]): HeaderList {
  const fields: [string, string][] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    fields.push([(rawHeaders[at] ?? '').toLowerCase(), rawHeaders[at + 1] ?? '']);
  }
  return fields;
}

/** The value of Via once a message received with `version` has passed `name`. */
export function via(before: string | undefined, version: string, name: string): string {
  const own = `${version} ${/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) ? name : 'edge'}`;
  return before === undefined || before === '' ? own : `${before}, ${own}`;
}
