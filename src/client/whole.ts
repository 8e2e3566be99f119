/**
 * An upload as one POST, with its SHA-256 for the service to compare and with its
 * progress: by XMLHttpRequest where there is one, since fetch tells browsers nothing
 * of it, and by a counted stream in Node. Loaded when the first upload begins.
 */
import type { CountedBody } from './counted-body.js';
import { base64, sha256 } from './digest.js';
import type { Received } from './errors.js';

interface Transfer extends CountedBody {
  readonly url: string;
  readonly signal: AbortSignal;
}

export interface WholeUpload extends Transfer {
  readonly digestMaxBytes: number;
  readonly fetch: typeof fetch;
}

/** Rejects with the signal's reason, or with what the connection failed of. Refusals are answers like others. */
export async function sendWhole({ fetch, digestMaxBytes, ...given }: WholeUpload): Promise<Received> {
  const digest = given.body.size <= digestMaxBytes ? await sha256(await given.body.arrayBuffer()) : undefined;
  given.signal.throwIfAborted();
  const field = digest === undefined ? {} : { 'repr-digest': `sha-256=:${base64(digest)}:` };
  const transfer = { ...given, headers: { ...given.headers, ...field } };
  return await (typeof XMLHttpRequest === 'undefined' ? byFetch(transfer, fetch) : byXhr(transfer));
}

function byXhr({ url, headers, body, signal, onProgress }: Transfer): Promise<Received> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const end = (settle: () => void): void => {
      signal.removeEventListener('abort', onAbort);
      settle();
    };
    const onAbort = (): void => {
      request.abort();
      end(() => reject(signal.reason as Error));
    };
    request.open('POST', url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener('progress', ({ loaded }) => onProgress(Math.min(loaded, body.size)));
    request.addEventListener('load', () =>
      end(() => {
        const { status, responseText: text } = request;
        resolve({ status, text, field: (name) => request.getResponseHeader(name) });
      }),
    );
    request.addEventListener('error', () => end(() => reject(new Error('the connection failed'))));
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
    else request.send(body);
  });
}

async function byFetch(given: Transfer, fetchIt: typeof fetch): Promise<Received> {
  const { url, headers, body, signal } = given;
  // Node counts what it sends. Service workers of browsers know nothing of their progress.
  const node = 'process' in globalThis;
  const counted = node ? (await import('./counted-body.js')).countedBody(given) : { headers, body };
  const answer = await fetchIt(url, { method: 'POST', signal, ...counted });
  return { status: answer.status, text: await answer.text(), field: (name) => answer.headers.get(name) };
}
