/** Processes of a server and their processor time, as the system counts it (Linux). */
import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/** User and system time until now. A process that has ended counts for nothing. */
export function cpuMsOf(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const fields = statOf(pid);
    ticks += Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  }
  return ticks * 10;
}

/** The fields after the name of the program; none of a process that has ended. */
function statOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  } catch {
    return [];
  }
}

/** A process and its descendants. */
export function family(child: Pick<ChildProcess, 'pid'>): number[] {
  const pids = readdirSync('/proc').map(Number).filter(Number.isInteger);
  const parents = new Map(pids.map((pid) => [pid, Number(statOf(pid)[1] ?? 0)]));
  const isIn = (pid: number): boolean => pid === child.pid || (pid > 1 && isIn(parents.get(pid) ?? 0));
  return [...parents.keys()].filter(isIn);
}
