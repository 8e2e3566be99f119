/**
 * Processes under limits: how a program is started so that the kernel itself
 * bounds what it may take, and how much of it a running one holds. Linux keeps
 * all of these; elsewhere what a system does not know is left out, and the time
 * limit and the pixel limit remain.
 */
import { readFileSync } from 'node:fs';

export interface ProcessLimits {
  /** Writable private memory (RLIMIT_DATA): what malloc and mmap give, without what is only reserved. */
  readonly dataMaxBytes: number;
  /** Seconds of CPU time, all threads together; null: no limit. */
  readonly cpuMaxS: number | null;
  /** Of any one file that it writes; null: no limit. */
  readonly fileMaxBytes: number | null;
}

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
}

/** The shell sets the limits and then becomes the program: same process id, same channels. */
export function limited(command: Command, limits: ProcessLimits): Command {
  if (process.platform === 'win32') return command;
  const settings = [
    'ulimit -c 0',
    `ulimit -d ${Math.ceil(limits.dataMaxBytes / 1_024)}`,
    ...(limits.cpuMaxS === null ? [] : [`ulimit -t ${limits.cpuMaxS}`]),
    ...(limits.fileMaxBytes === null ? [] : [`ulimit -f ${Math.ceil(limits.fileMaxBytes / 512)}`]),
  ].map((setting) => `${setting} 2>/dev/null`);
  return {
    program: '/bin/sh',
    args: ['-c', `${settings.join('; ')}; exec "$0" "$@"`, command.program, ...command.args],
  };
}

const PAGE_BYTES = 4_096;

/** Resident memory of a process; undefined where the system does not tell or the process is gone. */
export function residentBytes(pid: number): number | undefined {
  try {
    // The kernel answers from memory, so there is nothing to wait for.
    const pages = readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ', 2)[1];
    return pages === undefined ? undefined : Number(pages) * PAGE_BYTES;
  } catch {
    return undefined;
  }
}
