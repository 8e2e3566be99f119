/**
 * What every answer of a client endpoint tells a browser, whether origin or
 * edge wrote it: that scripts of any site may read it (the credential is a
 * header or a signature, never a cookie), and that nothing in it may act.
 */
import { emptyReply, type HeaderList, type Reply } from './reply.js';

/** Bytes that strangers uploaded are never guessed at, run, framed into a document's origin or told where they came from. */
export const GUARD_HEADERS: HeaderList = [
  ['x-content-type-options', 'nosniff'],
  ['content-security-policy', "default-src 'none'; sandbox"],
  ['cross-origin-resource-policy', 'cross-origin'],
  ['referrer-policy', 'no-referrer'],
];

/** What media carry. Apart from the rest, because it goes out with every hit. */
const MEDIA_FIELDS = [
  'Accept-Ranges',
  'Age',
  'Cache-Status',
  'Content-Disposition',
  'Content-Length',
  'Content-Range',
  'ETag',
  'Last-Modified',
  'Media-Duration',
  'Media-Height',
  'Media-Thumbhash',
  'Media-Width',
  'Repr-Digest',
  'Sunset',
  'X-Request-Id',
];

const OTHER_FIELDS = [
  'Age',
  'Cache-Status',
  'ETag',
  'Location',
  'Media-Location',
  'RateLimit',
  'RateLimit-Policy',
  'Retry-After',
  'Takedown-Confirmed',
  'Tus-Checksum-Algorithm',
  'Tus-Extension',
  'Tus-Max-Size',
  'Tus-Resumable',
  'Tus-Version',
  'Upload-Defer-Length',
  'Upload-Expires',
  'Upload-Length',
  'Upload-Metadata',
  'Upload-Offset',
  'WWW-Authenticate',
  'X-Request-Id',
];

/** For answers that carry media. */
export const MEDIA_CORS_HEADERS: HeaderList = corsHeaders(MEDIA_FIELDS);
/** For all others. */
export const CORS_HEADERS: HeaderList = corsHeaders(OTHER_FIELDS);

function corsHeaders(exposed: readonly string[]): HeaderList {
  return [
    ['access-control-allow-origin', '*'],
    ['access-control-expose-headers', exposed.join(', ')],
  ];
}

/** By name: a wildcard would leave Authorization out (Fetch 4.8). */
const ALLOWED = [
  'Authorization',
  'Cache-Control',
  'Content-Digest',
  'Content-Disposition',
  'Content-Type',
  'If-Match',
  'If-Modified-Since',
  'If-None-Match',
  'If-Range',
  'If-Unmodified-Since',
  'Range',
  'Repr-Digest',
  'Tus-Resumable',
  'Upload-Checksum',
  'Upload-Concat',
  'Upload-Defer-Length',
  'Upload-Length',
  'Upload-Metadata',
  'Upload-Offset',
  'X-HTTP-Method-Override',
  'X-Request-Id',
  'X-Requested-With',
];

const PREFLIGHT_SECONDS = 86_400;

/** The answer to OPTIONS, asked by a browser (Fetch 4.8) or by a person. */
export function preflightReply(methods: readonly string[]): Reply {
  const allow = methods.join(', ');
  return emptyReply(204, [
    ['allow', allow],
    ['access-control-allow-methods', allow],
    ['access-control-allow-headers', ALLOWED.join(', ')],
    ['access-control-max-age', String(PREFLIGHT_SECONDS)],
    ['cache-control', 'no-store'],
  ]);
}
