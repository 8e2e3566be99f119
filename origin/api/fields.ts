/** The fields of requests and responses that the description names: what each is, for clients and generators. */
import type { JsonSchema } from '../../src/server/routes.js';

export interface FieldNote {
  readonly help: string;
  readonly schema: JsonSchema;
}

const text = (help: string): FieldNote => ({ help, schema: { type: 'string' } });
const whole = (help: string): FieldNote => ({ help, schema: { type: 'integer', minimum: 0 } });
const number = (help: string): FieldNote => ({ help, schema: { type: 'number', minimum: 0 } });

export const RESPONSE_FIELDS = {
  'Accept-Ranges': text('`bytes`.'),
  Age: whole('Seconds since the origin has answered; from an edge.'),
  Allow: text('The methods of the path.'),
  'Cache-Control': text('For how long a client may keep the answer.'),
  'Cache-Status': text('How the caches on the way have answered (RFC 9211).'),
  'Content-Disposition': text('Whether to show or to save it, and its name (RFC 6266).'),
  'Content-Range': text('The range of the answer, and the size of the whole.'),
  ETag: text('The entity tag: `"sha256:…"` of the bytes.'),
  'Last-Modified': text('When the media were made.'),
  Location: text('The path of what was made.'),
  'Media-Duration': number('Seconds, of films and sound.'),
  'Media-Height': whole('Pixels.'),
  'Media-Location': text('The path of the media that a finished upload has become.'),
  'Media-Placeholder': text('`?1`: the picture stands for a thumbnail that is not made yet.'),
  'Media-Thumbhash': text('The thumbhash, in base64.'),
  'Media-Width': whole('Pixels.'),
  RateLimit: text('What is left of the rate limits, once a tenth is used.'),
  'RateLimit-Policy': text('The rate limits, and their windows.'),
  'Repr-Digest': text('The SHA-256 of the whole representation (RFC 9530).'),
  'Retry-After': whole('Seconds until the same request may succeed.'),
  Sunset: text('When the media expire (RFC 8594).'),
  'Takedown-Confirmed': text('`n/m`: n of m known edges have confirmed the takedown.'),
  'Tus-Checksum-Algorithm': text('Algorithms of Upload-Checksum.'),
  'Tus-Extension': text('The extensions of tus that are supported.'),
  'Tus-Max-Size': whole('The largest upload in bytes.'),
  'Tus-Resumable': text('The version of tus.'),
  'Tus-Version': text('The versions of tus that are supported.'),
  'Upload-Concat': text('`partial`, or `final;` and the partial uploads.'),
  'Upload-Defer-Length': text('`1`: the length is not known yet.'),
  'Upload-Expires': text('When an unfinished upload is removed.'),
  'Upload-Length': whole('The length of the whole upload.'),
  'Upload-Metadata': text('The metadata of the upload, as they were sent.'),
  'Upload-Offset': whole('How many bytes have arrived.'),
  Vary: text('The request fields that the answer depends on.'),
  'WWW-Authenticate': text('Which credential is needed, and what is wrong with the given one.'),
  'X-Request-Id': text('The id of the request in every log.'),
} as const satisfies Record<string, FieldNote>;

export type ResponseField = keyof typeof RESPONSE_FIELDS;

export const REQUEST_FIELDS = {
  'Content-Digest': text('The SHA-256 of the body (RFC 9530); must match.'),
  'If-Match': text('Entity tags, one of which must be that of the answer.'),
  'If-Modified-Since': text('304 unless it has changed since.'),
  'If-None-Match': text('Entity tags of copies: 304 if one of them is current.'),
  'If-Range': text('The range counts only if the copy is current.'),
  'If-Unmodified-Since': text('412 if it has changed since.'),
  Range: text('One or several ranges of bytes; for GET alone.'),
  'Repr-Digest': text('The SHA-256 of the media (RFC 9530); must match.'),
  'Tus-Resumable': text('`1.0.0`.'),
  'Upload-Checksum': text('The algorithm and the checksum of the body in base64.'),
  'Upload-Concat': text('`partial`, or `final;` and the partial uploads.'),
  'Upload-Defer-Length': text('`1`: the length comes later.'),
  'Upload-Length': whole('The length of the whole upload.'),
  'Upload-Metadata': text('`filename`, `filetype`, `public` and `expires_in`, each with its value in base64.'),
  'Upload-Offset': whole('Where the body begins.'),
  'X-HTTP-Method-Override': text('The method that a POST stands for.'),
} as const satisfies Record<string, FieldNote>;

export type RequestField = keyof typeof REQUEST_FIELDS;

const CACHED: readonly ResponseField[] = ['ETag', 'Cache-Control', 'Age', 'Cache-Status', 'Sunset', 'Vary'];
const OF_MEDIA: readonly ResponseField[] = [
  'Last-Modified',
  'Accept-Ranges',
  'Repr-Digest',
  'Content-Disposition',
  'Media-Width',
  'Media-Height',
  'Media-Duration',
  'Media-Thumbhash',
];

/** Of answers that carry media. */
export const MEDIA_FIELDS: readonly ResponseField[] = [...CACHED, ...OF_MEDIA];
export const CONDITIONS: readonly RequestField[] = [
  'If-None-Match',
  'If-Match',
  'If-Modified-Since',
  'If-Unmodified-Since',
];
export const RANGES: readonly RequestField[] = ['Range', 'If-Range'];
export const DIGESTS: readonly RequestField[] = ['Repr-Digest', 'Content-Digest'];

/** What comes with every answer of this status. */
export function fieldsOfStatus(status: number): readonly ResponseField[] {
  return [...(OF_STATUS[status] ?? []), 'X-Request-Id'];
}

const OF_STATUS: Readonly<Record<number, readonly ResponseField[]>> = {
  202: ['Retry-After'],
  206: ['Content-Range'],
  401: ['WWW-Authenticate'],
  405: ['Allow'],
  416: ['Content-Range', 'ETag'],
  429: ['Retry-After', 'RateLimit', 'RateLimit-Policy'],
  503: ['Retry-After'],
  507: ['Retry-After'],
};
