/**
 * File names on their way in and out. In: whatever a stranger sent becomes a
 * bare name in NFC, without paths, control characters or tricks of writing
 * direction, or nothing. Out: Content-Disposition with a plain fallback and the
 * exact name (RFC 6266, RFC 8187).
 */

/** What common file systems hold. */
const NAME_MAX_BYTES = 255;

/** Control characters, lone surrogates, line separators, the replacement character, and the marks that turn the reading direction. */
const UNSAFE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffd]/gu;

/** The name as it is kept, or null where nothing of it is left. */
export function cleanFilename(text: string): string | null {
  const bare = text.split(/[/\\]/).at(-1) ?? '';
  const name = bare.replace(UNSAFE, '').normalize('NFC').trim();
  if (name === '' || /^\.+$/.test(name)) return null;
  return cutToBytes(name, NAME_MAX_BYTES);
}

/** Cuts the stem, so that a short extension stays. */
function cutToBytes(name: string, bytesMax: number): string {
  if (Buffer.byteLength(name) <= bytesMax) return name;
  const dot = name.lastIndexOf('.');
  const extension = dot > 0 && Buffer.byteLength(name.slice(dot)) <= 32 ? name.slice(dot) : '';
  let stem = '';
  let room = bytesMax - Buffer.byteLength(extension);
  for (const character of name.slice(0, name.length - extension.length)) {
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

/** RFC 6266 appendix D: no escapes, no percent signs, ASCII alone; what has an accent loses it rather than its letter. */
function asciiFallback(filename: string): string {
  return filename
    .normalize('NFD')
    .replace(/\p{M}/gu, '')
    .replace(/[^\x20-\x7e]/gu, '_')
    .replace(/["\\%]/g, '_');
}

/** RFC 8187 3.2.1: everything but attr-char is percent-encoded. */
function encodeExtValue(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
