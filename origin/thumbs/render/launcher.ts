/**
 * Starts the programs that read media, which may take a program over. They get
 * no descriptor of this process but their own pipes, and, where the system
 * allows it, no network, no capabilities and no way to gain privileges.
 *
 * What the system allows is tried once, at `openLauncher`. Leaves to others:
 * limits on memory and time (limits.ts), and what to run.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import type { Log } from '../../../src/log.js';
import { type Command, limited, NO_LIMITS, type ProcessLimits } from './limits.js';

export interface Launch {
  readonly command: Command;
  readonly limits: ProcessLimits;
  /** Where it runs, and its folder for temporary files. */
  readonly folder: string;
  /** Its environment, beside PATH, HOME and TMPDIR. Nothing else of ours, which may contain secrets. */
  readonly env: Readonly<Record<string, string>>;
  /** `output`: standard output and errors are read. `messages`: errors are read, and messages are exchanged. */
  readonly channels: 'output' | 'messages';
  /** A virus scanner may need the network. */
  readonly network: 'none' | 'shared';
}

/** What holds for the programs that are started, beside their descriptors. */
export interface Confinement {
  readonly network: 'none' | 'shared';
  readonly privileges: 'none_gained' | 'as_usual';
}

export interface Launcher {
  readonly confinement: Confinement;
  start(launch: Launch): ChildProcess;
}

interface Means extends Confinement {
  /** Programs that restrict themselves and then execute the next. They keep the process id and the channels. */
  readonly isolate: readonly string[];
  readonly restrict: readonly string[];
}

/** Root loses every capability but that of reading files of others, which the storage may be. */
const AS_ROOT = ['setpriv', '--no-new-privs', '--bounding-set=-all,+dac_override', '--inh-caps=-all', '--'];
const AS_USER = ['setpriv', '--no-new-privs', '--'];
const OWN_NETWORK = ['unshare', '--net', '--'];
/** Without root, a network of one's own takes a user namespace of one's own, which not every system allows. */
const OWN_NAMESPACE = ['unshare', '--user', '--map-current-user', '--net', '--'];

const ISOLATED = { network: 'none', privileges: 'none_gained' } as const;
const RESTRICTED = { network: 'shared', privileges: 'none_gained' } as const;
/** The best first. Root in a container may be allowed no more than any user. */
const MEANS: Readonly<Record<'root' | 'user', readonly Means[]>> = {
  root: [
    { ...ISOLATED, isolate: OWN_NETWORK, restrict: AS_ROOT },
    { ...RESTRICTED, isolate: [], restrict: AS_ROOT },
    { ...RESTRICTED, isolate: [], restrict: AS_USER },
  ],
  user: [
    { ...ISOLATED, isolate: OWN_NAMESPACE, restrict: AS_USER },
    { ...RESTRICTED, isolate: [], restrict: AS_USER },
  ],
};
const NO_MEANS: Means = { network: 'shared', privileges: 'as_usual', isolate: [], restrict: [] };

/** Call it when everything is open that stays open. `folder` is for the trials. */
export async function openLauncher(folder: string, log: Log): Promise<Launcher> {
  const inherited = inheritedDescriptors();
  const means = await bestMeans(folder, inherited);
  const { network, privileges } = means;
  log.info({ network, privileges, descriptors: 'own' }, 'what programs that read media have');
  return { confinement: { network, privileges }, start: (launch) => startBy(means, inherited, launch) };
}

async function bestMeans(folder: string, inherited: ReadonlySet<number>): Promise<Means> {
  for (const means of MEANS[process.getuid?.() === 0 ? 'root' : 'user']) {
    if (await works(means, folder, inherited)) return means;
  }
  return NO_MEANS;
}

async function works(means: Means, folder: string, inherited: ReadonlySet<number>): Promise<boolean> {
  const command = { program: 'true', args: [] };
  const trial = { command, limits: NO_LIMITS, folder, env: {}, channels: 'output', network: 'none' } as const;
  const running = startBy(means, inherited, trial);
  try {
    const [code] = await once(running, 'close');
    return code === 0;
  } catch {
    return false;
  }
}

const DEFAULT_PATH = '/usr/local/bin:/usr/bin:/bin';

function startBy(means: Means, inherited: ReadonlySet<number>, launch: Launch): ChildProcess {
  const { command, limits, folder, env, channels, network } = launch;
  const chain = [...(network === 'none' ? means.isolate : []), ...means.restrict, command.program, ...command.args];
  const [first = command.program, ...rest] = chain;
  const { program, args } = limited({ program: first, args: rest }, limits);
  const { PATH = DEFAULT_PATH } = process.env;
  const nothing = openSync('/dev/null', 'r');
  try {
    return spawn(program, args, {
      cwd: folder,
      env: { PATH, HOME: folder, TMPDIR: folder, ...env },
      stdio: descriptors(channels, inherited, nothing),
      serialization: 'json',
    });
  } finally {
    closeSync(nothing);
  }
}

type Channel = 'ignore' | 'pipe' | 'ipc';

/** Its own pipes, and nothing in the place of each descriptor that it would inherit. */
function descriptors(
  channels: Launch['channels'],
  inherited: ReadonlySet<number>,
  nothing: number,
): (Channel | number)[] {
  const own: readonly Channel[] =
    channels === 'output' ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'ignore', 'pipe', 'ipc'];
  const length = Math.max(own.length, ...[...inherited].map((each) => each + 1));
  return Array.from({ length }, (_, at) => own[at] ?? (inherited.has(at) ? nothing : 'ignore'));
}

const O_CLOEXEC = 0o2000000;

/** Descriptors that stay open when another program is executed. LMDB opens its file like this, node nothing. */
function inheritedDescriptors(): ReadonlySet<number> {
  try {
    const open = readdirSync('/proc/self/fdinfo').map(Number);
    return new Set(open.filter((each) => each > 2 && staysOpen(each)));
  } catch {
    // Only Linux reports them.
    return new Set();
  }
}

function staysOpen(descriptor: number): boolean {
  try {
    const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, 'latin1'))?.[1];
    return flags !== undefined && (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
  } catch {
    // The one that listed them is closed again.
    return false;
  }
}
