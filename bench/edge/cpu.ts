/** Processes of a server and their processor time, as the system counts it (Linux). */
import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/** User and system time until now. */
export function cpuMsOf(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const fields = statOf(pid);
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks * 10;
}

function statOf(pid: number): readonly string[] {
  return readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
}

/** A process and its descendants. */
export function family(child: ChildProcess): number[] {
  const parents = new Map<number, number>();
  for (const pid of readdirSync('/proc').map(Number).filter(Number.isInteger)) {
    try {
      parents.set(pid, Number(statOf(pid)[1]));
    } catch {
      // It has ended.
    }
  }
  const isIn = (pid: number): boolean => pid === child.pid || (pid > 1 && isIn(parents.get(pid) ?? 0));
  return [...parents.keys()].filter(isIn);
}
