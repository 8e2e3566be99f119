/**
 * What a request that changes something makes worthless (RFC 9111 4.4).
 */

/** RFC 9110 9.2.1. A method that is not known is not known to be safe. */
const SAFE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

export interface UnsafeExchange {
  readonly method: string;
  /** The absolute URI that was asked for. */
  readonly uri: string;
  readonly status: number;
  readonly location: string | undefined;
  readonly contentLocation: string | undefined;
}

/**
 * The absolute URIs whose stored responses must go: the target, and what
 * Location and Content-Location name on the same origin (never elsewhere, or
 * one site could empty another's cache). None after an error.
 */
export function invalidatedBy(exchange: UnsafeExchange): readonly string[] {
  const { method, uri, status, location, contentLocation } = exchange;
  if (SAFE_METHODS.has(method) || status < 200 || status > 399 || !URL.canParse(uri)) return [];
  const target = new URL(uri);
  const found = new Set([withoutFragment(target)]);
  for (const reference of [location, contentLocation]) {
    if (reference === undefined || !URL.canParse(reference, target.href)) continue;
    const named = new URL(reference, target.href);
    if (named.origin === target.origin) found.add(withoutFragment(named));
  }
  return [...found];
}

function withoutFragment(url: URL): string {
  const bare = new URL(url);
  bare.hash = '';
  return bare.href;
}
