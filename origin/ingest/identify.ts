/**
 * What uploaded bytes are. The bytes decide; what the sender declares may only
 * agree. Where no signature is known the bytes may be text, and then are UTF-8
 * from the first to the last.
 */
import { isUtf8 } from 'node:buffer';
import { open } from 'node:fs/promises';
import { fileTypeFromBuffer, fileTypeFromFile } from 'file-type';
import { Fault } from '../../src/errors.js';
import { agrees, canonicalType, essenceOf, isText } from '../../src/media/types.js';
import type { Staged } from './stage.js';

/** Bytes that show nothing of themselves. */
const UNKNOWN = 'application/octet-stream';
/** Says as much as nothing (RFC 9110 8.3). */
const UNDECLARED: readonly string[] = [UNKNOWN, 'binary/octet-stream', 'application/x-www-form-urlencoded'];

/** The type under which the bytes are kept, or a Fault. */
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
    throw new Fault('type_refused', `Media of the type ${detected} are not accepted.`);
  }
  return detected;
}

function mismatch(declared: string, detected: string): string {
  return detected === UNKNOWN && isText(declared)
    ? `The declared ${declared} needs valid UTF-8 without bytes of binary data, which the body is not.`
    : `The body is ${detected}, which is not the declared ${declared}.`;
}

function readDeclared(declaredType: string | undefined): string | undefined {
  if (declaredType === undefined || declaredType.trim() === '') return undefined;
  const essence = essenceOf(declaredType);
  if (essence === undefined) throw new Fault('malformed', 'The Content-Type is no media type.');
  return UNDECLARED.includes(essence) ? undefined : canonicalType(essence);
}

/** What the bytes show of themselves, whether or not it would be accepted. */
export function detectType(staged: Staged): Promise<string> {
  return detect(staged, undefined);
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
    // A file that leads its own reader astray shows nothing of itself.
    return undefined;
  }
}

/** Signatures of a few letters, with which a text may begin by chance. */
function isWeak(type: string): boolean {
  return /^(?:image|audio|video|font|model)\//.test(type) || isText(type) || SHORT_SIGNATURES.has(type);
}

const SHORT_SIGNATURES = new Set(['application/x-msdownload', 'application/x-compress', 'application/x-unix-archive']);

/** What text is called: as declared where that is a text type, else as it looks. */
function textType(declared: string | undefined, signature: string | undefined, head: Buffer): string {
  const shown = signature !== undefined && isText(signature) ? signature : undefined;
  if (declared === undefined || !isText(declared)) return shown ?? markupType(head) ?? 'text/plain';
  // Any text may be sent as plain text; for something else than it shows itself to be it may not.
  return declared === 'text/plain' ? declared : (shown ?? declared);
}

/** Markup that a browser would run, so that nobody slips it in by declaring nothing. */
function markupType(head: Buffer): string | undefined {
  const start = head
    .toString('utf8', 0, 1_024)
    .replace(/^\ufeff/, '')
    .trimStart();
  if (/^<(?:!doctype html|html|head|body|script|iframe|!--)/i.test(start)) return 'text/html';
  return /^<svg[\s>]/i.test(start) ? 'image/svg+xml' : undefined;
}

const READ_BYTES = 256 * 1_024;

/** UTF-8 from end to end, without bytes that only binary data has. */
async function isPlainText(staged: Staged): Promise<boolean> {
  if (hasBinaryBytes(staged.head)) return false;
  if (staged.head.length === staged.sizeBytes) return isUtf8(staged.head);
  const file = await open(staged.path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    // A character may lie across two reads: its first bytes move to the front of the next.
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

/** How many bytes at the end are the start of a character that goes on behind them (RFC 3629 3). */
function cutCharacter(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

/** The binary data bytes of the WHATWG's MIME Sniffing standard, section 3. */
const BINARY = Array.from({ length: 256 }, (_, byte) => byte < 0x20 && ![0x09, 0x0a, 0x0c, 0x0d, 0x1b].includes(byte));

function hasBinaryBytes(bytes: Buffer): boolean {
  for (const byte of bytes) if (BINARY[byte] === true) return true;
  return false;
}
