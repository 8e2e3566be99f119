/**
 * `/openapi.json` (OpenAPI 3.1), made from the table that routes and validates
 * requests, so it always describes what the service does.
 */
import { FAULTS, type FaultCode } from '../../src/errors.js';
import type { Audience, JsonSchema, Parameters, ResponseNote, Route } from '../../src/server/routes.js';

type Document = Readonly<Record<string, unknown>>;

/** Version of the interface, not of the program. It changes when clients must change. */
const API_VERSION = '1.0.0';

export function describeRoutes(routes: readonly Route<never>[], baseUri: string): Document {
  const paths: Record<string, Record<string, Document>> = {};
  for (const row of routes) {
    if (row.hidden === true) continue;
    const operations = row.methods.map((method) => [method.toLowerCase(), operation(row)] as const);
    paths[row.pattern] = { ...paths[row.pattern], ...Object.fromEntries(operations) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Media service',
      version: API_VERSION,
      description: 'Media for chat: upload, download, thumbnails, signed links, takedown.',
    },
    servers: [{ url: baseUri }],
    paths,
    components: { schemas: { Problem: PROBLEM }, securitySchemes: SECURITY_SCHEMES },
  };
}

function operation(row: Route<never>): Document {
  return {
    summary: row.summary,
    security: securityOf(row.audience),
    parameters: [...parametersOf(row.path, 'path'), ...parametersOf(row.query, 'query')],
    ...(row.requestBody !== undefined && {
      requestBody: {
        description: row.requestBody.help,
        required: true,
        content: Object.fromEntries(
          row.requestBody.types.map((type) => [type, bodySchema(type, row.requestBody?.schema)]),
        ),
      },
    }),
    responses: Object.fromEntries(
      [...byStatus(row.responses)].map(([status, notes]) => [String(status), response(notes)]),
    ),
  };
}

function parametersOf(parameters: Parameters, place: 'path' | 'query'): readonly Document[] {
  return Object.entries(parameters).map(([name, { help, schema }]) => ({
    name,
    in: place,
    required: place === 'path',
    description: help,
    schema,
  }));
}

function bodySchema(type: string, schema: JsonSchema | undefined): Document {
  if (schema !== undefined) return { schema };
  if (type !== 'multipart/form-data') return {};
  return { schema: { type: 'object', properties: { file: {} }, required: ['file'] } };
}

function byStatus(notes: readonly ResponseNote[]): ReadonlyMap<number, readonly ResponseNote[]> {
  const grouped = new Map<number, ResponseNote[]>();
  for (const note of notes) grouped.set(note.status, [...(grouped.get(note.status) ?? []), note]);
  return grouped;
}

/** Several notes about one status become one response with the codes of all. */
function response(notes: readonly ResponseNote[]): Document {
  const codes = [...new Set(notes.flatMap((note) => note.codes ?? []))];
  const content = notes.find((note) => note.content !== undefined)?.content;
  const refusal = codes.length > 0;
  return {
    description: refusal ? codes.map((code) => `\`${code}\`: ${titleOf(code)}`).join('; ') : (notes[0]?.help ?? ''),
    ...(content !== undefined && {
      content: { [content.type]: { schema: refusal ? problemOf(codes) : (content.schema ?? {}) } },
    }),
  };
}

function titleOf(code: FaultCode): string {
  return FAULTS[code].title;
}

function problemOf(codes: readonly string[]): JsonSchema {
  return { allOf: [{ $ref: '#/components/schemas/Problem' }, { properties: { code: { enum: codes } } }] };
}

/** Alternatives. An empty one means that no credential is needed. */
function securityOf(audience: Audience): readonly Document[] {
  switch (audience) {
    case 'anyone':
      return [{}];
    case 'viewer':
      return [{}, { token: [] }, { link: [] }];
    case 'token':
    case 'admin':
      return [{ token: [] }];
  }
}

const SECURITY_SCHEMES = {
  token: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' },
  link: {
    type: 'apiKey',
    in: 'query',
    name: 'sig',
    description: 'A signed link: `exp`, `kid` and `sig`, as made by POST /v1/media/{id}/link.',
  },
};

/** RFC 9457 3.1, with our code. */
const PROBLEM: JsonSchema = {
  type: 'object',
  properties: {
    type: { type: 'string', format: 'uri' },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string' },
    code: { enum: Object.keys(FAULTS) },
  },
  required: ['type', 'title', 'status', 'detail', 'code'],
};
