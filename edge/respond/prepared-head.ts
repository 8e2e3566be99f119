/**
 * What all answers from one entry to one kind of recipient share: its fields
 * without those that the recipient may not see, its validators, and its lists of
 * fields for each kind of answer.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Validators } from '../../src/http/conditional.js';
import { parseHttpDate } from '../../src/http/date.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';
import { INTERNAL_FIELDS, MEDIA_ID } from '../../src/wire.js';
import type { Entry } from '../entry.js';
import { clientLifetimeOf } from './client-lifetime.js';
import { createTimedFields, type Timed, type TimedFacts } from './timed-fields.js';

/**
 * Who gets the answer, which decides what it shows of the fields between caches: `client`, of the media
 * service; `edge`, one behind this one, which is told what the origin told this one; `cache`, in generic
 * mode, where anyone may be a cache (RFC 9213 3.1: such fields are typically forwarded).
 */
export type Recipient = 'client' | 'edge' | 'cache';

/** Fields that each answer gets anew, and those that this recipient does not get. */
const HIDDEN_FROM: Readonly<Record<Recipient, ReadonlySet<string>>> = {
  client: new Set([...INTERNAL_FIELDS, 'cdn-cache-control', 'age', 'content-length']),
  edge: new Set([...INTERNAL_FIELDS.filter((name) => name !== MEDIA_ID), 'age', 'content-length']),
  cache: new Set([...INTERNAL_FIELDS, 'age', 'content-length']),
};

/** The fields of an origin's response that this recipient may see, without those that each answer gets anew. */
export function fieldsFor(to: Recipient, headers: HeaderList, edgeName: string): HeaderList {
  const hidden = HIDDEN_FROM[to];
  const fields = headers.filter(([name]) => !hidden.has(name));
  fields.push(['via', `1.1 ${edgeName}`]);
  return fields;
}

/**
 * What all answers from one entry share. Made once for each entry, and found by its identity: a copy of an entry has none.
 * A list is made when it is first needed, since most entries need one of them.
 */
export class PreparedHead {
  /** The fields that change with time: Cache-Control is one of them unless the lists below contain it. */
  readonly timed: (facts: TimedFacts) => Timed;
  /** The Content-Length in `whole`; null if there is none. */
  readonly sizeBytes: number | null;
  readonly #entry: Entry;
  readonly #fields: HeaderList;
  #conditions: { readonly forAll: Validators; readonly forRanges: Validators } | undefined;
  #whole: HeaderList | undefined;
  #partial: HeaderList | undefined;
  #notModified: HeaderList | undefined;

  constructor(entry: Entry, to: Recipient, edgeName: string) {
    // An edge computes the client's lifetime itself, from what the origin says.
    const client = entry.mediaId === null || to === 'edge' ? undefined : clientLifetimeOf(entry.headers);
    const all = fieldsFor(to, entry.headers, edgeName);
    this.#entry = entry;
    this.#fields = client === undefined ? all : all.filter(([name]) => name !== 'cache-control');
    this.timed = createTimedFields(client);
    this.sizeBytes = entry.status === 204 ? null : entry.sizeBytes;
  }

  get conditions(): Validators {
    return this.#validators.forAll;
  }

  /** As `conditions`, for If-Range, which allows no guess at Last-Modified. */
  get validators(): Validators {
    return this.#validators.forRanges;
  }

  get contentType(): string | undefined {
    return headerOf(this.#entry.headers, 'content-type');
  }

  get whole(): HeaderList {
    const { sizeBytes } = this;
    this.#whole ??= sizeBytes === null ? this.#fields : [...this.#fields, ['content-length', String(sizeBytes)]];
    return this.#whole;
  }

  get unsized(): HeaderList {
    return this.#fields;
  }

  get partial(): HeaderList {
    this.#partial ??= this.#fields.filter(([name]) => !OF_THE_WHOLE.has(name));
    return this.#partial;
  }

  get notModified(): HeaderList {
    this.#notModified ??= this.#fields.filter(([name]) => !OF_THE_BODY.has(name));
    return this.#notModified;
  }

  get #validators(): { readonly forAll: Validators; readonly forRanges: Validators } {
    this.#conditions ??= validatorsOf(this.#entry);
    return this.#conditions;
  }
}

const heads: Readonly<Record<Recipient, WeakMap<Entry, PreparedHead>>> = {
  client: new WeakMap(),
  edge: new WeakMap(),
  cache: new WeakMap(),
};

export function headOf(
  entry: Entry,
  { to, edgeName }: { readonly to: Recipient; readonly edgeName: string },
): PreparedHead {
  const found = heads[to].get(entry);
  if (found !== undefined) return found;
  const made = new PreparedHead(entry, to, edgeName);
  heads[to].set(entry, made);
  return made;
}

/** RFC 9111 4.3.2: without Last-Modified, the Date of the stored response counts. */
function validatorsOf(entry: Entry): { readonly forAll: Validators; readonly forRanges: Validators } {
  const etag = headerOf(entry.headers, 'etag') ?? null;
  const lastModifiedAt = instantOf(entry, 'last-modified');
  const dateAt = instantOf(entry, 'date');
  return {
    forAll: { etag, lastModifiedAt: lastModifiedAt ?? dateAt ?? entry.receivedAt, dateAt },
    forRanges: { etag, lastModifiedAt, dateAt },
  };
}

function instantOf(entry: Entry, name: string): EpochMs | null {
  const value = headerOf(entry.headers, name);
  return (value === undefined ? undefined : parseHttpDate(value)) ?? null;
}

/** Fields that would be wrong in a 206, or come a second time (RFC 9110 14.4, 15.3.7; RFC 9530 2). */
const OF_THE_WHOLE: ReadonlySet<string> = new Set(['content-type', 'content-range', 'content-digest', 'content-md5']);

/** Metadata of the representation: a 304 leaves it out, because the client has it (RFC 9110 15.4.5). */
const OF_THE_BODY: ReadonlySet<string> = new Set([
  'content-type',
  'content-encoding',
  'content-language',
  'content-range',
  'content-digest',
  'content-md5',
  'content-disposition',
  'repr-digest',
]);
