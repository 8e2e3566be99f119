/**
 * Watches the request lines of a connection that node's parser reads. The parser
 * takes several spaces for one (RFC 9112 3 lets it), and tells only what stands
 * between them, so the line is read here as it was sent.
 *
 * Sees every byte before the parser does and follows the framing that the parser
 * tells of each request, because that is where the next line begins. Decides
 * nothing else: where the two disagree it stops watching, and the parser's
 * reading stands.
 */

/** How far the body of a request reaches, as its head says. */
export type BodyFraming =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly sizeBytes: number }
  | { readonly kind: 'chunked' };

/** What the next byte belongs to. `told`: the head is complete, and the parser has not told of it yet. */
type Place = 'line' | 'fields' | 'told' | 'body' | 'chunk_size' | 'chunk' | 'trailers' | 'lost';

const LINE_FEED = 0x0a;
const NOTHING = Buffer.alloc(0);
/** Method, target and version, with one space between (RFC 9112 3). */
const REQUEST_LINE = /^[!-~]+ [!-~]+ HTTP\/\d\.\d\r\n$/;
/** Longer ones are refused by the parser or by the limit on targets. */
const LINE_MAX = 300_000;

export class RequestLines {
  #place: Place = 'line';
  /** What was received and not walked over yet. */
  #bytes: Buffer = NOTHING;
  /** The beginning of a line whose end has not come. */
  #line = '';
  #requestLine = '';
  /** Whether something has come since the last request. */
  #begun = false;
  /** Of a body or a chunk. */
  #leftBytes = 0;

  /** How much of the line of the head that is being received has come, or of the last head. */
  get lineBytes(): number {
    return this.#place === 'line' ? this.#line.length : this.#requestLine.length;
  }

  /** Whether a head has begun and is not complete. Empty lines before it count. */
  get inHead(): boolean {
    return this.#place === 'fields' || (this.#place === 'line' && this.#begun);
  }

  /** To be called with each piece that was received, before the parser reads it. */
  push(bytes: Buffer): void {
    if (this.#place === 'told') this.#place = 'lost';
    if (this.#place === 'lost') return;
    this.#bytes = bytes;
    this.#walk();
  }

  /** To be called when the parser tells of a request. Returns false if its line is not as it must be. */
  next(framing: BodyFraming): boolean {
    if (this.#place !== 'told') {
      this.#place = 'lost';
      return true;
    }
    const regular = REQUEST_LINE.test(this.#requestLine);
    this.#begun = false;
    this.#leftBytes = framing.kind === 'length' ? framing.sizeBytes : 0;
    this.#place = framing.kind === 'chunked' ? 'chunk_size' : 'body';
    this.#walk();
    return regular;
  }

  #walk(): void {
    while (this.#place !== 'told' && this.#place !== 'lost') {
      if (this.#place === 'body' || this.#place === 'chunk') {
        if (!this.#skip()) return;
        this.#place = this.#place === 'body' ? 'line' : 'chunk_size';
        continue;
      }
      if (this.#place === 'line' && this.#bytes.length > 0) this.#begun = true;
      const line = this.#takeLine();
      if (line === undefined) return;
      this.#place = this.#after(this.#place, line);
    }
  }

  /** False while bytes are missing. */
  #skip(): boolean {
    const here = Math.min(this.#leftBytes, this.#bytes.length);
    this.#bytes = this.#bytes.subarray(here);
    this.#leftBytes -= here;
    return this.#leftBytes === 0;
  }

  #takeLine(): string | undefined {
    const end = this.#bytes.indexOf(LINE_FEED);
    const part = end < 0 ? this.#bytes : this.#bytes.subarray(0, end + 1);
    this.#bytes = end < 0 ? NOTHING : this.#bytes.subarray(end + 1);
    this.#line += part.toString('latin1');
    if (this.#line.length > LINE_MAX) this.#place = 'lost';
    if (end < 0 || this.#place === 'lost') return undefined;
    const line = this.#line;
    this.#line = '';
    return line;
  }

  #after(place: 'line' | 'fields' | 'chunk_size' | 'trailers', line: string): Place {
    const empty = line === '\r\n';
    switch (place) {
      case 'line':
        // RFC 9112 2.2: an empty line before a request is passed over.
        if (empty || line === '\n') return 'line';
        this.#requestLine = line;
        return 'fields';
      case 'fields':
        return empty ? 'told' : 'fields';
      case 'trailers':
        return empty ? 'line' : 'trailers';
      case 'chunk_size': {
        const sizeBytes = /^[0-9A-Fa-f]{1,12}(?=[;\r])/.exec(line)?.[0];
        if (sizeBytes === undefined) return 'lost';
        if (Number.parseInt(sizeBytes, 16) === 0) return 'trailers';
        // The line break behind the data is skipped with it.
        this.#leftBytes = Number.parseInt(sizeBytes, 16) + 2;
        return 'chunk';
      }
    }
  }
}
