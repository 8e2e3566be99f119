/** `media-service check`: every fault of a configuration file, what may be a mistake, and what cannot be reached. */
import { declaredAt } from '../config/declared.js';
import { type ConfigFault, formatFaults, processContext } from '../config/load.js';
import { withoutSecretsContext } from '../config/without-secrets.js';
import { type ProcessEntry, runChore } from '../process.js';

export interface CheckWords {
  readonly path: string | undefined;
  /** Secrets that are not on this machine are no fault. */
  readonly withoutSecrets: boolean;
  /** Also tries what the configuration names. */
  readonly live: boolean;
  readonly print: (line: string) => void;
  readonly printError: (line: string) => void;
}

/** Exit codes: 0 no faults, 1 something cannot be reached, 2 faults. */
export async function runCheck(entries: readonly ProcessEntry[], words: CheckWords): Promise<number> {
  const { path, withoutSecrets, print, printError } = words;
  const faults = new Set<string>();
  const warnings = new Set<string>();
  for (const entry of entries) {
    const read = entry.read(path, withoutSecrets ? withoutSecretsContext : processContext);
    const found = read.kind === 'faulty' ? read.faults : [];
    for (const fault of withoutSecrets ? found.filter((each) => !isAboutSecret(entry, each)) : found) {
      faults.add(formatFaults([fault]));
    }
    for (const warning of read.kind === 'loaded' ? read.warnings : []) warnings.add(formatFaults([warning]));
  }
  const shown = path ?? 'the built-in configuration';
  for (const line of warnings) printError(`warning: ${line}`);
  if (faults.size > 0) {
    printError(`${shown}: ${faults.size} ${faults.size === 1 ? 'fault' : 'faults'}`);
    for (const line of faults) printError(`  ${line}`);
    return 2;
  }
  print(`${shown}: no faults`);
  if (!words.live) return 0;
  let code = 0;
  for (const entry of entries) code = Math.max(code, await runChore(entry, 'live', path, {}));
  return code;
}

/** Such as that it must be the URL of a database: the placeholder is none. */
function isAboutSecret({ sections }: ProcessEntry, { path }: ConfigFault): boolean {
  const declared = declaredAt(sections, path);
  return declared?.kind === 'leaf' && declared.accepts.startsWith('env:NAME');
}
