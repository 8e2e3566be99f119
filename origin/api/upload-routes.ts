/** The endpoints of resumable uploads. */
import { type Route, route, textParameter, type ValuesOf } from '../../src/server/routes.js';
import { continueResumable, createResumable, type ResumableDeps, resumableOptions } from '../resumable.js';
import type { OriginRequest } from '../server/request.js';
import type { ResponseField } from './fields.js';
import { bodyRefusals, none, refusal } from './route-notes.js';
import { MEDIA_JSON } from './schemas.js';

const TUS_STATE: readonly ResponseField[] = [
  'Tus-Resumable',
  'Upload-Offset',
  'Upload-Expires',
  'Media-Location',
  'ETag',
];
const TUS_OFFERS: readonly ResponseField[] = [
  'Tus-Resumable',
  'Tus-Version',
  'Tus-Extension',
  'Tus-Max-Size',
  'Tus-Checksum-Algorithm',
  'Allow',
];

/** tus 1.0.0. */
export function uploadRoutes(deps: ResumableDeps): readonly Route<OriginRequest>[] {
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
      operations: { POST: 'createUpload' },
      fields: [
        'Tus-Resumable',
        'Upload-Length',
        'Upload-Defer-Length',
        'Upload-Metadata',
        'Upload-Concat',
        'Upload-Checksum',
      ],
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
          fields: ['Location', ...TUS_STATE],
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
      operations: { PATCH: 'appendUpload' },
      fields: ['Tus-Resumable', 'Upload-Offset', 'Upload-Length', 'Upload-Checksum'],
      summary: 'Adds a chunk to a resumable upload. The last chunk finishes it.',
      requestBody: chunk,
      responses: [
        {
          status: 204,
          help: 'Stored. With Media-Location the upload is finished and has become that media.',
          fields: TUS_STATE,
        },
        { status: 200, help: 'Finished; for a request that accepts JSON.', content: MEDIA_JSON, fields: TUS_STATE },
        ...uploadRefusals(),
        ...chunkRefusals(),
      ],
    }),
    route({
      ...theUpload,
      methods: ['HEAD', 'DELETE', 'POST'],
      operations: { HEAD: 'headUpload', DELETE: 'deleteUpload', POST: 'overrideUpload' },
      fields: ['Tus-Resumable', 'X-HTTP-Method-Override'],
      summary:
        'HEAD returns the offset of a resumable upload, DELETE removes it. POST with X-HTTP-Method-Override stands for HEAD, PATCH or DELETE.',
      responses: [
        {
          status: 200,
          help: 'HEAD: the current offset.',
          fields: [...TUS_STATE, 'Upload-Length', 'Upload-Defer-Length', 'Upload-Metadata', 'Upload-Concat'],
        },
        { status: 204, help: 'DELETE: the upload is removed.' },
        ...uploadRefusals(),
        refusal(405, 'method_not_allowed'),
        // HEAD finishes an upload that could not be finished by its last PATCH, and may refuse it then.
        ...chunkRefusals(),
      ],
    }),
    ...[
      { pattern: '/v1/uploads', path: none, methods: ['POST', 'OPTIONS'], name: 'uploadOptions' },
      {
        pattern: '/v1/uploads/{upload}',
        path: where,
        methods: ['HEAD', 'PATCH', 'DELETE', 'POST', 'OPTIONS'],
        name: 'unfinishedUploadOptions',
      },
    ].map(({ pattern, path, methods, name }) =>
      route({
        methods: ['OPTIONS'],
        pattern,
        operations: { OPTIONS: name },
        summary: 'What the service supports of tus.',
        audience: 'anyone',
        path,
        query: none,
        responses: [{ status: 204, help: 'Versions, extensions, limits and checksum algorithms.', fields: TUS_OFFERS }],
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
