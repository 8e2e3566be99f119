/** A blob store whose operations are timed and recorded as spans, and whose failures are counted. */
import { Durations } from '../../src/metrics.js';
import type { ProcessDeps } from '../../src/process.js';
import { childSpan } from '../../src/tracing/tracer.js';
import type { BlobStore } from './blob-store.js';

const OPERATIONS = ['adopt', 'put', 'read', 'stat', 'remove'] as const;
type Operation = (typeof OPERATIONS)[number];

export function counted(store: BlobStore, deps: Pick<ProcessDeps, 'clock' | 'metrics' | 'tracer'>): BlobStore {
  const { clock, metrics } = deps;
  const failures = metrics.counter('storage_errors_total', 'Operations of the storage that failed.', ['operation']);
  const times = Object.fromEntries(OPERATIONS.map((operation) => [operation, new Durations()])) as Record<
    Operation,
    Durations
  >;
  metrics.durations('storage_seconds', 'Time of the operations of the storage; of reads, until the first byte.', () =>
    OPERATIONS.map((operation) => ({ labels: { operation }, durations: times[operation] })),
  );

  async function timed<T>(operation: Operation, run: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const startedMs = clock.monotonicMs();
    try {
      return await childSpan(deps, `storage ${operation}`, { 'media.storage': store.kind }, run);
    } catch (thrown) {
      // What a client has ended is no failure of the storage.
      if (signal?.aborted !== true) failures.add(1, { operation });
      throw thrown;
    } finally {
      times[operation].add(clock.monotonicMs() - startedMs);
    }
  }
  const put = store.put?.bind(store);
  return {
    kind: store.kind,
    region: store.region,
    stageFolder: store.stageFolder,
    adopt: (path, key, facts, signal) => timed('adopt', () => store.adopt(path, key, facts, signal), signal),
    ...(put !== undefined && { put: (key, bytes, signal) => timed('put', () => put(key, bytes, signal), signal) }),
    read: (key, span, signal) => timed('read', () => store.read(key, span, signal), signal),
    fileOf: (key) => store.fileOf(key),
    stat: (key, signal) => timed('stat', () => store.stat(key, signal), signal),
    remove: (key, signal) => timed('remove', () => store.remove(key, signal), signal),
    list: (prefix, signal) => store.list(prefix, signal),
    probe: (signal) => store.probe(signal),
    freeBytes: () => store.freeBytes(),
    close: () => store.close(),
  };
}
