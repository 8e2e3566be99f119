/**
 * How `media-service dev` tells its origin where clients reach the service: at the edge of the same file, unless the file says
 * `origin.base_uri`. In production nobody knows what stands before an edge, so it must be said there.
 */
import { readYaml } from '../config/yaml.js';

/** The default of `origin.base_uri`: where the edge listens by its defaults. */
export const DEFAULT_BASE_URI = 'http://127.0.0.1:8080';

/** The variable with the address; unset in production. */
export const BASE_URI = 'MEDIA_SERVICE_BASE_URI';

/** The address of the edge in a configuration; undefined where the file says another, or none is known before it starts. */
export function baseUriOfEdge(text: string): string | undefined {
  const read = readYaml(text);
  if (read.kind !== 'read') return undefined;
  // A file with every key has the default in it.
  const said = memberAt(read.value, 'origin', 'base_uri');
  if (said !== undefined && said !== DEFAULT_BASE_URI) return undefined;
  const listen = (key: string): unknown => memberAt(read.value, 'edge', 'listen', key);
  const port = listen('port');
  if (!Number.isInteger(port) || port === 0) return undefined;
  const scheme = memberAt(listen('tls'), 'certificate_file') === undefined ? 'http' : 'https';
  return `${scheme}://${reachedAt(listen('host'))}:${String(port)}`;
}

const EVERYWHERE: readonly unknown[] = [undefined, '0.0.0.0', '::'];

function reachedAt(host: unknown): string {
  if (typeof host !== 'string' || EVERYWHERE.includes(host)) return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}

function memberAt(value: unknown, ...path: readonly string[]): unknown {
  let found = value;
  for (const key of path) {
    if (typeof found !== 'object' || found === null || !Object.hasOwn(found, key)) return undefined;
    found = (found as Readonly<Record<string, unknown>>)[key];
  }
  return found ?? undefined;
}

interface WithBaseUri {
  readonly origin: { readonly baseUri: string };
}

/** The configuration with the address that `dev` has told, if it has. */
export function withBaseUri<C extends WithBaseUri>(config: C, env: Readonly<Record<string, string | undefined>>): C {
  const baseUri = env[BASE_URI];
  return baseUri === undefined ? config : { ...config, origin: { ...config.origin, baseUri } };
}
