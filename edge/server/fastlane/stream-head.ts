/**
 * Reads the head of a plain request from the fields of an HTTP/2 stream, as
 * nghttp2 has decoded them. Plain means the same as on a connection: GET or HEAD,
 * a target in origin form, no field twice, no body. A cookie in several lines is
 * plain (RFC 9113 8.2.3).
 *
 * Promises to accept nothing that the inspection of HTTP/2 (src/server/hygiene.ts)
 * would refuse or read differently. Every other head is left to it. Pure.
 */
import { HOST, isOriginForm } from '../../../src/http/head.js';
import { FIELD_OVERHEAD_BYTES, type InspectionLimits } from '../../../src/server/hygiene.js';
import { type Fields, NOT_PLAIN, TOKEN, VALUE } from './head.js';

export interface StreamHead {
  readonly method: 'GET' | 'HEAD';
  readonly target: string;
  readonly fields: Fields;
}

/** The fields of a request as received, and as read. A client mostly sends the same again. */
interface Known {
  readonly raw: readonly string[];
  readonly fields: Fields;
  /** By the measure of RFC 9113 6.5.2. */
  readonly sizeBytes: number;
}

/**
 * Returns what reads the heads of one session, names and values in turn; undefined
 * for a head that is not plain. Requests with the same fields get one object.
 */
export function createStreamHeads(limits: InspectionLimits): (raw: readonly string[]) => StreamHead | undefined {
  let known: Known | undefined;
  return (raw) => {
    const method = fieldOf(raw, ':method');
    const target = fieldOf(raw, ':path');
    if ((method !== 'GET' && method !== 'HEAD') || target === undefined) return undefined;
    if (target.length > limits.targetMaxBytes || !isOriginForm(target)) return undefined;
    if (known === undefined || !isSame(known.raw, raw)) {
      const read = readFields(raw, limits.headersMaxCount);
      if (read === undefined) return undefined;
      known = read;
    }
    const { fields, sizeBytes } = known;
    return sizeBytes + method.length + target.length <= limits.headersMaxBytes ? { method, target, fields } : undefined;
  };
}

function fieldOf(raw: readonly string[], name: string): string | undefined {
  for (let at = 0; at < raw.length; at += 2) if (raw[at] === name) return raw[at + 1];
  return undefined;
}

/** Whether all fields are the same but for method and path, which are not among the fields that were read. */
function isSame(before: readonly string[], raw: readonly string[]): boolean {
  if (before.length !== raw.length) return false;
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at];
    if (name !== before[at]) return false;
    if (raw[at + 1] !== before[at + 1] && name !== ':path' && name !== ':method') return false;
  }
  return true;
}

/** As a request of HTTP/1.1 has them, with `:authority` as Host (RFC 9113 8.3.1). Undefined if one is not plain. */
function readFields(raw: readonly string[], countMax: number): Known | undefined {
  const values = new Map<string, string>();
  const authority = fieldOf(raw, ':authority');
  if (authority === undefined || !HOST.test(authority)) return undefined;
  values.set('host', authority);
  const cookies: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [name = '', value = ''] = [raw[at], raw[at + 1]];
    if (PSEUDO_FIELDS.has(name) || (name === 'host' && value === authority)) continue;
    if (!isPlain(name, value) || values.has(name)) return undefined;
    if (name === 'cookie') cookies.push(value);
    else values.set(name, value);
  }
  if (cookies.length > 0) values.set('cookie', cookies.join('; '));
  if (values.size > countMax) return undefined;
  const lines = [...values];
  const sizeBytes = lines.reduce((sum, [name, value]) => sum + name.length + value.length + FIELD_OVERHEAD_BYTES, 0);
  return { raw, fields: { text: '', lines, values, last: false }, sizeBytes };
}

function isPlain(name: string, value: string): boolean {
  return (
    TOKEN.test(name) && VALUE.test(value) && value.trim() === value && !NOT_PLAIN.has(name) && name !== 'connection'
  );
}

const PSEUDO_FIELDS: ReadonlySet<string> = new Set([':method', ':scheme', ':path', ':authority']);
