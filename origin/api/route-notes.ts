/** The possible responses of the origin's endpoints, for the route table. */
import type { FaultCode } from '../../src/errors.js';
import { type JsonSchema, mediaId, type ResponseNote, type Route } from '../../src/server/routes.js';

const CODES: Readonly<Record<number, readonly FaultCode[]>> = {
  400: ['invalid_id', 'malformed'],
  401: ['unauthorized'],
  403: ['forbidden', 'quarantined'],
  404: ['not_found'],
  410: ['deleted', 'expired'],
};

export function refusal(status: number, ...codes: readonly FaultCode[]): ResponseNote {
  return { status, help: 'Refused.', codes, content: { type: 'application/problem+json' } };
}

export function refusals(...statuses: readonly number[]): readonly ResponseNote[] {
  return statuses.map((status) => refusal(status, ...(CODES[status] ?? [])));
}

export function mediaResponses(help: string, type: string, schema?: JsonSchema): readonly ResponseNote[] {
  return [
    { status: 200, help, content: { type, ...(schema !== undefined && { schema }) } },
    { status: 206, help: 'The requested ranges.', content: { type } },
    { status: 304, help: 'The copy of the client is current.' },
    ...refusals(400),
    refusal(401, 'unauthorized', 'link_expired'),
    ...refusals(403, 404, 410),
    refusal(412, 'precondition_failed'),
    refusal(416, 'range_not_satisfiable'),
  ];
}

export const TAKEN_DOWN: ResponseNote = {
  status: 204,
  help: 'Done, now or before. With `wait=edges`, Takedown-Confirmed gives the number of edges that have confirmed.',
};

const text = { type: 'string' };
const textOrNull = { type: ['string', 'null'] };
const numberOrNull = { type: ['number', 'null'] };

const MEDIA_PROPERTIES = {
  id: mediaId.schema,
  url: { type: 'string', format: 'uri' },
  thumb_url: { type: ['string', 'null'], format: 'uri' },
  etag: text,
  sha256: text,
  size: { type: 'integer' },
  mime: text,
  public: { type: 'boolean' },
  width: { type: ['integer', 'null'] },
  height: { type: ['integer', 'null'] },
  duration: numberOrNull,
  thumbhash: textOrNull,
  filename: textOrNull,
  created_at: { type: ['string', 'null'], format: 'date-time' },
  expires_at: { type: ['string', 'null'], format: 'date-time' },
};

const UPLOAD_PROPERTIES = { ...MEDIA_PROPERTIES, duplicate: { type: 'boolean' } };

export const INFO_JSON = {
  type: 'application/json',
  schema: { type: 'object', properties: MEDIA_PROPERTIES, required: Object.keys(MEDIA_PROPERTIES) },
};

export const MEDIA_JSON = {
  type: 'application/json',
  schema: { type: 'object', properties: UPLOAD_PROPERTIES, required: Object.keys(UPLOAD_PROPERTIES) },
};

const LINK_PROPERTIES = {
  url: { type: 'string', format: 'uri' },
  thumb_url: { type: 'string', format: 'uri' },
  info_url: { type: 'string', format: 'uri' },
  expires_at: { type: 'string', format: 'date-time' },
};

export const LINK_SCHEMA = {
  type: 'object',
  properties: LINK_PROPERTIES,
  required: Object.keys(LINK_PROPERTIES),
};

const LINK_OF_ID_PROPERTIES = { id: mediaId.schema, ...LINK_PROPERTIES };

export const LINKS_SCHEMA = {
  type: 'object',
  properties: {
    links: {
      type: 'array',
      items: { type: 'object', properties: LINK_OF_ID_PROPERTIES, required: Object.keys(LINK_OF_ID_PROPERTIES) },
    },
    expires_at: { type: 'string', format: 'date-time' },
  },
  required: ['links', 'expires_at'],
};

export const LINKS_WANTED_SCHEMA = {
  type: 'object',
  properties: {
    ids: { type: 'array', items: mediaId.schema, minItems: 1 },
    lifetime: { type: 'integer', minimum: 1, description: 'Seconds for which the links are valid.' },
  },
  required: ['ids'],
};

export const UPLOAD_LINK_SCHEMA = {
  type: 'object',
  properties: {
    url: { type: 'string', format: 'uri', description: 'For POST of the bytes or of a form.' },
    tus_url: { type: 'string', format: 'uri', description: 'For a resumable upload (tus 1.0.0).' },
    expires_at: { type: 'string', format: 'date-time' },
  },
  required: ['url', 'tus_url', 'expires_at'],
};

export const UPLOAD_LINK_WANTED_SCHEMA = {
  type: 'object',
  properties: {
    subject: { type: 'string', description: 'Whose upload it is; another than the caller needs the role `admin`.' },
    size: { type: 'integer', minimum: 1, description: 'Largest size in bytes.' },
    types: { type: 'array', items: text, minItems: 1, description: 'Media types.' },
    public: { type: 'boolean', description: 'Whether anyone may read the media; default false.' },
    expires_in: { type: 'integer', minimum: 1, description: 'Seconds until the media expire.' },
    filename: { type: 'string', maxLength: 255 },
    lifetime: { type: 'integer', minimum: 1, description: 'Seconds for which the links are valid.' },
  },
};

const COMMON: readonly ResponseNote[] = [
  refusal(429, 'rate_limited'),
  refusal(500, 'internal'),
  refusal(503, 'auth_unavailable', 'overloaded', 'storage_unavailable'),
];

/** Adds the refusals that every route with a credential has. */
export function withCommonRefusals<C>(rows: readonly Route<C>[]): readonly Route<C>[] {
  return rows.map((row) => (row.audience === 'anyone' ? row : { ...row, responses: [...row.responses, ...COMMON] }));
}
