/**
 * Identifies uploaded bytes: their type, and what the header of a picture says. The
 * bytes decide the type; the type that the client declares must agree with it.
 * Bytes without a known signature are text if all of them are valid UTF-8.
 */
import { isUtf8 } from 'node:buffer';
import { open } from 'node:fs/promises';
import { Fault } from '../../src/errors.js';
import { type Declared, readDeclared } from '../../src/media/declared.js';
import { readFileDimensions } from '../../src/media/dimensions.js';
import { isText, storedTextType } from '../../src/media/text-types.js';
import { agrees, coveredBy } from '../../src/media/types.js';
import { NO_FACTS, type PictureFacts } from '../meta/media.js';
import { readSignature } from './signature.js';
import type { Staged } from './stage.js';

/** The type of bytes that cannot be identified. */
const UNKNOWN = 'application/octet-stream';

/** The type as which the bytes are stored. Throws a Fault if it is not accepted or not the declared one. */
export async function identify(
  staged: Staged,
  declaredType: string | undefined,
  accepted: readonly string[],
): Promise<string> {
  const declared = readDeclared(declaredType);
  if (declared.kind === 'malformed') throw new Fault('malformed', 'The Content-Type is not a media type.');
  const shown = await show(staged, declared.kind === 'type' ? declared.type : undefined);
  const detected = typeOf(shown, declared, accepted);
  const mismatch = mismatchOf(declared, shown, detected, accepted);
  if (mismatch !== undefined) throw new Fault('type_mismatch', mismatch);
  if (!accepted.includes(detected)) throw new Fault('type_refused', refusalOf(shown, detected));
  return detected;
}

/** The type that the bytes show, whether or not it is accepted. */
export async function detectType(staged: Staged): Promise<string> {
  const shown = await show(staged, undefined);
  return shown.kind === 'text' ? (shown.type ?? 'text/plain') : typeOf(shown, { kind: 'none' }, []);
}

/** The facts in the header of a picture. Thumbnail jobs find the others. */
export async function pictureFacts(staged: Staged): Promise<PictureFacts> {
  const size = await readFileDimensions(staged);
  if (size === undefined) return NO_FACTS;
  const { width, height, frames, orientation } = size;
  return { ...NO_FACTS, width, height, frames, orientation };
}

/** What the bytes show. */
type Shown =
  /** Valid UTF-8; with the type that its first words show, if any. */
  | { readonly kind: 'text'; readonly type: string | undefined }
  /** A text in an encoding that is not accepted. */
  | { readonly kind: 'foreign_text'; readonly encoding: string }
  | { readonly kind: 'binary'; readonly type: string | undefined };

async function show(staged: Staged, declared: string | undefined): Promise<Shown> {
  const signature = await readSignature(staged, declared);
  if (signature !== undefined && !isWeak(signature)) return { kind: 'binary', type: signature };
  const named = signature !== undefined && isText(signature) ? signature : undefined;
  if (await isPlainText(staged)) return { kind: 'text', type: named ?? markupType(staged.head) };
  const encoding = foreignEncoding(staged.head);
  if (encoding !== undefined && (signature === undefined || named !== undefined)) {
    return { kind: 'foreign_text', encoding };
  }
  return { kind: 'binary', type: named === undefined ? signature : undefined };
}

/** Whether a text may begin with the signature of this type by chance, so that the bytes must also fail the test for text. */
function isWeak(type: string): boolean {
  return /^(?:image|audio|video|font|model)\//.test(type) || isText(type) || SHORT_SIGNATURES.has(type);
}

const SHORT_SIGNATURES = new Set(['application/x-msdownload', 'application/x-compress', 'application/x-unix-archive']);

/** The type of markup that a browser would run, so that it is not accepted as plain text when no type is declared. */
function markupType(head: Buffer): string | undefined {
  const start = head
    .toString('utf8', 0, 1_024)
    .replace(/^\ufeff/, '')
    .trimStart();
  if (/^<(?:!doctype html|html|head|body|script|iframe|!--)/i.test(start)) return 'text/html';
  return /^<svg[\s>]/i.test(start) ? 'image/svg+xml' : undefined;
}

/** Byte order marks (Unicode 16.0, table 23-6), and how to read what follows. Node cannot read UTF-32. */
const FOREIGN_MARKS: readonly (readonly [encoding: string, mark: Buffer, label: string | undefined])[] = [
  ['UTF-32', Buffer.from('fffe0000', 'hex'), undefined],
  ['UTF-32', Buffer.from('0000feff', 'hex'), undefined],
  ['UTF-16', Buffer.from('fffe', 'hex'), 'utf-16le'],
  ['UTF-16', Buffer.from('feff', 'hex'), 'utf-16be'],
];

/** The encoding of a text that begins with a byte order mark other than that of UTF-8. */
function foreignEncoding(head: Buffer): string | undefined {
  const found = FOREIGN_MARKS.find(([, mark]) => head.subarray(0, mark.length).equals(mark));
  if (found === undefined) return undefined;
  const [encoding, , label] = found;
  return label === undefined || decodesTo(head, label) ? encoding : undefined;
}

/** Whether the first bytes of a file decode without an error, and to no character that binary data would have. */
function decodesTo(head: Buffer, label: string): boolean {
  try {
    // As part of a stream, because a character may be cut.
    const text = new TextDecoder(label, { fatal: true }).decode(head, { stream: true });
    for (let at = 0; at < text.length; at += 1) if (BINARY[text.charCodeAt(at)] === true) return false;
    return true;
  } catch {
    return false;
  }
}

function typeOf(shown: Shown, declared: Declared, accepted: readonly string[]): string {
  switch (shown.kind) {
    case 'text':
      return textType(shown.type, declared, accepted);
    case 'foreign_text':
      return UNKNOWN;
    case 'binary':
      return shown.type ?? UNKNOWN;
  }
}

/** text/plain if that is declared; else the type that the text shows; else the declared one if texts have it; else text/plain. */
function textType(shown: string | undefined, declared: Declared, accepted: readonly string[]): string {
  const storedAs = declared.kind === 'type' ? storedTextType(declared.type, accepted) : undefined;
  // Any text may be declared as plain text. Otherwise a type that the text shows must be the declared one.
  if (storedAs === 'text/plain') return storedAs;
  const looks = shown === undefined ? undefined : storedTextType(shown, accepted);
  return looks ?? storedAs ?? 'text/plain';
}

/** Why the declared type is not that of the bytes, in words; undefined if it is. */
function mismatchOf(
  declared: Declared,
  shown: Shown,
  detected: string,
  accepted: readonly string[],
): string | undefined {
  if (declared.kind === 'range') {
    return coveredBy(declared.prefix, detected) ? undefined : contrast(declared.name, shown, detected);
  }
  if (declared.kind !== 'type' || agrees(declared.type, detected)) return undefined;
  const asText = shown.kind === 'text' && storedTextType(declared.type, accepted) === detected;
  return asText ? undefined : contrast(declared.type, shown, detected);
}

function contrast(declared: string, shown: Shown, detected: string): string {
  if (shown.kind === 'foreign_text') {
    return `The declared type is ${declared}, but the bytes are text in ${shown.encoding}. Send text in UTF-8.`;
  }
  return detected === UNKNOWN && (isText(declared) || declared === 'text/*')
    ? `The declared type is ${declared}, but the bytes are not valid UTF-8 text.`
    : `The declared type is ${declared}, but the bytes are ${detected}.`;
}

function refusalOf(shown: Shown, detected: string): string {
  return shown.kind === 'foreign_text'
    ? `The bytes are text in ${shown.encoding}. Send text in UTF-8.`
    : `Media of type ${detected} is not accepted.`;
}

const READ_BYTES = 256 * 1_024;

/** Whether all bytes are UTF-8 and none of them is a binary data byte. */
async function isPlainText(staged: Staged): Promise<boolean> {
  if (hasBinaryBytes(staged.head)) return false;
  if (staged.head.length === staged.sizeBytes) return isUtf8(staged.head);
  const file = await open(staged.path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    // A character may be split between two reads: its first bytes move to the front of the next read.
    for (let kept = 0; ; ) {
      const { bytesRead } = await file.read(buffer, kept, READ_BYTES - kept);
      const filled = buffer.subarray(0, kept + bytesRead);
      if (bytesRead === 0) return filled.length === 0;
      const complete = filled.subarray(0, filled.length - cutCharacter(filled));
      if (hasBinaryBytes(complete) || !isUtf8(complete)) return false;
      kept = filled.copy(buffer, 0, complete.length);
    }
  } finally {
    await file.close();
  }
}

/** How many bytes at the end are the start of an incomplete character (RFC 3629 3). */
function cutCharacter(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

/** By code: the binary data bytes of the WHATWG MIME Sniffing standard, section 3. */
const BINARY = Array.from({ length: 256 }, (_, byte) => byte < 0x20 && ![0x09, 0x0a, 0x0c, 0x0d, 0x1b].includes(byte));

function hasBinaryBytes(bytes: Buffer): boolean {
  for (const byte of bytes) if (BINARY[byte] === true) return true;
  return false;
}
