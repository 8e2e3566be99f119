/**
 * The origin's endpoints as one table, which routes, validates and describes.
 * What an endpoint does is in its handler's own file.
 */

import { LINKS_PATH } from '../../src/access/make-links.js';
import type { MediaId } from '../../src/ids.js';
import { offerAsFile } from '../../src/media/disposition.js';
import type { Health } from '../../src/server/health.js';
import {
  choiceParameter,
  instantParameter,
  integerParameter,
  mediaId,
  type Parameter,
  type Parameters,
  type Route,
  route,
  sha256,
  textParameter,
  type ValuesOf,
} from '../../src/server/routes.js';
import { type AdminDeps, inspectMedia, LISTED_STATES, listMedia } from '../admin.js';
import { type DownloadDeps, download } from '../download.js';
import { type InfoDeps, info } from '../info.js';
import { EXPIRES_IN_MAX_SECONDS, optionsOf, uploadParameters } from '../ingest/options.js';
import { type LinkDeps, link, links } from '../link.js';
import { type QuarantineDeps, quarantine, restore } from '../quarantine.js';
import { type RemoveDeps, remove } from '../remove.js';
import { continueResumable, createResumable, type ResumableDeps, resumableOptions } from '../resumable.js';
import type { OriginRequest } from '../server/request.js';
import { type ThumbDeps, thumb } from '../thumb.js';
import { upload } from '../upload.js';
import { type UploadLinkDeps, uploadLink } from '../upload-link.js';
import { createDocument, type DocumentReply } from './document.js';
import { describeRoutes } from './openapi.js';
import {
  INFO_JSON,
  LINK_SCHEMA,
  LINKS_SCHEMA,
  LINKS_WANTED_SCHEMA,
  MEDIA_JSON,
  mediaResponses,
  refusal,
  refusals,
  TAKEN_DOWN,
  UPLOAD_LINK_SCHEMA,
  UPLOAD_LINK_WANTED_SCHEMA,
  withCommonRefusals,
} from './route-notes.js';
import type { WellKnownConfig } from './well-known.js';

export type RouteDeps = ResumableDeps &
  DownloadDeps &
  ThumbDeps &
  InfoDeps &
  LinkDeps &
  UploadLinkDeps &
  RemoveDeps &
  QuarantineDeps &
  AdminDeps & {
    readonly health: Health;
    readonly wellKnown: DocumentReply;
    readonly config: { readonly wellKnown: WellKnownConfig };
  };

const id = { id: mediaId };
const none = {};

const wait = choiceParameter('`edges`: respond only when every connected edge has confirmed or the wait is over.', [
  'edges',
]);

const reason = textParameter('The reason, for the audit log.', 512);

/** Only described here: offerAsFile reads it. */
const downloadParameter: Parameter<undefined> = {
  help: 'Offers the answer as a file of this name, or of its own if the name is empty. Changes Content-Disposition alone.',
  schema: { type: 'string' },
  read: () => undefined,
};

const PIXELS_MAX = 999_999;
/** Only described here: thumb-choice.ts reads them, and any other parameters are ignored. */
const thumbParameters = {
  w: pixels('Wanted width in pixels.'),
  h: pixels('Wanted height in pixels.'),
  download: downloadParameter,
} satisfies Parameters;

function pixels(help: string): Parameter<undefined> {
  return { help, schema: { type: 'integer', minimum: 1, maximum: PIXELS_MAX }, read: () => undefined };
}

export function originRoutes(deps: RouteDeps): readonly Route<OriginRequest>[] {
  const openapi = createDocument(() => describeRoutes(rows, deps.baseUri), deps.config.wellKnown.maxAgeMs);
  const rows = withCommonRefusals([
    ...mediaRoutes(deps),
    ...resumableRoutes(deps),
    ...adminRoutes(deps),
    ...healthRoutes(deps.health),
    documentRoute('/.well-known', 'What the service can do.', deps.wellKnown),
    documentRoute('/.well-known/media-service', 'The same document.', deps.wellKnown),
    documentRoute('/openapi.json', 'This document.', openapi),
  ]);
  return rows;
}

function mediaRoutes(deps: RouteDeps): readonly Route<OriginRequest>[] {
  return [
    route({
      methods: ['POST'],
      pattern: '/v1/media',
      summary: 'Uploads media: the raw bytes, or a form with one `file`.',
      audience: 'token',
      path: none,
      query: uploadParameters,
      requestBody: { help: 'The bytes.', types: ['*/*', 'multipart/form-data'] },
      responses: [
        { status: 201, help: 'Stored, durably.', content: MEDIA_JSON },
        {
          status: 200,
          help: 'A duplicate of existing media with the same bytes and the same `public`. The id is theirs.',
          content: MEDIA_JSON,
        },
        refusal(400, 'digest_mismatch', 'malformed', 'empty'),
        ...bodyRefusals(),
      ],
      handle: (request: OriginRequest, _path, query) => upload(deps, request, optionsOf(query)),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/media/{id}',
      summary: 'The original.',
      audience: 'viewer',
      path: id,
      query: { download: downloadParameter },
      responses: mediaResponses('The bytes.', '*/*'),
      handle: async (request: OriginRequest, path) =>
        offerAsFile(await download(deps, request, path.id), request.query),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/media/{id}/thumb',
      summary: 'The thumbnail that fits the wanted size best, in the best format that Accept allows.',
      audience: 'viewer',
      path: id,
      query: thumbParameters,
      responses: [
        ...mediaResponses('The thumbnail.', 'image/*'),
        {
          status: 202,
          help: 'The thumbnail is being made. Retry-After says when to try again.',
          content: { type: 'application/json' },
        },
        refusal(404, 'not_found', 'thumbnail_unavailable'),
      ],
      handle: async (request: OriginRequest, path) => offerAsFile(await thumb(deps, request, path.id), request.query),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/media/{id}/info',
      summary: 'What is known of the media now.',
      audience: 'viewer',
      path: id,
      query: { download: downloadParameter },
      responses: mediaResponses('The document of the upload.', INFO_JSON.type, INFO_JSON.schema),
      handle: async (request: OriginRequest, path) => offerAsFile(await info(deps, request, path.id), request.query),
    }),
    route({
      methods: ['POST'],
      pattern: '/v1/media/{id}/link',
      summary: 'Signs links for the original, the thumbnails and the info.',
      audience: 'token',
      path: id,
      query: {
        expires_in: integerParameter('Seconds for which the links are valid.', { min: 1, max: EXPIRES_IN_MAX_SECONDS }),
        w: integerParameter('Width of the thumbnail that `thumb_url` shows.', { min: 1, max: PIXELS_MAX }),
        h: integerParameter('Height of the thumbnail that `thumb_url` shows.', { min: 1, max: PIXELS_MAX }),
      },
      responses: [
        { status: 200, help: 'The links.', content: { type: 'application/json', schema: LINK_SCHEMA } },
        ...refusals(400, 401, 403, 404, 410),
      ],
      handle: (request: OriginRequest, path, query) =>
        link(deps, request, path.id, { expiresInSeconds: query.expires_in, width: query.w, height: query.h }),
    }),
    route({
      methods: ['POST'],
      pattern: LINKS_PATH,
      summary: 'Signs links for many media at once, whether they exist or not.',
      audience: 'token',
      path: none,
      query: none,
      requestBody: { help: 'The ids, and for how long.', types: ['application/json'], schema: LINKS_WANTED_SCHEMA },
      responses: [
        {
          status: 200,
          help: 'The links, in the order of the ids.',
          content: { type: 'application/json', schema: LINKS_SCHEMA },
        },
        ...refusals(400, 401),
        refusal(403, 'forbidden'),
        refusal(404, 'not_found'),
        refusal(408, 'request_timeout'),
      ],
      handle: (request: OriginRequest) => links(deps, request),
    }),
    route({
      methods: ['POST'],
      pattern: '/v1/uploads/link',
      summary: 'Signs links by which somebody without a token may upload once.',
      audience: 'token',
      path: none,
      query: none,
      requestBody: { help: 'The terms.', types: ['application/json'], schema: UPLOAD_LINK_WANTED_SCHEMA },
      responses: [
        {
          status: 200,
          help: 'Links for POST, and for a resumable upload. They may be used once, one or the other.',
          content: { type: 'application/json', schema: UPLOAD_LINK_SCHEMA },
        },
        refusal(400, 'malformed'),
        refusal(401, 'unauthorized'),
        refusal(403, 'forbidden'),
        refusal(404, 'not_found'),
        refusal(408, 'request_timeout'),
      ],
      handle: (request: OriginRequest) => uploadLink(deps, request),
    }),
    route({
      methods: ['DELETE'],
      pattern: '/v1/media/{id}',
      summary: 'Deletes one id. Where `owners_may_delete` is set, whoever uploaded it may do so too.',
      audience: 'admin',
      path: id,
      query: { wait },
      responses: [TAKEN_DOWN, ...refusals(400, 401, 403, 404)],
      handle: (request: OriginRequest, path, query) => remove(deps, request, path.id, query.wait),
    }),
    route({
      methods: ['POST'],
      pattern: '/v1/media/{id}/quarantine',
      summary: 'Withholds the bytes, under every id that refers to them.',
      audience: 'admin',
      path: id,
      query: { wait, reason },
      responses: [TAKEN_DOWN, ...refusals(400, 401, 403, 404, 410)],
      handle: (request: OriginRequest, path, query) => quarantine(deps, request, path.id, query),
    }),
    route({
      methods: ['DELETE'],
      pattern: '/v1/media/{id}/quarantine',
      summary: 'Ends the quarantine of the bytes.',
      audience: 'admin',
      path: id,
      query: { wait },
      responses: [TAKEN_DOWN, ...refusals(400, 401, 403, 404, 410)],
      handle: (request: OriginRequest, path, query) => restore(deps, request, path.id, query.wait),
    }),
  ];
}

/** tus 1.0.0. */
function resumableRoutes(deps: RouteDeps): readonly Route<OriginRequest>[] {
  const chunk = { help: 'A chunk of the bytes.', types: ['application/offset+octet-stream'] };
  const where = { upload: textParameter('The id, from the Location of the creation.', 64) };
  const theUpload = {
    pattern: '/v1/uploads/{upload}',
    audience: 'token',
    path: where,
    query: none,
    handle: (request: OriginRequest, path: ValuesOf<typeof where>) =>
      continueResumable(deps, request, path.upload ?? ''),
  } as const;
  return [
    route({
      methods: ['POST'],
      pattern: '/v1/uploads',
      summary:
        'Begins a resumable upload (tus 1.0.0), perhaps with its first bytes, or joins partial uploads (Upload-Concat).',
      audience: 'token',
      path: none,
      query: none,
      requestBody: chunk,
      responses: [
        {
          status: 201,
          help: 'Begun, at Location. With Media-Location it is also finished and has become that media.',
          content: MEDIA_JSON,
        },
        refusal(405, 'method_not_allowed'),
        refusal(409, 'conflict'),
        refusal(412, 'precondition_failed'),
        ...chunkRefusals(),
      ],
      handle: (request: OriginRequest) => createResumable(deps, request),
    }),
    route({
      ...theUpload,
      methods: ['PATCH'],
      summary: 'Adds a chunk to a resumable upload. The last chunk finishes it.',
      requestBody: chunk,
      responses: [
        { status: 204, help: 'Stored. With Media-Location the upload is finished and has become that media.' },
        { status: 200, help: 'Finished; for a request that accepts JSON.', content: MEDIA_JSON },
        ...uploadRefusals(),
        ...chunkRefusals(),
      ],
    }),
    route({
      ...theUpload,
      methods: ['HEAD', 'DELETE', 'POST'],
      summary:
        'HEAD returns the offset of a resumable upload, DELETE removes it. POST with X-HTTP-Method-Override stands for HEAD, PATCH or DELETE.',
      responses: [
        { status: 200, help: 'HEAD: the current offset.' },
        { status: 204, help: 'DELETE: the upload is removed.' },
        ...uploadRefusals(),
        refusal(405, 'method_not_allowed'),
        // HEAD finishes an upload that could not be finished by its last PATCH, and may refuse it then.
        ...chunkRefusals(),
      ],
    }),
    ...[
      { pattern: '/v1/uploads', path: none, methods: ['POST', 'OPTIONS'] },
      { pattern: '/v1/uploads/{upload}', path: where, methods: ['HEAD', 'PATCH', 'DELETE', 'POST', 'OPTIONS'] },
    ].map(({ pattern, path, methods }) =>
      route({
        methods: ['OPTIONS'],
        pattern,
        summary: 'What the service supports of tus.',
        audience: 'anyone',
        path,
        query: none,
        responses: [{ status: 204, help: 'Versions, extensions, limits and checksum algorithms.' }],
        handle: async (_request: OriginRequest) => resumableOptions(deps, methods),
      }),
    ),
  ];
}

function uploadRefusals() {
  return [
    refusal(404, 'not_found'),
    refusal(409, 'conflict'),
    refusal(410, 'expired'),
    refusal(412, 'precondition_failed'),
  ];
}

function chunkRefusals() {
  return [refusal(400, 'malformed', 'empty'), refusal(460, 'checksum_mismatch'), ...bodyRefusals()];
}

/** Of every request that carries bytes of an upload. */
function bodyRefusals() {
  return [
    refusal(401, 'unauthorized', 'link_expired'),
    refusal(403, 'quarantined', 'forbidden'),
    refusal(408, 'request_timeout'),
    refusal(413, 'too_large'),
    refusal(415, 'type_refused', 'type_mismatch'),
    refusal(429, 'quota_exceeded'),
    refusal(507, 'storage_full'),
  ];
}

function adminRoutes(deps: RouteDeps): readonly Route<OriginRequest>[] {
  const bytes = { sha256 };
  return [
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/admin/media',
      summary:
        'Lists media in the order of their creation, in pages. Where `owners_may_delete` is set, anyone may list their own.',
      audience: 'admin',
      path: none,
      query: {
        owner: textParameter('The subject that uploaded it.', 1_024),
        type: textParameter('Its media type, exactly.', 255),
        state: choiceParameter('The state of the media.', LISTED_STATES),
        from: instantParameter('Created at this instant or later.'),
        to: instantParameter('Created at this instant or earlier.'),
        cursor: optionalMediaId('The `next` of the previous page.'),
        limit: integerParameter('Entries per page; default 50.', { min: 1, max: 1_000 }),
      },
      responses: [
        { status: 200, help: '`items`, and `next` if there are more.', content: { type: 'application/json' } },
        ...refusals(400, 401, 403),
      ],
      handle: (request: OriginRequest, _path, query) => listMedia(deps, request, query),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/admin/media/{id}',
      summary: 'All that is known of one media.',
      audience: 'admin',
      path: id,
      query: none,
      responses: [
        {
          status: 200,
          help: 'The record, its duplicates, its thumbnails, and which edges have confirmed its last takedown.',
          content: { type: 'application/json' },
        },
        ...refusals(400, 401, 403, 404),
      ],
      handle: (request: OriginRequest, path) => inspectMedia(deps, request, path.id),
    }),
    route({
      methods: ['POST'],
      pattern: '/v1/admin/blobs/{sha256}/quarantine',
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
      summary: 'Ends the quarantine of bytes by their hash.',
      audience: 'admin',
      path: bytes,
      query: { wait },
      responses: [TAKEN_DOWN, ...refusals(400, 401, 403, 404)],
      handle: (request: OriginRequest, path, query) => restore(deps, request, path.sha256, query.wait),
    }),
  ];
}

function optionalMediaId(help: string): Parameter<MediaId | undefined> {
  return {
    help,
    schema: mediaId.schema,
    read: (text, name) => (text === undefined ? undefined : mediaId.read(text, name)),
  };
}

/** A document that everyone may read. */
function documentRoute(pattern: string, summary: string, answer: DocumentReply): Route<OriginRequest> {
  return route({
    methods: ['GET', 'HEAD'],
    pattern,
    summary,
    audience: 'anyone',
    path: none,
    query: none,
    responses: [
      { status: 200, help: 'The document.', content: { type: 'application/json' } },
      { status: 304, help: 'The copy of the client is current.' },
    ],
    handle: async (request: OriginRequest) => answer(request),
  });
}

/** Also used on the operators' listener. */
export function healthRoutes(health: Health): readonly Route<OriginRequest>[] {
  const json = { type: 'application/json' };
  return [
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/healthz',
      summary: 'Whether the process runs.',
      audience: 'anyone',
      path: none,
      query: none,
      responses: [{ status: 200, help: 'It does.', content: json }],
      handle: async () => health.live(),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/readyz',
      summary: 'Whether the service can work: database, storage, disk and keys.',
      audience: 'anyone',
      path: none,
      query: none,
      responses: [
        { status: 200, help: 'It can.', content: json },
        { status: 503, help: 'It cannot; `failed` names why.', content: json },
      ],
      handle: async () => await health.ready(),
    }),
  ];
}
