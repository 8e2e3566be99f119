/**
 * Identifies uploaded bytes: their type, and what the header of a picture says. The
 * bytes decide the type; the type that the client declares must agree with it.
 * Bytes without a known signature are text if all of them are valid UTF-8.
 */
import { isUtf8 } from 'node:buffer';
import { open } from 'node:fs/promises';
import { fileTypeFromBuffer, fileTypeFromFile } from 'file-type';
import { Fault } from '../../src/errors.js';
import { readDimensions } from '../../src/media/dimensions.js';
import { agrees, canonicalType, essenceOf, isText } from '../../src/media/types.js';
import { NO_FACTS, type PictureFacts } from '../meta/media.js';
import type { Staged } from './stage.js';

/** The type of bytes that cannot be identified. */
const UNKNOWN = 'application/octet-stream';
/** Declared types that say nothing about the bytes (RFC 9110 8.3). */
const UNDECLARED: readonly string[] = [UNKNOWN, 'binary/octet-stream', 'application/x-www-form-urlencoded'];

/** The type as which the bytes are stored. Throws a Fault if it is not accepted or not the declared one. */
export async function identify(
  staged: Staged,
  declaredType: string | undefined,
  accepted: readonly string[],
): Promise<string> {
  const declared = readDeclared(declaredType);
  const detected = await detect(staged, declared);
  if (declared !== undefined && !agrees(declared, detected)) {
    throw new Fault('type_mismatch', mismatch(declared, detected));
  }
  if (!accepted.includes(detected)) {
    throw new Fault('type_refused', `Media of type ${detected} is not accepted.`);
  }
  return detected;
}

function mismatch(declared: string, detected: string): string {
  return detected === UNKNOWN && isText(declared)
    ? `The declared type is ${declared}, but the bytes are not valid UTF-8 text.`
    : `The declared type is ${declared}, but the bytes are ${detected}.`;
}

function readDeclared(declaredType: string | undefined): string | undefined {
  if (declaredType === undefined || declaredType.trim() === '') return undefined;
  const essence = essenceOf(declaredType);
  if (essence === undefined) throw new Fault('malformed', 'The Content-Type is not a media type.');
  return UNDECLARED.includes(essence) ? undefined : canonicalType(essence);
}

/** The type that the bytes show, whether or not it is accepted. */
export function detectType(staged: Staged): Promise<string> {
  return detect(staged, undefined);
}

/** The facts in the header of a picture. Thumbnail jobs find the others. */
export function pictureFacts(staged: Staged): PictureFacts {
  const size = readDimensions(staged.head);
  if (size === undefined) return NO_FACTS;
  const { width, height, frames, orientation } = size;
  return { ...NO_FACTS, width, height, frames, orientation };
}

async function detect(staged: Staged, declared: string | undefined): Promise<string> {
  const signature = await detectSignature(staged);
  const mayBeText = signature === undefined || isWeak(signature);
  return mayBeText && (await isPlainText(staged)) ? textType(declared, signature, staged.head) : (signature ?? UNKNOWN);
}

async function detectSignature(staged: Staged): Promise<string | undefined> {
  const whole = staged.head.length === staged.sizeBytes;
  try {
    const found = await (whole ? fileTypeFromBuffer(staged.head) : fileTypeFromFile(staged.path));
    const essence = found === undefined ? undefined : essenceOf(found.mime);
    return essence === undefined ? undefined : canonicalType(essence);
  } catch {
    // The package fails on some malformed files. Their type is unknown.
    return undefined;
  }
}

/** Whether the signature of a type is so short that a text may begin with it by chance. */
function isWeak(type: string): boolean {
  return /^(?:image|audio|video|font|model)\//.test(type) || isText(type) || SHORT_SIGNATURES.has(type);
}

const SHORT_SIGNATURES = new Set(['application/x-msdownload', 'application/x-compress', 'application/x-unix-archive']);

/** The type of a text: the declared one if that is a text type, else as it looks. */
function textType(declared: string | undefined, signature: string | undefined, head: Buffer): string {
  const shown = signature !== undefined && isText(signature) ? signature : undefined;
  if (declared === undefined || !isText(declared)) return shown ?? markupType(head) ?? 'text/plain';
  // Any text may be declared as plain text. Otherwise a type that the text shows must be the declared one.
  return declared === 'text/plain' ? declared : (shown ?? declared);
}

/** The type of markup that a browser would run, so that it is not accepted as plain text when no type is declared. */
function markupType(head: Buffer): string | undefined {
  const start = head
    .toString('utf8', 0, 1_024)
    .replace(/^\ufeff/, '')
    .trimStart();
  if (/^<(?:!doctype html|html|head|body|script|iframe|!--)/i.test(start)) return 'text/html';
  return /^<svg[\s>]/i.test(start) ? 'image/svg+xml' : undefined;
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

/** The binary data bytes of the WHATWG MIME Sniffing standard, section 3. */
const BINARY = Array.from({ length: 256 }, (_, byte) => byte < 0x20 && ![0x09, 0x0a, 0x0c, 0x0d, 0x1b].includes(byte));

function hasBinaryBytes(bytes: Buffer): boolean {
  for (const byte of bytes) if (BINARY[byte] === true) return true;
  return false;
}
