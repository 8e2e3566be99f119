/** What `check --live` tries of an edge: keys and origins. An edge may run meanwhile. */
import type { AccessConfig } from '../src/access/config.js';
import { keySteps, type LiveStep, runLiveSteps } from '../src/commands/live-check.js';
import { createMetrics } from '../src/metrics.js';
import type { ChoreTools } from '../src/process.js';
import type { EdgeConfig } from './config.js';
import { originUrls } from './upstream/config.js';
import { openUpstream } from './upstream/upstream.js';

/** `access`: null in generic mode. */
export function checkEdgeLive(access: AccessConfig | null, edge: EdgeConfig, tools: ChoreTools): Promise<0 | 1> {
  const keys = access === null ? [] : keySteps(access, tools);
  const origins = originUrls(edge.upstream).map((url) => originStep(edge, url, tools));
  return runLiveSteps([...keys, ...origins], tools);
}

function originStep(edge: EdgeConfig, url: string, { clock, log }: ChoreTools): LiveStep {
  return {
    name: `origin ${url}`,
    async run(signal) {
      const config = { ...edge.upstream, url, urls: [] };
      const upstream = openUpstream({ config, clock, log, metrics: createMetrics('check_') });
      try {
        const target = edge.access === 'off' ? '/' : '/readyz';
        const { status, body } = await upstream.fetchOwn({ method: 'GET', target, headers: [] }, signal);
        body.destroy();
        if (status >= 500) throw new Error(`it answers ${target} with ${status}`);
        return `it answers ${target} with ${status}`;
      } finally {
        await upstream.close();
      }
    },
  };
}
