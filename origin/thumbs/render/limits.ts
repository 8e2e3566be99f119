/**
 * Processes under limits: starts a program so that the kernel limits what it
 * may take, and reads how much memory and processor time a running process has taken. Linux knows all
 * of these limits. Another system ignores those that it does not know; the time
 * limit and the pixel limit remain.
 */
import { readFileSync } from 'node:fs';

/** Null: no limit. */
export interface ProcessLimits {
  /** Writable private memory (RLIMIT_DATA): what malloc and mmap give, touched or not. */
  readonly dataMaxBytes: number | null;
  /** Seconds of CPU time, all threads together. */
  readonly cpuMaxS: number | null;
  /** Size of any one file that the process writes. */
  readonly fileMaxBytes: number | null;
}

export const NO_LIMITS: ProcessLimits = { dataMaxBytes: null, cpuMaxS: null, fileMaxBytes: null };

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
}

/** A shell sets the limits and then execs the program, which keeps the process id and the channels. */
export function limited(command: Command, limits: ProcessLimits): Command {
  if (process.platform === 'win32') return command;
  const settings = [
    'ulimit -c 0',
    ...(limits.dataMaxBytes === null ? [] : [`ulimit -d ${Math.ceil(limits.dataMaxBytes / 1_024)}`]),
    ...(limits.cpuMaxS === null ? [] : [`ulimit -t ${limits.cpuMaxS}`]),
    ...(limits.fileMaxBytes === null ? [] : [`ulimit -f ${Math.ceil(limits.fileMaxBytes / 512)}`]),
  ].map((setting) => `${setting} 2>/dev/null`);
  return {
    program: '/bin/sh',
    args: ['-c', `${settings.join('; ')}; exec "$0" "$@"`, command.program, ...command.args],
  };
}

const PAGE_BYTES = 4_096;

/** What a process has at a moment. */
export interface ProcessMemory {
  readonly residentBytes: number;
  /** Writable private memory, touched or not: what `dataMaxBytes` limits. */
  readonly dataBytes: number;
}

/** Undefined where the system does not report it, or when the process is gone. */
export function readMemory(pid: number): ProcessMemory | undefined {
  try {
    // The kernel answers from memory, so there is nothing to wait for.
    const [, resident, , , , data] = readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ').map(Number);
    if (resident === undefined || data === undefined) return undefined;
    return { residentBytes: resident * PAGE_BYTES, dataBytes: data * PAGE_BYTES };
  } catch {
    return undefined;
  }
}

/** Linux reports processor time in this unit, on every architecture. */
const TICK_MS = 10;

/** The processor time that all threads of a process have taken. Undefined as above. */
export function readCpuMs(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name of the program stands in parentheses and may contain anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const ticks = Number(fields[11]) + Number(fields[12]);
    return Number.isFinite(ticks) ? ticks * TICK_MS : undefined;
  } catch {
    return undefined;
  }
}
