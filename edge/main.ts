/** The edge as a process. */
import { accessFaults, accessSection } from '../src/access/config.js';
import { deferred } from '../src/config/field.js';
import { faultFrom } from '../src/config/load.js';
import { logSection } from '../src/log.js';
import { type ProcessEntry, processEntry } from '../src/process.js';
import { edgeFaults, edgeSection, edgeWarnings } from './config.js';
import { openEdge } from './edge.js';

export const entry: ProcessEntry = processEntry({
  name: 'edge',
  // A generic cache has no callers to tell apart, and needs no secrets.
  sections: { log: logSection, access: deferred(accessSection), edge: edgeSection },
  start: openEdge,
  check({ access, edge }) {
    const faults = edgeFaults(edge);
    if (edge.access === 'off') return faults;
    if (access.kind === 'read') return [...accessFaults(access.value), ...faults];
    return [...access.issues.map((issue) => faultFrom('access', issue)), ...faults];
  },
  warn: ({ edge }) => edgeWarnings(edge),
});
