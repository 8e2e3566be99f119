/**
 * Structured fields (RFC 9651) as plain values. A field that does not parse is
 * undefined as a whole: RFC 9651 4.2 forbids using a part of it.
 */
import { parseDictionary, Token } from 'structured-headers';

export type StructuredValue =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'token'; readonly text: string }
  | { readonly kind: 'number'; readonly value: number }
  | { readonly kind: 'boolean'; readonly value: boolean }
  /** An inner list, a date or a display string, which we do not use. */
  | { readonly kind: 'other' };

/** The members of a dictionary by key, without their parameters. */
export function readDictionary(field: string): ReadonlyMap<string, StructuredValue> | undefined {
  try {
    const members = [...parseDictionary(field)];
    return new Map(members.map(([key, [value]]) => [key, plain(value)]));
  } catch {
    return undefined;
  }
}

function plain(value: unknown): StructuredValue {
  if (value instanceof ArrayBuffer) return { kind: 'bytes', bytes: Buffer.from(value) };
  if (ArrayBuffer.isView(value)) {
    return { kind: 'bytes', bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength) };
  }
  if (value instanceof Token) return { kind: 'token', text: value.toString() };
  if (typeof value === 'string') return { kind: 'text', text: value };
  if (typeof value === 'number') return { kind: 'number', value };
  if (typeof value === 'boolean') return { kind: 'boolean', value };
  return { kind: 'other' };
}
