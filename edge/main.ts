/** The edge as a process. */
import { accessFaults, accessSection } from '../src/access/config.js';
import { askReload } from '../src/commands/ask-reload.js';
import { deferred } from '../src/config/field.js';
import { faultFrom } from '../src/config/load.js';
import { logSection } from '../src/log.js';
import { type ChoreWords, type ProcessEntry, processEntry } from '../src/process.js';
import { edgeFaults, edgeSection } from './config.js';
import { openEdge } from './edge.js';
import { checkEdgeLive } from './live-check.js';
import { runExplain, runLog, runPurge, runTop } from './ops/commands.js';
import { TOP_LISTS } from './ops/watch.js';
import { runSimulate } from './simulate/command.js';
import { edgeWarnings } from './warnings.js';
import { workerCount } from './workers/count.js';
import { openParent } from './workers/parent.js';
import { sharedSource, workerHere } from './workers/worker.js';

export const entry: ProcessEntry = processEntry({
  name: 'edge',
  // A generic cache has no callers to tell apart, and needs no secrets.
  sections: { log: logSection, access: deferred(accessSection), edge: edgeSection },
  start(settings, deps, source) {
    const here = workerHere();
    if (here !== undefined) {
      return openEdge(here.share(settings), deps, sharedSource(source, here.share), here.worker);
    }
    return workerCount(settings.edge) === 1 ? openEdge(settings, deps, source) : openParent(settings, deps, source);
  },
  check({ access, edge }) {
    const faults = edgeFaults(edge);
    if (edge.access === 'off') return faults;
    if (access.kind === 'read') return [...accessFaults(access.value), ...faults];
    return [...access.issues.map((issue) => faultFrom('access', issue)), ...faults];
  },
  warn: ({ edge }) => edgeWarnings(edge),
  chores: {
    live: ({ access, edge }, tools) =>
      checkEdgeLive(edge.access === 'media' && access.kind === 'read' ? access.value : null, edge, tools),
    reload: ({ edge }, tools) => askReload({ ...tools, name: 'edge', config: edge.operators }),
    explain: ({ edge }, tools, { url, header, head }) =>
      runExplain(
        { ...tools, config: edge.operators },
        { url: String(url), headers: textsOf(header), head: head === true },
      ),
    log: ({ edge }, tools, words) =>
      runLog({ ...tools, config: edge.operators }, filterOf(words), {
        seconds: secondsOf(words['seconds']),
        json: words['json'] === true,
      }),
    purge: ({ edge }, tools, { id, prefix, all }) =>
      runPurge(
        { ...tools, config: edge.operators },
        { ids: textsOf(id), prefix: typeof prefix === 'string' ? prefix : undefined, all: all === true },
      ),
    // It reads the configurations that its words name.
    simulate: (_config, tools, words) =>
      runSimulate(tools, {
        traces: textsOf(words['trace']),
        config: textOf(words['config']),
        today: textOf(words['today']),
        skip: textOf(words['skip']) ?? '0',
        sample: textOf(words['sample']) ?? '1',
        json: words['json'] === true,
        sweep: textOf(words['sweep']),
        tier: TIERS.find((each) => each === words['tier']),
      }),
    top: ({ edge }, tools, { list, lines, seconds, once }) =>
      runTop(
        { ...tools, config: edge.operators },
        {
          list: TOP_LISTS.find((each) => each === list),
          lines: secondsOf(lines) ?? 10,
          seconds: secondsOf(seconds) ?? 10,
          once: once === true,
        },
      ),
  },
});

const TIERS = ['memory', 'disk'] as const;

function textOf(word: unknown): string | undefined {
  return typeof word === 'string' ? word : undefined;
}

function textsOf(words: unknown): readonly string[] {
  return Array.isArray(words) ? words.map(String) : [];
}

function filterOf(words: ChoreWords): Readonly<Record<string, string>> {
  const given = ['outcome', 'rule', 'id', 'status'].map((name) => [name, words[name]] as const);
  return Object.fromEntries(given.flatMap(([name, text]) => (typeof text === 'string' ? [[name, text] as const] : [])));
}

function secondsOf(words: unknown): number | undefined {
  return typeof words === 'string' && /^\d{1,6}$/.test(words) ? Number(words) : undefined;
}
