/**
 * Every refusal and failure of the service, in one table: the stable code, the
 * status, a title, which side is at fault and whether the same request may
 * succeed later. `detail` is public text. What must not be public goes into
 * `cause`, which is written to the log and never sent.
 */

export type FaultSide = 'client' | 'self' | 'storage' | 'upstream';

interface FaultKind {
  readonly status: number;
  readonly title: string;
  readonly side: FaultSide;
  readonly retryable: boolean;
}

const client = (status: number, title: string, retryable = false): FaultKind => ({
  status,
  title,
  side: 'client',
  retryable,
});

export const FAULTS = {
  malformed: client(400, 'The request is malformed'),
  invalid_id: client(400, 'Not a media id'),
  empty: client(400, 'The upload is empty'),
  digest_mismatch: client(400, 'The body does not match its digest'),
  unauthorized: client(401, 'A valid token or signed link is needed'),
  link_expired: client(401, 'The signed link has expired'),
  forbidden: client(403, 'The token does not allow this'),
  quarantined: client(403, 'The media is quarantined'),
  not_found: client(404, 'There is nothing here'),
  thumbnail_unavailable: client(404, 'There is no thumbnail of this media'),
  method_not_allowed: client(405, 'The method is not allowed here'),
  request_timeout: client(408, 'The request took too long to arrive', true),
  conflict: client(409, 'The request conflicts with the current state'),
  deleted: client(410, 'The media was deleted'),
  expired: client(410, 'The media has expired'),
  length_required: client(411, 'The request needs a Content-Length'),
  precondition_failed: client(412, 'A precondition failed'),
  too_large: client(413, 'The upload is too large'),
  uri_too_long: client(414, 'The request target is too long'),
  type_refused: client(415, 'Media of this type is not accepted'),
  type_mismatch: client(415, 'The body is not of the declared type'),
  range_not_satisfiable: client(416, 'The range is outside the media'),
  expectation_failed: client(417, 'The expectation cannot be met'),
  misdirected: client(421, 'The request is not for this server'),
  rate_limited: client(429, 'Too many requests', true),
  quota_exceeded: client(429, 'The quota is used up', true),
  headers_too_large: client(431, 'The header fields are too large'),
  checksum_mismatch: client(460, 'The part does not match its checksum', true),
  internal: { status: 500, title: 'The service failed', side: 'self', retryable: true },
  not_implemented: {
    status: 501,
    title: 'The request needs something that is not implemented',
    side: 'client',
    retryable: false,
  },
  bad_gateway: { status: 502, title: 'The origin gave no usable answer', side: 'upstream', retryable: true },
  overloaded: { status: 503, title: 'The service is at its limit', side: 'self', retryable: true },
  auth_unavailable: {
    status: 503,
    title: 'The Authentication Service cannot be reached',
    side: 'upstream',
    retryable: true,
  },
  cut_off: {
    status: 503,
    title: 'The edge is cut off from the origin',
    side: 'upstream',
    retryable: true,
  },
  storage_unavailable: {
    status: 503,
    title: 'The storage cannot be reached',
    side: 'storage',
    retryable: true,
  },
  gateway_timeout: { status: 504, title: 'The origin did not answer in time', side: 'upstream', retryable: true },
  http_version: { status: 505, title: 'The HTTP version is not supported', side: 'client', retryable: false },
  storage_full: { status: 507, title: 'There is no room left', side: 'storage', retryable: true },
} as const satisfies Record<string, FaultKind>;

export type FaultCode = keyof typeof FAULTS;

export interface FaultOptions {
  /** Header fields that the answer must carry, such as Retry-After or Allow. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Public members of the problem document besides the standard ones, such as a thumbnail's `reason`. */
  readonly members?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

/** A refusal or failure of the table. `detail` is public. */
export class Fault extends Error {
  override readonly name = 'Fault';
  readonly code: FaultCode;
  readonly detail: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly members: Readonly<Record<string, unknown>>;

  constructor(code: FaultCode, detail: string, options: FaultOptions = {}) {
    super(`${code}: ${detail}`, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.detail = detail;
    this.headers = options.headers ?? {};
    this.members = options.members ?? {};
  }

  get status(): number {
    return FAULTS[this.code].status;
  }

  get side(): FaultSide {
    return FAULTS[this.code].side;
  }
}

const FULL = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);
/** What the system says of files and folders that were removed, are read-only, forbidden or broken, or are too many. */
const UNUSABLE = new Set(
  'ENOENT ENOTDIR EISDIR EXDEV ELOOP EROFS EACCES EPERM EIO ENODEV ENXIO ESTALE EBUSY EMFILE ENFILE'.split(' '),
);

/** Connections and programs fail with some of the same codes. */
function isOfFiles(thrown: unknown): boolean {
  if (typeof thrown !== 'object' || thrown === null || !('syscall' in thrown)) return false;
  return !/^(spawn|connect|bind|listen|accept|getaddrinfo)\b/.test(String(thrown.syscall));
}

/** Any thrown value as a Fault. What is not in the table becomes `internal`, without details. */
export function faultOf(thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  const code = errorCode(thrown) ?? '';
  if (FULL.has(code)) return new Fault('storage_full', 'The storage has no room left.', { cause: thrown });
  if (UNUSABLE.has(code) && isOfFiles(thrown)) {
    return new Fault('storage_unavailable', 'The storage cannot be used at the moment.', { cause: thrown });
  }
  return new Fault('internal', 'The request could not be completed.', { cause: thrown });
}

/** The `code` that Node and most libraries put on their errors. */
export function errorCode(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return undefined;
  return typeof thrown.code === 'string' ? thrown.code : undefined;
}

/** For switches over closed unions: a missing case does not compile. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`);
}

/** An assertion: if it fails, there is a bug. */
export function invariant(condition: boolean, claim: string): asserts condition {
  if (!condition) throw new Error(`broken invariant: ${claim}`);
}
