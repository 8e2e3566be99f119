/** How many workers an edge has, and what else that asks of its configuration. */
import { availableParallelism } from 'node:os';
import type { ConfigFault } from '../../src/config/load.js';

interface Counted {
  readonly name: string;
  readonly workers: number | 'auto';
}

/** The longest name that leaves room for the number of a worker. */
const NAME_MAX = 61;

export function workerCount({ workers }: Pick<Counted, 'workers'>): number {
  return workers === 'auto' ? availableParallelism() : workers;
}

export function workerFaults(config: Counted): readonly ConfigFault[] {
  if (workerCount(config) === 1 || config.name.length <= NAME_MAX) return [];
  return [{ path: 'edge.name', message: `must not be longer than ${NAME_MAX} characters, because of edge.workers` }];
}
