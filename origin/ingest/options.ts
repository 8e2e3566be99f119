/**
 * The three options of an upload. The query, the fields of a form and the
 * metadata of a resumable upload give them under the same names, and they are
 * read by the same rules.
 */
import { Fault } from '../../src/errors.js';
import {
  booleanParameter,
  integerParameter,
  type Parameters,
  textParameter,
  type ValuesOf,
} from '../../src/server/routes.js';
import type { UploadConfig } from './config.js';

/** A hundred years. A larger value is a mistake. */
export const EXPIRES_IN_MAX_SECONDS = 100 * 366 * 86_400;

export const uploadParameters = {
  public: booleanParameter('Whether anyone may read it; default false.'),
  expires_in: integerParameter('Seconds until it expires.', { min: 1, max: EXPIRES_IN_MAX_SECONDS }),
  filename: textParameter('What the file is called.', 1_024),
} satisfies Parameters;

/** Undefined: not given. */
export interface UploadOptions {
  readonly public: boolean | undefined;
  readonly expiresInSeconds: number | undefined;
  readonly filename: string | undefined;
}

export function optionsOf(values: ValuesOf<typeof uploadParameters>): UploadOptions {
  return { public: values.public, expiresInSeconds: values.expires_in, filename: values.filename };
}

/** Throws a Fault for a value that cannot be read. */
export function readOptions(fields: ReadonlyMap<string, string>): UploadOptions {
  return optionsOf({
    public: uploadParameters.public.read(fields.get('public'), 'public'),
    expires_in: uploadParameters.expires_in.read(fields.get('expires_in'), 'expires_in'),
    filename: uploadParameters.filename.read(fields.get('filename'), 'filename'),
  });
}

/** `options`, with what they leave open taken from `defaults`. */
export function withDefaults(options: UploadOptions, defaults: UploadOptions): UploadOptions {
  return {
    public: options.public ?? defaults.public,
    expiresInSeconds: options.expiresInSeconds ?? defaults.expiresInSeconds,
    filename: options.filename ?? defaults.filename,
  };
}

/** Throws a Fault for a lifetime beyond the configured one. */
export function requireLifetime({ expiresInSeconds }: UploadOptions, config: UploadConfig): void {
  if (expiresInSeconds === undefined || config.expiresInMaxMs === null) return;
  if (expiresInSeconds * 1_000 <= config.expiresInMaxMs) return;
  throw new Fault('malformed', `expires_in is at most ${Math.floor(config.expiresInMaxMs / 1_000)} seconds.`);
}
