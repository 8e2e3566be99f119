/** Which stored responses an unsafe request makes invalid (RFC 9111 4.4). Pure. */

/** RFC 9110 9.2.1. Unknown methods count as unsafe. */
const SAFE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

export interface UnsafeExchange {
  readonly method: string;
  /** The absolute target URI. */
  readonly uri: string;
  readonly status: number;
  readonly location: string | undefined;
  readonly contentLocation: string | undefined;
}

/**
 * The absolute URIs whose stored responses become invalid: the target, and those
 * in Location and Content-Location if they are of the same origin; otherwise one
 * site could empty the cache of another. None after an error.
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
