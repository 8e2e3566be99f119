/**
 * The names in the Content-Disposition of a part of a form (RFC 7578 4.2), as
 * clients really encode them: in UTF-8, in Latin-1, percent-encoded in `filename*`
 * (RFC 8187), or as encoded words (RFC 2047). What cannot be decoded stays as it is.
 */

export interface PartNames {
  readonly name: string;
  readonly filename: string | undefined;
}

/** `value`: the bytes of the field as Latin-1. Undefined without a name, or with a parameter twice. */
export function readPartNames(value: string | undefined): PartNames | undefined {
  if (value === undefined || !/^\s*form-data\s*(?:;|$)/i.test(value)) return undefined;
  const parameters = new Map<string, string>();
  for (const match of value.matchAll(/;\s*([a-z*]{1,32})\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^\s;"]*))/gi)) {
    const [, name = '', quoted, bare = ''] = match;
    // Another reader might take the other one (RFC 2183 allows no parameter twice).
    if (parameters.has(name.toLowerCase())) return undefined;
    parameters.set(name.toLowerCase(), quoted ?? bare);
  }
  const name = parameters.get('name');
  return name === undefined ? undefined : { name: unquote(name), filename: filenameIn(parameters) };
}

/** `filename*` is preferred, as in RFC 6266 4.3. RFC 7578 forbids it, but some clients send it for all names beyond ASCII. */
function filenameIn(parameters: ReadonlyMap<string, string>): string | undefined {
  const extended = decodeExtValue(parameters.get('filename*') ?? '');
  if (extended !== undefined) return extended;
  const plain = parameters.get('filename');
  return plain === undefined ? undefined : decodeWords(unquote(plain));
}

/** Clients escape a quote as `\"` or `%22`. */
function unquote(raw: string): string {
  return decodeText(Buffer.from(raw, 'latin1'))
    .replace(/\\(["\\])/g, '$1')
    .replace(/%22/g, '"');
}

/** What the bytes 0x80 to 0x9f are in windows-1252, which is what clients call Latin-1. Five of them are nothing. */
const WINDOWS_1252 = '€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ';

/** UTF-8 (RFC 7578 5.1), or else Latin-1, in which every sequence of bytes is a text. */
export function decodeText(bytes: Buffer): string {
  return decode(bytes, 'utf-8') ?? decodeLatin1(bytes);
}

/** Some versions of Node leave the bytes 0x80 to 0x9f as control characters. */
function decodeLatin1(bytes: Buffer): string {
  return bytes.toString('latin1').replace(/[\u0080-\u009f]/g, (code) => WINDOWS_1252.charAt(code.charCodeAt(0) - 0x80));
}

/** The labels of Latin-1 in the WHATWG Encoding Standard that occur in names of files. */
const LATIN1_LABELS = /^(?:iso-?8859-1|latin-?1|windows-1252|cp1252|us-ascii|ascii)$/i;

/** `UTF-8'en'%C2%A3%20rates` (RFC 8187 3.2.1). */
function decodeExtValue(value: string): string | undefined {
  const [, charset = '', encoded = ''] = /^([\w-]{1,40})'[^']*'(.*)$/.exec(value) ?? [];
  if (encoded === '' || /%(?![\da-f]{2})/i.test(encoded)) return undefined;
  return decode(decodePercent(encoded), charset);
}

function decodePercent(encoded: string): Buffer {
  const latin1 = encoded.replace(/%([\da-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(latin1, 'latin1');
}

const ENCODED_WORD = /=\?([\w-]{1,40})(?:\*[\w-]*)?\?([bq])\?([^?\s]*)\?=/gi;

/** Decodes all encoded words (RFC 2047 2). White space between two of them is dropped (6.2). */
function decodeWords(text: string): string {
  return text
    .replace(/(\?=)\s+(?==\?)/g, '$1')
    .replace(ENCODED_WORD, (word, charset: string, by: string, data: string) => {
      const bytes = by.toLowerCase() === 'b' ? Buffer.from(data, 'base64') : decodeQ(data);
      return decode(bytes, charset) ?? word;
    });
}

/** The "Q" encoding: `_` is a space, `=20` is a byte (4.2). */
function decodeQ(data: string): Buffer {
  return decodePercent(
    data
      .replace(/_/g, ' ')
      .replace(/%/g, '%25')
      .replace(/=([\da-f]{2})/gi, '%$1'),
  );
}

/** Undefined if the character set is unknown, or the bytes are not text in it. */
function decode(bytes: Buffer, charset: string): string | undefined {
  if (LATIN1_LABELS.test(charset)) return decodeLatin1(bytes);
  try {
    return new TextDecoder(charset, { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
