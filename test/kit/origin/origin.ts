/**
 * A whole origin in the process of the test: every component as in production, on free ports and in a folder of its
 * own. The test controls its clock and its Authentication Service.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { originSection } from '../../../origin/config.js';
import { type OriginSettings, openOrigin } from '../../../origin/origin.js';
import { accessSection } from '../../../src/access/config.js';
import { edgeProof } from '../../../src/access/edge-proof.js';
import { formatFaults, parseConfig } from '../../../src/config/load.js';
import { createLog, logSection } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';
import type { Tracer } from '../../../src/tracing/tracer.js';
import { type AuthService, openAuthService, TEST_SECRET } from '../auth-service.js';
import { ManualClock } from '../clock.js';
import { type HttpResponse, json, member, type RequestOptions, sendRequest } from '../http/request.js';

export interface TestOrigin {
  readonly url: string;
  readonly port: number;
  readonly operators: string;
  readonly folder: string;
  readonly clock: ManualClock;
  readonly auth: AuthService;
  /** The lines of the log so far. */
  readonly logged: readonly string[];
  /** Sends a request without a token. */
  send(path: string, options?: RequestOptions): Promise<HttpResponse>;
  /** The same with a valid token. */
  as(subject: string, path: string, options?: RequestOptions): Promise<HttpResponse>;
  asAdmin(path: string, options?: RequestOptions): Promise<HttpResponse>;
  /** The same with the proof of an edge. */
  asEdge(path: string, options?: RequestOptions): Promise<HttpResponse>;
  upload(bytes: Uint8Array, query?: string, headers?: Readonly<Record<string, string>>): Promise<HttpResponse>;
  /** Uploads and returns the id. Throws if the upload is refused. */
  uploaded(bytes: Uint8Array, query?: string): Promise<string>;
  /** Responses so far that /openapi.json does not describe, such as `GET /v1/media/{id} 418`. */
  undescribed(): Promise<readonly string[]>;
  /** Closes it and opens it again with the same folders. */
  restart(): Promise<void>;
  /** Closes the origin and keeps its folders. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

/**
 * `section`: the keys below `origin` in config.yaml. `prepare` runs before the origin reads the Authentication Service.
 * `issuers` are trusted besides it. `access`: keys below `access`.
 */
export async function startOrigin(
  folder: string,
  section: Readonly<Record<string, unknown>> = {},
  over: {
    readonly clock?: ManualClock;
    readonly tracer?: Tracer;
    prepare?(auth: AuthService): void;
    readonly issuers?: readonly string[];
    readonly access?: Readonly<Record<string, unknown>>;
    /** Secrets by the names of variables; all others are TEST_SECRET. */
    readonly secrets?: Readonly<Record<string, string>>;
  } = {},
): Promise<TestOrigin> {
  const clock = over.clock ?? new ManualClock();
  const auth = await openAuthService(clock);
  over.prepare?.(auth);
  const config = configOf(folder, section, auth, over);
  const logged: string[] = [];
  const seen: Exchange[] = [];
  const open = () =>
    openOrigin(config, {
      clock,
      log: createLog('origin', config.log, { write: (line) => void logged.push(line) }),
      metrics: createMetrics('media_'),
      ...(over.tracer !== undefined && { tracer: over.tracer }),
    });
  let running = await open();
  const origin: TestOrigin = {
    get url() {
      return running.urls['media'] ?? '';
    },
    get port() {
      return Number(new URL(origin.url).port);
    },
    get operators() {
      return running.urls['operators'] ?? '';
    },
    folder,
    clock,
    auth,
    logged,
    async send(path, options = {}) {
      const answer = await sendRequest(origin.url + path, options);
      seen.push({ method: options.method ?? 'GET', path: path.split('?', 1)[0] ?? path, answer });
      return answer;
    },
    as: (subject, path, options) => origin.send(path, withToken(auth.token({ sub: subject }), options)),
    asAdmin: (path, options) => origin.send(path, withToken(auth.token({ sub: 'mo', scope: 'media:admin' }), options)),
    asEdge: (path, options = {}) =>
      origin.send(path, {
        ...options,
        headers: { ...options.headers, 'edge-authorization': edgeProof(TEST_SECRET) },
      }),
    async undescribed() {
      const { paths } = json(await sendRequest(`${origin.url}/openapi.json`)) as unknown as Description;
      return [...new Set(seen.flatMap((exchange) => fault(paths, exchange)))];
    },
    upload: (bytes, query = '', headers = {}) =>
      origin.as('alice', `/v1/media${query}`, { method: 'POST', body: bytes, headers }),
    async uploaded(bytes, query) {
      const answer = await origin.upload(bytes, query);
      if (answer.status !== 201) throw new Error(`${answer.status}: ${answer.bytes.toString()}`);
      return member(answer, 'id');
    },
    async restart() {
      await running.close();
      running = await open();
    },
    stop: () => running.close(),
    async close() {
      await running.close();
      await auth.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return origin;
}

interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly answer: HttpResponse;
}

interface Description {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

interface Operation {
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, Schema>> }>>;
}

interface Schema {
  readonly schema?: {
    readonly allOf?: readonly { readonly properties?: { readonly code: { readonly enum: string[] } } }[];
  };
}

/** What of one exchange is not described. A path or method that does not exist has no description. */
function fault(paths: Description['paths'], { method, path, answer }: Exchange): string[] {
  const found = Object.entries(paths).find(([pattern]) =>
    new RegExp(`^${pattern.replace(/\{\w+\}/g, '[^/]*')}$`).test(path),
  );
  const operation = found?.[1][method.toLowerCase()];
  if (found === undefined || operation === undefined) return [];
  const name = `${method} ${found[0]} ${answer.status}`;
  const response = operation.responses[String(answer.status)];
  if (response === undefined) return [name];
  const type = answer.headers['content-type']?.split(';', 1)[0];
  if (type === undefined || answer.bytes.length === 0) return [];
  const described = Object.entries(response.content ?? {});
  const content = described.find(([range]) =>
    new RegExp(`^${range.replace(/[+.]/g, '\\$&').replaceAll('*', '.*')}$`).test(type),
  )?.[1];
  if (content === undefined) return type === 'multipart/byteranges' ? [] : [`${name} ${type}`];
  if (type !== 'application/problem+json') return [];
  const codes = content.schema?.allOf?.flatMap(({ properties }) => properties?.code.enum ?? []) ?? [];
  const code = member(answer, 'code');
  return codes.includes(code) ? [] : [`${name} ${code}`];
}

export function withToken(token: string, options: RequestOptions = {}): RequestOptions {
  return { ...options, headers: { authorization: `Bearer ${token}`, ...options.headers } };
}

const SECTIONS = { log: logSection, access: accessSection, origin: originSection };

/** Processes that nobody uses would slow all tests down. */
function withoutReadyProcesses(thumbs: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  return { ...thumbs, children: { ready_min: 0, ...(thumbs['children'] as object | undefined) } };
}

type Given = NonNullable<Parameters<typeof startOrigin>[2]>;

function configOf(
  folder: string,
  section: Readonly<Record<string, unknown>>,
  auth: AuthService,
  { issuers: others = [], access = {}, secrets = {} }: Pick<Given, 'issuers' | 'access' | 'secrets'>,
): OriginSettings {
  const document = {
    log: { level: 'info' },
    access: {
      issuers: [{ issuer: auth.issuer, jwks_url: auth.jwksUrl }, ...others.map((issuer) => ({ issuer }))],
      keys: { folder: null },
      ...access,
    },
    origin: {
      listen: { port: 0 },
      operators: { port: 0 },
      meta: { folder: join(folder, 'meta') },
      audit: { file: join(folder, 'audit', 'audit.jsonl') },
      blobs: { folder: join(folder, 'blobs'), stage_folder: join(folder, 'stage') },
      ...section,
      journal: { edges_file: join(folder, 'edges.json'), ...(section['journal'] as object | undefined) },
      thumbs: withoutReadyProcesses(section['thumbs'] as Readonly<Record<string, unknown>> | undefined),
    },
  };
  const outcome = parseConfig(JSON.stringify(document), SECTIONS, {
    env: (name) => secrets[name] ?? TEST_SECRET,
    file: () => TEST_SECRET,
  });
  if (outcome.kind === 'faulty') throw new Error(formatFaults(outcome.faults));
  return outcome.config;
}
