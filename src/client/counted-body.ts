/** A body for Node's fetch that tells how much of it was sent. Browsers do not load it. */
export interface CountedBody {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Blob;
  readonly onProgress: (sentBytes: number) => void;
}

/** Members of the request: a stream, with the length that node would otherwise not send. */
export function countedBody({ headers, body, onProgress }: CountedBody) {
  let sent = 0;
  const count = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      controller.enqueue(chunk);
      sent += chunk.byteLength;
      onProgress(sent);
    },
  });
  const stream = body.stream().pipeThrough(count);
  // Node wants `duplex` of every body that is a stream.
  const members = { headers: { ...headers, 'content-length': String(body.size) }, body: stream, duplex: 'half' };
  return members;
}
