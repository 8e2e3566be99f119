/**
 * One origin at a time: a lease in the row `about`, by the clock of the database. An origin that cannot renew it stops
 * writing before another may take it. Each renewal is a committed write, which proves that nobody else had written before it
 * began: edges may count on the journal only from then on, so those of an origin that is cut off stop serving.
 */
import type { Clock } from '../../../src/clock.js';
import type { JournalProof } from '../../../src/journal/source.js';
import { errorFields, type Log } from '../../../src/log.js';
import { StoreInUse } from '../store.js';
import type { Pool } from './pool.js';
import { SERVER_NOW } from './values.js';

export type Tenancy = {
  /** Whether nobody else can have the database. */
  holds(): boolean;
  readonly proof: JournalProof;
  release(): Promise<void>;
};

export type TenancyDeps = { readonly clock: Clock; readonly log: Log; readonly randomName: () => string };

const LEASE_MS = 15_000;
const RENEW_MS = 3_000;
const TAKE = `
  UPDATE about SET origin = $1, origin_until = ${SERVER_NOW} + $2
  WHERE origin IS NULL OR origin = $1 OR origin_until < ${SERVER_NOW} RETURNING origin`;
const RELEASE = 'UPDATE about SET origin = NULL, origin_until = NULL WHERE origin = $1';

/** Rejects with StoreInUse while another origin holds the lease. */
export async function takeAlone(pool: Pool, { clock, log, randomName }: TenancyDeps): Promise<Tenancy> {
  const name = randomName();
  let askedAtMs = clock.monotonicMs();
  let lost = false;
  if (!(await take()))
    throw new StoreInUse(
      'the database is in use by another origin: stop that one first, or give this one another database',
    );
  let provedAtMs = askedAtMs;
  const listeners = new Set<() => void>();
  let timer = clock.after(RENEW_MS, renew);
  let renewing: Promise<void> = Promise.resolve();

  async function take(): Promise<boolean> {
    askedAtMs = clock.monotonicMs();
    return (await pool.run(TAKE, [name, LEASE_MS])).length > 0;
  }

  function renew(): void {
    renewing = take()
      .then(
        (taken) => {
          if (taken) prove();
          if (!taken && !lost) log.error({}, 'another origin has taken the database: this one writes nothing any more');
          lost = !taken;
        },
        (thrown: unknown) => log.warn(errorFields(thrown), 'the lease of the database cannot be renewed at the moment'),
      )
      .then(() => {
        timer = clock.after(RENEW_MS, renew);
      });
  }

  function prove(): void {
    provedAtMs = askedAtMs;
    for (const listener of listeners) listener();
  }

  return {
    holds: () => !lost && clock.monotonicMs() < provedAtMs + LEASE_MS,
    proof: {
      isOwn: true,
      ageMs: () => clock.monotonicMs() - provedAtMs,
      onRenewal(listener) {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
    },
    async release() {
      timer.cancel();
      await renewing;
      timer.cancel();
      await pool.run(RELEASE, [name]).catch(() => undefined);
    },
  };
}
