/**
 * Which thumbnails the origin makes, as it says itself in `/.well-known`:
 * asked at the start and again at intervals, the last good answer kept. Until
 * there is one, thumbnails are passed through, for the edge cannot know which
 * wishes mean the same.
 */
import type { Clock, Timer } from '../src/clock.js';
import { duration, section, size, type ValueOf } from '../src/config/field.js';
import type { Log } from '../src/log.js';
import { readThumbOptions, type ThumbOptions } from '../src/media/thumb-choice.js';
import { readAtMost } from './upstream/request.js';
import type { Upstream } from './upstream/upstream.js';

export const capabilitiesSection = section('What the origin can do, as it says in /.well-known.', {
  refreshMs: duration({ default: '1m', min: 1_000, help: 'How often it is asked.' }),
  retryMs: duration({ default: '1s', min: 10, help: 'How soon again after no usable answer.' }),
  maxBytes: size({ default: '256KiB', min: 1_024, max: 16_777_216, help: 'A longer answer is not read.' }),
});

export type CapabilitiesConfig = ValueOf<typeof capabilitiesSection>;

export interface Capabilities {
  /** Undefined until the origin has told. */
  readonly thumbOptions: ThumbOptions | undefined;
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
  let timer: Timer | undefined;

  async function ask(): Promise<void> {
    const found = await readOnce(upstream, config.maxBytes, ending.signal);
    if (ending.signal.aborted) return;
    if (found !== undefined && JSON.stringify(found) !== JSON.stringify(thumbOptions)) {
      log.info({ variants: found.variants.length, formats: found.formats }, 'learned the thumbnails of the origin');
      thumbOptions = found;
    }
    timer = clock.after(found === undefined ? config.retryMs : config.refreshMs, () => void ask());
  }

  void ask();
  return {
    get thumbOptions() {
      return thumbOptions;
    },
    close() {
      ending.abort();
      timer?.cancel();
    },
  };
}

async function readOnce(upstream: Upstream, maxBytes: number, signal: AbortSignal): Promise<ThumbOptions | undefined> {
  const answer = await upstream.fetch(
    { method: 'GET', target: PATH, headers: [['accept', 'application/json']] },
    signal,
  );
  if (answer.kind === 'failed') return undefined;
  const bytes = answer.status === 200 ? await readAtMost(answer.body, maxBytes) : undefined;
  answer.body.destroy();
  return bytes === undefined ? undefined : menuIn(bytes.toString('utf8'));
}

function menuIn(text: string): ThumbOptions | undefined {
  try {
    const document: unknown = JSON.parse(text);
    const capabilities = memberOf(document, 'capabilities');
    return readThumbOptions(memberOf(capabilities, 'thumbnails'));
  } catch {
    return undefined;
  }
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
}
