/** The metrics as an answer for Prometheus. */

import type { Reply } from '../http/reply.js';
import type { Metrics } from '../metrics.js';

export async function metricsReply(metrics: Metrics): Promise<Reply> {
  const { contentType, text } = await metrics.render();
  return {
    status: 200,
    headers: [
      ['content-type', contentType],
      ['cache-control', 'no-store'],
    ],
    body: { kind: 'bytes', bytes: Buffer.from(text) },
  };
}
