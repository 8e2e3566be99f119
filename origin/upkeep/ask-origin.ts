/** How a command asks the running origin, through its operators' listener (operators.ts). */
import { type IncomingMessage, type RequestOptions, request } from 'node:http';
import { createInterface } from 'node:readline';

export type Step = Readonly<Record<string, unknown>>;

/** The response is one JSON object per line, until the origin has finished. */
export async function* stepsOf(target: string, options: RequestOptions): AsyncGenerator<Step> {
  const sent = request(target, options);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('error', reject);
    sent.once('response', (head) => {
      if (head.statusCode === 200) resolve(head);
      else reject(new Error(`answered ${String(head.statusCode)}`));
    });
    sent.end();
  });
  for await (const line of createInterface({ input: response })) yield JSON.parse(line) as Step;
}
