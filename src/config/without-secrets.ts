/** Reads a configuration on a machine that does not have its secrets. */
import type { LoadContext } from './field.js';
import { processContext } from './load.js';

const PLACEHOLDER = 'x'.repeat(64);

/** In the place of each secret that is not there, a text that is long enough. */
export const withoutSecretsContext: LoadContext = {
  env: (name) => processContext.env(name) ?? PLACEHOLDER,
  file: (path) => processContext.file(path) ?? PLACEHOLDER,
};
