/** The version of this package. */
import { readFileSync } from 'node:fs';

/** It stands beside the compiled code, in package.json. */
export function ownVersion(): string {
  for (const place of ['../../package.json', '../package.json']) {
    try {
      const { version } = JSON.parse(readFileSync(new URL(place, import.meta.url), 'utf8')) as {
        readonly version?: unknown;
      };
      if (typeof version === 'string') return version;
    } catch {
      // It is at the other place.
    }
  }
  return 'unknown';
}
