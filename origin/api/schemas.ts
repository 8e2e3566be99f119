/**
 * The schemas of what the origin reads and answers, for its description. Each has its name in generated types as title.
 */
import { mediaId } from '../../src/server/routes.js';

const text = { type: 'string' };
const textOrNull = { type: ['string', 'null'] };
const numberOrNull = { type: ['number', 'null'] };

/** The title of a schema is its name in the description, and in generated types. */
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

const MEDIA_EXAMPLE = {
  id: '01M81HENRTN4G2SV4REDME4EPC',
  url: 'https://media.example/v1/media/01M81HENRTN4G2SV4REDME4EPC',
  thumb_url: 'https://media.example/v1/media/01M81HENRTN4G2SV4REDME4EPC/thumb',
  etag: '"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"',
  sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  size: 48_213,
  mime: 'image/jpeg',
  public: false,
  width: 400,
  height: 267,
  duration: null,
  thumbhash: '3OcRJYB4d3h/iIeHeEh3eIhw+j2w',
  filename: 'concert.jpg',
  created_at: '2026-01-01T12:00:00.000Z',
  expires_at: null,
};

export const INFO_JSON = {
  type: 'application/json',
  schema: {
    title: 'Media',
    examples: [MEDIA_EXAMPLE],
    type: 'object',
    properties: MEDIA_PROPERTIES,
    required: Object.keys(MEDIA_PROPERTIES),
  },
};

export const MEDIA_JSON = {
  type: 'application/json',
  schema: {
    title: 'Upload',
    examples: [{ ...MEDIA_EXAMPLE, duplicate: false }],
    type: 'object',
    properties: UPLOAD_PROPERTIES,
    required: Object.keys(UPLOAD_PROPERTIES),
  },
};

const LINK_PROPERTIES = {
  url: { type: 'string', format: 'uri' },
  thumb_url: { type: 'string', format: 'uri' },
  info_url: { type: 'string', format: 'uri' },
  expires_at: { type: 'string', format: 'date-time' },
};

const LINK_QUERY = 'exp=1798804800&kid=1&sig=vSxKZ2Zc0e0rC5mH7lqkq3eYb1n0pQfE5w8mTn1uJtI';
const LINK_EXAMPLE = {
  url: `${MEDIA_EXAMPLE.url}?${LINK_QUERY}`,
  thumb_url: `${MEDIA_EXAMPLE.thumb_url}?${LINK_QUERY}`,
  info_url: `${MEDIA_EXAMPLE.url}/info?${LINK_QUERY}`,
  expires_at: '2027-01-01T12:00:00.000Z',
};

export const LINK_SCHEMA = {
  title: 'Link',
  examples: [LINK_EXAMPLE],
  type: 'object',
  properties: LINK_PROPERTIES,
  required: Object.keys(LINK_PROPERTIES),
};

const LINK_OF_ID_PROPERTIES = { id: mediaId.schema, ...LINK_PROPERTIES };

export const LINKS_SCHEMA = {
  title: 'Links',
  examples: [{ links: [{ id: MEDIA_EXAMPLE.id, ...LINK_EXAMPLE }], expires_at: LINK_EXAMPLE.expires_at }],
  type: 'object',
  properties: {
    links: {
      type: 'array',
      items: {
        title: 'LinkOfMedia',
        type: 'object',
        properties: LINK_OF_ID_PROPERTIES,
        required: Object.keys(LINK_OF_ID_PROPERTIES),
      },
    },
    expires_at: { type: 'string', format: 'date-time' },
  },
  required: ['links', 'expires_at'],
};

export const LINKS_WANTED_SCHEMA = {
  title: 'LinksWanted',
  examples: [{ ids: [MEDIA_EXAMPLE.id], lifetime: 3_600 }],
  type: 'object',
  properties: {
    ids: { type: 'array', items: mediaId.schema, minItems: 1 },
    lifetime: { type: 'integer', minimum: 1, description: 'Seconds for which the links are valid.' },
  },
  required: ['ids'],
};

export const UPLOAD_LINK_SCHEMA = {
  title: 'UploadLink',
  type: 'object',
  properties: {
    url: { type: 'string', format: 'uri', description: 'For POST of the bytes or of a form.' },
    tus_url: { type: 'string', format: 'uri', description: 'For a resumable upload (tus 1.0.0).' },
    expires_at: { type: 'string', format: 'date-time' },
  },
  required: ['url', 'tus_url', 'expires_at'],
};

export const UPLOAD_LINK_WANTED_SCHEMA = {
  title: 'UploadTerms',
  examples: [{ size: 5_000_000, types: ['image/jpeg', 'image/png'], public: false, lifetime: 600 }],
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

/** Of media as admins see them in a list. */
const LISTED_PROPERTIES = {
  id: mediaId.schema,
  state: text,
  owner: text,
  public: { type: 'boolean' },
  sha256: text,
  filename: textOrNull,
  created_at: { type: 'string', format: 'date-time' },
  expires_at: { type: ['string', 'null'], format: 'date-time' },
  used_at: { type: 'string', format: 'date-time' },
};

export const MEDIA_PAGE_SCHEMA = {
  title: 'MediaPage',
  type: 'object',
  properties: {
    items: {
      type: 'array',
      items: {
        title: 'ListedMedia',
        type: 'object',
        properties: { ...LISTED_PROPERTIES, mime: text, size: { type: 'integer' }, deleted_at: text, deleted_by: text },
        required: Object.keys(LISTED_PROPERTIES),
      },
    },
    next: { type: ['string', 'null'], description: 'The `cursor` of the next page; null: there is none.' },
  },
  required: ['items', 'next'],
};

export const PENDING_SCHEMA = {
  title: 'Pending',
  type: 'object',
  properties: { status: { type: 'integer' }, code: { const: 'thumbnail_pending' }, title: text },
  required: ['status', 'code', 'title'],
};

export const WELL_KNOWN_SCHEMA = {
  title: 'Capabilities',
  type: 'object',
  properties: {
    base_uri: { type: 'string', format: 'uri' },
    auth_required: { type: 'boolean' },
    max_upload_size: { type: 'integer' },
    storage_mode: text,
    region: text,
    capabilities: { type: 'object' },
  },
  required: ['base_uri', 'auth_required', 'max_upload_size', 'storage_mode', 'capabilities'],
};

const OWNER_ACT_PROPERTIES = {
  media: { type: 'integer', minimum: 0, description: 'Media of the owner that this request has changed.' },
  others: {
    type: 'integer',
    minimum: 0,
    description: 'Media of others that it has changed, because they share bytes.',
  },
  next: { ...mediaId.schema, type: ['string', 'null'] },
};

export const OWNER_ACT_SCHEMA = {
  title: 'OwnerAct',
  examples: [{ media: 812, others: 3, next: null }],
  type: 'object',
  properties: OWNER_ACT_PROPERTIES,
  required: Object.keys(OWNER_ACT_PROPERTIES),
};
