/** The endpoints of media: upload, reading, links, takedown. */
import { LINKS_PATH } from '../../src/access/make-links.js';
import { offerAsFile } from '../../src/media/disposition.js';
import {
  integerParameter,
  mediaId,
  type Parameter,
  type Parameters,
  type Route,
  route,
} from '../../src/server/routes.js';
import { type DownloadDeps, download } from '../download.js';
import { type InfoDeps, info } from '../info.js';
import { EXPIRES_IN_MAX_SECONDS, optionsOf, uploadParameters } from '../ingest/options.js';
import { type LinkDeps, link, links } from '../link.js';
import { type QuarantineDeps, quarantine, restore } from '../quarantine.js';
import { type RemoveDeps, remove } from '../remove.js';
import type { OriginRequest } from '../server/request.js';
import { type ThumbDeps, thumb } from '../thumb.js';
import { type UploadDeps, upload } from '../upload.js';
import { type UploadLinkDeps, uploadLink } from '../upload-link.js';
import { CONDITIONS, DIGESTS, RANGES } from './fields.js';
import { bodyRefusals, mediaResponses, none, reason, refusal, refusals, TAKEN_DOWN, wait } from './route-notes.js';
import {
  INFO_JSON,
  LINK_SCHEMA,
  LINKS_SCHEMA,
  LINKS_WANTED_SCHEMA,
  MEDIA_JSON,
  PENDING_SCHEMA,
  UPLOAD_LINK_SCHEMA,
  UPLOAD_LINK_WANTED_SCHEMA,
} from './schemas.js';

export type MediaRouteDeps = UploadDeps &
  DownloadDeps &
  ThumbDeps &
  InfoDeps &
  LinkDeps &
  UploadLinkDeps &
  RemoveDeps &
  QuarantineDeps;

const id = { id: mediaId };

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

export function mediaRoutes(deps: MediaRouteDeps): readonly Route<OriginRequest>[] {
  return [
    route({
      methods: ['POST'],
      pattern: '/v1/media',
      operations: { POST: 'uploadMedia' },
      fields: DIGESTS,
      summary: 'Uploads media: the raw bytes, or a form with one `file`.',
      audience: 'token',
      path: none,
      query: uploadParameters,
      requestBody: { help: 'The bytes.', types: ['*/*', 'multipart/form-data'] },
      responses: [
        { status: 201, help: 'Stored, durably.', content: MEDIA_JSON, fields: ['Location', 'ETag'] },
        {
          status: 200,
          help: 'A duplicate of existing media with the same bytes and the same `public`. The id is theirs.',
          content: MEDIA_JSON,
          fields: ['Location', 'ETag'],
        },
        refusal(400, 'digest_mismatch', 'malformed', 'empty'),
        ...bodyRefusals(),
      ],
      handle: (request: OriginRequest, _path, query) => upload(deps, request, optionsOf(query)),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/media/{id}',
      operations: { GET: 'downloadMedia', HEAD: 'headMedia' },
      fields: [...CONDITIONS, ...RANGES],
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
      operations: { GET: 'getThumbnail', HEAD: 'headThumbnail' },
      fields: [...CONDITIONS, ...RANGES],
      summary: 'The thumbnail that fits the wanted size best, in the best format that Accept allows.',
      audience: 'viewer',
      path: id,
      query: thumbParameters,
      responses: [
        ...mediaResponses('The thumbnail.', 'image/*'),
        { status: 200, help: 'A placeholder, for a picture element.', fields: ['Media-Placeholder'] },
        {
          status: 202,
          help: 'The thumbnail is being made. Retry-After says when to try again.',
          content: { type: 'application/json', schema: PENDING_SCHEMA },
        },
        refusal(404, 'not_found', 'thumbnail_unavailable'),
      ],
      handle: async (request: OriginRequest, path) => offerAsFile(await thumb(deps, request, path.id), request.query),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/v1/media/{id}/info',
      operations: { GET: 'getInfo', HEAD: 'headInfo' },
      fields: [...CONDITIONS, ...RANGES],
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
      operations: { POST: 'linkMedia' },
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
      operations: { POST: 'linkMany' },
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
      operations: { POST: 'linkUpload' },
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
    ...takedownRoutes(deps),
  ];
}

/** Also used on the operators' listener. */
export function takedownRoutes(deps: RemoveDeps & QuarantineDeps): readonly Route<OriginRequest>[] {
  return [
    route({
      methods: ['DELETE'],
      pattern: '/v1/media/{id}',
      operations: { DELETE: 'deleteMedia' },
      summary: 'Deletes one id. Where `owners_may_delete` is set, whoever uploaded it may do so too.',
      audience: 'admin',
      path: id,
      query: { wait, reason },
      responses: [TAKEN_DOWN, ...refusals(400, 401, 403, 404)],
      handle: (request: OriginRequest, path, query) => remove(deps, request, path.id, query),
    }),
    route({
      methods: ['POST'],
      pattern: '/v1/media/{id}/quarantine',
      operations: { POST: 'quarantineMedia' },
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
      operations: { DELETE: 'restoreMedia' },
      summary: 'Ends the quarantine of the bytes.',
      audience: 'admin',
      path: id,
      query: { wait, reason },
      responses: [TAKEN_DOWN, ...refusals(400, 401, 403, 404, 410)],
      handle: (request: OriginRequest, path, query) => restore(deps, request, path.id, query),
    }),
  ];
}
