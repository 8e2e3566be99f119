/** `media-service reload`: has a running process read its configuration again, and prints what it says. */
import { withDeadline } from '../clock.js';
import type { ChoreTools } from '../process.js';
import { type OperatorAccess, operatorTarget } from '../server/operators.js';

export interface ReloadCommand extends Pick<ChoreTools, 'clock' | 'print' | 'complain' | 'signal'> {
  /** The process, as it is called. */
  readonly name: string;
  readonly config: OperatorAccess & { readonly port: number };
}

const ANSWER_WITHIN_MS = 30_000;

/** Exit codes: 0 applied, 1 refused. Rejects if no process answers. */
export async function askReload({ name, config, clock, print, complain, signal }: ReloadCommand): Promise<0 | 1> {
  const { base, headers } = operatorTarget(config);
  const late = (): Error => new Error('no answer in time');
  const send = async (within: AbortSignal): Promise<{ readonly status: number; readonly body: unknown }> => {
    const answer = await fetch(`${base}/reload`, { method: 'POST', headers, signal: within });
    return { status: answer.status, body: await answer.json() };
  };
  let answer: Awaited<ReturnType<typeof send>>;
  try {
    answer = await withDeadline({ clock, ms: ANSWER_WITHIN_MS, late, signal }, send);
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    throw new Error(`No ${name} answers at ${base}.`, { cause: thrown });
  }
  const say = answer.status === 200 ? print : complain;
  for (const line of linesOf(name, answer)) say(line);
  return answer.status === 200 ? 0 : 1;
}

function linesOf(
  name: string,
  { status, body }: { readonly status: number; readonly body: unknown },
): readonly string[] {
  const changes = textsIn(body, 'changes');
  if (status === 200)
    return changes.length === 0 ? [`${name}: nothing has changed`] : [`${name}:`, ...changes.map(indent)];
  const faults = textsIn(body, 'faults');
  const [detail = String(status)] = textsIn(body, 'detail');
  return [`${name}: ${detail}`, ...faults.map(indent)];
}

function indent(line: string): string {
  return `  ${line}`;
}

/** The text or the texts of a member. */
function textsIn(body: unknown, name: string): readonly string[] {
  const value =
    typeof body === 'object' && body !== null ? (body as Readonly<Record<string, unknown>>)[name] : undefined;
  return (Array.isArray(value) ? value : [value]).filter((each): each is string => typeof each === 'string');
}
