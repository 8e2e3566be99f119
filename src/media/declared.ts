/**
 * The type that a client declares for the bytes that it uploads (RFC 9110 8.3), and
 * whether it says anything.
 */
import { canonicalType, essenceOf } from './types.js';

export type Declared =
  /** No type, or one that says nothing about the bytes. */
  | { readonly kind: 'none' }
  /** `image/*`: one of many types. */
  | { readonly kind: 'range'; readonly name: string; readonly prefix: string }
  /** A type in its canonical name. */
  | { readonly kind: 'type'; readonly type: string }
  | { readonly kind: 'malformed' };

const SAYS_NOTHING: ReadonlySet<string> = new Set([
  'application/octet-stream',
  'binary/octet-stream',
  'application/x-www-form-urlencoded',
  'application/*',
  '*/*',
]);

export function readDeclared(contentType: string | undefined): Declared {
  if (contentType === undefined || contentType.trim() === '') return { kind: 'none' };
  // Pickers of phones give the kind alone, and apps pass it on.
  const alone = /^\s*(image|audio|video|text)\s*$/i.exec(contentType)?.[1];
  const essence = essenceOf(alone === undefined ? contentType : `${alone}/*`);
  if (essence === undefined) return { kind: 'malformed' };
  if (SAYS_NOTHING.has(essence)) return { kind: 'none' };
  if (essence.endsWith('/*')) return { kind: 'range', name: essence, prefix: essence.slice(0, -1) };
  return { kind: 'type', type: canonicalType(essence) };
}
