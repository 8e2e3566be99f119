/**
 * `/openapi.json` (OpenAPI 3.1), made from the table that routes and validates
 * requests, so it always describes what the service does. Schemas with a title
 * become named components, and so do the fields of responses.
 */
import { FAULTS, type FaultCode, invariant } from '../../src/errors.js';
import type { Audience, JsonSchema, Method, Parameters, ResponseNote, Route } from '../../src/server/routes.js';
import { type FieldNote, fieldsOfStatus, REQUEST_FIELDS, RESPONSE_FIELDS } from './fields.js';
import { WEBHOOK_FIELDS, type WebhookNote } from './webhooks.js';

type Document = Readonly<Record<string, unknown>>;

/** Version of the interface, not of the program. It changes when clients must change. */
const API_VERSION = '1.0.0';

export function describeRoutes(
  routes: readonly Route<never>[],
  baseUri: string,
  webhooks: readonly WebhookNote[] = [],
): Document {
  const named: Record<string, JsonSchema> = { Problem: PROBLEM };
  const paths: Record<string, Record<string, Document>> = {};
  for (const row of routes) {
    if (row.hidden === true) continue;
    const operations = row.methods.map((method) => [method.toLowerCase(), operation(row, method, named)] as const);
    paths[row.pattern] = { ...paths[row.pattern], ...Object.fromEntries(operations) };
  }
  const events = webhooks.map((note) => [note.type, { post: webhook(note, named) }] as const);
  return {
    openapi: '3.1.0',
    info: {
      title: 'Media service',
      version: API_VERSION,
      license: { name: 'MIT', identifier: 'MIT' },
      description: 'Media for chat: upload, download, thumbnails, signed links, takedown.',
    },
    servers: [{ url: baseUri }],
    paths,
    ...(events.length > 0 && { webhooks: Object.fromEntries(events) }),
    components: { schemas: named, headers: HEADERS, securitySchemes: SECURITY_SCHEMES },
  };
}

type Named = Record<string, JsonSchema>;

function operation(row: Route<never>, method: Method, named: Named): Document {
  const { operations, requestBody } = row;
  const id = operations?.[method];
  return {
    ...(id !== undefined && { operationId: id }),
    summary: row.summary,
    security: securityOf(row.audience),
    parameters: [
      ...parametersOf(row.path, 'path'),
      ...parametersOf(row.query, 'query'),
      ...fieldParameters(row.fields),
    ],
    ...(requestBody !== undefined && {
      requestBody: {
        description: requestBody.help,
        required: true,
        content: Object.fromEntries(
          requestBody.types.map((type) => [type, bodySchema(type, requestBody.schema, named)]),
        ),
      },
    }),
    responses: Object.fromEntries(
      [...byStatus(row.responses)].map(([status, notes]) => [String(status), response(status, notes, named)]),
    ),
  };
}

/** A request of the service to the chat server. It proves itself by its signature. */
function webhook({ operationId, summary, schema }: WebhookNote, named: Named): Document {
  return {
    operationId,
    summary,
    security: [{}],
    parameters: Object.entries(WEBHOOK_FIELDS).map(([name, { help, schema }]) => ({
      name,
      in: 'header',
      required: true,
      description: help,
      schema,
    })),
    requestBody: { required: true, content: { 'application/json': { schema: linked(schema, named) } } },
    responses: {
      '2XX': { description: 'The chat server has the event. The content is not read.' },
      '4XX': { description: 'As every other answer: the event is sent again, with growing pauses for a day.' },
    },
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

function fieldParameters(names: readonly string[] = []): readonly Document[] {
  return names.map((name) => {
    const { help, schema } = noteOf(REQUEST_FIELDS, name);
    return { name, in: 'header', required: false, description: help, schema };
  });
}

function noteOf(notes: Readonly<Record<string, FieldNote>>, name: string): FieldNote {
  const note = notes[name];
  invariant(note !== undefined, `the field ${name} is described`);
  return note;
}

/** The schema, in which those with a title are references to components. They are added to `named`. */
function linked(schema: unknown, named: Named): unknown {
  if (Array.isArray(schema)) return schema.map((each) => linked(each, named));
  if (typeof schema !== 'object' || schema === null) return schema;
  const { title, ...others } = schema as Readonly<Record<string, unknown>>;
  const parts = Object.entries(others).map(([name, value]) => [
    name,
    name === 'examples' ? value : linked(value, named),
  ]);
  if (typeof title !== 'string') {
    // Among properties, `title` is one of them.
    return { ...(title !== undefined && { title: linked(title, named) }), ...Object.fromEntries(parts) };
  }
  named[title] = Object.fromEntries(parts) as JsonSchema;
  return { $ref: `#/components/schemas/${title}` };
}

function bodySchema(type: string, schema: JsonSchema | undefined, named: Named): Document {
  if (schema !== undefined) return { schema: linked(schema, named) };
  if (type !== 'multipart/form-data') return {};
  return { schema: { type: 'object', properties: { file: {} }, required: ['file'] } };
}

function byStatus(notes: readonly ResponseNote[]): ReadonlyMap<number, readonly ResponseNote[]> {
  const grouped = new Map<number, ResponseNote[]>();
  for (const note of notes) grouped.set(note.status, [...(grouped.get(note.status) ?? []), note]);
  return grouped;
}

/** Several notes about one status become one response with the codes of all. */
function response(status: number, notes: readonly ResponseNote[], named: Named): Document {
  const codes = [...new Set(notes.flatMap((note) => note.codes ?? []))];
  const content = notes.find((note) => note.content !== undefined)?.content;
  const refusal = codes.length > 0;
  const fields = new Set([...notes.flatMap((note) => note.fields ?? []), ...fieldsOfStatus(status)]);
  return {
    description: refusal ? codes.map((code) => `\`${code}\`: ${titleOf(code)}`).join('; ') : (notes[0]?.help ?? ''),
    headers: Object.fromEntries([...fields].map((name) => [name, { $ref: `#/components/headers/${name}` }])),
    ...(content !== undefined && {
      content: { [content.type]: { schema: refusal ? problemOf(codes) : linked(content.schema ?? {}, named) } },
    }),
  };
}

function titleOf(code: FaultCode): string {
  return FAULTS[code].title;
}

function problemOf(codes: readonly string[]): JsonSchema {
  return {
    allOf: [{ $ref: '#/components/schemas/Problem' }, { type: 'object', properties: { code: { enum: codes } } }],
  };
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

const HEADERS: Document = Object.fromEntries(
  Object.entries<FieldNote>(RESPONSE_FIELDS).map(([name, { help, schema }]) => [name, { description: help, schema }]),
);

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
    code: { type: 'string', enum: Object.keys(FAULTS) },
  },
  required: ['type', 'title', 'status', 'detail', 'code'],
  examples: [
    {
      type: 'urn:media-service:problem:not_found',
      title: FAULTS.not_found.title,
      status: 404,
      detail: 'There is no media with this id.',
      code: 'not_found',
    },
  ],
};
