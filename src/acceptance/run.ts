/** Tries checks, several at once, and gives each result in the order of the checks. */
import { Broken, NotTried } from './answer.js';
import type { Check } from './check.js';
import type { Place, World } from './world.js';

export interface Failure {
  readonly at: Place['name'];
  readonly expected: string;
  readonly sent: readonly string[];
  readonly got: readonly string[];
}

export type Result = { readonly check: Check; readonly ms: number } & Outcome;

type Outcome =
  | { readonly outcome: 'kept' }
  | { readonly outcome: 'broken'; readonly failures: readonly Failure[] }
  | { readonly outcome: 'not tried'; readonly why: string };

const AT_ONCE = 4;

/** Ends early, with what there is, when the signal aborts. */
export async function runChecks(
  checks: readonly Check[],
  world: World,
  signal: AbortSignal,
  report: (result: Result) => void,
): Promise<readonly Result[]> {
  const results: (Result | undefined)[] = checks.map(() => undefined);
  let [next, reported] = [0, 0];
  async function work(): Promise<void> {
    while (next < checks.length && !signal.aborted) {
      const at = next;
      next += 1;
      const check = checks[at];
      if (check === undefined) return;
      const from = world.monotonicMs();
      const outcome = await outcomeOf(check, world, signal);
      results[at] = { check, ms: Math.round(world.monotonicMs() - from), ...outcome };
      for (let result = results[reported]; result !== undefined; result = results[reported]) {
        report(result);
        reported += 1;
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return results.filter((result) => result !== undefined);
}

async function outcomeOf(check: Check, world: World, signal: AbortSignal): Promise<Outcome> {
  if (check.kind === 'unseen') return { outcome: 'not tried', why: `not to be seen from outside: ${check.why}` };
  const failures: Failure[] = [];
  const reasons: string[] = [];
  await Promise.all(
    check.at.map(async (name) => {
      try {
        await check.run(world, world[name]);
      } catch (thrown) {
        if (thrown instanceof NotTried) reasons.push(thrown.message);
        else failures.push(failureOf(thrown, name));
      }
    }),
  );
  if (signal.aborted) return { outcome: 'not tried', why: 'the run was stopped' };
  if (failures.length > 0) return { outcome: 'broken', failures };
  const [why] = reasons;
  return why === undefined || reasons.length < check.at.length ? { outcome: 'kept' } : { outcome: 'not tried', why };
}

/** What a check throws that is no Broken is an answer in a form that the check cannot read. */
function failureOf(thrown: unknown, at: Place['name']): Failure {
  if (thrown instanceof Broken) return { at, expected: thrown.expected, sent: thrown.sent, got: thrown.got };
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return { at, expected: 'an answer that can be read', sent: [], got: [message] };
}
