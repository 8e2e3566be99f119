/**
 * File names. `cleanFilename` turns a name from a client into a safe one: in NFC,
 * without path, control characters and marks that change the writing direction.
 * `contentDisposition` makes the header field, with an ASCII fallback beside the
 * exact name (RFC 6266, RFC 8187). `offerAsFile` is for requests with `download=NAME` in their query.
 */
import { linesOf, type Reply } from '../http/reply.js';

/** The longest name in common file systems. */
const NAME_MAX_BYTES = 255;

/** Control characters, lone surrogates, line separators, the replacement character, marks of the writing direction. */
const UNSAFE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffd]/gu;

/** The name to store, or null if nothing of it remains. */
export function cleanFilename(text: string): string | null {
  const bare = text.split(/[/\\]/).at(-1) ?? '';
  const name = bare.replace(UNSAFE, '').normalize('NFC').trim();
  if (name === '' || /^\.+$/.test(name)) return null;
  return cutToBytes(name, NAME_MAX_BYTES);
}

/** Cuts the stem, so that a short extension remains. */
function cutToBytes(name: string, bytesMax: number): string {
  if (Buffer.byteLength(name) <= bytesMax) return name;
  const dot = name.lastIndexOf('.');
  const extension = dot > 0 && Buffer.byteLength(name.slice(dot)) <= 32 ? name.slice(dot) : '';
  let stem = '';
  let room = bytesMax - Buffer.byteLength(extension);
  for (const character of name) {
    room -= Buffer.byteLength(character);
    if (room < 0) break;
    stem += character;
  }
  return stem + extension;
}

export type Disposition = 'inline' | 'attachment';

export function contentDisposition(disposition: Disposition, filename: string): string {
  const fallback = asciiFallback(filename);
  const plain = `${disposition}; filename="${fallback}"`;
  return fallback === filename ? plain : `${plain}; filename*=UTF-8''${encodeExtValue(filename)}`;
}

/** RFC 6266 appendix D: ASCII without escapes and percent signs. Letters with accents lose the accent. */
function asciiFallback(filename: string): string {
  return filename
    .normalize('NFD')
    .replace(/\p{M}/gu, '')
    .replace(/[^\x20-\x7e]/gu, '_')
    .replace(/["\\%]/g, '_');
}

/** RFC 8187 3.2.1: everything except attr-char is percent-encoded. */
function encodeExtValue(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/**
 * The reply with another Content-Disposition if the query asks for one: `download=NAME` offers a file under this name,
 * `download` under the name that it has. Nothing else of the reply differs. A reply without the field stays as it is.
 */
export function offerAsFile(reply: Reply, query: string): Reply {
  if (!query.includes('download')) return reply;
  const wanted = new URLSearchParams(query).get('download');
  if (wanted === null) return reply;
  const name = cleanFilename(wanted);
  return {
    status: reply.status,
    headers: linesOf(reply).map(([field, value]) => {
      if (field !== 'content-disposition') return [field, value];
      return [field, name === null ? value.replace(/^inline/, 'attachment') : contentDisposition('attachment', name)];
    }),
    body: reply.body,
  };
}
