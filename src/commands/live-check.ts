/**
 * `media-service check --live`: whether what a configuration names can be
 * reached and used now. Each step is tried by itself, within a deadline.
 */
import type { AccessConfig } from '../access/config.js';
import { openGate } from '../access/gate.js';
import { keepAlive, withDeadline } from '../clock.js';
import { createMetrics } from '../metrics.js';
import { type ChoreTools, startFailure } from '../process.js';

export interface LiveStep {
  readonly name: string;
  /** Resolves with a remark, which may be empty; rejects with the reason. */
  run(signal: AbortSignal): Promise<string>;
}

const WITHIN_MS = 15_000;

/** Exit codes: 0 all can be used, 1 some cannot. */
export async function runLiveSteps(
  steps: readonly LiveStep[],
  { clock, signal, print }: Pick<ChoreTools, 'clock' | 'signal' | 'print'>,
): Promise<0 | 1> {
  const alive = keepAlive();
  let failed = 0;
  for (const step of steps) {
    const { name } = step;
    signal.throwIfAborted();
    const late = (): Error => new Error(`no answer within ${WITHIN_MS / 1_000} s`);
    try {
      const remark = await withDeadline({ clock, ms: WITHIN_MS, late, signal }, (within) => step.run(within));
      print(`ok      ${name}${remark === '' ? '' : `: ${remark}`}`);
    } catch (thrown) {
      signal.throwIfAborted();
      failed += 1;
      print(`failed  ${name}: ${reasonOf(thrown)}`);
    }
  }
  alive.release();
  return failed === 0 ? 0 : 1;
}

/** The sentence for a person, and what the system says of it. */
function reasonOf(thrown: unknown): string {
  const said = startFailure(thrown);
  const cause = thrown instanceof Error && thrown.cause instanceof Error ? thrown.cause.message : '';
  return cause === '' || said.includes(cause) ? said : `${said} (${cause})`;
}

/** One step for each Authentication Service: its keys are fetched anew. */
export function keySteps(access: AccessConfig, { clock, log }: Pick<ChoreTools, 'clock' | 'log'>): readonly LiveStep[] {
  return access.issuers.map((issuer) => ({
    name: `Authentication Service ${issuer.issuer}`,
    async run(signal) {
      const config = { ...access, issuers: [issuer], keys: { ...access.keys, folder: null } };
      const gate = openGate({ config, clock, log, metrics: createMetrics('check_') });
      try {
        await gate.probe(signal);
        return 'its keys were fetched';
      } finally {
        await gate.close();
      }
    },
  }));
}
