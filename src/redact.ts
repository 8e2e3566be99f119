/**
 * Removes what grants access from a text that is to be logged: the values of
 * such parameters in URLs, however their names are spelt and wherever the URL
 * stands, tokens, and credentials of Authorization.
 *
 * Errs on the side of removing too much. A value inside another one that was
 * percent-encoded more often than three times is not found.
 */

const SECRET_NAMES = [
  'sig|signature|token|access_token|id_token|refresh_token|key|secret|client_secret|password|passwd|jwt|auth',
  'authorization|x-amz-signature|x-amz-security-token|x-amz-credential|awsaccesskeyid',
].join('|');

/** A parameter that grants access, alone or within an address that is the value of another one. */
const SECRET = new RegExp(`(?:^|[^A-Za-z0-9_-])(?:${SECRET_NAMES})\\s*=`, 'i');

const REMOVED = '[redacted]';

/** Most texts hold neither, and are not searched any further. */
const SUSPECT = /[=%]|eyJ|bearer|basic/i;

export function redactText(text: string): string {
  if (!SUSPECT.test(text)) return text;
  return text
    .replace(/\b(bearer|basic)((?:\s|%20|\+)+)[^\s"'<>,;]+/gi, `$1$2${REMOVED}`)
    .replace(/[^\s"'<>?&;#,]+/g, redactParameter)
    .replace(/\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_.=-]+/g, REMOVED);
}

function redactParameter(piece: string): string {
  if (!piece.includes('=') && !piece.includes('%')) return piece;
  const decoded = decodeAll(piece);
  if (!SECRET.test(decoded)) return piece;
  const end = piece.indexOf('=');
  return end < 0 ? REMOVED : `${piece.slice(0, end)}=${REMOVED}`;
}

const ROUNDS_MAX = 3;

/** `+` counts as a space, as in forms. What is not percent-encoded properly stays as it is. */
function decodeAll(piece: string): string {
  let text = piece.replaceAll('+', ' ');
  for (let round = 0; round < ROUNDS_MAX && text.includes('%'); round += 1) {
    const next = text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
    if (next === text) break;
    text = next;
  }
  return text;
}
