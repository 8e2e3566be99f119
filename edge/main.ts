/** The edge as a process. */
import { accessFaults, accessSection } from '../src/access/config.js';
import { deferred } from '../src/config/field.js';
import { faultFrom } from '../src/config/load.js';
import { logSection } from '../src/log.js';
import { type ProcessEntry, processEntry } from '../src/process.js';
import { edgeFaults, edgeSection, edgeWarnings } from './config.js';
import { openEdge } from './edge.js';
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
    return workerCount(settings.edge) === 1 ? openEdge(settings, deps, source) : openParent(settings, deps);
  },
  check({ access, edge }) {
    const faults = edgeFaults(edge);
    if (edge.access === 'off') return faults;
    if (access.kind === 'read') return [...accessFaults(access.value), ...faults];
    return [...access.issues.map((issue) => faultFrom('access', issue)), ...faults];
  },
  warn: ({ edge }) => edgeWarnings(edge),
});
