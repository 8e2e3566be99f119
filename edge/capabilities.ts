/**
 * The thumbnails that the origin makes, its rate limits, and its public address, as it says in
 * `/.well-known`. It is asked at the start and then at intervals; the last valid
 * answer counts. Until there is one, requests for thumbnails are passed through, because the edge cannot
 * know which queries name the same thumbnail.
 */
import type { Clock, Timer } from '../src/clock.js';
import { duration, section, size, type ValueOf } from '../src/config/field.js';
import type { Log } from '../src/log.js';
import { readThumbOptions, type ThumbOptions } from '../src/media/thumb-choice.js';
import { readStatedRates, type StatedRates } from './rate-limits.js';
import { readAtMost } from './upstream/request.js';
import type { Upstream } from './upstream/upstream.js';

export const capabilitiesSection = section('The capabilities of the origin, as it states them in /.well-known.', {
  refreshMs: duration({ default: '1m', min: 1_000, help: 'How often the origin is asked.' }),
  retryMs: duration({ default: '1s', min: 10, help: 'How soon it is asked again when there was no valid answer.' }),
  maxBytes: size({ default: '256KiB', min: 1_024, max: 16_777_216, help: 'Longer answers are not read.' }),
});

export type CapabilitiesConfig = ValueOf<typeof capabilitiesSection>;

export interface Capabilities {
  /** Undefined until there was a valid answer. */
  readonly thumbOptions: ThumbOptions | undefined;
  /** The same object while the origin states the same. */
  readonly rates: StatedRates | undefined;
  /** What the URLs of media begin with. Undefined until there was a valid answer. */
  readonly baseUri: string | undefined;
  close(): void;
}

const PATH = '/.well-known';

export function followCapabilities(parts: {
  readonly config: CapabilitiesConfig;
  readonly upstream: Upstream;
  readonly clock: Clock;
  readonly log: Log;
}): Capabilities {
  const { config, upstream, clock, log } = parts;
  const ending = new AbortController();
  let thumbOptions: ThumbOptions | undefined;
  let rates: StatedRates | undefined;
  let baseUri: string | undefined;
  let timer: Timer | undefined;

  async function refresh(): Promise<void> {
    const found = await readOnce(upstream, config.maxBytes, ending.signal);
    if (ending.signal.aborted) return;
    if (found !== undefined && differ(found.thumbOptions, thumbOptions)) {
      const { variants, formats } = found.thumbOptions;
      log.info({ variants: variants.length, formats }, 'the origin has stated its thumbnails');
      thumbOptions = found.thumbOptions;
    }
    if (found !== undefined && differ(found.rates, rates)) rates = found.rates;
    if (found !== undefined) baseUri = found.baseUri;
    timer = clock.after(found === undefined ? config.retryMs : config.refreshMs, () => void refresh());
  }

  void refresh();
  return {
    get thumbOptions() {
      return thumbOptions;
    },
    get rates() {
      return rates;
    },
    get baseUri() {
      return baseUri;
    },
    close() {
      ending.abort();
      timer?.cancel();
    },
  };
}

interface Stated {
  readonly thumbOptions: ThumbOptions;
  readonly rates: StatedRates | undefined;
  readonly baseUri: string | undefined;
}

function differ(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) !== JSON.stringify(other);
}

async function readOnce(upstream: Upstream, maxBytes: number, signal: AbortSignal): Promise<Stated | undefined> {
  const answer = await upstream.fetch(
    { method: 'GET', target: PATH, headers: [['accept', 'application/json']] },
    signal,
  );
  if (answer.kind === 'failed') return undefined;
  const bytes = answer.status === 200 ? await readAtMost(answer.body, maxBytes) : undefined;
  answer.body.destroy();
  return bytes === undefined ? undefined : statedIn(bytes.toString('utf8'));
}

function statedIn(text: string): Stated | undefined {
  try {
    const document: unknown = JSON.parse(text);
    const capabilities = memberOf(document, 'capabilities');
    const thumbOptions = readThumbOptions(memberOf(capabilities, 'thumbnails'));
    if (thumbOptions === undefined) return undefined;
    const baseUri = memberOf(document, 'base_uri');
    return {
      thumbOptions,
      rates: readStatedRates(memberOf(capabilities, 'rate_limits')),
      baseUri: typeof baseUri === 'string' && URL.canParse(baseUri) ? baseUri : undefined,
    };
  } catch {
    return undefined;
  }
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
}
