/**
 * The origin's own journal: its settings, the removal of old entries, and how
 * long `?wait=edges` waits. Leaves the streams to src/journal.
 */
import type { Clock } from '../../src/clock.js';
import { duration, optionalText, section, type ValueOf } from '../../src/config/field.js';
import type { EdgePosition } from '../../src/journal/confirmations.js';
import { createJournalStream, type JournalStream, streamFields } from '../../src/journal/journal-stream.js';
import { NO_KNOWN_EDGES, openKnownEdges } from '../../src/journal/known-edges.js';
import { bugFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { Duties } from '../meta/origins/duties.js';
import type { SharedEdges } from '../meta/origins/shared-edges.js';
import type { Origins } from '../meta/origins.js';
import type { Journal } from '../meta/store.js';
import { openEdgesEverywhere } from './edges-everywhere.js';

export const journalSection = section('The takedown journal, which edges follow.', {
  ...streamFields,
  edgesFile: optionalText({
    default: './data/origin/edges.json',
    help: 'A file that remembers the edges over a restart, so that one that has not come back yet still counts; null: they are not remembered.',
  }),
  keepMs: duration({
    default: '7d',
    min: 60_000,
    help: 'How long entries are kept. An edge that was disconnected for longer empties its cache.',
  }),
  waitMaxMs: duration({
    default: '5s',
    min: 0,
    max: 300_000,
    help: 'How long `?wait=edges` waits for edges to confirm.',
  }),
});

export type JournalConfig = ValueOf<typeof journalSection>;

export interface OriginJournalDeps {
  readonly journal: Journal;
  readonly duties: Pick<Duties, 'take'>;
  readonly origins: Origins;
  /** Null: there are no other origins. */
  readonly shared: SharedEdges | null;
  readonly config: JournalConfig;
  isEdge(proof: string | undefined): boolean;
  /** How often edges are to report what they served; undefined: they need not. */
  readonly usesEveryMs: number | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface OriginJournal extends Omit<JournalStream, 'positions' | 'confirmed'> {
  /** Over the edges of all origins. */
  confirmed: JournalStream['confirmed'];
  positions(): Promise<readonly EdgePosition[]>;
}

export async function openOriginJournal(deps: OriginJournalDeps): Promise<OriginJournal> {
  const { config, log } = deps;
  const stream = createJournalStream({
    ...deps,
    proof: deps.journal.proof,
    usesEveryMs: () => deps.usesEveryMs,
    knownEdges: config.edgesFile === null ? NO_KNOWN_EDGES : await openKnownEdges(config.edgesFile, log),
  });
  const stopTrimming = trimRegularly(deps);
  const stopListening = deps.journal.onReset(() => stream.startAgain());
  const { shared } = deps;
  const everywhere = shared === null ? null : openEdgesEverywhere({ ...deps, shared, stream });
  return {
    ...stream,
    confirmed: (everywhere ?? stream).confirmed,
    positions: async () => await (everywhere ?? stream).positions(),
    async close() {
      stopListening();
      stopTrimming();
      await stream.close();
      await everywhere?.close();
    },
  };
}

/** How often entries that are no longer kept are removed. */
const TRIM_EVERY_MS = 3_600_000;

/** A failure is logged, and trimming is tried again the next time. The function returned stops it. */
function trimRegularly({ journal, duties, config, clock, log }: OriginJournalDeps): () => void {
  const everyMs = Math.min(TRIM_EVERY_MS, config.keepMs);
  const trimForAll = async (): Promise<number> =>
    (await duties.take('trim', everyMs)) ? journal.trim(clock.now() - config.keepMs) : 0;
  const trim = (): void => {
    trimForAll().then(
      (dropped) => dropped > 0 && log.info({ dropped }, 'trimmed the journal'),
      (thrown: unknown) => log.error(bugFields(thrown), 'the journal could not be trimmed'),
    );
    timer = clock.after(everyMs, trim);
  };
  let timer = clock.after(everyMs, trim);
  return () => timer.cancel();
}
