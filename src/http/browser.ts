/**
 * Header fields for browsers on every answer of origin and edge: scripts of any
 * site may read it (the credential is a header or a signature, never a cookie),
 * and nothing in it may run.
 */
import { emptyReply, type HeaderList, type Reply } from './reply.js';

/** Strangers uploaded the bytes: their type is not guessed, they run no script, and they learn no referrer. */
export const GUARD_HEADERS: HeaderList = [
  ['x-content-type-options', 'nosniff'],
  [
    'content-security-policy',
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
  ],
  ['cross-origin-resource-policy', 'cross-origin'],
  ['referrer-policy', 'no-referrer'],
];

/** Fields of media, in a list of their own because they are sent with every hit. */
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
  'Media-Placeholder',
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

/** Each by name: a wildcard would not cover Authorization (Fetch 4.8). */
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

/** The answer to OPTIONS, for browsers (Fetch 4.8) and people. */
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
