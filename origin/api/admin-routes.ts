/** The endpoints of admins. */
import { Fault } from '../../src/errors.js';
import type { MediaId } from '../../src/ids.js';
import {
  choiceParameter,
  instantParameter,
  integerParameter,
  mediaId,
  type Parameter,
  type Route,
  route,
  sha256,
  textParameter,
} from '../../src/server/routes.js';
import { type AdminDeps, inspectMedia, LISTED_STATES, listMedia } from '../admin.js';
import { type QuarantineDeps, quarantine, restore } from '../quarantine.js';
import type { OriginRequest } from '../server/request.js';
import { type OwnerActDeps, takeDownOwner } from '../takedown/of-owner.js';
import { none, OWNER_TAKEN_DOWN, reason, refusals, TAKEN_DOWN, wait } from './route-notes.js';
import { MEDIA_PAGE_SCHEMA } from './schemas.js';

const id = { id: mediaId };
const SUBJECT_MAX = 1_024;

export function adminRoutes(deps: AdminDeps & QuarantineDeps & OwnerActDeps): readonly Route<OriginRequest>[] {
  const bytes = { sha256 };
  return [
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/admin/media',
      operations: { GET: 'listMedia', HEAD: 'headMediaList' },
      summary:
        'Lists media in the order of their creation, in pages. Where `owners_may_delete` is set, anyone may list their own.',
      audience: 'admin',
      path: none,
      query: {
        owner: textParameter('The subject that uploaded it.', SUBJECT_MAX),
        type: textParameter('Its media type, exactly.', 255),
        state: choiceParameter('The state of the media.', LISTED_STATES),
        from: instantParameter('Created at this instant or later.'),
        to: instantParameter('Created at this instant or earlier.'),
        cursor: optionalMediaId('The `next` of the previous page.'),
        limit: integerParameter('Entries per page; default 50.', { min: 1, max: 1_000 }),
      },
      responses: [
        {
          status: 200,
          help: '`items`, and `next` if there are more.',
          content: { type: 'application/json', schema: MEDIA_PAGE_SCHEMA },
        },
        ...refusals(400, 401, 403),
      ],
      handle: (request: OriginRequest, _path, query) => listMedia(deps, request, query),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/admin/media/{id}',
      operations: { GET: 'inspectMedia', HEAD: 'headMediaDetails' },
      summary: 'All that is known of one media.',
      audience: 'admin',
      path: id,
      query: none,
      responses: [
        {
          status: 200,
          help: 'The record, its duplicates, its thumbnails, and which edges have confirmed its last takedown.',
          content: { type: 'application/json', schema: { type: 'object' } },
        },
        ...refusals(400, 401, 403, 404),
      ],
      handle: (request: OriginRequest, path) => inspectMedia(deps, request, path.id),
    }),
    route({
      methods: ['POST'],
      pattern: '/v1/admin/blobs/{sha256}/quarantine',
      operations: { POST: 'quarantineBlob' },
      summary: 'Withholds bytes by their hash.',
      audience: 'admin',
      path: bytes,
      query: { wait, reason },
      responses: [TAKEN_DOWN, ...refusals(400, 401, 403, 404)],
      handle: (request: OriginRequest, path, query) => quarantine(deps, request, path.sha256, query),
    }),
    route({
      methods: ['DELETE'],
      pattern: '/v1/admin/blobs/{sha256}/quarantine',
      operations: { DELETE: 'restoreBlob' },
      summary: 'Ends the quarantine of bytes by their hash.',
      audience: 'admin',
      path: bytes,
      query: { wait, reason },
      responses: [TAKEN_DOWN, ...refusals(400, 401, 403, 404)],
      handle: (request: OriginRequest, path, query) => restore(deps, request, path.sha256, query),
    }),
    ...ownerRoutes(deps),
  ];
}

function ownerRoutes(deps: OwnerActDeps): readonly Route<OriginRequest>[] {
  const path = { subject };
  const cursor = optionalMediaId('The `next` of the previous answer.');
  const notes = {
    methods: ['POST'] as const,
    audience: 'admin' as const,
    path,
    responses: [OWNER_TAKEN_DOWN, ...refusals(400, 401, 403)],
  };
  return [
    route({
      ...notes,
      pattern: '/v1/admin/owners/{subject}/delete',
      operations: { POST: 'deleteOwned' },
      summary: 'Deletes all live media of an owner. The same bytes under the ids of others stay.',
      query: { wait, reason, cursor },
      handle: (request: OriginRequest, { subject: owner }, query) =>
        takeDownOwner(deps, request, 'delete', owner, query),
    }),
    route({
      ...notes,
      pattern: '/v1/admin/owners/{subject}/quarantine',
      operations: { POST: 'quarantineOwned' },
      summary: 'Withholds the bytes of all live media of an owner, under the ids of others too.',
      query: { wait, reason, cursor },
      handle: (request: OriginRequest, { subject: owner }, query) =>
        takeDownOwner(deps, request, 'quarantine', owner, query),
    }),
    route({
      ...notes,
      pattern: '/v1/admin/owners/{subject}/restore',
      operations: { POST: 'restoreOwned' },
      summary:
        'Ends what admins have quarantined of an owner, one by one or all at once. What the scanner found, and what is damaged, stays withheld.',
      query: { wait, reason, cursor },
      handle: (request: OriginRequest, { subject: owner }, query) =>
        takeDownOwner(deps, request, 'restore', owner, query),
    }),
  ];
}

/** A subject of any characters, percent-encoded. */
const subject: Parameter<string> = {
  help: 'The subject that uploaded the media, percent-encoded.',
  schema: { type: 'string', minLength: 1, maxLength: SUBJECT_MAX },
  read(text, name) {
    const decoded = decode(text ?? '');
    if (decoded === undefined || decoded === '' || decoded.length > SUBJECT_MAX) {
      throw new Fault('malformed', `${name} must be 1 to ${SUBJECT_MAX} characters, percent-encoded.`);
    }
    return decoded;
  },
};

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function optionalMediaId(help: string): Parameter<MediaId | undefined> {
  return {
    help,
    schema: mediaId.schema,
    read: (text, name) => (text === undefined ? undefined : mediaId.read(text, name)),
  };
}
