/** A JSON document that does not change while the service runs. It is rendered once, and may be cached and revalidated. */
import etag from 'etag';
import { Fault } from '../../src/errors.js';
import { evaluateConditions, type RequestHead } from '../../src/http/conditional.js';
import { emptyReply, type HeaderList, type Reply } from '../../src/http/reply.js';

/** Answers GET and HEAD. */
export type DocumentReply = (request: RequestHead) => Reply;

/** `make` is called on the first request. */
export function createDocument(make: () => unknown, maxAgeMs: number): DocumentReply {
  let rendered: { readonly bytes: Buffer; readonly tag: string; readonly head: HeaderList } | undefined;
  return (request) => {
    rendered ??= render(make(), maxAgeMs);
    const { bytes, tag, head } = rendered;
    switch (evaluateConditions(request, { etag: tag, lastModifiedAt: null })) {
      case 'precondition_failed':
        throw new Fault('precondition_failed', 'The document does not match the condition of the request.');
      case 'not_modified':
        return emptyReply(304, head);
      case 'proceed':
        return {
          status: 200,
          headers: [['content-type', 'application/json'], ...head],
          body: { kind: 'bytes', bytes },
        };
    }
  };
}

function render(document: unknown, maxAgeMs: number) {
  const bytes = Buffer.from(JSON.stringify(document));
  const tag = etag(bytes);
  const head: HeaderList = [
    ['etag', tag],
    ['cache-control', `public, max-age=${Math.floor(maxAgeMs / 1_000)}`],
  ];
  return { bytes, tag, head };
}
