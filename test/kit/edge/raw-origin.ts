/**
 * An origin that answers byte by byte, for answers that no HTTP library would send. The test says what a
 * request is answered with; the origin frames nothing by itself.
 */
import { listenRaw, type RawConnection, type RawServer } from '../http/raw.js';

export interface RawAnswer {
  /** The bytes of the answer, head and body. */
  readonly bytes: string;
  /** Ends the connection after them. */
  readonly ends?: boolean;
}

/** A request with its body, which must have a Content-Length or none at all. */
export interface RawRequest {
  readonly method: string;
  readonly target: string;
}

export async function openRawOrigin(answer: (request: RawRequest) => RawAnswer): Promise<RawServer> {
  return listenRaw(async (raw) => {
    for (let from = 0; ; ) {
      const request = await nextRequest(raw, from);
      if (request === undefined) return;
      from = request.end;
      const { bytes, ends } = answer(request);
      raw.write(bytes);
      if (ends === true) {
        raw.end();
        return;
      }
    }
  });
}

async function nextRequest(raw: RawConnection, from: number): Promise<(RawRequest & { end: number }) | undefined> {
  const reaches = async (offset: number): Promise<boolean> =>
    raw.until(new RegExp(`^[^]{${offset}}`)).then(
      () => true,
      () => false,
    );
  for (let end = raw.text.indexOf('\r\n\r\n', from); ; end = raw.text.indexOf('\r\n\r\n', from)) {
    if (end < 0) {
      if (!(await reaches(raw.text.length + 1))) return undefined;
      continue;
    }
    const head = raw.text.slice(from, end + 4);
    const [method = '', target = ''] = head.split(' ', 2);
    const length = Number(/\r\ncontent-length: (\d+)\r\n/i.exec(head)?.[1] ?? 0);
    if (!(await reaches(end + 4 + length))) return undefined;
    return { method, target, end: end + 4 + length };
  }
}
