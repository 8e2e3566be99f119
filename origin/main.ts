/** The origin as a process. */
import { accessFaults, accessSection } from '../src/access/config.js';
import { logSection } from '../src/log.js';
import { type ProcessEntry, processEntry } from '../src/process.js';
import { originFaults, originSection } from './config.js';
import { openOrigin } from './origin.js';

export const entry: ProcessEntry = processEntry({
  name: 'origin',
  sections: { log: logSection, access: accessSection, origin: originSection },
  start: openOrigin,
  check: ({ access, origin }) => [...accessFaults(access), ...originFaults(origin)],
});
