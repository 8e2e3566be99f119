/**
 * The endpoints of a server as one table: the same rows route requests, validate
 * parameters and make the description. Handlers get their path and query
 * parameters parsed.
 *
 * Leaves to others: who may call (the handlers ask the gate), and writing the
 * answer (send.ts).
 */
import { Fault, type FaultCode } from '../errors.js';
import { wholeNumber } from '../http/head.js';
import type { Reply } from '../http/reply.js';
import { type MediaId, parseMediaId, parseSha256, type Sha256 } from '../ids.js';

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'OPTIONS';

/** JSON Schema as OpenAPI 3.1 shows it. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** One parameter of a path or a query: how it is parsed and described. */
export interface Parameter<T> {
  readonly help: string;
  readonly schema: JsonSchema;
  /** `text` is undefined if the parameter was left out. Throws a Fault for an invalid value. */
  read(text: string | undefined, name: string): T;
}

export type Parameters = Readonly<Record<string, Parameter<unknown>>>;
export type ValuesOf<P extends Parameters> = {
  readonly [K in keyof P]: P[K] extends Parameter<infer T> ? T : never;
};

/** Who may call, for the description only. */
export type Audience = 'anyone' | 'viewer' | 'token' | 'admin';

export interface ResponseNote {
  readonly status: number;
  readonly help: string;
  /** Content type and schema of the body, if it has one. */
  readonly content?: { readonly type: string; readonly schema?: JsonSchema };
  /** Names of fields that come with it, beside those of every answer. */
  readonly fields?: readonly string[];
  /** Fault codes that come with this status. */
  readonly codes?: readonly FaultCode[];
}

export interface RouteNotes {
  readonly summary: string;
  readonly audience: Audience;
  /** The name of each method in generated clients; for the description only. */
  readonly operations?: Readonly<Partial<Record<Method, string>>>;
  /** Names of request fields that it reads; for the description only. */
  readonly fields?: readonly string[];
  readonly responses: readonly ResponseNote[];
  readonly requestBody?: { readonly help: string; readonly types: readonly string[]; readonly schema?: JsonSchema };
  /** A route between our own processes: clients get 404, and it is never described. */
  readonly hidden?: boolean;
}

/** A row of the table without the types of its parameters. */
export interface Route<C> extends RouteNotes {
  readonly methods: readonly Method[];
  /** `/v1/media/{id}/thumb`: a name in braces stands for one segment. */
  readonly pattern: string;
  readonly path: Parameters;
  readonly query: Parameters;
  run(context: C, segments: Readonly<Record<string, string>>, query: string): Promise<Reply>;
}

export function route<C, P extends Parameters, Q extends Parameters>(
  row: RouteNotes & {
    readonly methods: readonly Method[];
    readonly pattern: string;
    readonly path: P;
    readonly query: Q;
    handle(context: C, path: ValuesOf<P>, query: ValuesOf<Q>): Promise<Reply>;
  },
): Route<C> {
  return {
    ...row,
    // Asynchronous, so that an invalid parameter is a rejection like any other failure.
    async run(context, segments, query) {
      const given = new URLSearchParams(query);
      const path = readAll(row.path, (name) => segments[name]);
      return await row.handle(
        context,
        path,
        readAll(row.query, (name) => (row.methods.some(isSafe) ? given.get(name) : only(given, name)) ?? undefined),
      );
    },
  };
}

function isSafe(method: Method): boolean {
  return method === 'GET' || method === 'HEAD';
}

/** A parameter that is given twice could mean one thing here and another to a proxy. */
function only(given: URLSearchParams, name: string): string | null {
  if (given.getAll(name).length > 1) throw new Fault('malformed', `${name} is given more than once.`);
  return given.get(name);
}

function readAll<P extends Parameters>(parameters: P, given: (name: string) => string | undefined): ValuesOf<P> {
  const read = Object.entries(parameters).map(([name, parameter]) => [name, parameter.read(given(name), name)]);
  return Object.fromEntries(read) as ValuesOf<P>;
}

export type RouteMatch<C> =
  | { readonly kind: 'found'; readonly route: Route<C>; readonly segments: Readonly<Record<string, string>> }
  /** The path is known but not the method; `allowed` are the methods of the path. */
  | { readonly kind: 'method'; readonly allowed: readonly Method[] }
  | { readonly kind: 'none' };

/** Finds the row of a request. Paths are matched as received, without decoding or normalising. */
export function createMatcher<C>(routes: readonly Route<C>[]): (method: string, path: string) => RouteMatch<C> {
  const compiled = routes.map((row) => ({ row, names: row.pattern.split('/') }));
  return (method, path) => {
    const segments = path.split('/');
    const allowed: Method[] = [];
    for (const { row, names } of compiled) {
      const named = matchSegments(names, segments);
      if (named === undefined) continue;
      if (row.methods.some((each) => each === method)) return { kind: 'found', route: row, segments: named };
      allowed.push(...row.methods.filter((each) => !allowed.includes(each)));
    }
    return allowed.length > 0 ? { kind: 'method', allowed } : { kind: 'none' };
  };
}

function matchSegments(
  names: readonly string[],
  segments: readonly string[],
): Readonly<Record<string, string>> | undefined {
  if (names.length !== segments.length) return undefined;
  const named: Record<string, string> = {};
  for (const [index, name] of names.entries()) {
    const segment = segments[index] ?? '';
    if (name.startsWith('{')) named[name.slice(1, -1)] = segment;
    else if (name !== segment) return undefined;
  }
  return named;
}

export const mediaId: Parameter<MediaId> = {
  help: 'A ULID of 26 characters, in either case.',
  schema: { type: 'string', pattern: '^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$' },
  read(text = '') {
    const id = parseMediaId(text);
    if (id === undefined) throw new Fault('invalid_id', 'A media id is a ULID of 26 characters.');
    return id;
  },
};

export const sha256: Parameter<Sha256> = {
  help: 'A SHA-256 as 64 lower-case hexadecimal digits.',
  schema: { type: 'string', pattern: '^[0-9a-f]{64}$' },
  read(text = '') {
    const hash = parseSha256(text);
    if (hash === undefined) throw new Fault('malformed', 'A SHA-256 is 64 lower-case hexadecimal digits.');
    return hash;
  },
};

/** `true` or `false`; undefined if it is left out. */
export function booleanParameter(help: string): Parameter<boolean | undefined> {
  return {
    help,
    schema: { type: 'boolean' },
    read(text, name) {
      if (text === undefined) return undefined;
      if (text !== 'true' && text !== 'false') throw new Fault('malformed', `${name} is true or false.`);
      return text === 'true';
    },
  };
}

export function integerParameter(
  help: string,
  bounds: { readonly min: number; readonly max: number },
): Parameter<number | undefined> {
  return {
    help,
    schema: { type: 'integer', minimum: bounds.min, maximum: bounds.max },
    read(text, name) {
      if (text === undefined) return undefined;
      const value = wholeNumber(text) ?? Number.NaN;
      if (!(value >= bounds.min && value <= bounds.max)) {
        throw new Fault('malformed', `${name} is a whole number from ${bounds.min} to ${bounds.max}.`);
      }
      return value;
    },
  };
}

export function textParameter(help: string, lengthMax: number): Parameter<string | undefined> {
  return {
    help,
    schema: { type: 'string', maxLength: lengthMax },
    read(text, name) {
      if (text !== undefined && text.length > lengthMax) {
        throw new Fault('malformed', `${name} has at most ${lengthMax} characters.`);
      }
      return text;
    },
  };
}

export function choiceParameter<const V extends string>(help: string, values: readonly V[]): Parameter<V | undefined> {
  return {
    help,
    schema: { type: 'string', enum: values },
    read(text, name) {
      if (text === undefined) return undefined;
      const value = values.find((each) => each === text);
      if (value === undefined) throw new Fault('malformed', `${name} is one of ${values.join(', ')}.`);
      return value;
    },
  };
}

/** An RFC 3339 instant, as epoch milliseconds. */
export function instantParameter(help: string): Parameter<number | undefined> {
  return {
    help,
    schema: { type: 'string', format: 'date-time' },
    read(text, name) {
      if (text === undefined) return undefined;
      const at = RFC_3339.test(text) ? Date.parse(text) : Number.NaN;
      if (Number.isNaN(at)) throw new Fault('malformed', `${name} is an instant such as 2026-01-31T12:00:00Z.`);
      return at;
    },
  };
}

const RFC_3339 = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})$/;
