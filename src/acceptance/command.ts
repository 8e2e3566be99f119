/**
 * `media-service acceptance`: tries a running deployment from outside, whatever built it, and says which promises of its
 * interface it keeps. It judges with code of its own, and works only on media that it has uploaded.
 */
import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import type { Clock } from '../clock.js';
import { Broken } from './answer.js';
import { chosen } from './checks.js';
import { openClient } from './client.js';
import { asJson, coverageLines, leftLine, listLines, resultLines } from './report.js';
import { runChecks } from './run.js';
import { LIFETIME_S, type OwnedWorld, openWorld, type Tokens, unknownId } from './world.js';

export interface AcceptanceOptions {
  readonly edge?: string;
  readonly origin?: string;
  readonly tokenFile?: string;
  readonly otherTokenFile?: string;
  readonly adminTokenFile?: string;
  readonly only: readonly string[];
  readonly list: boolean;
  readonly json: boolean;
  readonly takedownWithinMs: number;
}

export interface AcceptanceDeps {
  readonly clock: Clock;
  /** Tokens of the development Authentication Service, in place of files. */
  readonly devTokens: Tokens | undefined;
  /** Aborts when the user stops the run. */
  readonly stopped: AbortSignal;
  print(line: string): void;
  printError(line: string): void;
}

const EXIT = { kept: 0, broken: 1, notTried: 2, stopped: 130 } as const;

/** Why nothing can be tried. */
class Unusable extends Error {}

export async function runAcceptance(options: AcceptanceOptions, deps: AcceptanceDeps): Promise<number> {
  const checks = chosen(options.only);
  // Each wait and each read listens to it.
  setMaxListeners(0, deps.stopped);
  try {
    if (checks.length === 0)
      throw new Unusable(`--only ${options.only.join(' ')}: no check has such a name; --list names them`);
    if (options.list) {
      for (const line of listLines(checks)) deps.print(line);
      return EXIT.kept;
    }
    const places = { edge: addressIn(options, 'edge'), origin: addressIn(options, 'origin') };
    const tokens = deps.devTokens ?? tokensIn(options);
    const [client, cleaner] = [openClient(deps.stopped), openClient(new AbortController().signal)];
    try {
      const owned = await opened({ ...deps, ...options, ...places, client, cleaner, signal: deps.stopped, tokens });
      const results = await runChecks(checks, owned.world, deps.stopped, (result) => {
        if (!options.json) for (const line of resultLines(result)) deps.print(line);
      });
      const left = await owned.removeAll();
      if (options.json) deps.print(asJson(results, places, left));
      else for (const line of [...coverageLines(results), '', leftLine(left, LIFETIME_S)]) deps.print(line);
      if (deps.stopped.aborted) return EXIT.stopped;
      return results.some(({ outcome }) => outcome === 'broken') ? EXIT.broken : EXIT.kept;
    } finally {
      client.close();
      cleaner.close();
    }
  } catch (thrown) {
    if (deps.stopped.aborted) return EXIT.stopped;
    if (!(thrown instanceof Unusable)) throw thrown;
    deps.printError(`media-service: ${thrown.message}`);
    return EXIT.notTried;
  }
}

/** The world, once both places answer and take the tokens. */
async function opened(deps: Parameters<typeof openWorld>[0]): Promise<OwnedWorld> {
  let at = deps.origin;
  try {
    const owned = await openWorld(deps);
    at = deps.edge;
    const { edge, origin } = owned.world;
    (await edge.get('/.well-known')).is(200);
    for (const who of ['user', 'other', 'admin'] as const) {
      if (deps.tokens[who] === undefined) continue;
      for (const place of [edge, origin]) {
        const { status } = await place.get(`/v1/media/${unknownId()}`, { as: who });
        if (status === 401) throw new Unusable(`the ${place.name} at ${place.url} refuses the token of the ${who}`);
      }
    }
    return owned;
  } catch (thrown) {
    if (!(thrown instanceof Broken)) throw thrown;
    throw new Unusable(
      `${at} does not answer as this service does: expected ${thrown.expected}, got ${thrown.got[0] ?? 'nothing'}`,
    );
  }
}

function addressIn(options: AcceptanceOptions, name: 'edge' | 'origin'): string {
  const text = options[name];
  if (text === undefined) throw new Unusable(`--${name} URL is missing: the address of the ${name}`);
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
    throw new Unusable(`--${name} ${text}: must be a URL such as https://media.example`);
  }
  return text.replace(/\/+$/, '');
}

function tokensIn(options: AcceptanceOptions): Tokens {
  const read = (path: string | undefined): string | undefined => {
    if (path === undefined) return undefined;
    let token: string;
    try {
      token = readFileSync(path, 'utf8').trim();
    } catch (thrown) {
      throw new Unusable(`${path} cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
    }
    if (!/^[\w~+/.-]+=*$/.test(token)) throw new Unusable(`${path} has no token in it`);
    return token;
  };
  const [user, other, admin] = [read(options.tokenFile), read(options.otherTokenFile), read(options.adminTokenFile)];
  return {
    ...(user !== undefined && { user }),
    ...(other !== undefined && { other }),
    ...(admin !== undefined && { admin }),
  };
}
